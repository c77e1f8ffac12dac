"""``f.map(items)``: one call per item of any iterable, shipped in chunks sized by measured duration."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from rlray.core.progress import EVERY, telling

if TYPE_CHECKING:
    from rlray.core.engine import CallSpec, Engine
    from rlray.core.progress import Progress
    from rlray.core.refs import ObjectRef

_TARGET = 0.004  # seconds of work in a chunk: enough to make its message cheap, too little for anybody to wait behind
_MOST = 20_000  # items in a chunk
_GROWTH = 8  # a chunk is at most so many times as long as those that were measured


class Chunk(ABC):
    """Some items of a `Map` under way: one call for each, together in one message."""

    count: int
    completion: ObjectRef
    """Ready when every item has a result."""

    @abstractmethod
    def seconds(self) -> float | None:
        """What its items took together, once it is complete; None if that is not known."""

    def broken(self) -> bool:
        """Whether no call was made, because the actor is gone."""
        return False

    @abstractmethod
    def ref(self, index: int) -> ObjectRef:
        """The reference of an item's result."""

    @abstractmethod
    def values(self, return_exceptions: bool) -> Iterable[Any]:
        """The results of all items, once it is complete; raises the first error at its place, or gives it."""


class SingleCalls(Chunk):
    """Items that travel on their own: large ones, references, and everything on engines that know no chunks."""

    def __init__(self, engine: Engine, refs: Sequence[ObjectRef]) -> None:
        self._engine, self._refs = engine, refs
        self.count = len(refs)
        self.completion = refs[-1]

    def seconds(self) -> float | None:
        return None

    def ref(self, index: int) -> ObjectRef:
        return self._refs[index]

    def values(self, return_exceptions: bool) -> Iterable[Any]:
        for ref in self._refs:
            try:
                [value] = self._engine.get([ref], None)
            except Exception as error:
                if not return_exceptions:
                    raise
                value = error.with_traceback(None)  # its frames would keep the others alive
            yield value


class Spread:
    """Ships chunks over several actors: each to the one with the fewest under way; one that has died gets no more."""

    def __init__(self, engine: Engine, calls: Sequence[tuple[CallSpec, ObjectRef]]) -> None:
        self._engine = engine
        self._calls: list[tuple[CallSpec, ObjectRef, list[Chunk]]] = [(spec, actor, []) for spec, actor in calls]

    def __call__(self, items: tuple[Any, ...]) -> Chunk:
        for call in list(self._calls):
            for chunk in [chunk for chunk in call[2] if self._engine.wait([chunk.completion], 1, 0)[0]]:
                call[2].remove(chunk)
                if chunk.broken() and len(self._calls) > 1 and call in self._calls:
                    self._calls.remove(call)
        spec, actor, under_way = min(self._calls, key=lambda call: len(call[2]))
        chunk = self._engine.chunk(spec, actor, items)
        under_way.append(chunk)
        return chunk


class Map:
    """The calls of ``f.map(items)``: an iterator of references, one per item, in the order of the items.

    Guarantees: an error, a retry or a crash concerns its own item. Items are taken from the iterable as their turn
    comes, so it may be endless: no more than some tens of milliseconds of work for each worker are under way or waiting
    to be read. Iterate over it once, in one of three ways: itself (references), `results` or `as_completed`.

    With a ``progress`` whoever iterates also tells how many items are finished, whether they were read or not.
    """

    def __init__(
        self,
        engine: Engine,
        ship: Callable[[tuple[Any, ...]], Chunk],
        items: Iterable[Any],
        lanes: int,
        progress: Progress | None = None,
    ) -> None:
        self._engine, self._ship, self._progress = engine, ship, progress
        self._items = iter(items)
        self._most_unfinished = 3 * lanes + 1
        self._size = 1
        self._chunks: deque[Chunk] = deque()  # not read yet, in order
        self._unfinished: list[Chunk] = []
        self._refs: Iterator[ObjectRef] = iter(())  # of the chunk that is read; no generator, which would hold this map
        try:
            self._fill()
        except BaseException:
            if progress is not None:
                progress.close(ended=False)
            raise

    # -- reading -----------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[ObjectRef]:
        return self

    def __next__(self) -> ObjectRef:
        while (ref := next(self._refs, None)) is None:
            self._refs = self._refs_of_the_next_chunk()
        return ref

    def _refs_of_the_next_chunk(self) -> Iterator[ObjectRef]:
        chunk, progress = None, self._progress
        try:
            chunk = self._next_chunk()
        finally:
            if chunk is None and progress is not None:
                progress.close(ended=sys.exc_info()[0] is None)
        if chunk is None:
            raise StopIteration
        return map(chunk.ref, range(chunk.count))

    def __del__(self) -> None:
        progress = getattr(self, "_progress", None)
        if progress is not None:  # abandoned: tell what there is
            progress.close(ended=False)

    def results(self, *, return_exceptions: bool = False) -> Iterator[Any]:
        """The values, in the order of the items.

        An error is raised at its item's place, which ends the iteration; with ``return_exceptions`` it stands there as
        a value.
        """
        with telling(self._progress):
            while (chunk := self._next_chunk()) is not None:
                self._wait([chunk.completion])
                self._fill()  # nobody idles while the results are read
                yield from chunk.values(return_exceptions)

    def as_completed(self) -> Iterator[ObjectRef]:
        """The references, those that are ready first; each has a value or an error."""
        with telling(self._progress):
            while (chunk := self._next_chunk()) is not None:
                self._chunks.appendleft(chunk)
                done = self._wait([one.completion for one in self._chunks])
                self._fill()
                [first, *_] = [one for one in self._chunks if one.completion is done]
                self._chunks.remove(first)
                refs = [first.ref(index) for index in range(first.count)]
                if isinstance(first, SingleCalls):  # whose last item says nothing of the others
                    self._engine.wait(refs, len(refs), None)
                yield from refs

    # -- sending -----------------------------------------------------------------------------------------------------

    def _next_chunk(self) -> Chunk | None:
        """The next one in order; None at the end."""
        self._fill()
        while not self._chunks and len(self._unfinished) >= self._most_unfinished:
            self._wait([one.completion for one in self._unfinished])
            self._fill()
        return self._chunks.popleft() if self._chunks else None

    def _wait(self, completions: Sequence[ObjectRef]) -> ObjectRef:
        """The first that is ready."""
        progress = self._progress
        while progress is not None:
            done, _ = self._engine.wait(completions, 1, EVERY)
            if done:
                return done[0]
            self._look_back()
            progress.update(progress.done)
        return self._engine.wait(completions, 1, None)[0][0]

    def _fill(self) -> None:
        """Send as many chunks as may be under way."""
        self._look_back()
        while len(self._unfinished) < self._most_unfinished and len(self._chunks) < 2 * self._most_unfinished:
            items = tuple(islice(self._items, self._size))
            if not items:
                return
            chunk = self._ship(items)
            self._chunks.append(chunk)
            self._unfinished.append(chunk)
            if self._progress is not None:
                self._look_back()  # on an engine that runs calls at once, each takes its time

    def _look_back(self) -> None:
        """Forget finished chunks, and size the next ones by what they took."""
        if not self._unfinished:
            return
        done, _ = self._engine.wait([one.completion for one in self._unfinished], len(self._unfinished), 0)
        ready = set(done)
        for chunk in [one for one in self._unfinished if one.completion in ready]:
            self._unfinished.remove(chunk)
            seconds = chunk.seconds()
            if seconds is not None:
                per_item = max(seconds / chunk.count, 1e-8)
                self._size = max(1, min(int(_TARGET / per_item), chunk.count * _GROWTH, _MOST))
            if self._progress is not None:
                self._progress.update(self._progress.done + chunk.count)
