import os
import socket
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.agents import sandbox
from minillm.agents.sandbox import Limits, run_python

SECRET = "the key lies under the third stone"

# What the code tries; each ends in an error if it has no success. SECRET_FILE lies in another
# folder, NEW_FILE does not exist yet, PARENT is this process, which listens at PORT.
ESCAPES = {
    # CVE-2025-9959 of smolagents: from any object up to all classes, and down to one with a program
    "classes": """
[c] = [c for c in ().__class__.__base__.__subclasses__() if c.__name__ == "_wrap_close"]
assert c.__init__.__globals__["system"]("echo escaped") == 0""",
    # CVE-2025-5120 of smolagents: a module that is allowed leads to one that is not
    "a module of a module": """
import random
assert getattr(random, "_os").system("echo escaped") == 0""",
    # smolagents #2094
    "ctypes": "import ctypes; assert ctypes.CDLL(None).system(b'echo escaped') == 0",
    "subprocess": "import subprocess, sys; subprocess.run([sys.executable, '-c', ''])",
    "another program": "import os; os.execv('/bin/echo', ['echo', 'escaped'])",
    "a fork bomb": "import os; [os.fork() for _ in range(3)]",
    "a grandchild": """
import os, time
if not os.fork():
    os.setsid()
    time.sleep(0.2)
    open(NEW_FILE, "w")
    os._exit(0)""",
    "threads": "import threading; threading.Thread(target=print).start()",
    "reading": "open(SECRET_FILE)",
    "reading what all may read": "open('/etc/passwd')",
    "reading our variables": "open(f'/proc/{PARENT}/environ')",
    "reading upwards": "import os; open(os.path.relpath(SECRET_FILE))",
    "listing": "import os; os.listdir(os.path.dirname(SECRET_FILE))",
    "a symbolic link": "import os; os.symlink(SECRET_FILE, 'a'); open('a')",
    "a hard link": "import os; os.link(SECRET_FILE, 'b'); open('b')",
    "moving in": "import os; os.rename(SECRET_FILE, 'c')",
    "moving out": "import os; os.rename('code.py', NEW_FILE)",
    "writing": "open(NEW_FILE, 'w')",
    "writing at home": "open(HOME_FILE, 'w')",
    "writing into Python": "import os; open(os.__file__, 'a')",
    "removing": "import os; os.remove(SECRET_FILE)",
    "cutting off": "import os; os.truncate(SECRET_FILE, 0)",
    "file rights": "import os; os.chmod(SECRET_FILE, 0)",
    "file times": "import os; os.utime(SECRET_FILE, (0, 0))",
    "this machine": "import socket; socket.create_connection(('127.0.0.1', PORT))",
    "another machine": "import socket; socket.socket(type=2).sendto(b'x', ('192.0.2.1', 53))",
    "a program's socket": "import socket; socket.socket(socket.AF_UNIX)",
    "a signal": "import os; os.kill(PARENT, 0)",
    "a signal to all": "import os; os.kill(-1, 0)",
    "limits of the parent": """
import ctypes
assert ctypes.CDLL(None).prlimit(PARENT, 0, None, bytes(16)) == 0""",
    "larger limits": """
import ctypes
assert ctypes.CDLL(None).setrlimit(9, b"\\xff" * 16) == 0""",
    "a signal from a watched folder": """
import fcntl, os
fcntl.fcntl(os.open(".", os.O_RDONLY), fcntl.F_SETOWN, PARENT)""",
    "the terminal": "open('/dev/tty', 'w')",
}  # fmt: skip
TRY_ALL = """
for name, code in ESCAPES.items():
    try:
        exec(code)
    except Exception as error:
        print(name, type(error).__name__, sep=": ")
"""
REFUSALS = ("PermissionError", "AssertionError", "RuntimeError")  # the last by threads


@pytest.fixture(scope="module")
def confined():
    """Skips a test where the system has not what it is about; the refusal is tested below."""
    absent = [name for name, is_held in sandbox.protections().items() if not is_held]
    if absent:
        pytest.skip(f"this system has no protection of {', '.join(absent)}")


@pytest.fixture(scope="module")
def attack(confined, tmp_path_factory):
    """What each attempt ended in, and what all of them did outside."""
    folder = tmp_path_factory.mktemp("outside")
    secret, home = folder / "secret", Path.home() / ".minillm-escaped"
    secret.write_text(SECRET)
    home.unlink(missing_ok=True)
    before = secret.stat()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        names = {
            "ESCAPES": ESCAPES,
            "SECRET_FILE": str(secret),
            "NEW_FILE": str(folder / "new"),
            "HOME_FILE": str(home),
            "PARENT": os.getpid(),
            "PORT": server.getsockname()[1],
        }
        code = "".join(f"{name} = {value!r}\n" for name, value in names.items()) + TRY_ALL
        outcome = run_python(code, Limits(seconds=20))
        try:
            is_called = bool(server.accept())
        except BlockingIOError:
            is_called = False
    after = secret.stat()
    is_unharmed = secret.read_text() == SECRET and not home.exists() and not is_called
    is_unharmed &= [*folder.iterdir()] == [secret] and after.st_mode == before.st_mode
    return outcome, is_unharmed and after.st_mtime == before.st_mtime


def leftovers():
    return {path.name for path in Path(sandbox.tempfile.gettempdir()).glob("minillm-sandbox-*")}


# --- by hand --------------------------------------------------------------------------------------
def test_what_is_printed_comes_back(confined):
    outcome = run_python("import math\nprint(347 * 582, math.pi)\nprint('三')")
    assert (outcome.output, outcome.error, outcome.ok) == (
        "201954 3.141592653589793\n三\n",
        "",
        True,
    )
    assert outcome.text == "201954 3.141592653589793\n三"


def test_an_error_has_the_lines_of_the_code_and_none_of_ours(confined):
    outcome = run_python("print(1)\n\ndef divide():\n    return 1 / 0\n\ndivide()")
    assert outcome.text == "1\nZeroDivisionError: division by zero"
    assert "line 4, in divide" in outcome.error
    assert "return 1 / 0" in outcome.error
    assert "confine" not in outcome.error


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("import sys; sys.exit('enough')", "enough"),
        ("input()", "EOFError: EOF when reading a line"),
        ("plums", "NameError: name 'plums' is not defined"),
        ("import numpy", "ModuleNotFoundError: No module named 'numpy'"),
        ("x = (", "SyntaxError: '(' was never closed"),
        ("print('\\ud800')", "\\ud800"),
        ("import os; print([n for n in range(99) if not os.isatty(n) and os.lseek(n, 0, 1) < 0])",
         "OSError: [Errno 9] Bad file descriptor"),
        ("import ctypes; ctypes.string_at(0)", "stopped: signal 11"),
    ],
)  # fmt: skip
def test_every_end_is_one_line(confined, code, text):
    assert run_python(code).text == text


def test_nothing_is_kept_and_nothing_is_handed_on(confined, monkeypatch):
    monkeypatch.setenv("MY_KEY", SECRET)
    before = leftovers()
    assert run_python("open('a', 'w').write('x'); print(open('a').read())").output == "x\n"
    code = "import os; print(os.listdir(), 'MY_KEY' in os.environ)"
    assert run_python(code).output == "['code.py'] False\n"
    assert leftovers() == before


# --- the attacks ----------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ESCAPES)
def test_there_is_no_way_out_by(name, attack):
    errors = dict(line.split(": ") for line in attack[0].output.splitlines())
    assert errors.get(name) in REFUSALS


def test_nothing_outside_has_changed(attack):
    outcome, is_unharmed = attack
    assert outcome.ok
    assert is_unharmed


def test_machine_code_finds_the_same_walls(confined):
    if os.uname().machine != "x86_64":
        pytest.skip("the machine code is that of x86-64")
    code = """
import ctypes, mmap
page = mmap.mmap(-1, 4096, prot=7)
page.write(bytes.fromhex("b802000000cd80c3"))  # eax = 2, fork of 32-bit programs; int 0x80; ret
ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
print("escaped")"""
    outcome = run_python(code)
    assert (outcome.output, outcome.ok) == ("", False)


@pytest.mark.parametrize(
    ("code", "limit"),
    [
        ("import signal\nsignal.signal(15, signal.SIG_IGN)\nwhile True: pass", "seconds"),
        ("import time\ntime.sleep(99)", "seconds"),
        ("import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()", "seconds"),
        ("while True: print('x' * 1000)", "output_bytes"),
        ("import os\nwhile True: os.write(2, bytes(10**6))", "output_bytes"),
        ("open('a', 'wb').write(bytes(10**7))", "folder_bytes"),
        ("n = 0\nwhile True:\n    open(str(n), 'w').close()\n    n += 1", "folder_bytes"),
    ],
)  # fmt: skip
def test_what_never_ends_is_ended(confined, code, limit):
    limits = Limits(
        seconds=0.6 if limit == "seconds" else 20.0, output_bytes=1_000, folder_bytes=10**6
    )
    outcome = run_python(code, limits)
    # a recursion without end may also use up the memory, or crash its own process (Python 3.13)
    ends = "MemoryError", "stopped: signal 11"
    assert outcome.limit == limit or (limit == "seconds" and outcome.text.endswith(ends))
    assert len(outcome.output) <= 1_000
    assert outcome.seconds < (3.0 if limit == "seconds" else 15.0)


@pytest.mark.parametrize(
    "code", ["bytearray(2**29)", "x = []\nwhile True: x.append(bytearray(2**20))"]
)
def test_memory_has_an_end(confined, code):
    text = run_python(code, Limits(seconds=10)).text
    assert text in ("MemoryError", "lost sys.stderr")  # Python 3.13 lacks memory to say so


def test_a_child_ends_with_the_call_that_started_it(confined, monkeypatch):
    children, start = [], sandbox._start

    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(sandbox, "_start", lambda *a: children.append(start(*a)) or children[0])
    monkeypatch.setattr(sandbox, "_limit_reached", stop)
    with pytest.raises(KeyboardInterrupt):
        run_python("import time\ntime.sleep(99)")
    assert children[0].returncode == -9


# --- law ------------------------------------------------------------------------------------------
LINES = st.sampled_from(["while True: pass", "print(1)", "import os", "os.abort()", "del print"])


@settings(max_examples=10, deadline=None)
@given(st.text(st.characters()) | st.lists(LINES).map("\n".join))
def test_any_text_is_an_outcome(code):
    if not all(sandbox.protections().values()):
        return
    limits = Limits(seconds=0.4, output_bytes=50)
    outcome = run_python(code, limits)
    assert outcome.seconds < 3.0
    assert len(outcome.output) <= 50
    assert outcome.ok or outcome.text


# --- bad input ------------------------------------------------------------------------------------
@pytest.mark.parametrize("absent", ["network", "memory"])
def test_it_refuses_where_the_system_lacks_a_protection(monkeypatch, absent):
    held = [(name, name != absent) for name in ("memory", "files", "network", "processes")]
    monkeypatch.setattr(sandbox, "_protections", lambda: tuple(held))
    with pytest.raises(ValueError, match=f"no protection of: {absent}"):
        run_python("print(1)")
    assert run_python("print(1)", unsafe=True).output == "1\n"
    assert sandbox.diagnosis()[2] == "run_python refuses here, unless unsafe=True"
    assert absent not in sandbox.diagnosis()[1]


def test_a_system_that_confines_nothing_is_seen_as_such(monkeypatch, tmp_path):
    fake = tmp_path / "confine.py"
    fake.write_text("exec(compile(open('code.py').read(), 'code.py', 'exec'))")
    monkeypatch.setattr(sandbox.confine, "__file__", str(fake))
    assert not any(is_held for _, is_held in sandbox._protections.__wrapped__())


def test_a_limit_of_nothing_is_refused():
    with pytest.raises(ValueError, match="every limit must be above 0"):
        Limits(output_bytes=0)
