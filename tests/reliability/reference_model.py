"""The oracle of reference counting: a plain account of who holds which value, and of the memory that this needs.

Whoever holds a value says so by itself, with the `Record` of what it holds (reference_places.py). From
these holdings everything else is reachability over a graph that anybody can check by hand.
"""

from __future__ import annotations

import mmap
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

LARGE = 100_000  # bytes: larger values lie in the store
_ALIGN = 64


@dataclass(frozen=True)
class Record:
    """What is known of a value from its making on, wherever references to it go."""

    number: int
    sizes: tuple[int, ...]  # bytes of its arrays
    owner: int  # the process that owns it
    inner: tuple[Record, ...] = ()  # the values that it has references to
    memory: str = ""  # names the pages of an array of `rlray.empty`, which several values can lie in

    @property
    def pages(self) -> Mapping[str, int]:
        """The pages of the store that it takes, by name."""
        if sum(self.sizes) <= LARGE:
            return {}
        size = sum(-(-one // _ALIGN) * _ALIGN for one in self.sizes)
        return {self.memory or f"value {self.number}": -(-size // mmap.PAGESIZE) * mmap.PAGESIZE}


@dataclass(frozen=True)
class Holding:
    """Something that somebody holds: a reference, a view of the value as `get` gave it, or an array of `empty`."""

    kind: Literal["ref", "view", "array"]
    record: Record


def needed(holdings: Iterable[Holding], dead: Collection[int]) -> tuple[Mapping[str, int], Mapping[str, int]]:
    """The pages that must be there, and those that may be there, by name.

    What a dead process owned may be there or lost, and with it what only it refers to: that depends on who had read it
    before. Whoever looks at a view has read it.
    """
    surely: dict[str, int] = {}
    perhaps: dict[str, int] = {}

    def follow(record: Record, read: bool, sure: bool) -> None:
        sure = sure and (read or record.owner not in dead)
        perhaps.update(record.pages)
        if sure:
            surely.update(record.pages)
        for one in record.inner:
            follow(one, False, sure)

    for holding in holdings:
        if holding.kind == "array":
            surely.update(holding.record.pages)
            perhaps.update(holding.record.pages)
        elif holding.kind == "ref" or holding.record.pages:  # a small value is a copy: it keeps nothing alive
            follow(holding.record, holding.kind == "view", True)
    return surely, perhaps
