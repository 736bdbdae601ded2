"""A stop that waits for a good moment: Ctrl-C and a polite kill, between two steps.

Python answers a signal wherever it happens to be: after half of the weights have moved, say, or
after the optimizer's step and before it was counted. What is saved then is the state of no step.
So while a step runs a signal is only noted, and who steps looks at the note when the step is
complete. The second signal does what it would have done without this, at once.

Chapter: 05
"""

import os
import signal
import threading
from contextlib import suppress
from types import FrameType, TracebackType
from typing import NoReturn, final

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C; what `kill` and schedulers send


@final
class Stop:
    """Within it, the first SIGINT or SIGTERM is noted; at its end the old handlers are back.

    A signal that is ignored stays so; one that a `Stop` around this one notes is left to that. A
    thread that is not the main one gets no signals, so there it does nothing.

    Args:
        message: written to standard error when the signal comes; "" for none.

    Example:
        >>> n_steps = 0
        >>> with Stop() as stop:
        ...     while not stop.requested:
        ...         n_steps += 1
        ...         signal.raise_signal(signal.SIGINT)  # in the middle of the step ...
        ...         n_steps += 1  # ... which goes on to its end
        >>> n_steps
        2
    """

    def __init__(self, message: str = ""):
        self._message = message
        self._number: int | None = None
        self._before: dict[int, object] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self._number is not None

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                before = signal.getsignal(number)
                noted = getattr(before, "__func__", None) is Stop._note
                if not noted and before not in (None, signal.SIG_IGN):  # None: not Python's own
                    self._before[number] = before
                    signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._restore()

    def honour(self) -> None:
        """After the end: do what the noted signal asked for; nothing if none has come."""
        if self._number is not None:
            signal.raise_signal(self._number)

    def end(self) -> NoReturn:
        """End the program as one that was stopped and has put its things in order.

        Raises:
            KeyboardInterrupt: the signal was Ctrl-C.
            SystemExit: it was another; the exit status is 128 and its number.
        """
        if self._number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + (self._number or 0))

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested:  # asked again
            self._restore()
            signal.raise_signal(number)
            return
        self._number = number
        with suppress(OSError):  # not print: it may be what was interrupted
            os.write(2, self._message.encode())

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())
