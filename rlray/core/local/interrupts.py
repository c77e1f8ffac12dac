"""Interrupting the task on a worker's main thread: a KeyboardInterrupt in user code, never inside the runtime."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable
from functools import partial
from types import CodeType, FrameType

from rlray.core.local.loop import Loop

_AGAIN = 0.005  # seconds until a signal that came while the runtime was at work is sent once more


class Interrupts:
    """Cancels what the main thread runs. A task hears of it once: while its own code runs, or while it waits."""

    def __init__(self, loop: Loop, running: Callable[[], bytes | None], callers: Iterable[CodeType]) -> None:
        """``running`` tells the task on the main thread; ``callers`` are the functions that call its code."""
        self.asked: bytes | None = None  # the task that is to stop
        self._unheard = False  # it has not been interrupted yet
        self._loop, self._running = loop, running
        self._callers = frozenset(callers)
        self._main = threading.main_thread().ident
        signal.signal(signal.SIGINT, self._on_signal)

    def ask(self, task_id: bytes) -> None:
        """Interrupt the task, which runs at this moment. Call under the loop's lock."""
        self.asked, self._unheard = task_id, True
        self._signal(task_id)

    def _signal(self, task_id: bytes) -> None:
        if self._unheard and self.asked == task_id == self._running():
            assert self._main is not None
            signal.pthread_kill(self._main, signal.SIGINT)  # also interrupts a sleeping system call
            self._loop.call_later(_AGAIN, partial(self._signal, task_id))

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self._unheard or self.asked != self._running():
            return  # the task ended meanwhile
        if self._in_runtime(frame):
            self._loop.wake()  # if it waits there, `due` ends that
        else:
            self._unheard = False
            raise KeyboardInterrupt

    def _in_runtime(self, frame: FrameType | None) -> bool:
        """Whether the runtime is at work above the task's code."""
        while frame is not None and frame.f_code not in self._callers:
            if frame.f_globals.get("__name__", "").startswith("rlray.core."):
                return True
            frame = frame.f_back
        return frame is None

    def due(self) -> bool:
        """Whether the calling thread must stop waiting."""
        return self._unheard and self.asked == self._running() and threading.get_ident() == self._main

    def check(self) -> None:
        """Raise KeyboardInterrupt if the task of this thread was cancelled while it waited."""
        if self.due():
            self._unheard = False
            raise KeyboardInterrupt

    def over(self, task_id: bytes) -> None:
        """The task has ended as cancelled."""
        if self.asked == task_id:
            self.asked, self._unheard = None, False
