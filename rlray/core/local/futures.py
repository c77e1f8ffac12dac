"""``ref.future()``: values as ``concurrent.futures.Future``."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rlray.core.refs import ObjectRef

if TYPE_CHECKING:
    from rlray.core.local.client import Client


class _RefFuture(Future[Any]):
    """A thread that waits for it waits as in `get`: it does the I/O itself, and a task's CPU is lent to others.

    It also takes the value itself, and runs the callbacks then: a callback may wait for other futures.
    """

    def __init__(self, client: Client, ref: ObjectRef) -> None:
        super().__init__()
        self._client = client
        self._ref: ObjectRef | None = ref  # None: somebody has begun to take the value
        self._one = threading.Lock()

    def result(self, timeout: float | None = None) -> Any:
        try:
            return super().result(self._wait(timeout))
        finally:
            del self  # as `Future` does: an error's traceback leads to this frame, and must not lead back to the error

    def exception(self, timeout: float | None = None) -> BaseException | None:
        return super().exception(self._wait(timeout))

    def _wait(self, timeout: float | None) -> float | None:
        """Wait for the value and take it; returns the seconds that are worth waiting then."""
        ref = self._ref
        if ref is None:
            return timeout
        if not self._client.wait_for([ref], timeout):
            return 0.0
        self.settle()
        return timeout

    def settle(self) -> None:
        """Take the value, which is there. The first of several threads that call this does."""
        with self._one:
            ref, self._ref = self._ref, None
        if ref is None:
            return
        try:
            self.set_result(self._client.values.load(ref))
        except BaseException as error:  # whatever the task raised
            self.set_exception(error.with_traceback(None))  # which leads to this frame, and so back to the error


class Futures:
    """Settles futures on a thread of its own, because loading a value and the callbacks of a future are user code."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="rlray-futures")

    def of(self, ref: ObjectRef) -> Future[Any]:
        """A future that gets the value."""
        client, future = self._client, _RefFuture(self._client, ref)
        future.set_running_or_notify_cancel()

        def there() -> None:
            with suppress(RuntimeError):  # Python ends, and with it every thread that could wait
                self._pool.submit(future.settle)

        with client.loop.lock:
            if client.references.when_ready(client.references.entry(ref), there):
                there()
        return future

    def close(self, then: Callable[[], None]) -> None:
        """Settle what is ready, take nothing more; ``then`` is called when that is done."""
        with suppress(RuntimeError):  # Python ends
            self._pool.submit(then)
        self._pool.shutdown(wait=False)
