"""Which transitions of a replay are drawn: all alike, or by priority (Schaul et al. 2016, arXiv 1511.05952)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rlray.algos.replay.sum_tree import SumTree

Slots = NDArray[np.int64]


@dataclass(frozen=True)
class Priorities:
    """How priorities become probabilities: P(i) = (p_i + floor)^alpha / sum_k (p_k + floor)^alpha (their eq. 1).

    Raises: ValueError where a number is out of range.
    """

    alpha: float = 0.6  # 0 draws uniformly, 1 in proportion
    floor: float = 1e-6  # so that no transition is out of reach

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must lie in 0 ... 1, got {self.alpha}")
        if not self.floor > 0:
            raise ValueError(f"floor must be more than 0, got {self.floor}")


class Drawing(Protocol):
    """Keeps up with which slots begin a transition that may be drawn, and draws from them."""

    def enter(self, slots: Slots, priority: NDArray[np.float32] | None) -> None:
        """These may be drawn from now on; ``priority`` is theirs, NaN where it is not known."""

    def leave(self, slots: Slots) -> None:
        """These may be drawn no longer."""

    def draw(self, count: int, held: int, rng: np.random.Generator) -> Slots:
        """``count`` slots out of the first ``held``, with replacement. At least one may be drawn."""

    def weigh(self, slots: Slots, eligible: int, beta: float, out: NDArray[np.float32]) -> None:
        """The weights in the loss of drawn ``slots``, of which ``eligible`` may be drawn in all."""

    def update(self, slots: Slots, priority: NDArray[np.float64]) -> None:
        """Give those in ``slots``, all of which may be drawn, new priorities."""

    def state(self, held: int) -> dict[str, Any]:
        """What cannot be made from the slots. Arrays are views."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Undo `state`, once the slots are back; what was given is copied."""


class Uniform:
    """Every slot with a ``successor`` is drawn with the same probability, and weighs 1."""

    def __init__(self, successor: NDArray[np.int32]) -> None:
        self._successor = successor
        self._count = 0
        self._choices: Slots | None = None  # the slots that may be drawn, once listed since the last change

    def enter(self, slots: Slots, priority: NDArray[np.float32] | None) -> None:
        self._count += len(slots)
        self._choices = None

    def leave(self, slots: Slots) -> None:
        self._count -= len(slots)
        self._choices = None

    def draw(self, count: int, held: int, rng: np.random.Generator) -> Slots:
        """By rejection where most slots may be drawn, else from the list of them."""
        if 2 * self._count < held:
            if self._choices is None:
                self._choices = np.flatnonzero(self._successor[:held] >= 0)
            return self._choices[rng.integers(0, len(self._choices), count)]
        drawn = np.zeros(0, np.int64)
        while len(drawn) < count:
            more = rng.integers(0, held, count)
            drawn = np.concatenate([drawn, more[self._successor[more] >= 0]])
        return drawn[:count]

    def weigh(self, slots: Slots, eligible: int, beta: float, out: NDArray[np.float32]) -> None:
        out.fill(1.0)

    def update(self, slots: Slots, priority: NDArray[np.float64]) -> None:
        """Nothing: all stay alike."""

    def state(self, held: int) -> dict[str, Any]:
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._count = int(np.count_nonzero(self._successor >= 0))
        self._choices = None


class Prioritized:
    """A slot is drawn with a probability that follows from its priority.

    One without a known priority gets the greatest that any ever had, so that it is soon replayed (Schaul et al.,
    algorithm 1). A batch is stratified: one number out of each of ``count`` equal parts of the sum of all.
    """

    def __init__(self, settings: Priorities, capacity: int) -> None:
        self._settings = settings
        self._tree = SumTree(capacity)
        self._greatest = 1.0

    @property
    def greatest(self) -> float:
        """The greatest priority that any transition ever had, and 1 at least."""
        return self._greatest

    def enter(self, slots: Slots, priority: NDArray[np.float32] | None) -> None:
        if priority is None or not len(slots):
            return  # a replay that draws by priority has one for each slot, NaN where it is not known
        known = priority.astype(np.float64)
        self._greatest = float(np.fmax.reduce(known, initial=self._greatest))
        self.update(slots, np.where(np.isnan(known), self._greatest, known))

    def leave(self, slots: Slots) -> None:
        self._tree.set(slots, 0.0)

    def draw(self, count: int, held: int, rng: np.random.Generator) -> Slots:
        return self._tree.find((np.arange(count) + rng.random(count)) * (self._tree.total / count))

    def weigh(self, slots: Slots, eligible: int, beta: float, out: NDArray[np.float32]) -> None:
        """(N P(i))^-beta, divided by the greatest of the batch (their section 3.4)."""
        part = self._tree.values[slots] / self._tree.total
        weight = (eligible * part) ** -beta
        np.divide(weight, weight.max(), out=out, casting="same_kind")

    def update(self, slots: Slots, priority: NDArray[np.float64]) -> None:
        if len(slots):
            self._greatest = max(self._greatest, float(priority.max()))
            self._tree.set(slots, (priority + self._settings.floor) ** self._settings.alpha)

    def state(self, held: int) -> dict[str, Any]:
        return {"greatest": self._greatest, "probability": self._tree.values[:held]}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._greatest = float(state["greatest"])
        self._tree.load(state["probability"])
