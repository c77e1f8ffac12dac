"""Where actors find room on a cluster whose nodes come and go: who looks for it, since when, and what there is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass

import rlray
from rlray import ObjectRef
from rlray.core import engine

NOTICE_SECONDS = 30.0
"""How long an actor may look for room, or take to start, before the run says so and no longer counts on it."""

PATIENCE_SECONDS = 600.0
"""How long a run waits without a learner, or without anybody who plays: new nodes may take minutes to start."""

POLL_SECONDS = 0.2
"""How often whoever waits for an actor to find room looks what else there is."""


def elastic() -> bool:
    """Whether nodes may come and go: an actor that finds no room now may find some later. On one machine none does."""
    return not engine.current().one_machine


def largest_node() -> float:
    """The CPUs of the largest node there is."""
    return max((node["Resources"].get("CPU", 0.0) for node in rlray.nodes() if node["Alive"]), default=0.0)


def asks(cpus: float, gpus: float = 0.0) -> str:
    """What an actor asks for, for people."""
    return f"{cpus:g} CPU" + (f" and {gpus:g} GPU" if gpus else "")


def room() -> str:
    """What the cluster has, and what of it is free, for people."""
    total, free = rlray.cluster_resources(), rlray.available_resources()
    nodes = sum(node["Alive"] for node in rlray.nodes())
    kinds = [kind for kind in ("CPU", "GPU") if kind == "CPU" or total.get(kind)]
    told = " and ".join(f"{total.get(kind, 0.0):g} {kind}, of which {free.get(kind, 0.0):g} are free" for kind in kinds)
    return f"the cluster has {nodes} node(s) with {told}"


class Seated:
    """An actor that can be asked where it is. The answer comes as soon as it has found room."""

    def where(self) -> str:
        """The id of its node."""
        return rlray.get_runtime_context().get_node_id()


@dataclass
class _Seeker:
    where: ObjectRef  # ready when it has found room, or died
    since: float
    told: bool = False


class Seekers:
    """Actors that look for room, by their numbers. Nobody needs to wait for them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._of: dict[int, _Seeker] = {}

    def __len__(self) -> int:
        return len(self._of)

    def __contains__(self, number: object) -> bool:
        return number in self._of

    def __iter__(self) -> Iterator[int]:
        return iter(self._of)

    def add(self, number: int, where: ObjectRef) -> None:
        """``number`` looks for room from now on, if it has not before; ``where`` is what `Seated.where` returned."""
        seeker = self._of.setdefault(number, _Seeker(where, self._clock()))
        seeker.where = where

    def clear(self) -> None:
        """Nobody looks for room any more."""
        self._of = {}

    def refs(self) -> Iterator[ObjectRef]:
        """References worth waiting for."""
        return (seeker.where for seeker in self._of.values())

    def answers(self, ready: Set[ObjectRef]) -> list[tuple[int, ObjectRef]]:
        """The numbers and references of those that are ready: they have found room, or have died."""
        return [(number, seeker.where) for number, seeker in self._of.items() if seeker.where in ready]

    def found(self, number: int) -> bool:
        """``number`` has found room, and looks for none any more; returns whether `late` had named it."""
        return self._of.pop(number).told

    @property
    def hopeful(self) -> bool:
        """Whether there is one that has not looked for long."""
        return any(self._age(seeker) < NOTICE_SECONDS for seeker in self._of.values())

    def late(self) -> list[int]:
        """Those that have looked for long, once it is clear who does; each is named once."""
        late = [number for number, one in self._of.items() if not one.told and not self.hopeful]
        for number in late:
            self._of[number].told = True
        return late

    def _age(self, seeker: _Seeker) -> float:
        return self._clock() - seeker.since
