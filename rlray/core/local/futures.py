"""``ref.future()``: values as ``concurrent.futures.Future``."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rlray.core.exceptions import GetTimeoutError
from rlray.core.refs import ObjectRef

if TYPE_CHECKING:
    from rlray.core.local.client import Client


class _RefFuture(Future[Any]):
    """A thread that waits for it waits as in `get`: it does the I/O itself, and a task's CPU is lent to others."""

    def __init__(self, client: Client, ref: ObjectRef) -> None:
        super().__init__()
        self._client, self._ref = client, ref

    def result(self, timeout: float | None = None) -> Any:
        self._wait(timeout)
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._wait(timeout)
        return super().exception(timeout)

    def _wait(self, timeout: float | None) -> None:
        if not self.done():
            with suppress(GetTimeoutError):
                self._client.wait_for([self._ref], timeout)


class Futures:
    """Settles futures on a thread of its own, because loading a value and the callbacks of a future are user code."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="rlray-futures")

    def of(self, ref: ObjectRef) -> Future[Any]:
        """A future that gets the value."""
        client, future = self._client, _RefFuture(self._client, ref)
        future.set_running_or_notify_cancel()

        def settle() -> None:
            try:
                future.set_result(client.values.load(ref))
            except BaseException as error:  # whatever the task raised
                future.set_exception(error)

        def there() -> None:
            with suppress(RuntimeError):  # Python ends, and with it every thread that could wait
                self._pool.submit(settle)

        with client.loop.lock:
            if client.references.when_ready(client.references.entry(ref), there):
                there()
        return future

    def close(self, then: Callable[[], None]) -> None:
        """Settle what is ready, take nothing more; ``then`` is called when that is done."""
        with suppress(RuntimeError):  # Python ends
            self._pool.submit(then)
        self._pool.shutdown(wait=False)
