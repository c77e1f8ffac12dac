"""The CPU of a call that waits, lent to others meanwhile: else what it waits for might never find one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rlray.core.local.loop import Loop

_BLOCKED_AFTER = 0.010  # seconds of waiting in the runtime after which the CPU is lent
_LOOK_EVERY = 0.25  # seconds between two looks at a main thread that may sleep
_ASLEEP = 0.05  # part of that time for which a sleeping thread computes at most


class Lending:
    """Of one worker. ``tell(blocked)`` is called under the loop's lock whenever its CPU is lent, or taken back.

    A call that waits in ``get``, for the reader of what it yields, or for room in the store says so (`while_waiting`).
    One may also wait in ways of its own for what it has started: in ``asyncio.run``, or for a thread of its own. It is
    known by this: something that its process has started waits for a CPU, and the main thread sleeps (`look`).
    """

    def __init__(self, loop: Loop, running: Callable[[], object], tell: Callable[[bool], None]) -> None:
        self._loop, self._running, self._tell = loop, running, tell
        self.lent: object = None  # the call whose CPU is lent, for others to read
        self._looking = False

    @contextmanager
    def while_waiting(self) -> Iterator[None]:
        """The main thread is about to wait for others."""
        call, over = self._running(), False

        def lend() -> None:
            if self._running() is call and not over:
                self._lend(call)

        with self._loop.lock:
            self._loop.call_later(_BLOCKED_AFTER, lend)
        try:
            yield
        finally:
            over = True
            self.take_back()

    def look(self, in_need: Callable[[], bool]) -> None:
        """Look at the main thread now and then for as long as something that was started here is ``in_need`` of a CPU.

        Call with the loop's lock held.
        """
        if self._looking or not hasattr(time, "pthread_getcpuclockid"):  # macOS: it does not lend then
            return
        clock = time.pthread_getcpuclockid(threading.main_thread().ident or 0)
        self._looking = True

        def again(seen: object, used: float) -> None:
            call = self._running()
            self._looking = call is not None and in_need()
            if not self._looking:
                return
            now = time.clock_gettime(clock)
            if call is seen and now - used < _ASLEEP * _LOOK_EVERY:
                self._lend(call)
            self._loop.call_later(_LOOK_EVERY, lambda: again(call, now))

        call, used = self._running(), time.clock_gettime(clock)
        self._loop.call_later(_LOOK_EVERY, lambda: again(call, used))

    def _lend(self, call: object) -> None:
        if self.lent is None:
            self.lent = call
            self._tell(True)

    def take_back(self) -> None:
        """The call waits no more, or has ended."""
        with self._loop.lock:
            if self.lent is not None:
                self.lent = None
                self._tell(False)
