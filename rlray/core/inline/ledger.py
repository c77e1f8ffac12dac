"""Who holds which resources: told when asked, never waited for, since everything runs in one process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rlray.core.resources import UNIT, Shape, amounts, fits

if TYPE_CHECKING:
    from threading import Lock


class Grant:
    """What a running task, an actor until its end, or a bundle of a placement group has been given."""

    __slots__ = ("gpus", "home", "lent", "over", "resources")

    def __init__(self, home: Ledger, resources: Shape, gpus: Sequence[str]) -> None:
        self.home = home
        self.resources = resources
        self.gpus = gpus
        self.lent = 0  # how many calls of others the holder waits for
        self.over = False

    def give_back(self) -> None:
        """End the grant; doing so twice is harmless."""
        self.home.give_back(self)


class Ledger:
    """Free amounts by name, and by GPU: those of the machine, or of a bundle.

    They may fall below zero: what is asked for is granted at once, then shared.
    """

    def __init__(self, total: Shape, gpus: Sequence[str], lock: Lock) -> None:
        self.total = total
        self._free = dict(total)
        self._gpus = dict.fromkeys(gpus, UNIT)
        self._lock = lock

    def has_room(self, resources: Shape) -> bool:
        """Whether so much is free."""
        with self._lock:
            return fits(resources, self._free)

    def take(self, resources: Shape) -> Grant:
        """Grant what is asked for."""
        with self._lock:
            wanted = dict(resources).get("GPU", 0)
            gpus = self._pick(wanted) if wanted else []
            self._add(resources, -1)
            for gpu in gpus:
                self._gpus[gpu] -= min(wanted, UNIT)
        return Grant(self, resources, gpus)

    def _pick(self, wanted: int) -> list[str]:
        """Of whole GPUs the freest, for a fraction the fullest that still has room."""
        if wanted >= UNIT:
            return sorted(self._gpus, key=lambda gpu: -self._gpus[gpu])[: wanted // UNIT]
        room = [gpu for gpu, left in self._gpus.items() if left >= wanted]
        return (
            [min(room, key=lambda gpu: self._gpus[gpu])] if room else [max(self._gpus, key=lambda gpu: self._gpus[gpu])]
        )

    def give_back(self, grant: Grant) -> None:
        """End a grant of this ledger; doing so twice is harmless."""
        with self._lock:
            if not grant.over:
                grant.over = True
                self._add(tuple(item for item in grant.resources if not (grant.lent and item[0] == "CPU")), 1)
                for gpu in grant.gpus:
                    self._gpus[gpu] += min(dict(grant.resources)["GPU"], UNIT)

    def _lend(self, grant: Grant, change: int) -> None:
        with self._lock:
            before = grant.lent > 0
            grant.lent += change
            if before != (grant.lent > 0) and not grant.over:
                self._add(tuple(item for item in grant.resources if item[0] == "CPU"), change)

    def _add(self, resources: Shape, sign: int) -> None:
        for name, parts in resources:
            self._free[name] += sign * parts

    def amounts(self) -> tuple[dict[str, float], dict[str, float]]:
        """All there is, and what of it is free."""
        with self._lock:
            return amounts(self.total), {name: max(0, parts) / UNIT for name, parts in self._free.items()}


@contextmanager
def lending(grant: Grant | None) -> Iterator[None]:
    """The holder of ``grant`` waits for others, and lends them its CPUs meanwhile."""
    if grant is None:
        yield
        return
    grant.home._lend(grant, 1)
    try:
        yield
    finally:
        grant.home._lend(grant, -1)
