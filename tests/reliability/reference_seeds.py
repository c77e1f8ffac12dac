"""From a seed to a program for reference_programs.py, and from a program that fails to a small one that still fails."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

from tests.reliability.reference_programs import KINDS, Step

SEATS = 4  # actors at most
_SLOTS = 8
_SIZES = ((100,), (4_000, 90_000), (120_000,), (300_000,), (1_000_000,), (700, 90_000, 64_001))
"""Bytes of arrays. Those of two large values, with the arrays of `empty`, differ by more than an eighth, or not at all:
pages that wait for the next value are used again for one that is smaller by less.
"""


def program(seed: int, length: int, deaths: bool) -> list[Step]:
    """A random program of about ``length`` steps; with ``deaths``, actors and workers are killed in it."""
    return _Writer(random.Random(seed), deaths).write(length)


class _Writer:
    def __init__(self, rng: random.Random, deaths: bool) -> None:
        self.rng, self.deaths = rng, deaths
        self.number = 0

    def write(self, length: int) -> list[Step]:
        rng = self.rng
        steps: list[Step] = [("seat", seat, rng.choice(sorted(KINDS)), ()) for seat in range(1, SEATS + 1)]
        while len(steps) < length:
            draw = rng.random()
            if draw < 0.12:
                steps.append(self.storm())
            elif draw < 0.20:
                steps.append(("fetch", self.actor(), self.slots(2)))
            elif draw < 0.24:
                steps.append(("seat", self.actor(), rng.choice(sorted(KINDS)), self.slots(3)))
            elif draw < 0.27:
                steps.append((rng.choice(["end", "kill"]) if self.deaths else "end", self.actor()))
            elif draw < 0.31:
                steps.append(("settle",))
            else:
                steps.append(self.do())
        return steps

    def storm(self) -> Step:
        steps = [self.do(calm=False) for _ in range(self.rng.randint(4, 16))]
        victim = self.actor() if self.deaths and self.rng.random() < 0.5 else 0
        return ("storm", steps, victim, round(self.rng.random() * 0.01, 4))

    def do(self, calm: bool = True) -> Step:
        """Something that one place does; if not ``calm``, nothing that takes long."""
        rng = self.rng
        place = rng.choice([0, self.actor(), self.actor()])
        makers = [self.put, self.put, self.call, self.call, self.stream, self.own, self.made]
        others = [self.drop, self.drop, self.drop, self.look, self.give, self.give, self.give_value, self.give_copy]
        rare = [self.capture, self.ask, self.read_on, self.check]
        rare += [self.failing] if calm else []
        draw = rng.random()
        chosen = rng.choice(makers if draw < 0.4 else others if draw < 0.85 else rare)
        return ("do", place, *chosen())

    # -- what a place does -------------------------------------------------------------------------------------------

    def actor(self) -> int:
        return self.rng.randint(1, SEATS)

    def slot(self) -> int:
        return self.rng.randrange(_SLOTS)

    def slots(self, most: int) -> tuple[int, ...]:
        return tuple(self.rng.sample(range(_SLOTS), self.rng.randint(1, most)))

    def new(self, count: int = 1) -> int:
        self.number += count
        return self.number - count + 1

    def sizes(self) -> tuple[int, ...]:
        return self.rng.choice(_SIZES)

    def inside(self) -> tuple[int, ...]:
        return self.slots(3) if self.rng.random() < 0.5 else ()

    def put(self) -> Step:
        return "put", self.slot(), self.new(), self.sizes(), self.inside()

    def made(self) -> Step:
        slots = self.slots(3)
        parts = tuple(self.rng.choice(["whole", "whole", "keep", "half"]) for _ in slots)
        return "put_made", slots, self.new(), self.rng.choice([400_000, 1_000_000]), parts

    def call(self) -> Step:
        slots = self.slots(3)
        how = self.rng.choice(["one", "several", "map"])
        return "call", slots, self.new(len(slots)), self.sizes(), self.inside(), how

    def stream(self) -> Step:
        slots = self.slots(3)
        take = self.rng.randint(0, len(slots) - 1)
        return "stream", slots, self.new(len(slots) + 1), self.sizes(), self.inside(), take, self.rng.random() < 0.5

    def own(self) -> Step:
        return "own", self.slot(), self.new(), self.sizes(), self.inside()

    def failing(self) -> Step:
        hows = ["raise", "raise once", "sleep", *(["die", "die once"] if self.deaths else [])]
        return "failing", self.slot(), self.new(), self.sizes(), self.inside(), self.rng.choice(hows)

    def drop(self) -> Step:
        return "drop", self.slots(3), self.rng.choice(["here", "here", "thread", "late", "cycle"])

    def look(self) -> Step:
        return "look", self.slot(), self.slot()

    def give(self) -> Step:
        return "give", self.slots(3), self.rng.randrange(_SLOTS - 3), self.actor()

    def give_value(self) -> Step:
        return "give_value", self.slot(), self.slot(), self.actor()

    def give_copy(self) -> Step:
        return "give_copy", self.slot(), self.slot(), self.actor()

    def capture(self) -> Step:
        return "capture", self.slot()

    def ask(self) -> Step:
        return "ask", self.slot()

    def read_on(self) -> Step:
        return "read_on", self.slot(), self.slot()

    def check(self) -> Step:
        return ("check",)


def shrink(steps: Sequence[Step], fails: Callable[[Sequence[Step]], bool], seconds: float) -> list[Step]:
    """The steps without those that a failure does not need, as far as ``seconds`` suffice."""
    steps = list(steps)
    deadline = time.monotonic() + seconds
    size = max(1, len(steps) // 2)
    while True:
        at = 0
        while at < len(steps):
            if time.monotonic() > deadline:
                return steps
            fewer = steps[:at] + steps[at + size :]
            if fewer and fails(fewer):
                steps = fewer
            else:
                at += size
        if size == 1:
            return steps
        size = max(1, size // 2)
