"""The settings of whatever learns from a replay. Loads no torch."""

from __future__ import annotations

from pydantic import model_validator

from rlray.algos.replay.drawing import Priorities
from rlray.algos.schedules import Schedule
from rlray.algos.settings import Count, Fraction, Positive, Settings


class ReplaySettings(Settings):
    """What the replay holds, how much of it is learned from, and which transitions. "Steps" are agent steps."""

    samples_per_step: Positive = 8.0
    """Transitions replayed per step: every `batch_size / samples_per_step` steps there is one update."""
    replay_capacity: Count = 100_000
    """Observations that the replay holds."""
    warmup_steps: Count = 5_000
    """Observations in the replay before learning begins; after a resume without the replay once more."""
    prioritized: bool = False
    """Replay by priority, those first from which most is to be learned (prioritized experience replay)."""
    priority_alpha: Fraction = 0.6
    """How much priorities count: 0 not at all, 1 in proportion."""
    priority_beta: Schedule = Schedule(points=((0, 0.4), (1, 1.0)), of="run")
    """How far weights in the loss make up for it: 0 not at all, 1 wholly; a schedule."""
    priority_floor: Positive = 1e-6
    """Added to each priority, so that no transition is out of reach."""

    @property
    def priorities(self) -> Priorities | None:
        """How the replay draws by priority; None where it draws uniformly."""
        return Priorities(self.priority_alpha, self.priority_floor) if self.prioritized else None

    @model_validator(mode="after")
    def _check_replay(self) -> ReplaySettings:
        if self.warmup_steps > self.replay_capacity:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} is more than replay_capacity {self.replay_capacity}: learning would "
                f"never begin"
            )
        low, high = self.priority_beta.bounds()
        if low < 0 or high > 1:
            raise ValueError(f"priority_beta must lie in 0 ... 1, got values from {low} to {high}")
        if not self.prioritized:
            self._without_effect("prioritized: false", "true", "priority_alpha", "priority_beta", "priority_floor")
        return self
