"""Why the store stays full: what each process counts of its values that cannot move, and all of it in words."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

_MOST_HOLDERS = 5
_MOST_VALUES = 3

Way = Literal["arrays", "references", "calls", "empty", "disk"]
"""How a process keeps a value in memory; see `_WORDS`."""

_WORDS: Mapping[Way, str] = {
    "arrays": "in arrays that it has read",
    "references": "behind references that it holds",
    "calls": "in arguments of its calls under way",
    "empty": "in arrays of empty()",
    "disk": "that the disk does not take",
}


class Kept(NamedTuple):
    """What of the values that one process owns, and of its arrays of `empty`, cannot go to disk, and who keeps it."""

    ways: Mapping[tuple[int, Way], int]  # bytes by holder and way; a value counts with each of its holders
    largest: list[tuple[int, str, list[tuple[int, Way]]]]  # bytes, what made the value, who keeps it
    failure: str  # of the disk, in words


def kept(values: list[tuple[int, str, list[tuple[int, Way]]]], empty: tuple[int, int], failure: str) -> Kept:
    """The sum of values that cannot move, as in `Kept.largest`, and of bytes ``empty`` as (process, bytes)."""
    ways: Counter[tuple[int, Way]] = Counter()
    for size, _, blockers in values:
        for blocker in blockers:
            ways[blocker] += size
    if empty[1]:
        ways[empty[0], "empty"] += empty[1]
    return Kept(dict(ways), heapq.nlargest(_MOST_VALUES, values), failure)


def complaint(size: int, used: int, capacity: int, reports: Mapping[int, Kept], describe: Callable[[int], str]) -> str:
    """Why there is no room for ``size`` bytes, from what the processes have counted, the largest holders first."""
    by_holder: dict[int, Counter[Way]] = {}
    for report in reports.values():
        for (holder, way), nbytes in report.ways.items():
            by_holder.setdefault(holder, Counter())[way] += nbytes
    order = sorted(by_holder, key=lambda holder: -by_holder[holder].total())
    holders = [f"{describe(holder)}: {_ways(by_holder[holder])}" for holder in order[:_MOST_HOLDERS]]
    if len(order) > _MOST_HOLDERS:
        holders.append(f"{len(order) - _MOST_HOLDERS} others with less")
    values = heapq.nlargest(_MOST_VALUES, (value for report in reports.values() for value in report.largest))
    failures = dict.fromkeys(report.failure for report in reports.values() if report.failure)
    said = [
        f"no room for {mb(size)} in the object store: {mb(used)} of {mb(capacity)} are taken and cannot go to disk",
        f"largest holders: {'; '.join(holders)}" if holders else "values are being written there at this moment",
        f"largest values: {'; '.join(_value(*value, describe) for value in values)}" if values else "",
        *failures,
        "drop references and arrays that are no longer needed (a small view keeps a whole array: copy it), or give "
        "init(object_store_memory=...) more bytes",
    ]
    return ". ".join(part if i == 0 else part[0].upper() + part[1:] for i, part in enumerate(filter(None, said)))


def _ways(ways: Mapping[Way, int]) -> str:
    return ", ".join(f"{mb(ways[way])} {words}" for way, words in _WORDS.items() if ways.get(way))


def _value(size: int, maker: str, blockers: list[tuple[int, Way]], describe: Callable[[int], str]) -> str:
    holders = ", ".join(dict.fromkeys(describe(holder) for holder, _ in blockers))
    made = maker if not maker or " at " in maker else f"made by {maker}"
    return f"{mb(size)} {made} (kept by {holders})" if made else f"{mb(size)} (kept by {holders})"


def mb(nbytes: int) -> str:
    """Bytes as people read them here."""
    return f"{nbytes / 1e6:.1f} MB"
