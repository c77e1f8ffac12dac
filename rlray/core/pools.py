"""Amounts that can be taken and given back: those of the node, and those of each bundle of a placement group."""

from __future__ import annotations

from collections.abc import Mapping

from rlray.core.resources import UNIT, Shape, fits

Gpus = tuple[tuple[str, int], ...]
"""GPUs and how much of each, in 1/10,000."""


class Pool:
    """What is free of a total. ``free`` may be below zero for a while, where workers that waited go on."""

    def __init__(self, total: Shape, gpus: Mapping[str, int]) -> None:
        self.total = dict(total)
        self.free = dict(total)
        self.gpus = dict(gpus)  # what is free of each

    def take(self, request: Shape) -> Gpus | None:
        """Reserve the resources; the GPUs chosen, or None if something is missing."""
        if not fits(request, self.free):
            return None
        chosen = self._choose_gpus(dict(request).get("GPU", 0))
        if chosen is not None:
            self.add(request, chosen, -1)
        return chosen

    def _choose_gpus(self, wanted: int) -> Gpus | None:
        if wanted == 0:
            return ()
        if wanted < UNIT:  # the fullest GPU that still has room
            room = [(left, name) for name, left in self.gpus.items() if left >= wanted]
            return ((min(room)[1], wanted),) if room else None
        whole = [name for name, left in self.gpus.items() if left == UNIT]
        if len(whole) * UNIT < wanted:
            return None
        return tuple((name, UNIT) for name in whole[: wanted // UNIT])

    def add(self, amounts: Shape, gpus: Gpus, sign: int = 1) -> None:
        """Give back what was taken."""
        for name, parts in amounts:
            self.free[name] += sign * parts
        for name, parts in gpus:
            self.gpus[name] += sign * parts


def take_together(pool: Pool, bundles: tuple[Shape, ...]) -> list[Pool] | None:
    """Move every bundle from ``pool`` into a pool of its own, or none of them if they do not all fit."""
    taken: list[tuple[Shape, Gpus]] = []
    for bundle in bundles:
        gpus = pool.take(bundle)
        if gpus is None:
            for before in taken:
                pool.add(*before)
            return None
        taken.append((bundle, gpus))
    return [Pool(bundle, dict(gpus)) for bundle, gpus in taken]
