"""What the node does when the store is full: asks for unused extents, then one process after the other to spill."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from rlray.core.local.store import Extents
from rlray.core.local.wire import Message


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
        self._next: deque[int] = deque()  # who is asked after it
        self._moved = 0  # bytes that went to disk since the start
        self._kept: dict[int, str] = {}  # client -> what it could not move

    def refused(self, client: int, size: int) -> tuple[int, int, list[str]]:
        """There is no room for ``size`` bytes; returns (bytes spilled so far, bytes taken, what others keep in memory).

        The client is to move its own values itself.
        """
        self._waiting[client] = size
        others = [other for other in self._clients() if other != client]
        for other in others:
            self._send(other, ("short",))
        if self._asked is None:
            self._next = deque(others)
            self._ask()
        kept = [f"{self._describe(who)}: {what}" for who, what in sorted(self._kept.items()) if what and who != client]
        return self._moved, self._extents.used, kept

    def answered(self, client: int, moved: int, kept: str) -> None:
        """A client that was asked has moved what it could."""
        self._moved += moved
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
                self._asked = client
                self._send(client, ("spill", max(self._waiting.values())))
                return
