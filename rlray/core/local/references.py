"""Who holds which value: reference counts across processes, without sockets.

The process that asked for a value owns it. Every message that carries a reference carries one credit for it: the
sender books it with the owner in the receiver's name; the receiver gives all its credits back when its last local
reference goes. The owner frees a value when it has no local reference and no process holds a credit.

Bookings and returns of one process reach the owner in order, those of different processes do not, so a count may be
below zero for a moment: it is kept per process, and only an empty table means that nobody holds the value.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from rlray.core.exceptions import ObjectLostError, OwnerDiedError
from rlray.core.local.store import Part
from rlray.core.local.wire import Message
from rlray.core.refs import ObjectRef
from rlray.core.serialization import dumps_error

Payload = tuple[Any, ...]
"""Where a value is: ``("inline", pickle, [buffers])``, ``("stored", home, extents, parts)``,
``("spilled", path, parts)`` or ``("error", bytes)``. ``home`` is the process that is told when the value is gone, the
first of ``parts`` is the pickle.
"""

_PUT_INDEX = b"\xff\xff"


def owner_of(object_id: bytes) -> int:
    """The number of the process that owns the value."""
    return int.from_bytes(object_id[:4], "big")


def task_of(object_id: bytes) -> bytes:
    """The id of the task that makes the value."""
    return object_id[:10]


def stored(home: int, extents: tuple[int, ...], parts: tuple[Part, ...]) -> Payload:
    """The payload of a value that lies in the store."""
    return ("stored", home, extents, parts)


@dataclass(slots=True)
class Entry:
    """What this process knows of a value."""

    local: int = 0  # ObjectRefs in this process
    payload: Payload | None = None  # None: not there yet
    inner: list[ObjectRef] = field(default_factory=list)  # references inside the value
    waiting: list[Callable[[], None]] = field(default_factory=list)  # called once when the payload is there
    holders: dict[int, int] = field(default_factory=dict)  # owner's: credits by process
    credits: int = 0  # borrower's: given back with the last local reference
    fetching: bool = False  # borrower's: the owner has been asked
    claimed: bool = False  # borrower's: its owner died, and the extent is now this process's to free
    movable: bool = True  # owner's: the payload stands nowhere else, so the value may go to disk


class References:
    """The values that one process owns or borrows. All methods but `dropped` are called under the loop's lock."""

    def __init__(
        self,
        me: int,
        post: Callable[[int, Message], None],
        free: Callable[[Payload], None],
        released: Callable[[bytes], None],
        wake: Callable[[], None],
        future: Callable[[ObjectRef], Future[Any]],
    ) -> None:
        self.me = me
        self.entries: dict[bytes, Entry] = {}
        self._post, self._free, self._released, self._wake = post, free, released, wake
        self._future = future
        self._prefix = me.to_bytes(4, "big")
        self._count = 0
        self._gone: set[int] = set()
        self._dropped: deque[bytes] = deque()

    # -- making ------------------------------------------------------------------------------------------------------

    def new_task_id(self) -> bytes:
        """An id for a task of this process; its results are named after it."""
        self._count += 1
        return self._prefix + self._count.to_bytes(6, "big")

    def own(self, task_id: bytes, index: int) -> ObjectRef:
        """A value that will be: result ``index`` of a task."""
        return self.adopt_new(task_id + index.to_bytes(2, "big"))

    def own_put(self) -> ObjectRef:
        """A value that this process is about to store."""
        return self.adopt_new(self.new_task_id() + _PUT_INDEX)

    def adopt_new(self, object_id: bytes) -> ObjectRef:
        """Begin the entry of a value owned here."""
        self.entries[object_id] = Entry(local=1)
        return ObjectRef(object_id, self)

    def adopt(self, object_id: bytes) -> ObjectRef:
        """One more local reference."""
        entry = self.entries.get(object_id)
        if entry is None:
            entry = self.entries[object_id] = Entry()
            if owner_of(object_id) == self.me or owner_of(object_id) in self._gone:
                entry.payload = self._lost_payload(object_id)
        entry.local += 1
        return ObjectRef(object_id, self)

    def _lost_payload(self, object_id: bytes) -> Payload:
        if owner_of(object_id) == self.me:
            return ("error", dumps_error(ObjectLostError(f"the value of {object_id.hex()} was freed already")))
        return ("error", dumps_error(OwnerDiedError(f"the process that owned {object_id.hex()} died")))

    def resolve(self, object_id: bytes, payload: Payload, inner: list[ObjectRef]) -> None:
        """The value is there. If nobody wants it any more it is freed at once."""
        entry = self.entries.get(object_id)
        if entry is None or entry.payload is not None:
            if owner_of(object_id) == self.me:
                self._free(payload)
            return
        entry.payload, entry.inner = payload, inner
        waiting, entry.waiting = entry.waiting, []
        for call in waiting:
            call()
        self._maybe_free(object_id, entry)

    def when_ready(self, ref: ObjectRef, call: Callable[[], None]) -> bool:
        """Call once the payload is there; True if it is there now (then ``call`` is not called)."""
        entry = self.entries.get(ref.binary())
        if entry is None:  # only a reference of another run can be unknown while it exists
            raise ValueError(f"{ref!r} belongs to a run that has ended; its value is gone")
        if entry.payload is not None:
            return True
        entry.waiting.append(call)
        owner = owner_of(ref.binary())
        if owner != self.me and not entry.fetching:
            entry.fetching = True
            self._post(owner, ("fetch", ref.binary()))
        return False

    def forget_waiting(self, asked: Iterable[tuple[ObjectRef, Callable[[], None]]]) -> None:
        """Undo `when_ready` for those that are not there yet."""
        for ref, call in asked:
            entry = self.entries[ref.binary()]
            if entry.payload is None and call in entry.waiting:
                entry.waiting.remove(call)

    def when_all_ready(self, refs: Sequence[ObjectRef], call: Callable[[], None]) -> None:
        """Call once every payload is there: now, or when the last one comes."""
        left = 1

        def one() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                call()

        for ref in refs:
            if not self.when_ready(ref, one):
                left += 1
        one()

    # -- travelling --------------------------------------------------------------------------------------------------

    def grant(self, refs: Iterable[ObjectRef], to: int) -> list[bytes]:
        """Book a credit for each reference in the name of ``to``, to which a message with them is about to go."""
        ids = []
        for ref in refs:
            object_id = ref.binary()
            ids.append(object_id)
            owner = owner_of(object_id)
            if owner == self.me:
                self.credit(object_id, to, 1)
            elif owner != to:
                self._post(owner, ("credit", object_id, to, 1))
        return ids

    def receive(self, ids: Iterable[bytes]) -> list[ObjectRef]:
        """Take the references of a message that has arrived, one credit each."""
        refs = []
        for object_id in ids:
            refs.append(self.adopt(object_id))
            if owner_of(object_id) != self.me:
                self.entries[object_id].credits += 1
        return refs

    def claim(self, ids: Iterable[bytes]) -> list[ObjectRef]:
        """References to values that somebody surely keeps alive: this process books its own credits."""
        refs = []
        for object_id in ids:
            refs.append(self.adopt(object_id))
            if owner_of(object_id) != self.me:
                self.entries[object_id].credits += 1
                self._post(owner_of(object_id), ("credit", object_id, self.me, 1))
        return refs

    def credit(self, object_id: bytes, holder: int, change: int) -> None:
        """At the owner: ``holder`` got or gave back credits."""
        entry = self.entries.get(object_id)
        if entry is None or holder in self._gone:
            return
        count = entry.holders.get(holder, 0) + change
        if count:
            entry.holders[holder] = count
        else:
            entry.holders.pop(holder, None)
            self._maybe_free(object_id, entry)

    # -- letting go --------------------------------------------------------------------------------------------------

    def dropped(self, object_id: bytes) -> None:
        """From ``ObjectRef.__del__``, in any thread at any moment: only take note."""
        self._dropped.append(object_id)
        if len(self._dropped) == 1:
            self._wake()

    def future(self, ref: ObjectRef) -> Future[Any]:
        """A future that gets the value."""
        return self._future(ref)

    def sweep(self) -> None:
        """Act on the references that were dropped since the last time."""
        while self._dropped:
            object_id = self._dropped.popleft()
            entry = self.entries.get(object_id)
            if entry is None:
                continue
            entry.local -= 1
            if entry.local:
                continue
            if owner_of(object_id) == self.me:
                self._maybe_free(object_id, entry)
            else:
                del self.entries[object_id]
                if entry.claimed and entry.payload is not None:
                    self._free(entry.payload)
                elif entry.credits:
                    self._post(owner_of(object_id), ("credit", object_id, self.me, -entry.credits))

    def _maybe_free(self, object_id: bytes, entry: Entry) -> None:
        if entry.local or entry.holders or owner_of(object_id) != self.me:
            return
        del self.entries[object_id]
        if entry.payload is not None:
            self._free(entry.payload)
        self._released(object_id)

    def is_gone(self, process: int) -> bool:
        """Whether a process is known to be dead."""
        return process in self._gone

    def peer_gone(self, process: int) -> None:
        """A process died: its credits are void, its values that are not here are lost."""
        self._gone.add(process)
        for object_id, entry in list(self.entries.items()):
            if owner_of(object_id) == self.me:
                if entry.holders.pop(process, None) is not None:
                    self._maybe_free(object_id, entry)
            elif owner_of(object_id) == process and entry.payload is None:
                self.resolve(object_id, self._lost_payload(object_id), [])

    def claim_extents(self, process: int) -> list[int]:
        """Make this process the home of extents that a dead one leaves behind; returns them, once per value.

        Those are what the dead process owned and this one has a reference to, and what this one owns and lies in
        extents whose home was the dead process. Called once for each death, after `peer_gone`.
        """
        claimed: list[int] = []
        for object_id, entry in self.entries.items():
            if entry.payload is None or entry.payload[0] != "stored":
                continue
            owner = owner_of(object_id)
            if owner == process or (owner == self.me and entry.payload[1] == process):
                entry.claimed |= owner == process
                entry.payload = stored(self.me, *entry.payload[2:])
                claimed += entry.payload[2]
        return claimed
