"""Values of the inline engine: what references lead to, packed so that every reader gets a copy of its own."""

from __future__ import annotations

import itertools
import mmap
import pickle
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakValueDictionary

from rlray.core.exceptions import ObjectLostError, presentable
from rlray.core.refs import ObjectRef
from rlray.core.serialization import IMMUTABLE, Serialized, deserialize, dumps_error, serialize, unpickled

if TYPE_CHECKING:
    import numpy as np

    from rlray.core.inline.jobs import Job

Payload = tuple[Any, ...]
"""A value that is there: ``("value", immutable object)``, ``("pickle", data, buffers)``, ``("error", pickle)``, or
``("end", None)`` behind the last value of a generator."""

_LARGE = 100_000  # bytes: from here on buffers are aligned
_ALIGN = 64  # bytes: a cache line


class Entry:
    """What is known of a value. It lives as long as a reference to it, or the job that makes it."""

    __slots__ = ("ask", "inner", "job", "maker", "payload", "waiting")

    def __init__(self, job: Job | None = None) -> None:
        self.payload: Payload | None = None  # None: not there yet
        self.inner: Sequence[ObjectRef] = ()  # references inside the value
        self.job = job  # what is making it; None once it is there
        self.ask: Callable[[], None] | None = None  # makes a value that is made only when somebody wants it
        self.maker = job.spec.name if job is not None else ""
        self.waiting: list[Callable[[], None]] = []

    def __str__(self) -> str:
        return f"a value made by {self.maker}" if self.maker else "a value"


class InlineRef(ObjectRef):
    """A reference of the inline engine."""

    __slots__ = ("entry",)

    _owner: Values

    def __init__(self, object_id: bytes, owner: Values, entry: Entry) -> None:
        super().__init__(object_id, owner)
        self.entry = entry


class Values:
    """All values of a run, and the one lock of its engine.

    Nothing of a user's runs under the lock: no unpickling, no task, no destructor.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.closed: str | None = None  # why nothing more comes
        self._changed = threading.Condition(self.lock)
        self._refs: WeakValueDictionary[bytes, InlineRef] = WeakValueDictionary()
        self._ids = itertools.count(1)
        self._put_off: deque[Callable[[], None]] = deque()
        self._made: WeakValueDictionary[int, np.ndarray[Any, Any]] = WeakValueDictionary()  # by `empty`, by address

    # -- references --------------------------------------------------------------------------------------------------

    def new_id(self) -> bytes:
        """An id for a task, an actor or a value."""
        return next(self._ids).to_bytes(12, "big")

    def own(self, job: Job | None = None) -> InlineRef:
        """A reference to a value that will be."""
        return self.enter(InlineRef(self.new_id(), self, Entry(job)))

    def enter(self, ref: InlineRef) -> InlineRef:
        """Make a reference known: whoever unpickles its id gets this very object."""
        self._refs[ref.binary()] = ref
        return ref

    def references(self) -> list[InlineRef]:
        """Every living reference."""
        return list(self._refs.values())

    def find(self, object_id: bytes) -> InlineRef | None:
        """The living reference with that id."""
        return self._refs.get(object_id)

    def lost(self, object_id: bytes) -> InlineRef:
        """A reference to a value that has been freed: `get` raises ObjectLostError."""
        ref = InlineRef(object_id, self, Entry())
        error = ObjectLostError(f"the value of {object_id.hex()} was freed already")
        ref.entry.payload = ("error", dumps_error(error))
        return self.enter(ref)

    def entry(self, ref: ObjectRef) -> Entry:
        """What is known of the value of ``ref``. Raises ValueError for a reference of another run."""
        if ref._owner is not self:
            raise ValueError(f"{ref!r} belongs to a run that has ended; its value is gone")
        return ref.entry  # type: ignore[attr-defined, no-any-return]

    def put_off(self, call: Callable[[], None]) -> None:
        """Call soon: from destructors, which run in any thread at any moment, also while it holds the lock."""
        self._put_off.append(call)
        if self.lock.acquire(blocking=False):
            self.lock.release()
            self.catch_up()

    def catch_up(self) -> None:
        """Do what was put off."""
        while self._put_off:
            try:
                call = self._put_off.popleft()
            except IndexError:  # another thread did it
                return
            call()

    # -- packing -----------------------------------------------------------------------------------------------------

    def place(self, value: Any, what: str) -> tuple[Payload, list[ObjectRef]]:
        """A value as it was at this moment, and the references inside it.

        Raises: TypeError if it cannot be pickled, which names ``what`` it is.
        """
        if type(value) in IMMUTABLE:
            return ("value", value), []
        whole = serialize(value, what)
        if self._made:
            self._freeze(whole.buffers)
        return ("pickle", whole.data, _copies(whole)), whole.refs

    def empty(self, shape: Any, dtype: Any, order: Literal["C", "F"]) -> np.ndarray[Any, Any]:
        """As `rlray.empty`, but giving the array away copies it."""
        import numpy as np

        from rlray.core.views import address, layout

        lengths, kind, nbytes = layout(shape, dtype, order)
        array = np.empty(lengths, kind, order)
        if nbytes > _LARGE:
            self._made[address(array.data)] = array
        return array

    def _freeze(self, buffers: Iterable[Any]) -> None:
        """Arrays of `empty` that are given away whole are read-only from here on."""
        from rlray.core.views import address, freeze

        for piece in buffers:
            buffer = memoryview(piece)
            array = self._made.get(address(buffer)) if buffer.nbytes > _LARGE else None
            if array is not None and array.nbytes == buffer.nbytes:
                freeze(buffer.obj)
                freeze(array)

    def unpack(self, payload: Payload, what: object) -> Any:
        """What a payload stands for: a copy, except for arrays, which are read-only views.

        Raises: the error that it stands for; RaySystemError, which names ``what`` it is, if it cannot be unpickled.
        """
        match payload:
            case ("pickle", data, buffers):
                return unpickled(what, lambda: deserialize(data, buffers))
            case ("error", data):
                raise presentable(pickle.loads(data))  # in no variable: it would hold on to the frames of its catcher
        return payload[1]

    # -- coming into being -------------------------------------------------------------------------------------------

    def resolve(self, entry: Entry, payload: Payload, inner: Sequence[ObjectRef] = ()) -> None:
        """The value is there. The first one counts."""
        with self._changed:
            if entry.payload is not None:
                return
            entry.payload, entry.inner, entry.job, entry.ask = payload, inner, None, None
            waiting, entry.waiting = entry.waiting, []
            self._changed.notify_all()
        for call in waiting:
            call()

    def ask(self, entries: Iterable[Entry]) -> None:
        """Somebody wants these values: make those that are made on demand."""
        for entry in entries:
            if entry.ask is not None and entry.payload is None:
                entry.ask()

    def when_ready(self, entry: Entry, call: Callable[[], None]) -> None:
        """Call once the value is there: now, or in the thread that brings it."""
        with self.lock:
            if entry.payload is None:
                entry.waiting.append(call)
                return
        call()

    def when_all_ready(self, entries: Sequence[Entry], call: Callable[[], None]) -> None:
        """Call once all are there."""
        left = itertools.count(len(entries), -1)  # next() is atomic

        def one() -> None:
            if next(left) == 0:
                call()

        for entry in entries:
            self.when_ready(entry, one)
        one()

    def block(self, done: Callable[[], bool], timeout: float | None) -> bool:
        """Wait for what other threads bring about; False if time ran out. Raises if the engine is shut down."""
        with self._changed:
            in_time = self._changed.wait_for(lambda: done() or self.closed is not None, timeout)
        if not done():
            self.check_open()
        return in_time

    def check_open(self) -> None:
        """Raise RuntimeError once the engine is shut down."""
        if self.closed is not None:
            raise RuntimeError(self.closed)

    def stir(self) -> None:
        """Something has changed that others may wait for in `block`."""
        with self._changed:
            self._changed.notify_all()

    def close(self, why: str) -> None:
        """Nothing more comes: whoever waits gets a RuntimeError that says why."""
        with self._changed:
            self.closed = why
            self._changed.notify_all()

    def future(self, ref: ObjectRef) -> Future[Any]:
        """A future that gets the value."""
        entry, future = self.entry(ref), Future[Any]()
        future.set_running_or_notify_cancel()

        def settle() -> None:
            assert entry.payload is not None
            try:
                future.set_result(self.unpack(entry.payload, entry))
            except BaseException as error:  # whatever the task raised
                future.set_exception(error)

        self.ask([entry])
        self.when_ready(entry, settle)
        return future


def _copies(value: Serialized) -> list[Any]:
    """Read-only copies of the buffers; those of large values begin on cache lines."""
    if value.nbytes <= _LARGE:
        return [bytes(buffer) for buffer in value.buffers]
    if not value.buffers:
        return []
    starts, size = [], 0
    for buffer in value.buffers:
        starts.append(size)
        size += -(-buffer.nbytes // _ALIGN) * _ALIGN
    room = memoryview(mmap.mmap(-1, max(size, 1)))
    for start, buffer in zip(starts, value.buffers, strict=True):
        room[start : start + buffer.nbytes] = buffer
    room = room.toreadonly()
    return [room[start : start + buffer.nbytes] for start, buffer in zip(starts, value.buffers, strict=True)]
