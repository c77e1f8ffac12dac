"""Which values a process owns, reads and keeps room for, as it tells whoever looks in. Plain data only."""

from __future__ import annotations

import heapq
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlray.core.local.references import Entry, task_of
from rlray.core.local.sieve import Sieve
from rlray.core.state import Filter

if TYPE_CHECKING:
    from rlray.core.local.client import Client

_MOST_MAKERS = 4_096  # lines, functions and methods whose values are counted apart
_OTHERS = "(other makers)"
_ALL = sys.maxsize


def holdings(client: Client, limit: int, filters: Sequence[Filter] = ()) -> dict[str, Any]:
    """The largest values that a process owns, all that it owns in sum, and what it holds of others.

    Called under the loop's lock. A million values take less than a second.
    """
    client.references.sweep()
    entries, values = client.references.entries, client.values
    sieve = Sieve(_FIELDS, filters, limit)
    owned, borrowed = _Largest(sieve.limit), _Largest(sieve.limit)
    totals: dict[tuple[str, str], list[int]] = {}
    for entry in entries.values():
        payload = entry.payload
        if payload is None and entry.released is not None and entry.owned:
            continue  # it stands for an actor, or for the reader of a generator
        where, size = where_and_size(entry)
        if entry.owned:
            key = (_maker(entry), where)
            total = totals.get(key)
            if total is None:
                key = key if len(totals) < _MOST_MAKERS else (_OTHERS, where)
                total = totals.setdefault(key, [0, 0])
            total[0] += 1
            total[1] += size
            if size > owned.least and (not filters or sieve(entry)):
                owned.add(size, entry.id)
        elif where == "memory" or where == "disk":
            borrowed.add(size, entry.id)  # of what they borrow, whoever owns it decides
    read = [entries[one] for one in values.read_here() if one in entries]
    return {
        "owned": [_owned(client, entries[one]) for one in owned],
        "totals": [(*key, *total) for key, total in totals.items()],
        "borrowed": [(one, entries[one].credits, values.is_read(one)) for one in borrowed],
        "read": sum(where_and_size(entry)[1] for entry in read),
        "warm": values.extents.warm_bytes,
        "arrays": values.made_bytes,
    }


class _Largest:
    """The largest of many, at most so many."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._heap: list[tuple[int, bytes]] = []
        self.least = -1 if limit else _ALL  # what is not larger is not among them

    def add(self, size: int, object_id: bytes) -> None:
        if size <= self.least:
            return
        if len(self._heap) < self._limit:
            heapq.heappush(self._heap, (size, object_id))
        else:
            heapq.heapreplace(self._heap, (size, object_id))
        if len(self._heap) == self._limit:
            self.least = self._heap[0][0]

    def __iter__(self) -> Iterator[bytes]:
        return (object_id for _, object_id in sorted(self._heap, reverse=True))


def _owned(client: Client, entry: Entry) -> dict[str, Any]:
    where, size = where_and_size(entry)
    return {
        "id": entry.id,
        "size": size,
        "where": where,
        "maker": _maker(entry),
        "task": task_of(entry.id),
        "local": entry.local,
        "holders": entry.held_by(),
        "in_calls": not entry.movable,
        "read": client.values.is_read(entry.id),
    }


def _maker(entry: Entry) -> str:
    """What has made, or makes, a value, where that is known."""
    return entry.maker or (entry.task.spec.name if entry.task is not None else "")


def where_and_size(entry: Entry) -> tuple[str, int]:
    """Where a value is, and how many bytes it takes there."""
    payload = entry.payload
    if payload is None:
        return "pending", 0
    kind = payload[0]
    if kind == "value" or kind == "end":
        return "message", sys.getsizeof(payload[1])
    if kind == "inline":
        return "message", len(payload[1]) + sum(map(len, payload[2]))
    if kind == "stored":
        return "memory", sum(part[1] for part in payload[3] if not isinstance(part, bytes))
    if kind == "spilled":
        return "disk", sum(part[1] for part in payload[2] if not isinstance(part, bytes))
    return "error", len(payload[1])


_FIELDS: Mapping[str, Callable[[Entry], object]] = {
    "object_id": lambda entry: entry.id.hex(),
    "object_size": lambda entry: where_and_size(entry)[1],
    "where": lambda entry: where_and_size(entry)[0],
    "call_site": _maker,
}
