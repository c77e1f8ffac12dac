"""Chunks of ``f.map`` on the embedded engine: many calls of one function in one task."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rlray.core.calls import immutable_arguments
from rlray.core.local.references import Entry, LocalRef, Payload
from rlray.core.local.store import INLINE_LIMIT, split
from rlray.core.mapping import Chunk
from rlray.core.refs import ObjectRef
from rlray.core.serialization import serialize

if TYPE_CHECKING:
    from rlray.core.engine import CallSpec
    from rlray.core.local.client import Client
    from rlray.core.local.jobs import Odd
    from rlray.core.local.tasks import Task


def packed(items: tuple[Any, ...]) -> Payload | None:
    """The items of a chunk as arguments of one call; None if they must travel one by one.

    Each has a pickle of its own, so that no call sees what another one does to its argument.
    """
    if immutable_arguments(items):
        return ("args", (items,))
    pickles = []
    total = 0
    for item in items:
        if isinstance(item, ObjectRef):
            return None
        try:
            value = serialize(item)
        except TypeError:  # which is said where the item travels alone
            return None
        total += value.nbytes
        if value.refs or total > 10 * INLINE_LIMIT:
            return None
        pickles.append((value.data, split(value.buffers)))
    return ("args", (None, pickles))


class LocalChunk(Chunk):
    """Takes in the results of a chunk; all but what `Map` calls is called under the loop's lock."""

    def __init__(self, client: Client, spec: CallSpec, actor: ObjectRef | None, count: int) -> None:
        self._client, self._spec, self._actor = client, spec, actor
        self.count = count
        self._task: Task | None = None
        self._values: Sequence[Any] | None = None
        self._refs: dict[int, LocalRef] = {}  # handed out, or of results that are not immutable values
        self._error: Payload | None = None  # of all items
        self._seconds: float | None = None
        self._done = client.references.own_put()
        self.completion = self._done

    def begin(self, task: Task) -> None:
        """``task`` makes the calls."""
        self._task = task
        task.sink = self
        self._done.entry.task = task

    def answered(self, results: tuple[list[Any], Odd, float], worker: int) -> None:
        """The worker has made every call."""
        values, odd, self._seconds = results
        references = self._client.references
        for index, (payload, inner, retry) in odd.items():
            refs = references.receive(inner, worker)
            entry = self._entry(index)
            entry.maker = self._spec.name
            if retry and self._spec.max_retries != 0:
                self._resubmit(index)
            else:
                references.resolve(entry, payload, refs)
        self._values = values
        self._settle(index for index in self._refs if index not in odd)

    def failed(self, error: Payload) -> None:
        """The calls were not made."""
        self._error = error
        self._settle(self._refs)

    def lost(self) -> bool:
        """The worker died over the chunk: make each call on its own, so that the one that kills it fails alone."""
        if self._spec.max_retries == 0:
            return False
        for index in range(self.count):
            self._resubmit(index)
        self._values = ()
        self._settle(())
        return True

    def _resubmit(self, index: int) -> None:
        """Make one of the calls on its own, with what it was given then, whatever has become of that."""
        assert self._task is not None
        items, *pickles = self._task.arguments[1]
        arguments = ("item", *pickles[0][index]) if items is None else ("args", (items[index],))
        self._client.resubmit(self._spec, self._actor, self._task.lane, arguments, self._entry(index))

    def _entry(self, index: int) -> Entry:
        """The entry of an item's result, made if it has none yet."""
        ref = self._refs.get(index)
        if ref is None:
            assert self._task is not None
            ref = self._refs[index] = self._client.references.own(self._task.id + index.to_bytes(2, "big"))
        return ref.entry

    def _settle(self, plain: Iterable[int]) -> None:
        """Tell those who wait for single items, the ``plain`` ones, then those who wait for all."""
        for index in list(plain):
            self._resolve_plain(self._refs[index].entry, index)
        assert self._task is not None
        self._done.entry.task = self._task.sink = None  # nothing more comes, and nothing is kept alive in a circle
        self._task.arguments = ()
        references, done = self._client.references, self._done.entry
        left = [ref for ref in self._refs.values() if ref.entry.payload is None]
        references.when_all_ready(left, lambda: references.resolve(done, ("value", None)))

    def _resolve_plain(self, entry: Entry, index: int) -> None:
        if self._error is not None:
            self._client.references.resolve(entry, self._error)
        elif self._values is not None:
            self._client.references.resolve(entry, ("value", self._values[index]))

    # -- for `Map`, without the lock ---------------------------------------------------------------------------------

    def broken(self) -> bool:
        return self._error is not None

    def seconds(self) -> float | None:
        return self._seconds

    def ref(self, index: int) -> ObjectRef:
        with self._client.loop.lock:
            ref = self._refs.get(index)
            if ref is None:
                entry = self._entry(index)
                self._resolve_plain(entry, index)
                ref = self._refs[index]
            return ref

    def values(self, return_exceptions: bool) -> Iterable[Any]:
        if self._error is None and not self._refs:
            assert self._values is not None
            return self._values
        return self._each(return_exceptions)

    def _each(self, return_exceptions: bool) -> Iterable[Any]:
        for index in range(self.count):
            try:
                [value] = self._client.get([self.ref(index)], None)
            except Exception as error:
                if not return_exceptions:
                    raise
                value = error.with_traceback(None)  # its frames would keep this chunk alive, and this one the error
            yield value
