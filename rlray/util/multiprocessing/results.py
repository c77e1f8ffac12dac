"""Results of a pool's calls: `AsyncResult` for what comes whole, iterators for what comes piece by piece."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import TimeoutError
from typing import Any

from rlray.util.dispatch import CallFuture, Dispatcher, original


class Failed:
    """In the place of a value: what the function raised instead."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


Callback = Callable[[Any], Any] | None


class AsyncResult:
    """The result of `apply_async`, or the list of results of `map_async`, once all of it is there."""

    def __init__(
        self,
        dispatcher: Dispatcher[Any],
        futures: Sequence[CallFuture],
        single: bool,
        callback: Callback,
        error_callback: Callback,
    ) -> None:
        for name, given in (("callback", callback), ("error_callback", error_callback)):
            if given is not None and not callable(given):
                raise TypeError(f"{name} must be callable, got {type(given).__name__} {given!r}")
        self._dispatcher, self._futures, self._single = dispatcher, futures, single
        self._callback, self._error_callback = callback, error_callback
        self._lock = threading.Lock()
        self._missing = len(futures)
        self._ready = threading.Event()
        self._value: Any = None
        self._error: BaseException | None = None
        if not futures:
            self._finish()
        for future in futures:
            future.add_done_callback(self._one_ended)

    def get(self, timeout: float | None = None) -> Any:
        """The value. Raises the first error there was, multiprocessing.TimeoutError after ``timeout`` seconds."""
        self.wait(timeout)
        if not self.ready():
            raise TimeoutError(f"the result was not there within {timeout} s")
        if self._error is not None:
            raise self._error
        return self._value

    def wait(self, timeout: float | None = None) -> None:
        """Return when the result is there, or ``timeout`` seconds have passed."""
        one = self._futures if len(self._futures) == 1 else ()  # many: whichever ends may be the last
        self._dispatcher.attend(self.ready, one, timeout)

    def ready(self) -> bool:
        """Whether all calls have ended."""
        return self._ready.is_set()

    def successful(self) -> bool:
        """Whether no call raised. Raises ValueError if not all have ended."""
        if not self.ready():
            raise ValueError(f"{self!r} is not ready: wait() for it first")
        return self._error is None

    def _one_ended(self, _: object) -> None:
        with self._lock:
            self._missing -= 1
            if self._missing:
                return
        self._finish()

    def _finish(self) -> None:
        values: list[Any] = []
        for future in self._futures:
            values += outcomes(future)
        self._futures = ()
        self._error = next((value.error for value in values if isinstance(value, Failed)), None)
        if self._error is None:
            self._value = values[0] if self._single else values
        self._ready.set()
        callback, value = (self._callback, self._value) if self._error is None else (self._error_callback, self._error)
        if callback is not None:
            callback(value)


def outcomes(future: CallFuture) -> list[Any]:
    """What the items of an ended call have given: values, and `Failed`. If the call itself failed, one `Failed`."""
    error = future.exception()
    if error is None:
        items: list[Any] = future.result()
        return [Failed(original(item.error)) if isinstance(item, Failed) else item for item in items]
    return [Failed(error)]


class IMapIterator:
    """Results piece by piece. What a call raised is raised in its place, and the iteration may go on after it.

    The next chunk is read and submitted when one has been taken, ``ahead`` chunks before it at most.
    """

    def __init__(self, dispatcher: Dispatcher[Any], chunks: Iterator[CallFuture], ahead: int, in_order: bool) -> None:
        self._dispatcher, self._chunks, self._ahead, self._in_order = dispatcher, chunks, ahead, in_order
        self._pending: deque[CallFuture] = deque()
        self._items: deque[Any] = deque()
        self._submit()

    def __iter__(self) -> IMapIterator:
        return self

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """The next result. Raises multiprocessing.TimeoutError if it is not there within ``timeout`` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._items:
            if not self._pending:
                raise StopIteration
            left = None if deadline is None else deadline - time.monotonic()
            wanted = [self._pending[0]] if self._in_order else list(self._pending)
            if not self._dispatcher.attend(lambda: any(future.done() for future in wanted), wanted, left):  # noqa: B023
                raise TimeoutError(f"the next result was not there within {timeout} s")
            ended = next(future for future in wanted if future.done())
            self._pending.remove(ended)
            self._items.extend(outcomes(ended))
            self._submit()
        item = self._items.popleft()
        if isinstance(item, Failed):
            raise item.error
        return item

    def _submit(self) -> None:
        while len(self._pending) < self._ahead:
            chunk = next(self._chunks, None)
            if chunk is None:
                return
            self._pending.append(chunk)
