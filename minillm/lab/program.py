"""How every program of the course ends: neither a file nor a closed pipe gives a traceback.

Chapter: 00
"""

from __future__ import annotations  # tools/bootstrap.py comes here with whatever Python there is

import contextlib
import os
import sys
from collections.abc import Iterator

READER_HAS_LEFT = 128 + 13  # as a shell says it of a program that ends by SIGPIPE


@contextlib.contextmanager
def program(name: str) -> Iterator[None]:
    """Within it, no file or folder and no reader of the output ends the program in a traceback.

    A file that cannot be read or written is one sentence and exit status 2. Where the output goes
    into a pipe whose reader has seen enough, as ``| head`` has, the end is silent and has the
    status 141.

    Args:
        name: of the program, before the sentence.
    """
    out = sys.stdout
    try:
        try:
            yield
        finally:
            if sys.stdout is not out:  # so typer hides a closed pipe, and says status 1
                raise BrokenPipeError
            out.flush()  # here, where it can be answered, not when Python ends
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(nowhere, stream)
        sys.exit(READER_HAS_LEFT)
    except OSError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(2)
