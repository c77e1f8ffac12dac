"""Who holds which resources: told when asked, never waited for, since everything runs in one process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rlray.core.exceptions import RayError
from rlray.core.resources import UNIT, Shape, amounts, describe, fits

if TYPE_CHECKING:
    from threading import Lock


class Grant:
    """What a running task, or an actor until its end, has been given."""

    __slots__ = ("gpus", "lent", "over", "request")

    def __init__(self, request: Shape, gpus: Sequence[str]) -> None:
        self.request = request
        self.gpus = gpus
        self.lent = 0  # how many calls of others the holder waits for
        self.over = False


class Ledger:
    """Free amounts by name, and by GPU. They may fall below zero: what is asked for is granted at once, then shared."""

    def __init__(self, total: Shape, gpus: Sequence[str], lock: Lock) -> None:
        self._total = total
        self._free = dict(total)
        self._gpus = dict.fromkeys(gpus, UNIT)
        self._lock = lock

    def check(self, request: Shape, error: type[RayError], what: str) -> None:
        """Raise ``error`` if this machine can never meet the request."""
        if request and not fits(request, dict(self._total)):
            raise error(
                f"{what} asks for {describe(request)}, but the cluster has {describe(self._total)} in all; "
                "ask for less, or give init() more"
            )

    def take(self, request: Shape) -> Grant:
        """Grant a request."""
        with self._lock:
            wanted = dict(request).get("GPU", 0)
            gpus = self._pick(wanted) if wanted else []
            self._add(request, -1)
            for gpu in gpus:
                self._gpus[gpu] -= min(wanted, UNIT)
        return Grant(request, gpus)

    def _pick(self, wanted: int) -> list[str]:
        """Of whole GPUs the freest, for a fraction the fullest that still has room."""
        if wanted >= UNIT:
            return sorted(self._gpus, key=lambda gpu: -self._gpus[gpu])[: wanted // UNIT]
        room = [gpu for gpu, left in self._gpus.items() if left >= wanted]
        return (
            [min(room, key=lambda gpu: self._gpus[gpu])] if room else [max(self._gpus, key=lambda gpu: self._gpus[gpu])]
        )

    def give_back(self, grant: Grant) -> None:
        """End a grant; doing so twice is harmless."""
        with self._lock:
            if not grant.over:
                grant.over = True
                self._add(tuple(item for item in grant.request if not (grant.lent and item[0] == "CPU")), 1)
                for gpu in grant.gpus:
                    self._gpus[gpu] += min(dict(grant.request)["GPU"], UNIT)

    @contextmanager
    def lending(self, grant: Grant | None) -> Iterator[None]:
        """The holder waits for others, and lends them its CPUs meanwhile."""
        if grant is None:
            yield
            return
        self._lend(grant, 1)
        try:
            yield
        finally:
            self._lend(grant, -1)

    def _lend(self, grant: Grant, change: int) -> None:
        with self._lock:
            before = grant.lent > 0
            grant.lent += change
            if before != (grant.lent > 0) and not grant.over:
                self._add(tuple(item for item in grant.request if item[0] == "CPU"), change)

    def _add(self, request: Shape, sign: int) -> None:
        for name, parts in request:
            self._free[name] += sign * parts

    def amounts(self) -> tuple[dict[str, float], dict[str, float]]:
        """All there is, and what of it is free."""
        with self._lock:
            return amounts(self._total), {name: max(0, parts) / UNIT for name, parts in self._free.items()}
