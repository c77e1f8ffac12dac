"""The node's side of the store's memory, without sockets: who holds what, who lacks some, and what the dead leave."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from rlray.core.local.complaint import Kept, complaint
from rlray.core.local.store import Extents
from rlray.core.local.wire import Message

_STUCK = 2.0  # seconds after which the next process is asked, too


class Memory:
    """Extents of all processes. Each method but `alloc` is for one kind of message of a client, or for its end."""

    def __init__(
        self,
        capacity: int,
        clients: Callable[[], Iterable[int]],
        send: Callable[[int, Message], None],
        describe: Callable[[int], str],
        settled: Callable[[int], None],
        give_back: Callable[[int, int], None],
    ) -> None:
        self.extents = Extents(capacity)
        self._give_back = give_back
        self._clients, self._all_settled = clients, settled
        self._shortage = Shortage(self.extents, clients, send, describe)
        self._unsettled: dict[int, set[int]] = {}  # dead process -> who has not said yet what of its memory is in use

    def alloc(self, client: int, size: int) -> tuple[Any, ...]:
        """The answer to a client that asks for ``size`` bytes: (id, offset), or what `Shortage.refused` says."""
        taken = self.extents.alloc(size, client)
        if taken is None:
            return self._shortage.refused(client, size)
        if self.extents.resident > self.extents.capacity:  # other pages than those that are warm had to be taken
            self.trim()
        return taken

    def trim(self) -> None:
        """Give free pages back to the kernel."""
        for offset, size in self.extents.trim():
            self._give_back(offset, size)

    def free(self, client: int, extents: Iterable[int]) -> None:
        """A client does not hold these extents any longer."""
        freed = [self.extents.free(extent, client) for extent in extents]
        if any(freed):
            self._shortage.freed()

    def why_full(self, client: int, size: int, kept: Kept) -> str:
        """Why a client finds no room for ``size`` bytes, in words; ``kept`` is what it has counted itself."""
        return self._shortage.why(client, size, kept)

    def spilled(self, client: int, moved: int, kept: Kept) -> None:
        """A client that was asked to spill has done what it could."""
        self._shortage.answered(client, moved, kept)

    @property
    def spilled_bytes(self) -> int:
        """Bytes that went to disk since the start."""
        return self._shortage.moved

    def held(self) -> dict[int, int]:
        """Bytes of the store by the processes that hold them; some are held by several."""
        return self.extents.held()

    def waiting(self) -> dict[int, int]:
        """Clients that wait for room, and for how many bytes."""
        return self._shortage.waiting()

    def died(self, dead: int) -> None:
        """A process died, and all others are told. What it holds is kept until each has said what it uses of that."""
        self._unsettled[dead] = set(self._clients())
        for other in list(self._unsettled):
            self._settle(other, dead)
        self._shortage.gone(dead)

    def joined(self, client: int) -> list[int]:
        """A process has come; returns the dead that it must be told of, since not everybody has said what is in use."""
        for waiting_for in self._unsettled.values():
            waiting_for.add(client)
        return list(self._unsettled)

    def settled(self, client: int, dead: int, in_use: Iterable[int], lent: Iterable[int]) -> None:
        """``client`` has noticed the death of ``dead``: it still reads extents ``in_use``, and in the extents ``lent``
        of its own lie values of the dead, which others may read.
        """
        for extent in lent:
            self.extents.hold(extent, dead)
        for extent in in_use:
            self.extents.hold(extent, client)
        self._settle(dead, client)

    def _settle(self, dead: int, client: int) -> None:
        waiting_for = self._unsettled.get(dead)
        if waiting_for is None:
            return
        waiting_for.discard(client)
        if not waiting_for:
            del self._unsettled[dead]
            self.free(dead, self.extents.held_by(dead))
            self._all_settled(dead)


class Shortage:
    """Who lacks memory, and who is asked to make room. Who lacks it asks again when told that something was freed."""

    def __init__(
        self,
        extents: Extents,
        clients: Callable[[], Iterable[int]],
        send: Callable[[int, Message], None],
        describe: Callable[[int], str],
    ) -> None:
        self._extents, self._clients, self._send, self._describe = extents, clients, send, describe
        self._waiting: dict[int, int] = {}  # client -> bytes it was refused
        self._asked: int | None = None  # client that is spilling now
        self._asked_at = 0.0
        self._next: deque[int] = deque()  # who is asked after it
        self.moved = 0  # bytes that went to disk since the start
        self._kept: dict[int, Kept] = {}  # client -> what it could not move

    def refused(self, client: int, size: int) -> tuple[int]:
        """There is no room for ``size`` bytes; returns (bytes spilled so far,).

        The client is to move its own values itself.
        """
        self._waiting[client] = size
        others = [other for other in self._clients() if other != client]
        for other in others:
            self._send(other, ("short",))
        stuck = time.monotonic() > self._asked_at + _STUCK
        if self._asked is None or (stuck and not self._next):
            self._next = deque(others)
        if self._asked is None or stuck:
            self._ask()
        return (self.moved,)

    def why(self, client: int, size: int, kept: Kept) -> str:
        """Why there is no room for ``size`` bytes, in words."""
        reports = {**self._kept, client: kept}
        return complaint(size, self._extents.used, self._extents.capacity, reports, self._describe)

    def waiting(self) -> dict[int, int]:
        """Who waits for room, and for how many bytes."""
        return dict(self._waiting)

    def answered(self, client: int, moved: int, kept: Kept) -> None:
        """A client that was asked has moved what it could."""
        self.moved += moved
        self._kept[client] = kept
        if client == self._asked:
            self._asked = None
            if self._waiting:
                self._ask()

    def freed(self) -> None:
        """Something was freed: those who wait may try again."""
        waiting, self._waiting = self._waiting, {}
        for client in waiting:
            self._send(client, ("room",))

    def gone(self, client: int) -> None:
        """A client died."""
        self._waiting.pop(client, None)
        self._kept.pop(client, None)
        if client == self._asked:
            self._asked = None

    def _ask(self) -> None:
        living = set(self._clients())
        while self._next:
            client = self._next.popleft()
            if client in living:
                self._asked, self._asked_at = client, time.monotonic()
                self._send(client, ("spill", max(self._waiting.values())))
                return
