"""Calls on a bounded number of slots, as futures: what the pool of processes and the executor have in common."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import rlray
from rlray.exceptions import RayTaskError

Slot = TypeVar("Slot")

_SETTLING = 0.001  # seconds between looks at a call whose result has arrived but is not loaded yet


class Dispatcher(Generic[Slot]):
    """Starts calls in the order submitted, each on a free slot, and hands out futures.

    Guarantees: at most one call per slot is under way. What has not started can be cancelled. Whoever waits for a
    future reads the runtime's sockets itself, and a task that waits lends its CPU.

    Args:
        slots: What calls run on.
        renew: Called with a slot and the error, if any, when its call has ended; returns the slot for the next one.
    """

    def __init__(self, slots: Iterable[Slot], renew: Callable[[Slot, BaseException | None], Slot]) -> None:
        self._free = list(slots)
        self._renew = renew
        # Notified when a call has started, and when one has ended. Reentrant: `held` may end in a garbage collection.
        self._lock = threading.Condition()
        self._waiting: deque[tuple[CallFuture, Callable[[Slot], rlray.ObjectRef]]] = deque()
        self._running: dict[CallFuture, tuple[Slot, rlray.ObjectRef | None]] = {}  # None: being started
        self._starting = False
        self._closed = False
        self._ended_by: BaseException | None = None
        self._held = 0  # by those who will submit more although it is closed

    # -- submitting ----------------------------------------------------------------------------------------------------

    def submit(self, start: Callable[[Slot], rlray.ObjectRef]) -> CallFuture:
        """A future for the call that ``start`` makes once a slot is free."""
        future = CallFuture(self)
        with self._lock:
            if self._ended_by is None:
                self._waiting.append((future, start))
        if self._ended_by is not None:
            future.set_exception(self._ended_by)
        self._start_waiting()
        return future

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside, calls may be submitted although the dispatcher is closed meanwhile."""
        with self._lock:
            self._held += 1
        try:
            yield
        finally:
            with self._lock:
                self._held -= 1
                self._let_go()

    @property
    def closed(self) -> bool:
        """Whether `close` or `terminate` was called."""
        return self._closed

    def close(self) -> None:
        """Let go of each slot once nothing waits for it."""
        with self._lock:
            self._closed = True
            self._let_go()

    def terminate(self, error: BaseException) -> list[Slot]:
        """Let go of all slots, and return them. What has not started gets ``error``, and all submitted later."""
        with self._lock:
            self._ended_by = error
            slots = [*self._free, *(slot for slot, _ in self._running.values())]
        self.close()
        self.drop_waiting(error)
        return slots

    def drop_waiting(self, error: BaseException | None = None) -> None:
        """Calls that have not started get ``error``; without one they are cancelled."""
        with self._lock:
            dropped, self._waiting = self._waiting, deque()
            self._let_go()
        for future, _ in dropped:
            if error is None:
                future.cancel()
            if future.set_running_or_notify_cancel():
                future.set_exception(error)

    # -- waiting -------------------------------------------------------------------------------------------------------

    def idle(self) -> bool:
        """Whether nothing waits or runs."""
        with self._lock:
            return not self._waiting and not self._running

    def attend(self, done: Callable[[], bool], futures: Sequence[CallFuture], timeout: float | None) -> bool:
        """Wait until ``done()``, which the end of one of ``futures`` (of any, if none is given) makes true.

        Returns False if time ran out.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not done():
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            if not rlray.is_initialized():
                self._abandon()
                continue
            refs = self._refs(futures)
            if refs:
                rlray.wait(refs, num_returns=1, timeout=left)
            if not done():  # it has arrived, and is being loaded; or the next call is being started
                with self._lock:
                    self._lock.wait(_SETTLING)
        return True

    def _refs(self, futures: Sequence[CallFuture]) -> list[rlray.ObjectRef]:
        """What to wait for; nothing if a call is being started, so that this is not known yet."""
        with self._lock:
            if self._free and self._waiting:
                return []
            running = {future: ref for future, (_, ref) in self._running.items() if ref is not None}
            if len(running) < len(self._running):
                return []
        wanted = [future for future in futures if not future.done()]
        if not wanted or any(future not in running for future in wanted):
            wanted = list(running)  # what waits starts when any of these ends
        return list({running[future]: None for future in wanted})

    # -- starting and ending -------------------------------------------------------------------------------------------

    def _start_waiting(self) -> None:
        while True:
            with self._lock:
                if self._starting or not self._free or not self._waiting:
                    return
                self._starting = True  # one thread starts at a time: a call that ends at once comes back here
                slot = self._free.pop()
                future, start = self._waiting.popleft()
                self._running[future] = slot, None
            try:
                self._start(slot, future, start)
            finally:
                with self._lock:
                    self._starting = False

    def _start(self, slot: Slot, future: CallFuture, start: Callable[[Slot], rlray.ObjectRef]) -> None:
        if not future.set_running_or_notify_cancel():
            self._release(slot)
            self._forget(future)
            return
        try:
            if not rlray.is_initialized():
                raise RuntimeError("rlray was shut down before this call started")
            ref = start(slot)
        except Exception as error:  # arguments that cannot be pickled, a runtime that is gone
            self._release(slot)
            future.set_exception(error)
            self._forget(future)
            return
        with self._lock:
            self._running[future] = slot, ref
            self._lock.notify_all()
        ref.future().add_done_callback(lambda outcome: self._ended(slot, future, outcome))

    def _ended(self, slot: Slot, future: CallFuture, outcome: Future[Any]) -> None:
        error = outcome.exception()
        try:
            self._release(slot if self._ended_by is not None else self._renew(slot, error))
        except Exception as broken:  # the runtime is: there is no slot to go on with
            self.terminate(broken)
        self._start_waiting()
        if not future.done():  # else it was abandoned
            if error is None:
                future.set_result(outcome.result())
            else:
                future.set_exception(original(error))
        self._forget(future)

    def _release(self, slot: Slot) -> None:
        with self._lock:
            self._free.append(slot)
            self._let_go()

    def _let_go(self) -> None:
        if self._closed and not self._waiting and (not self._held or self._ended_by is not None):
            self._free.clear()

    def _forget(self, future: CallFuture) -> None:
        with self._lock:
            self._running.pop(future, None)
            self._lock.notify_all()

    def _abandon(self) -> None:
        """The runtime is gone, and with it all calls."""
        error = RuntimeError("rlray was shut down before this call finished")
        self.terminate(error)
        with self._lock:
            running, self._running = self._running, {}
        for future in running:
            future.set_exception(error)


class CallFuture(Future[Any]):
    """The future of a call. `result` and `exception` do the runtime's I/O while they wait."""

    def __init__(self, dispatcher: Dispatcher[Any]) -> None:
        super().__init__()
        self._dispatcher = dispatcher

    def result(self, timeout: float | None = None) -> Any:
        """The value. Raises what the call raised, TimeoutError, CancelledError."""
        self._dispatcher.attend(self.done, [self], timeout)
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The error or None. Raises TimeoutError, CancelledError."""
        self._dispatcher.attend(self.done, [self], timeout)
        return super().exception(0)


def original(error: BaseException) -> BaseException:
    """What user code raised, as itself, its remote traceback as the cause; an error of the runtime unchanged."""
    if not isinstance(error, RayTaskError) or not isinstance(error.cause, Exception):
        return error
    cause = error.cause
    cause.__cause__ = RayTaskError(error.function_name, error.traceback_str, cause, error.where)
    return cause
