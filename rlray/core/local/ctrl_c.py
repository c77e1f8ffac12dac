"""Ctrl-C in the driver: a KeyboardInterrupt in the program's own code, or where it waits, never inside the runtime.

Python raises it between any two instructions of the main thread. There, half a message would have been handled, or half
a call made, and a notebook that goes on after an interrupt would wait for ever for what got lost.
"""

from __future__ import annotations

import signal
import sys
import threading
from _signal import getsignal  # type: ignore[import-not-found]  # signal's own takes a hundred times as long
from types import FrameType

from rlray.core.local.loop import Loop

_AGAIN = 0.005  # seconds until a signal that came while the runtime was at work is sent once more


class CtrlC:
    """Takes the place of Python's own handler of SIGINT, and of no other: programs may have theirs."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.due = False  # a KeyboardInterrupt has been put off
        self._again = False  # a timer will send the signal once more
        self._main = threading.main_thread().ident
        self._own = self._heard  # one bound method, to be found again
        loop.interrupts = self

    def arm(self) -> None:
        """See to it that interrupts are put off from here on. Notebooks set Python's handler anew in each cell."""
        if getsignal(signal.SIGINT) is signal.default_int_handler and threading.get_ident() == self._main:
            signal.signal(signal.SIGINT, self._own)

    def disarm(self) -> None:
        """The run is over; an interrupt that was put off is raised now."""
        if threading.get_ident() == self._main:
            if getsignal(signal.SIGINT) is self._own:
                signal.signal(signal.SIGINT, signal.default_int_handler)
            self.check()

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if self._loop.lock._is_owned() or _in_runtime(frame):  # type: ignore[attr-defined]
            self.due = True
            self._loop.attend()
            self._loop.wake()  # if it waits there, `check` follows
        else:
            self.due = False
            signal.default_int_handler(number, frame)

    def check(self) -> None:
        """Raise the KeyboardInterrupt that was put off, if the calling thread is the one to get it."""
        if self.due and threading.get_ident() == self._main:
            self.due = False
            raise KeyboardInterrupt

    def send_again(self) -> None:
        """Whoever polls calls this, under the loop's lock: the main thread may be in the program's code by now."""
        if self.due and not self._again:
            self._again = True
            self._loop.call_later(_AGAIN, self._send)

    def _send(self) -> None:
        self._again = False
        if self.due:
            assert self._main is not None
            signal.pthread_kill(self._main, signal.SIGINT)
            self.send_again()


def _in_runtime(frame: FrameType | None) -> bool:
    """Whether the runtime is at work, itself or in the standard library, or has something imported. Code of the
    program that the runtime has called (to pickle something, to get an item) does not count."""
    programs = False
    while frame is not None:
        name = str(frame.f_globals.get("__name__")).split(".")
        if name[:2] == ["rlray", "core"]:
            return not programs
        if name[0] == "importlib" and frame.f_code.co_filename.startswith("<frozen"):
            programs = False  # an import that is broken off may not be possible again
        elif name[0] not in sys.stdlib_module_names or name[0] == "__main__":
            programs = True
        frame = frame.f_back
    return False
