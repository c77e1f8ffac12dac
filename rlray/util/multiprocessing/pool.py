"""A pool of processes with the methods of ``multiprocessing.Pool``, each process an actor."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import cloudpickle

import rlray
from rlray.exceptions import ActorDiedError, RayError, RayTaskError
from rlray.util.dispatch import CallFuture, Dispatcher
from rlray.util.multiprocessing.results import AsyncResult, Callback, Failed, IMapIterator

_AHEAD = 2  # chunks per process that an iterator has submitted and not yet taken
Call = tuple[tuple[Any, ...], Mapping[str, Any]]  # the arguments of one call

_HERE = (None, "auto", "local")


class _PoolProcess:
    """What runs in a process of the pool."""

    def __init__(self, initializer: Callable[..., object] | None, initargs: Iterable[Any]) -> None:
        if initializer is not None:
            initializer(*initargs)

    def run(self, func: Callable[..., Any], calls: list[Call]) -> list[Any]:
        """What each call gives. One that raises does not keep the others from running."""
        return [_outcome(func, args, kwargs) for args, kwargs in calls]


def _outcome(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    try:
        return func(*args, **kwargs)
    except Exception as error:  # whatever the user's function raises
        name, where = getattr(func, "__name__", repr(func)), f"pid={os.getpid()}"
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        try:
            pickle.loads(cloudpickle.dumps(error))
        except Exception as why:  # whatever its own pickling raises
            error = RayError(f"{type(error).__name__}: {error} (the exception itself cannot be pickled: {why})")
        return Failed(RayTaskError(name, text, error, where))


@dataclass(eq=False)
class _Process:
    """A process of the pool, and how many chunks it has had."""

    actor: Any
    chunks: int = 0


def _renew(make: Callable[[], Any], limit: int | None, process: _Process, error: BaseException | None) -> _Process:
    """The same process, or a new one if that is dead or has had as many chunks as it may."""
    process.chunks += 1
    dead = isinstance(error, ActorDiedError) and not isinstance(error, RayTaskError)
    return _Process(make()) if dead or process.chunks == limit else process


class Pool:
    """``multiprocessing.Pool`` on actors of rlray. In a task or an actor it works too.

    Guarantees: a process runs one chunk at a time, a free one takes the next. A process that dies gives ActorDiedError
    to the chunk that it ran, and another takes its place. What a function raises comes back as itself, its remote
    traceback as the ``__cause__``. The processes end with `terminate`, after `close` when all is done, and with the
    pool.

    Args:
        processes: How many; as many as CPUs by default, and more are allowed: they hold no CPU unless
            ``ray_remote_args`` says so. If the runtime is not up, it is started with this many CPUs.
        initializer: Called in each process before anything else, with ``initargs``. What it raises is the cause of the
            ActorDiedError that each call then gives.
        maxtasksperchild: After so many chunks a process is replaced by a new one; never by default.
        context: Ignored; it is here because ``multiprocessing.Pool`` has it.
        ray_address: This machine, which None, "auto" and "local" say alike.
        ray_remote_args: Options of the actors, for example ``{"num_cpus": 1}``.
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] | None = None,
        maxtasksperchild: int | None = None,
        context: Any = None,
        ray_address: str | None = None,
        ray_remote_args: Mapping[str, Any] | None = None,
    ) -> None:
        _check_positive("processes", processes)
        _check_positive("maxtasksperchild", maxtasksperchild)
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer must be callable, got {type(initializer).__name__} {initializer!r}")
        if ray_address not in _HERE:
            raise ValueError(f"ray_address must be one of {_HERE}: the pool runs on this machine, got {ray_address!r}")
        if not rlray.is_initialized():
            rlray.init(num_cpus=processes)
        self._processes = processes or process_count(ray_remote_args)
        _check_room(self._processes, ray_remote_args)
        actor_class = rlray.remote(_PoolProcess).options(**(ray_remote_args or {}))
        make = partial(actor_class.remote, initializer, tuple(initargs or ()))
        slots = [_Process(make()) for _ in range(self._processes)]
        self._dispatcher: Dispatcher[_Process] = Dispatcher(slots, partial(_renew, make, maxtasksperchild))

    def apply(self, func: Callable[..., Any], args: Iterable[Any] | None = None, kwargs: Any = None) -> Any:
        """``func(*args, **kwargs)`` in a process of the pool."""
        return self.apply_async(func, args, kwargs).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        callback: Callback = None,
        error_callback: Callback = None,
    ) -> AsyncResult:
        """`apply` without waiting.

        The callbacks get the value, or the error, on a thread of the runtime: they must be brief, and wait for nothing.
        """
        self._check_running()
        future = self._submit(func, [(tuple(args or ()), dict(kwargs or {}))])
        return AsyncResult(self._dispatcher, [future], True, callback, error_callback)

    def map(self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = None) -> list[Any]:
        """``[func(item) for item in iterable]``. All calls run; then the first error, in order, is raised."""
        return self.map_async(func, iterable, chunksize).get()  # type: ignore[no-any-return]

    def map_async(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callback = None,
        error_callback: Callback = None,
    ) -> AsyncResult:
        """`map` without waiting; the callbacks as for `apply_async`."""
        return self._map_async(func, ((item,) for item in iterable), chunksize, callback, error_callback)

    def starmap(self, func: Callable[..., Any], iterable: Iterable[Iterable[Any]], chunksize: int | None = None) -> Any:
        """``[func(*args) for args in iterable]``."""
        return self.starmap_async(func, iterable, chunksize=chunksize).get()

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        callback: Callback = None,
        error_callback: Callback = None,
        chunksize: int | None = None,
    ) -> AsyncResult:
        """`starmap` without waiting. The order of arguments is Ray's: ``chunksize`` comes last."""
        return self._map_async(func, (tuple(args) for args in iterable), chunksize, callback, error_callback)

    def imap(self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = 1) -> IMapIterator:
        """Results in order, one by one.

        ``iterable`` may be endless: it is read two chunks per process ahead at most. What ``func`` raises for an item
        is raised in its place, and the iteration may go on after it.
        """
        return self._imap(func, iterable, chunksize, in_order=True)

    def imap_unordered(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = 1
    ) -> IMapIterator:
        """As `imap`, but each chunk's results when they are there."""
        return self._imap(func, iterable, chunksize, in_order=False)

    def close(self) -> None:
        """Take no more calls; the processes end when all is done."""
        self._dispatcher.close()

    def terminate(self) -> None:
        """End the processes now. Calls that have not finished give ActorDiedError."""
        for process in self._dispatcher.terminate(ActorDiedError("the pool was terminated before this call started")):
            rlray.kill(process.actor)

    def join(self) -> None:
        """Wait until all calls have ended. Raises ValueError before `close` or `terminate`."""
        if not self._dispatcher.closed:
            raise ValueError("the pool is still running: call close() or terminate() before join()")
        self._dispatcher.attend(self._dispatcher.idle, [], None)

    def __enter__(self) -> Pool:
        self._check_running()
        return self

    def __exit__(self, *_: object) -> None:
        self.terminate()

    def _check_running(self) -> None:
        if self._dispatcher.closed:
            raise ValueError("the pool is not running: it was closed or terminated; make a new Pool()")

    def _submit(self, func: Any, calls: list[Call]) -> CallFuture:
        return self._dispatcher.submit(lambda process: process.actor.run.remote(func, calls))

    def _chunks(self, func: Any, items: Iterator[tuple[Any, ...]], chunksize: int) -> Iterator[CallFuture]:
        code = rlray.put(func)  # once, however many chunks there are
        with self._dispatcher.held():
            while arguments := list(islice(items, chunksize)):
                yield self._submit(code, [(args, {}) for args in arguments])

    def _map_async(
        self, func: Any, items: Iterable[Any], chunksize: int | None, callback: Callback, error_callback: Callback
    ) -> AsyncResult:
        self._check_running()
        items = list(items)
        if chunksize is None:  # four chunks per process, as in multiprocessing
            chunksize = max(1, -(-len(items) // (4 * self._processes)))
        futures = list(self._chunks(func, iter(items), _checked(chunksize)))
        return AsyncResult(self._dispatcher, futures, False, callback, error_callback)

    def _imap(self, func: Any, iterable: Iterable[Any], chunksize: int | None, in_order: bool) -> IMapIterator:
        self._check_running()
        items = ((item,) for item in iterable)
        chunks = self._chunks(func, items, _checked(1 if chunksize is None else chunksize))
        return IMapIterator(self._dispatcher, chunks, _AHEAD * self._processes, in_order)


def process_count(remote_args: Mapping[str, Any] | None) -> int:
    """As many processes as the runtime's CPUs allow."""
    cpus = rlray.cluster_resources().get("CPU", 1)
    return max(1, int(cpus / ((remote_args or {}).get("num_cpus") or 1)))


def _check_room(processes: int, remote_args: Mapping[str, Any] | None) -> None:
    """A process for which there is no CPU would never start."""
    share, cpus = (remote_args or {}).get("num_cpus") or 0, rlray.cluster_resources().get("CPU", 0)
    if processes * share > cpus:
        raise ValueError(
            f"{processes} processes with num_cpus={share} need {processes * share} CPUs, but the runtime has {cpus}; "
            "ask for fewer processes, or leave out num_cpus"
        )


def _check_positive(name: str, given: int | None) -> None:
    if given is None:
        return
    if not isinstance(given, int) or isinstance(given, bool):
        raise TypeError(f"{name} must be an int or None, got {type(given).__name__} {given!r}")
    if given < 1:
        raise ValueError(f"{name} must be at least 1, got {given}")


def _checked(chunksize: int) -> int:
    _check_positive("chunksize", chunksize)
    return chunksize
