"""A pool of actors: each value goes to an actor that is free, results come back in order or as they finish."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import rlray
from rlray.core.progress import EVERY, Progress, Report, progress_of, telling
from rlray.exceptions import ActorDiedError, RayTaskError

_AHEAD = 2  # values per actor that a map has submitted and not yet yielded


@dataclass(eq=False, slots=True)
class _Job:
    """One submitted value: without an actor yet, at work, or done."""

    fn: Callable[[Any, Any], Any]
    value: Any
    actor: Any = None
    result: Any = None  # what ``fn`` returned: a reference, or a list of them
    done: bool = False
    outcome: Any = None
    error: BaseException | None = None

    @property
    def last(self) -> rlray.ObjectRef:
        """The reference that comes last: an actor answers in order."""
        ref: rlray.ObjectRef = self.result[-1] if isinstance(self.result, list) else self.result
        return ref

    def start(self, actor: Any) -> None:
        """Hand the value to ``actor``. Raises what ``fn`` raises, TypeError if it returns no reference."""
        result = self.fn(actor, self.value)
        refs = result if isinstance(result, list) and result else [result]
        if not all(isinstance(ref, rlray.ObjectRef) for ref in refs):
            raise TypeError(
                f"the function given to an ActorPool must return the reference of an actor call, got "
                f"{type(result).__name__} {result!r}; for example: lambda actor, value: actor.method.remote(value)"
            )
        self.actor, self.result = actor, result

    def settle(self) -> bool:
        """Load the result, which is there; False if the actor is dead."""
        try:
            self.outcome = rlray.get(self.result)
        except Exception as error:  # whatever the method raised
            self.error = error
        self.done, self.result = True, None
        return not isinstance(self.error, ActorDiedError) or isinstance(self.error, RayTaskError)

    def take(self) -> Any:
        """The value, or the error raised."""
        if self.error is not None:
            raise self.error
        return self.outcome


class ActorPool:
    """Distributes values over actors, one value per actor at a time.

    Guarantees: no value waits while an actor of the pool is idle and somebody waits for results. An actor that died
    leaves the pool; the call that met its death raises ActorDiedError, the others go on with the rest.

    Args:
        actors: Handles. They belong to the pool until `pop_idle` gives one back.
    """

    def __init__(self, actors: Iterable[Any]) -> None:
        self._idle: list[Any] = []
        self._busy: list[_Job] = []
        self._waiting: deque[_Job] = deque()
        self._jobs: dict[_Job, None] = {}  # whose results nobody has taken yet, as submitted
        for actor in actors:
            self.push(actor)

    def map(
        self, fn: Callable[[Any, Any], Any] | str, values: Iterable[Any], *, progress: bool | Report = False
    ) -> Iterator[Any]:
        """Results of ``fn(actor, value)`` for each value, in the order of ``values``.

        With the name of a method instead of ``fn``, it is called with each value, and a `rlray.core.mapping.Map` comes
        back, as from ``f.map``: an iterator of references, many calls to a message, which has ``results()`` and
        ``as_completed()``. The pool's actors may be used otherwise meanwhile.

        ``values`` may be endless: unlike in Ray, which submits everything at once, at most two values per actor are
        under way or waiting to be taken; the next is read when a result is taken. The first ones start at once. Results
        of earlier submissions that nobody has taken are dropped. An error ends the iteration.

        ``progress`` is that of ``f.map``: True for a line on stderr, or a function of (values done, values in all).
        """
        if isinstance(fn, str):
            return self._map_method(fn, values, progress)
        return self._mapped(fn, values, True, progress_of(progress, "ActorPool", values))

    def _map_method(self, name: str, values: Iterable[Any], progress: bool | Report) -> Iterator[rlray.ObjectRef]:
        actors = [*self._idle, *(job.actor for job in self._busy)]
        if not actors:
            raise ValueError(f"map({name!r}, ...) needs an actor in the pool; push() one")
        methods = [getattr(actor, name) for actor in actors]
        mapped: Iterator[rlray.ObjectRef] = type(methods[0]).map_over(methods, values, progress=progress)
        return mapped

    def map_unordered(
        self, fn: Callable[[Any, Any], Any], values: Iterable[Any], *, progress: bool | Report = False
    ) -> Iterator[Any]:
        """As `map`, but each result as soon as it is there."""
        return self._mapped(fn, values, False, progress_of(progress, "ActorPool", values))

    def _mapped(
        self, fn: Callable[[Any, Any], Any], values: Iterable[Any], in_order: bool, progress: Progress | None
    ) -> Iterator[Any]:
        for job in list(self._jobs):
            self._forget(job)
        source = iter(values)
        mine: deque[_Job] = deque()
        failure: Exception | None = None

        def refill() -> None:
            nonlocal failure
            while failure is None and len(mine) < _AHEAD * max(1, len(self._idle) + len(self._busy)):
                try:
                    value = next(source)
                except StopIteration:
                    return
                except Exception as error:  # raised after the results of what was read before
                    failure = error
                else:
                    mine.append(self._submit(fn, value))

        def next_job(taken: int) -> _Job:
            while True:
                if not all(job in self._jobs for job in mine):
                    raise RuntimeError(
                        "another map() or get_next() of this ActorPool took the results of this map(); finish it first"
                    )
                job = self._next(mine, in_order, None if progress is None else EVERY)
                if progress is not None:
                    progress.update(taken + sum(one.done for one in mine))
                if job is not None:
                    return job

        def results() -> Iterator[Any]:
            with telling(progress):
                for taken in count():
                    if not mine:
                        break
                    job = next_job(taken)
                    mine.remove(job)
                    del self._jobs[job]
                    result = job.take()
                    refill()
                    yield result
                if failure is not None:
                    raise failure

        refill()
        return results()

    def submit(self, fn: Callable[[Any, Any], Any], value: Any) -> None:
        """Run ``fn(actor, value)``, which returns a reference, with the next free actor; `get_next` gives the result.

        Raises: what ``fn`` raises if an actor is free; otherwise `get_next` raises it. TypeError if it returns no
        reference.
        """
        job = self._submit(fn, value)
        if job.error is not None:
            self._forget(job)
            raise job.error

    def has_next(self) -> bool:
        """Whether there are results to take, now or later."""
        return bool(self._jobs)

    def get_next(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """The result of the value submitted first among those not taken yet.

        Raises: StopIteration if there is none; TimeoutError after ``timeout`` seconds, and with ``ignore_if_timedout``
        that result is dropped; ActorDiedError if its actor died, or if no actor is left to run it.
        """
        return self._take(True, timeout, ignore_if_timedout)

    def get_next_unordered(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """Any result that is there, or the next to come; otherwise as `get_next`."""
        return self._take(False, timeout, ignore_if_timedout)

    def has_free(self) -> bool:
        """Whether a value submitted now would start at once. An actor is free again when a result was taken."""
        return bool(self._idle) and not self._waiting

    def pop_idle(self) -> Any:
        """Take an idle actor out of the pool; None if there is none."""
        return self._idle.pop() if self.has_free() else None

    def push(self, actor: Any) -> None:
        """Add an actor. Raises ValueError if it is in the pool already."""
        if actor in self._idle or any(job.actor == actor for job in self._busy):
            raise ValueError(f"{actor!r} belongs to this ActorPool already; push each actor once")
        self._idle.append(actor)
        self._start_waiting()

    def _submit(self, fn: Callable[[Any, Any], Any], value: Any) -> _Job:
        job = _Job(fn, value)
        self._jobs[job] = None
        self._waiting.append(job)
        self._start_waiting()
        return job

    def _start_waiting(self) -> None:
        while self._idle and self._waiting:
            job, actor = self._waiting.popleft(), self._idle.pop()
            try:
                job.start(actor)
            except Exception as error:  # whatever ``fn`` raised: the actor has nothing to do with it
                job.done, job.error = True, error
                self._idle.append(actor)
            else:
                self._busy.append(job)

    def _forget(self, job: _Job) -> None:
        """Nobody wants the result. If it is at work its actor stays busy until it is done."""
        del self._jobs[job]
        if job in self._waiting:
            self._waiting.remove(job)

    def _take(self, in_order: bool, timeout: float | None, ignore_if_timedout: bool) -> Any:
        if not self._jobs:
            raise StopIteration("no more results to get: everything submitted to this ActorPool was taken")
        job = self._next(self._jobs, in_order, timeout)
        if job is None:
            first = next(iter(self._jobs))
            if ignore_if_timedout:
                self._forget(first)
            raise TimeoutError(
                f"no result of the ActorPool within {timeout} s" + ("; it was dropped" if ignore_if_timedout else "")
            )
        del self._jobs[job]
        return job.take()

    def _next(self, jobs: Collection[_Job], in_order: bool, timeout: float | None) -> _Job | None:
        """The first of ``jobs``, or any, once it is done; None if time ran out."""
        first = next(iter(jobs))
        wanted = [first] if in_order else jobs
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            for job in wanted:
                if job.done:
                    return job
            if not self._busy:
                self._waiting.remove(first)
                first.done = True
                first.error = ActorDiedError(f"no actor is left in the pool to run {first.value!r}; push() one")
                return first
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not self._settle(left) and left == 0.0:
                return None

    def _settle(self, timeout: float | None) -> bool:
        """Wait until an actor is done, and give those that are their next value; False if time ran out."""
        refs = list({job.last: None for job in self._busy})
        if not rlray.wait(refs, num_returns=1, timeout=timeout)[0]:
            return False
        ready = set(rlray.wait(refs, num_returns=len(refs), timeout=0)[0])
        for job in [job for job in self._busy if job.last in ready]:
            self._busy.remove(job)
            if job.settle():
                self._idle.append(job.actor)
        self._start_waiting()
        return True
