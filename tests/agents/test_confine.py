import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.agents import confine

KILL, REFUSE, ALLOW = 0x80000000, 0x00050001, 0x7FFF0000
CALLS = {name: numbers for name, *numbers in map(str.split, confine.SYSTEM_CALLS.split(","))}
HEADERS = (Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
           Path("/usr/include/asm-generic/unistd.h"))  # fmt: skip


def answer(program: bytes, number: int, machine: int) -> int:
    """What a filter says of a call: the kernel's interpreter, as far as our programs need it."""
    data, accumulator, at = struct.pack("=II", number, machine), 0, 0
    while True:
        code, if_true, if_false, operand = struct.unpack_from("=HBBI", program, 8 * at)
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, operand)
        elif code == 0x15:
            at += if_true if accumulator == operand else if_false
        else:
            return operand


# --- by hand --------------------------------------------------------------------------------------
def test_computing_is_allowed_and_a_program_a_socket_a_signal_are_not():
    program, machine = confine.seccomp_program("x86_64"), 0xC000003E
    for allowed in (0, 1, 9, 231):  # read, write, mmap, exit_group
        assert answer(program, allowed, machine) == ALLOW
    for refused in (41, 53, 56, 57, 58, 59, 62, 72, 90, 101, 302, 322, 425, 435):
        assert answer(program, refused, machine) == REFUSE
    assert answer(program, 0x40000000, machine) == REFUSE  # read, by its 32-bit number
    assert answer(program, 0, 0x40000003) == KILL  # a 32-bit program


# --- twin -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("column", [0, 1], ids=list(confine.MACHINES))
def test_the_numbers_are_those_of_the_kernels_headers(column):
    if not HEADERS[column].exists():
        pytest.skip(f"this system has no {HEADERS[column]}")
    lines = HEADERS[column].read_text(encoding="utf-8")
    numbers = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)\b", lines))
    numbers["newfstatat"] = numbers.get("newfstatat", numbers.get("fstatat"))
    assert {name: numbers.get(name, "-") for name in CALLS} == {
        name: each[column] for name, each in CALLS.items()
    }


# --- law ------------------------------------------------------------------------------------------
@settings(max_examples=50)
@given(st.sampled_from([*confine.MACHINES]), st.integers(0, 600) | st.integers(0, 2**32 - 1))
def test_a_call_passes_if_and_only_if_it_is_on_the_list(machine, number):
    column, name = confine.MACHINES[machine]
    program = confine.seccomp_program(machine)
    on_the_list = str(number) in {numbers[column - 1] for numbers in CALLS.values()}
    assert answer(program, number, name) == (ALLOW if on_the_list else REFUSE)
    assert answer(program, number, name ^ 1) == KILL


# --- bad input ------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", ["safe", "unsafe"])
def test_a_safe_process_that_cannot_be_confined_runs_nothing(tmp_path, mode):
    (tmp_path / "code.py").write_text("print('it runs')")
    script = (
        "import runpy, sys; sys.platform = 'plan9'; "
        f"sys.argv = ['', '9', '{2**28}', '9', '{mode}']; "
        f"runpy.run_path({confine.__file__!r}, run_name='__main__')"
    )
    command = [sys.executable, "-I", "-S", "-c", script]
    child = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    if mode == "unsafe":
        assert (child.returncode, child.stdout) == (0, "it runs\n")
    else:
        assert (child.returncode, child.stdout) == (1, "")
        assert "code is confined on 64-bit Linux" in child.stderr
