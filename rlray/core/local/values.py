"""Values of one process: into payloads, out of payloads, and waiting for them."""

from __future__ import annotations

import gc
import pickle
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakValueDictionary

from rlray.core.exceptions import ObjectLostError, presentable
from rlray.core.local import spill
from rlray.core.local.allocation import Allocator
from rlray.core.local.complaint import Kept
from rlray.core.local.loop import Loop
from rlray.core.local.made import MadeArrays
from rlray.core.local.references import LocalRef, Payload, References, owner_of, stored
from rlray.core.local.settings import NODE, RunSettings
from rlray.core.local.spill import Spiller
from rlray.core.local.store import INLINE_LIMIT, Arena, Buffer, Part, lay_out, split
from rlray.core.local.wire import Message
from rlray.core.refs import ObjectRef
from rlray.core.serialization import IMMUTABLE, Serialized, deserialize, serialize, unpickled
from rlray.core.stacks import calling_line

if TYPE_CHECKING:
    import numpy as np

_INLINE_PARTS = 4_096  # bytes of a stored value that may travel in its payload: the pickle, small arrays


class _Pin:
    """Kept by the views of a value: as long as there is one, the value does not move."""

    __slots__ = ("__weakref__", "ref")

    def __init__(self, ref: ObjectRef) -> None:
        self.ref = ref


class Values:
    """Stores and loads values; large ones lie in shared memory, small ones travel in messages."""

    def __init__(
        self,
        settings: RunSettings,
        references: References,
        ask: Callable[..., Any],
        post: Callable[[int, Message], None],
        loop: Loop,
        blocking: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self._references, self._post, self._loop = references, post, loop
        self._arena = Arena(settings.store_fd, settings.store_capacity)
        self._pins: WeakValueDictionary[bytes, _Pin] = WeakValueDictionary()
        self._spiller = Spiller(
            settings.spill_directory,
            self._arena,
            settings.store_capacity,
            references,
            loop,
            self.is_read,
            self._moves,
            self.free,
        )
        self.extents = Allocator(
            ask,
            post,
            loop,
            settings.store_capacity,
            references.sweep,
            self._spiller.make_room,
            self.kept,
            blocking,
        )
        self._made = MadeArrays(self._arena, self.extents)
        self.recover: Callable[[ObjectRef], bool] | None = None  # makes a value again whose file is gone, if it can

    def close(self) -> None:
        """The run is over: memory that no array lies in is the kernel's again."""
        self._spiller.close()
        self._arena.forget()

    def put(self, value: Any) -> LocalRef:
        """Own a value from now on."""
        payload, inner = self.place(value, "a value given to put()")
        with self._loop.lock:
            ref = self._references.own_put()
            if payload[0] == "stored":
                ref.entry.maker = f"put at {calling_line()}"
            self._references.resolve(ref.entry, payload, inner)
        return ref

    def payload(self, value: Serialized) -> tuple[Payload, list[ObjectRef]]:
        """The arguments of a call as a payload, and the references to keep alive as long as it is needed.

        If they lie in the store, the first reference stands for them.
        """
        if value.nbytes <= INLINE_LIMIT:
            return ("inline", value.data, split(value.buffers)), value.refs
        with self._loop.lock:
            ref = self._references.own_put()
        payload = self._store(value)
        with self._loop.lock:
            ref.entry.movable = False  # the call holds a copy of the payload
            ref.entry.maker = f"argument at {calling_line()}"
            self._references.resolve(ref.entry, payload)
        return payload, [ref, *value.refs]

    def place(self, value: Any, what: str = "a value") -> tuple[Payload, list[ObjectRef]]:
        """Put a value where it can be read from, and name the references inside it.

        Raises: TypeError if it cannot be pickled, which names ``what`` it is; ObjectStoreFullError.
        """
        kind = type(value)
        if kind in IMMUTABLE and ((kind is not str and kind is not bytes) or len(value) <= INLINE_LIMIT):
            return ("value", value), []
        whole = serialize(value, what)
        if whole.nbytes <= INLINE_LIMIT:
            return ("inline", whole.data, split(whole.buffers)), whole.refs
        return self._store(whole), whole.refs

    def _store(self, value: Serialized) -> Payload:
        """Copy a value into the store, but for arrays that `empty` has made: those become read-only where they are."""
        pieces: list[Buffer] = [value.data, *value.buffers]
        parts: list[Part | None] = [None, *map(self._made.part, value.buffers)]
        made = [i for i, part in enumerate(parts) if part is not None]
        inline = _INLINE_PARTS
        for i, piece in enumerate(pieces):
            if parts[i] is None and (size := memoryview(piece).nbytes) <= inline:
                parts[i], inline = bytes(piece), inline - size
        extents = self._copy_in(pieces, parts)
        for i in made:
            extent = self._made.freeze(value.buffers[i - 1], parts[i][0])  # type: ignore[index]
            with self._loop.lock:
                self.extents.share(extent)
            extents.append(extent)
        return stored(self._references.me, tuple(extents), tuple(part for part in parts if part is not None))

    def _copy_in(self, pieces: list[Buffer], parts: list[Part | None]) -> list[int]:
        """Copy the pieces that have no place yet into one extent; returns its id, if there was any."""
        rest = [i for i, part in enumerate(parts) if part is None]
        if not rest:
            return []
        spans, size = lay_out([memoryview(pieces[i]).nbytes for i in rest])
        extent = self.extents.take(size)
        try:
            for i, (offset, length) in zip(rest, spans, strict=True):
                parts[i] = (extent.offset + offset, length)
                self._arena.write(extent.offset + offset, pieces[i])
        except BaseException:  # a cancelled task's KeyboardInterrupt
            with self._loop.lock:
                self.extents.release([extent.id])
            raise
        return [extent.id]

    def empty(self, shape: Any, dtype: Any, order: Literal["C", "F"]) -> np.ndarray[Any, Any]:
        """An array that lies in the store, if it is not a small one."""
        return self._made.empty(shape, dtype, order)

    @property
    def made_bytes(self) -> int:
        """Bytes of living arrays of `empty`."""
        return self._made.nbytes

    def is_read(self, object_id: bytes) -> bool:
        """Whether a view of the value is alive here."""
        return object_id in self._pins

    def read_here(self) -> list[bytes]:
        """The values of which a view is alive here."""
        return list(self._pins)

    def lend(self, payload: Payload, owner: int) -> None:
        """The value is about to be sent to its owner. If that one is dead, it is freed instead."""
        if payload[0] == "stored" and owner != self._references.me:
            if self._references.is_gone(owner):
                self.free(payload)
            else:
                self.extents.lend(payload[2], owner)

    def free(self, payload: Payload) -> None:
        """Nobody needs the value any more. Called under the loop's lock."""
        if payload[0] == "stored":
            if payload[1] == self._references.me:
                self.extents.release(payload[2])
            else:
                self._post(payload[1], ("free", payload[2]))
        elif payload[0] == "spilled":
            spill.forget(payload)

    def peer_gone(self, process: int) -> None:
        """A process died: say which of its extents are in use here, and in which of ours values of its lie."""
        claimed = self._references.claim_extents(process)
        self.extents.adopt(claimed)
        for object_id, entry in self._references.entries.items():
            if owner_of(object_id) == process and entry.payload is not None and entry.payload[0] == "spilled":
                entry.payload, entry.claimed = self._spiller.inherit(object_id, entry.payload), True
        self._post(NODE, ("settled", process, claimed, self.extents.owner_gone(process)))
        self.extents.forget_owner(process)

    def _moves(self, payload: Payload) -> bool:
        """Whether memory gets free when this value goes: not while arrays of `empty` lie there too."""
        return payload[1] != self._references.me or self.extents.only_used_once(payload[2])

    def kept(self) -> Kept:
        """What of this process's values stays in memory, and why."""
        return self._spiller.kept(self._made.nbytes)

    def make_room(self, needed: int, done: Callable[[int, Kept], None]) -> None:
        """Spill for others, beside everything else; ``done`` gets the bytes moved, and what was not."""

        def work() -> None:
            moved = 0
            try:
                gc.collect()  # references may hang in cycles
                moved = self._spiller.make_room(needed)
            finally:
                done(moved, self.kept())

        threading.Thread(target=work, name="rlray-spill", daemon=True).start()

    def load(self, ref: ObjectRef) -> Any:
        """The value, which must be there; raises it if it is an error."""
        entry = self._references.entry(ref)
        payload, keep = entry.payload, None
        if payload is not None and payload[0] == "stored":
            with self._loop.lock:
                payload, keep = entry.payload, self._pin(ref)  # from here on it does not move
        assert payload is not None
        try:
            return self.unpack(payload, keep, entry)
        except ObjectLostError:
            if payload[0] != "spilled" or self.recover is None or not self.recover(ref):
                raise
        return self.load(ref)

    def _pin(self, ref: ObjectRef) -> _Pin:
        pin = self._pins.get(ref.binary())
        if pin is None:
            pin = self._pins[ref.binary()] = _Pin(ref)
        return pin

    def unpack(self, payload: Payload, keep: object, what: object) -> Any:
        """What a payload stands for; arrays in the store keep ``keep`` alive.

        Raises: the error that it stands for; RaySystemError, which names ``what`` it is, if it cannot be unpickled.
        """
        kind = payload[0]
        if kind == "value" or kind == "end":
            return payload[1]
        if kind == "error":
            error = presentable(pickle.loads(payload[1]))
            try:
                raise error
            finally:
                del error  # else its traceback keeps this frame, which keeps it, and references up the stack with it
        if kind == "stored":
            data, buffers = self._arena.read(payload[3], keep)
        elif kind == "spilled":
            data, buffers = spill.read(payload)
        else:
            data, buffers = payload[1:]
        value = unpickled(what, lambda: deserialize(data, buffers))
        return value if kind != "item" else ((value,), {})

    def is_error(self, ref: ObjectRef) -> bool:
        """Whether an error stands in the value's place."""
        payload = self._references.entry(ref).payload
        return payload is not None and payload[0] == "error"
