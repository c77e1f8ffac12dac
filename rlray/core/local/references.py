"""Who holds which value: reference counts across processes, without sockets.

The process that asked for a value owns it. Every message that carries a reference carries one credit for it: the
sender books it with the owner in the receiver's name; the receiver gives all its credits back when its last local
reference goes. The owner frees a value when it has no local reference and no process holds a credit.

Bookings and returns of one process reach the owner in order, those of different processes do not, so a count may be
below zero for a moment: it is kept per process, and only an empty table means that nobody holds the value.

A process may die after it has booked a credit for another, and before the message with the reference has left. So what
a third process has booked is counted apart, by who booked it, on both sides. When that one is dead, each holder books
what it did get in its own name (`stand_in`), and once all processes have done so, the owner strikes out the rest
(`settled`).
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rlray.core.exceptions import ObjectLostError, OwnerDiedError
from rlray.core.local.store import Part
from rlray.core.local.wire import Message
from rlray.core.refs import ObjectRef
from rlray.core.serialization import dumps_error

if TYPE_CHECKING:
    from concurrent.futures import Future

Payload = tuple[Any, ...]
"""Where a value is: ``("value", immutable object)``, ``("inline", pickle, [buffers])``, ``("stored", home, extents,
parts)``, ``("spilled", path, parts)`` or ``("error", bytes)``. ``home`` is the process that is told when the value is
gone, the first of ``parts`` is the pickle. ``("item", pickle, [buffers])`` stands for arguments: one, and no others.
"""

Holder = int | tuple[int, int]
"""Who holds a credit: a process, or (process, who booked it) if that was neither the owner nor itself."""

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


class Numbers:
    """A set of process numbers, a bit each: one that grows with every death must stay small."""

    def __init__(self) -> None:
        self._bits = bytearray()

    def add(self, number: int) -> None:
        """Put a number in."""
        at, bit = divmod(number, 8)
        if at >= len(self._bits):
            self._bits.extend(bytes(at + 1 - len(self._bits)))
        self._bits[at] |= 1 << bit

    def __contains__(self, number: int) -> bool:
        at, bit = divmod(number, 8)
        return at < len(self._bits) and bool(self._bits[at] >> bit & 1)


class Entry:
    """What this process knows of a value."""

    __slots__ = (
        "claimed",  # borrower's: its owner died, and the extent is now this process's to free
        "credits",  # borrower's: given back with the last local reference; those that the owner has booked, or we
        "fetching",  # borrower's: the owner has been asked
        "holders",  # owner's: credits by process, or by (process, who booked them); None: nobody's
        "id",
        "inner",  # references inside the value
        "lineage",  # owner's: how the value can be made again
        "local",  # `LocalRef`s in this process: one, or more while dropped ones have not been noticed
        "maker",  # owner's: the task that made a value (not of immutable ones), or the line that put a large one
        "movable",  # owner's: the payload stands nowhere else, so the value may go to disk
        "owned",
        "payload",  # None: not there yet
        "ref",  # weak, to the reference of this process
        "released",  # called when nobody, or none of this borrower's references, holds the value any more
        "task",  # owner's: what is making the value, or can make it again
        "vouched",  # borrower's: credits that others have booked, by who did; None: none
        "waiting",  # called once when the payload is there; None: nobody waits
    )

    def __init__(self, object_id: bytes, owned: bool) -> None:
        self.id = object_id
        self.owned = owned
        self.local = 0
        self.ref: weakref.ref[LocalRef] | None = None
        self.payload: Payload | None = None
        self.inner: Sequence[ObjectRef] = ()
        self.waiting: list[Callable[[], None]] | None = None
        self.holders: dict[Holder, int] | None = None
        self.credits = 0
        self.vouched: dict[int, int] | None = None
        self.fetching = False
        self.claimed = False
        self.movable = True
        self.released: Callable[[], None] | None = None
        self.task: Any = None
        self.lineage: Any = None
        self.maker = ""

    def __str__(self) -> str:
        if not self.maker:
            return f"the value of ObjectRef({self.id.hex()})"
        return f"a value {self.maker}" if " at " in self.maker else f"a value made by {self.maker}"

    def held_by(self) -> dict[int, int]:
        """Credits by the process that holds them, whoever has booked them."""
        found: dict[int, int] = {}
        for key, count in (self.holders or {}).items():
            holder = key if isinstance(key, int) else key[0]
            found[holder] = found.get(holder, 0) + count
        return found


class LocalRef(ObjectRef):
    """A reference of the embedded engine: it leads straight to what is known of the value."""

    __slots__ = ("entry",)

    _owner: References

    def __init__(self, entry: Entry, owner: References) -> None:
        self._id = entry.id
        self._owner = owner
        self.entry = entry

    def __del__(self) -> None:
        # In any thread at any moment: only take note. References.sweep does the rest.
        owner = self._owner
        owner.dropped.append(self.entry)
        if not owner.noted:
            owner.noted = True
            owner.wake()


class References:
    """The values that one process owns or borrows. All methods are called under the loop's lock."""

    def __init__(
        self,
        me: int,
        post: Callable[[int, Message], None],
        free: Callable[[Payload], None],
        wake: Callable[[], None],
        future: Callable[[ObjectRef], Future[Any]],
    ) -> None:
        self.me = me
        self.entries: dict[bytes, Entry] = {}
        self.dropped: deque[Entry] = deque()
        self.noted = False  # there are some, and `wake` was called
        self.wake = wake
        self.failures = 0  # errors that have arrived so far
        self._post, self._free = post, free
        self._future = future
        self._prefix = me.to_bytes(4, "big")
        self._count = 0
        self._gone = Numbers()
        self._struck = Numbers()  # those of which nothing is in the books any more

    # -- making ------------------------------------------------------------------------------------------------------

    def new_task_id(self) -> bytes:
        """An id for a task of this process; its results are named after it."""
        self._count += 1
        return self._prefix + self._count.to_bytes(6, "big")

    def own(self, object_id: bytes) -> LocalRef:
        """A value of this process that will be."""
        self.entries[object_id] = entry = Entry(object_id, True)
        return self._refer(entry)

    def own_put(self) -> LocalRef:
        """A value that this process is about to store."""
        return self.own(self.new_task_id() + _PUT_INDEX)

    def _refer(self, entry: Entry) -> LocalRef:
        ref = LocalRef(entry, self)
        entry.ref = weakref.ref(ref)
        entry.local += 1
        return ref

    def entry(self, ref: ObjectRef) -> Entry:
        """What is known of the value of ``ref``. Raises ValueError for a reference of another run."""
        if ref._owner is not self:
            raise ValueError(
                f"{ref!r} belongs to a run that has ended, so that its value is gone, or to the process that this one "
                "was forked from: get() what a forked process needs before the fork"
            )
        return ref.entry  # type: ignore[attr-defined, no-any-return]

    def adopt(self, object_id: bytes) -> LocalRef:
        """The reference of this process for the value."""
        entry = self.entries.get(object_id)
        if entry is None:
            owner = owner_of(object_id)
            entry = self.entries[object_id] = Entry(object_id, owner == self.me)
            if entry.owned or owner in self._gone:
                entry.payload = self._lost_payload(object_id)
        elif entry.ref is not None and (ref := entry.ref()) is not None:
            return ref
        return self._refer(entry)

    def _lost_payload(self, object_id: bytes) -> Payload:
        if owner_of(object_id) == self.me:
            return ("error", dumps_error(ObjectLostError(f"the value of {object_id.hex()} was freed already")))
        return ("error", dumps_error(OwnerDiedError(f"the process that owned {object_id.hex()} died")))

    def shared(self, entry: Entry) -> Payload | None:
        """The payload for others: what a dead process owned is lost for them, as nobody counts who reads it."""
        if entry.owned or owner_of(entry.id) not in self._gone:
            return entry.payload
        return self._lost_payload(entry.id)

    def resolve(self, entry: Entry, payload: Payload, inner: Sequence[ObjectRef] = ()) -> None:
        """The value is there. If nobody wants it any more it is freed at once."""
        if entry.payload is not None:
            if entry.owned:
                self._free(payload)
            return
        entry.payload, entry.inner = payload, inner
        if payload[0] == "error":
            self.failures += 1
        if entry.waiting is not None:
            waiting, entry.waiting = entry.waiting, None
            for call in waiting:
                call()
        if not entry.local:
            self._maybe_free(entry)

    def when_ready(self, entry: Entry, call: Callable[[], None]) -> bool:
        """Call once the payload is there; True if it is there now (then ``call`` is not called)."""
        if entry.payload is not None:
            return True
        if entry.waiting is None:
            entry.waiting = [call]
        else:
            entry.waiting.append(call)
        self.fetch(entry)
        return False

    def revive(self, entry: Entry) -> None:
        """A value of this process was lost, or freed, and is about to be made again."""
        self.entries[entry.id] = entry
        entry.payload = None

    def fetch(self, entry: Entry) -> None:
        """Ask the owner for a value that is not there, once."""
        if not entry.owned and not entry.fetching:
            entry.fetching = True
            self._post(owner_of(entry.id), ("fetch", entry.id))

    def forget_waiting(self, entries: Iterable[Entry], call: Callable[[], None]) -> None:
        """Undo `when_ready` for those that are not there yet."""
        for entry in entries:
            if entry.waiting is not None and call in entry.waiting:
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
            if not self.when_ready(self.entry(ref), one):
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
                if to != self.me:  # `receive` keeps no count of what is our own
                    self.credit(object_id, to, 1)
            elif owner != to:
                self._post(owner, ("credit", object_id, to, 1, self.me))
        return ids

    def receive(self, ids: Iterable[bytes], sender: int) -> list[LocalRef]:
        """Take the references of a message that has arrived from ``sender``, one credit each."""
        refs = []
        for object_id in ids:
            ref = self.adopt(object_id)
            refs.append(ref)
            entry = ref.entry
            if entry.owned:
                continue
            if owner_of(object_id) == sender:
                entry.credits += 1
            else:
                if entry.vouched is None:
                    entry.vouched = {}
                entry.vouched[sender] = entry.vouched.get(sender, 0) + 1
        return refs

    def claim(self, ids: Iterable[bytes]) -> list[LocalRef]:
        """References to values that somebody surely keeps alive: this process books its own credits."""
        refs = []
        for object_id in ids:
            ref = self.adopt(object_id)
            refs.append(ref)
            if not ref.entry.owned:
                ref.entry.credits += 1
                self._post(owner_of(object_id), ("credit", object_id, self.me, 1))
        return refs

    def credit(self, object_id: bytes, holder: int, change: int, booker: int | None = None) -> None:
        """At the owner: ``holder`` got or gave back credits, which ``booker``, a third process, has booked or had."""
        entry = self.entries.get(object_id)
        if entry is None or holder in self._struck or (booker is not None and booker in self._struck):
            return
        if entry.holders is None:
            entry.holders = {}
        key = holder if booker is None else (holder, booker)
        count = entry.holders.get(key, 0) + change
        if count:
            entry.holders[key] = count
        else:
            entry.holders.pop(key, None)
            self._maybe_free(entry)

    # -- letting go --------------------------------------------------------------------------------------------------

    def future(self, ref: ObjectRef) -> Future[Any]:
        """A future that gets the value."""
        return self._future(ref)

    def sweep(self) -> None:
        """Act on the references that were dropped since the last time."""
        self.noted = False  # before the first is taken: what comes from here on calls `wake` again
        dropped = self.dropped
        while dropped:
            entry = dropped.popleft()
            entry.local -= 1
            if entry.local:
                continue
            if entry.owned:
                self._maybe_free(entry)
                continue
            del self.entries[entry.id]
            if entry.released is not None:
                entry.released()
            if entry.claimed and entry.payload is not None:
                self._free(entry.payload)
            else:
                self._give_back(entry)

    def _give_back(self, entry: Entry) -> None:
        owner = owner_of(entry.id)
        if owner in self._gone:
            return
        if entry.credits:
            self._post(owner, ("credit", entry.id, self.me, -entry.credits))
        if entry.vouched is not None:
            for booker, count in entry.vouched.items():
                self._post(owner, ("credit", entry.id, self.me, -count, booker))

    def _maybe_free(self, entry: Entry) -> None:
        if entry.local or entry.holders or not entry.owned:
            return
        if entry.payload is None:
            if entry.released is None:
                return  # its task has not ended yet; `resolve` looks again
        elif entry.payload[0] in ("stored", "spilled"):
            self._free(entry.payload)
        del self.entries[entry.id]
        entry.payload, entry.inner = None, ()  # the lineage of other values may remember the entry
        if entry.released is not None:
            entry.released()

    def needed(self) -> bool:
        """Whether anybody else waits for, or holds, a value that this process owns."""
        entries = self.entries.values()
        return any(one.owned and (one.holders or (one.payload is None and one.released is None)) for one in entries)

    def is_gone(self, process: int) -> bool:
        """Whether a process is known to be dead."""
        return process in self._gone

    def peer_gone(self, process: int) -> None:
        """A process died: its values that are not here are lost. What it held is, until `settled`."""
        self._gone.add(process)
        for object_id, entry in list(self.entries.items()):
            if not entry.owned and entry.payload is None and owner_of(object_id) == process:
                self.resolve(entry, self._lost_payload(object_id))

    def stand_in(self, process: int) -> None:
        """All that a dead process has sent here has arrived: hold what it had booked in this one's own name."""
        for entry in self.entries.values():
            if entry.vouched is not None and (count := entry.vouched.pop(process, 0)):
                entry.credits += count
                self._post(owner_of(entry.id), ("credit", entry.id, self.me, count))

    def has_booked(self, process: int) -> bool:
        """Whether anything is in the name of a process, as holder or booker."""
        return any(True for _ in self._in_name_of(process))

    def settled(self, process: int) -> None:
        """Every process stands in for the dead one: what is still in its name is void."""
        self._struck.add(process)
        for entry, keys in list(self._in_name_of(process)):
            assert entry.holders is not None
            for key in keys:
                del entry.holders[key]
            self._maybe_free(entry)

    def _in_name_of(self, process: int) -> Iterator[tuple[Entry, list[Holder]]]:
        for entry in self.entries.values():
            if entry.holders:
                keys = [key for key in entry.holders if key == process or (type(key) is tuple and process in key)]
                if keys:
                    yield entry, keys

    def claim_extents(self, process: int) -> list[int]:
        """Make this process the home of extents that a dead one leaves behind; returns them, once per value.

        Those are what the dead process owned and this one has a reference to, and what this one owns and lies in
        extents whose home was the dead process. Called once for each death, after `peer_gone`.
        """
        claimed: list[int] = []
        for object_id, entry in self.entries.items():
            if entry.payload is None or entry.payload[0] != "stored":
                continue
            inherited = owner_of(object_id) == process
            if inherited or (entry.owned and entry.payload[1] == process):
                entry.claimed |= inherited
                entry.payload = stored(self.me, *entry.payload[2:])
                claimed += entry.payload[2]
        return claimed
