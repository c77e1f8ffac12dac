"""`concurrent.futures.Executor` on tasks: for programs, and libraries, that take an executor."""

from __future__ import annotations

import concurrent.futures
import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import rlray
from rlray.util.dispatch import CallFuture, Dispatcher


def _call(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return fn(*args, **kwargs)


def _call_all(fn: Callable[..., Any], chunk: list[tuple[Any, ...]]) -> list[Any]:
    return [fn(*args) for args in chunk]


class Executor(concurrent.futures.Executor):
    """Runs each call as a task. Futures are real ones, so `asyncio` and other libraries can wait for them.

    Guarantees: at most ``max_workers`` calls run at a time, in the order submitted. A future can be cancelled until its
    call has started. What a call raises comes back as itself, its remote traceback as the ``__cause__``. A task
    that waits in ``future.result()`` or `map` lends its CPU; one that waits in ``concurrent.futures.wait`` does not.

    Args:
        max_workers: How many calls run at a time; as many as the CPUs of the runtime allow by default.
        remote_options: Options of the tasks, as for ``@rlray.remote``: ``num_cpus=2``, ``max_retries=0``, ...
    """

    def __init__(self, max_workers: int | None = None, **remote_options: Any) -> None:
        if max_workers is not None and (not isinstance(max_workers, int) or isinstance(max_workers, bool)):
            raise TypeError(f"max_workers must be an int or None, got {type(max_workers).__name__} {max_workers!r}")
        if max_workers is not None and max_workers < 1:
            raise ValueError(f"max_workers must be at least 1, got {max_workers}")
        if "num_returns" in remote_options:
            raise ValueError("num_returns cannot be an option of an Executor: a future has one result")
        self._task = rlray.remote(_call)
        self._task.options(**remote_options)  # wrong ones are errors here, not at the first call
        self._options = remote_options
        cpus = rlray.cluster_resources().get("CPU", 1)
        share = remote_options.get("num_cpus") or 1
        workers = max_workers or max(1, int(cpus / share))
        self._dispatcher: Dispatcher[None] = Dispatcher([None] * workers, lambda slot, error: slot)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> CallFuture:
        """Run ``fn(*args, **kwargs)`` as a task. Raises RuntimeError after `shutdown`."""
        if self._dispatcher.closed:
            raise RuntimeError("cannot schedule new futures after shutdown; make a new Executor()")
        task = self._task.options(**{"name": getattr(fn, "__name__", type(fn).__name__), **self._options})
        return self._dispatcher.submit(lambda _: task.remote(fn, args, kwargs))

    def map(
        self, fn: Callable[..., Any], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[Any]:
        """Results of ``fn(*items)`` in order, ``chunksize`` calls to a task. Everything is submitted at once.

        Raises: the error of the first call that raised; TimeoutError if a result is not there ``timeout`` seconds after
        the call of `map`; ValueError for a ``chunksize`` below 1.
        """
        if chunksize < 1:
            raise ValueError(f"chunksize must be at least 1, got {chunksize!r}")
        if chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout)
        calls = zip(*iterables, strict=False)
        chunks = iter(lambda: list(itertools.islice(calls, chunksize)), [])
        return itertools.chain.from_iterable(super().map(partial(_call_all, fn), chunks, timeout=timeout))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; with ``wait`` return when all have ended, with ``cancel_futures`` drop what waits."""
        self._dispatcher.close()
        if cancel_futures:
            self._dispatcher.drop_waiting()
        if wait:
            self._dispatcher.attend(self._dispatcher.idle, [], None)
