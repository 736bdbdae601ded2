"""What a child process does to itself before it runs code that a model wrote (进程隔离).

This file is a program. `minillm.agents.sandbox` starts it in a new folder that holds `code.py`:

    python -I -S confine.py 6 268435456 8388608 safe

    1. limits     seconds of processor, bytes of memory, bytes of a file: `setrlimit`
    2. files      Landlock: the folder may be read and written, Python's library may be read
    3. calls      seccomp: of some 350 system calls, 60 are left
    4. code.py    is compiled and executed

A process that computes asks nothing of the kernel. For all else it must: to open a file, to begin a
process, to send a byte. So the limits are set where the kernel is asked, and not in Python. It does
not matter *how* Python code comes to the function that starts a program: the kernel starts none.
None of the three steps can be taken back, not by machine code either, and not by root.

**Which calls are left.** It is a list of what is allowed, so a call that a later kernel invents is
refused. These are left out on purpose, and each was a way out:

=====================  =============================================================================
fork, clone, execve    other programs, a process that outlives its time, a thousand of them; threads
socket, socketpair     the network, and sockets of other programs (a path is enough to reach one)
kill, ptrace, prlimit  the process that started this one has the same user: it could be ended
fcntl                  a folder can be watched; the signal that says so may be sent to any process
chmod, utime, link     Landlock does not ask about them
mkdir                  without folders in the folder, its size is known from one list
=====================  =============================================================================

Paper: none. Linux's documentation of Landlock ("userspace-api/landlock") and of seccomp
("userspace-api/seccomp_filter"); the numbers of calls are those of Linux's headers.
Differs: x86-64 and 64-bit ARM only; Landlock's rules for the network are not used, because they
know TCP alone.

Chapter: 28
"""

import contextlib
import ctypes
import os
import struct
import sys
from collections.abc import Callable

#: The calls that are left: name, number on x86-64, number on 64-bit ARM (- where there is none).
SYSTEM_CALLS = """
    read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68, lseek 8 62,
    open 2 -, openat 257 56, close 3 57, stat 4 -, fstat 5 80, lstat 6 -, newfstatat 262 79,
    statx 332 291, access 21 -, faccessat 269 48, faccessat2 439 439, getdents64 217 61,
    getcwd 79 17, ftruncate 77 46, fsync 74 82, unlink 87 -, unlinkat 263 35, rename 82 -,
    renameat 264 38, renameat2 316 276, mmap 9 222, mremap 25 216, munmap 11 215, mprotect 10 226,
    madvise 28 233, brk 12 214, futex 202 98, sched_yield 24 124, nanosleep 35 101,
    clock_nanosleep 230 115, clock_gettime 228 113, clock_getres 229 114, gettimeofday 96 169,
    time 201 -, times 100 153, getrusage 98 165, sysinfo 99 179, uname 63 160, getrandom 318 278,
    sched_getaffinity 204 123, getpid 39 172, gettid 186 178, getuid 102 174, geteuid 107 175,
    getgid 104 176, getegid 108 177, rt_sigaction 13 134, rt_sigprocmask 14 135,
    rt_sigreturn 15 139, sigaltstack 131 132, restart_syscall 219 128, exit 60 93, exit_group 231 94
"""
MACHINES = {"x86_64": (1, 0xC000003E), "aarch64": (2, 0xC00000B7)}  # column, the kernel's name
MOST_OPEN_FILES = 16
FAILURES = (OSError, ValueError, ImportError, AttributeError)  # of a system without a protection


def seccomp_program(machine: str) -> bytes:
    """The filter that the kernel runs at each system call, 8 bytes an instruction.

    It reads the machine and the number of the call. Of a foreign machine, whose numbers have other
    meanings, the process is ended; a number that is not on the list is answered with "Operation
    not permitted".

    Args:
        machine: one of `MACHINES`.

    Example:
        >>> len(seccomp_program("x86_64")) // 8
        66
    """
    column, name = MACHINES[machine]
    words = [call.split()[column] for call in SYSTEM_CALLS.split(",")]
    numbers = [int(word) for word in words if word != "-"]
    load, jump_if_equal, give = 0x20, 0x15, 0x06
    program = [
        (load, 0, 0, 4),  # the machine
        (jump_if_equal, 1, 0, name),
        (give, 0, 0, 0x80000000),  # end the process
        (load, 0, 0, 0),  # the number; those of 32-bit calls (x32) are larger than all of these
        *((jump_if_equal, len(numbers) - i, 0, number) for i, number in enumerate(numbers)),
        (give, 0, 0, 0x00050001),  # the call fails with error 1, EPERM
        (give, 0, 0, 0x7FFF0000),  # allow
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def set_limits(seconds: int, memory: int, file: int) -> None:
    """Limits of this process: seconds of processor, bytes of memory, bytes of a file; no child."""
    import resource  # there is none on Windows

    for name, limit in (
        ("CORE", 0),
        ("CPU", seconds),
        ("AS", memory),
        ("FSIZE", file),
        ("NOFILE", MOST_OPEN_FILES),
        ("NPROC", 0),  # root is not bound by it, and seccomp binds both
    ):
        with contextlib.suppress(*FAILURES):  # macOS knows no limit on memory
            kind = getattr(resource, f"RLIMIT_{name}")
            hard = resource.getrlimit(kind)[1]
            limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            resource.setrlimit(kind, (limit, limit))


def give_up_rights() -> None:
    """End with the parent, and never have more rights than now: what seccomp and Landlock need."""
    _ask("prctl", 1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL
    _ask("prctl", 38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS


def confine_files(folder: str, library: list[str]) -> None:
    """Landlock: files of one folder may be read and written, those of others read, the rest not.

    Args:
        folder: in which files may also be created and removed, but no folders.
        library: folders and files that may be read; those that do not exist are left out.

    Raises:
        OSError: the kernel has no Landlock, or it is turned off.
    """
    create, add, restrict = 444, 445, 446
    version = _ask("syscall", create, 0, 0, 1)
    n_rights = {1: 13, 2: 14}.get(version, 15 if version < 5 else 16)
    write_file, read_file, read_folder, remove, make, truncate = (
        1 << n for n in (1, 2, 3, 5, 8, 14)
    )
    # 1. all rights that this kernel knows are refused, unless a rule gives them
    rules = _ask("syscall", create, struct.pack("Q", (1 << n_rights) - 1), 8, 0)
    # 2. one rule for each path; an executable file may not be executed anywhere
    own = write_file | read_file | read_folder | remove | make | (truncate if version >= 3 else 0)
    for path, rights in [(folder, own), *((path, read_file | read_folder) for path in library)]:
        if os.path.exists(path):
            rights = rights if os.path.isdir(path) else rights & ~read_folder
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
            _ask("syscall", add, rules, 1, struct.pack("=Qi", rights, place), 0)
            os.close(place)
    # 3. for good
    _ask("syscall", restrict, rules, 0)
    os.close(rules)


def confine_calls() -> None:
    """Seccomp: only the calls of `SYSTEM_CALLS` are left.

    Raises:
        OSError: another system than Linux, another machine, a kernel without seccomp.
    """
    program = seccomp_program(_machine())
    buffer = ctypes.create_string_buffer(program)
    where = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    _ask("prctl", 22, 2, where, 0, 0)  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def _machine() -> str:
    """Which of `MACHINES` this is; elsewhere, the numbers of the calls mean something else.

    Raises:
        OSError: it is none of them.
    """
    machine = os.uname().machine if sys.platform == "linux" else sys.platform
    if machine not in MACHINES or sys.maxsize < 2**32:
        raise OSError(f"code is confined on 64-bit Linux on {', '.join(MACHINES)}; got {machine}")
    return machine


def _ask(function: str, *arguments: int | bytes) -> int:
    """A function of the C library with words or addresses; what it fails with is an OSError."""
    _machine()
    library = ctypes.CDLL(None, use_errno=True)
    words = [each if isinstance(each, bytes) else ctypes.c_long(each) for each in arguments]
    result = getattr(library, function)(*words)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def main(arguments: list[str]) -> None:
    """Confine this process, then run `code.py` of the folder it is in.

    Args:
        arguments: seconds, bytes of memory, bytes of a file; "safe" or "unsafe". A safe process
            that cannot have a protection ends before it has run any code.
    """
    seconds, memory, file = (int(number) for number in arguments[:3])
    with open("code.py", "rb") as stream:
        code = stream.read().decode("utf-8", "replace")
    libraries = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache"]
    libraries += [*sys.path, os.path.join(sys.base_prefix, "lib"), "/usr/share/zoneinfo"]
    steps: list[Callable[[], None]] = [
        lambda: set_limits(seconds, memory, file),
        give_up_rights,
        lambda: confine_files(os.getcwd(), libraries),
        confine_calls,
    ]
    for step in steps:
        with contextlib.suppress(*FAILURES if arguments[3] == "unsafe" else ()):
            step()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace", newline="\n", line_buffering=True)
    # a module of its own, where names such as `sys` are not there before the code imports them
    sys.argv = ["code.py"]
    module = sys.modules["__main__"] = type(sys)("__main__")
    try:
        exec(compile(code, "code.py", "exec"), module.__dict__)
    except SystemExit:
        raise
    except BaseException as error:
        behind = error.__traceback__ and error.__traceback__.tb_next  # without this function's line
        sys.excepthook(type(error), error.with_traceback(behind), behind)
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
