"""A queue whose items wait for different things."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Kind = TypeVar("Kind", bound=Hashable)


class Waiting(Generic[Kind]):
    """Items in the order they came, by kind: all of a kind need the same, so if one cannot be served none can.

    A round of `serve` takes time that grows with the number of kinds and of items served, not of items that wait.
    """

    def __init__(self) -> None:
        self._kinds: dict[Kind, OrderedDict[bytes, int]] = {}  # item -> its place in the order
        self._count = 0

    def __bool__(self) -> bool:
        return bool(self._kinds)

    def add(self, kind: Kind, item: bytes) -> None:
        """Put an item at the end."""
        self._count += 1
        self._kinds.setdefault(kind, OrderedDict())[item] = self._count

    def discard(self, kind: Kind, item: bytes) -> None:
        """Take an item out, if it waits."""
        queue = self._kinds.get(kind)
        if queue is not None:
            queue.pop(item, None)
            if not queue:
                del self._kinds[kind]

    def of_kinds(self, wanted: Callable[[Kind], bool]) -> list[bytes]:
        """The items of the kinds that are wanted."""
        return [item for kind, queue in self._kinds.items() if wanted(kind) for item in queue]

    def serve(self, place: Callable[[bytes], bool]) -> None:
        """Offer items, first come first; one that ``place`` returns False for stays, and its whole kind with it."""
        heads = [(next(iter(queue.values())), kind) for kind, queue in self._kinds.items()]
        heads.sort(key=lambda head: head[0])  # a sorted list is a heap; places differ, so kinds are never compared
        while heads:
            _, kind = heapq.heappop(heads)
            queue = self._kinds[kind]
            item = next(iter(queue))
            if not place(item):
                continue
            self.discard(kind, item)
            if queue:
                heapq.heappush(heads, (next(iter(queue.values())), kind))
