"""Interrupting the task on a worker's main thread: a KeyboardInterrupt in user code, never inside the runtime.

A signal may find the runtime at work, and a task that does nothing but call it may be found there every time. So the
frame of the task's code that has called the runtime is watched: it is interrupted as soon as it goes on.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterable
from functools import partial
from types import CodeType, FrameType
from typing import Any

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
        self.watched: FrameType | None = None  # for others to read
        self._tracing: Any = None  # what traced the main thread before a frame was watched
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
        own = self._own_code(frame)
        if own is not None and own is frame:
            self._unheard = False
            raise KeyboardInterrupt
        self._watch(own)
        self._loop.wake()  # if it waits in the runtime, `due` ends that

    def _own_code(self, frame: FrameType | None) -> FrameType | None:
        """The innermost frame of the task's code that the runtime is not at work below, above or in, if any."""
        own: FrameType | None = None
        while frame is not None and frame.f_code not in self._callers:
            if frame.f_globals.get("__name__", "").startswith("rlray.core."):
                own = None
            elif own is None:
                own = frame
            frame = frame.f_back
        return own if frame is not None else None

    def _watch(self, frame: FrameType | None) -> None:
        """Interrupt the task as soon as this frame goes on."""
        if frame is None or self.watched is not None:
            return
        self.watched, self._tracing = frame, sys.gettrace()
        frame.f_trace_opcodes, frame.f_trace = True, self._goes_on
        sys.settrace(_look_away)

    def _goes_on(self, frame: FrameType, event: str, what: Any) -> None:
        self.look_away()
        self.check()

    def look_away(self) -> None:
        """Watch nothing any more. Called on the main thread."""
        frame, self.watched = self.watched, None
        if frame is not None:
            frame.f_trace_opcodes, frame.f_trace = False, None
            sys.settrace(self._tracing)

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


def _look_away(frame: FrameType, event: str, what: Any) -> None:
    """Traces nothing: there must be a function that does, for a frame to be watched."""
