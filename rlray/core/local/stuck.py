"""What a process does that does not let go of the interpreter: at a signal it writes that down by itself."""

from __future__ import annotations

import faulthandler
import os
import signal

SIGNAL: int | None = signal.SIGRTMAX - 4 if hasattr(signal, "SIGRTMAX") else None  # macOS has none
"""No program has a use of its own for this one."""


class Stuck:
    """The answer of this process to `SIGNAL`: the stacks of all threads, into a file that is there once it can answer.

    Nothing of Python runs for that, so that it works while a call into C holds the interpreter.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = -1

    def answer(self, crashes: bool = False) -> None:
        """From here on. Not if the program has a use for the signal after all.

        With ``crashes`` it also writes down where it is when it crashes.
        """
        unused = SIGNAL is not None and signal.getsignal(SIGNAL) == signal.SIG_DFL
        if not (unused or crashes):
            return
        self._file = os.open(f"{self._path}.new", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        if crashes:
            faulthandler.enable(file=self._file, all_threads=False)
        if unused:
            assert SIGNAL is not None
            faulthandler.register(SIGNAL, file=self._file)
        os.rename(f"{self._path}.new", self._path)

    def forget(self) -> None:
        """Not any longer; only once nobody can send the signal any more: unanswered, it ends a process."""
        if SIGNAL is not None and self._file >= 0:
            faulthandler.unregister(SIGNAL)
            os.close(self._file)
            self._file = -1
