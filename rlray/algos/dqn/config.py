"""The settings of DQN. Loads no torch."""

from __future__ import annotations

from pydantic import model_validator

from rlray.algos.q_learning.settings import QLearningSettings
from rlray.algos.schedules import Schedule
from rlray.algos.settings import Count, Fraction, Positive


class DQNConfig(QLearningSettings):
    """Hyperparameters; the defaults suit pixels. "Steps" are agent steps, "updates" gradient steps."""

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
    epsilon: Schedule = Schedule(points=((0, 1.0), (5_000, 1.0), (100_000, 0.02)))
    """Probability of a random action: a number, or points `[[step, value], ...]`."""

    @model_validator(mode="after")
    def _check(self) -> DQNConfig:
        if self.warmup_steps > self.replay_capacity:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} is more than replay_capacity {self.replay_capacity}: learning would "
                f"never begin"
            )
        for name in ("epsilon", "priority_beta"):
            low, high = getattr(self, name).bounds()
            if low < 0 or high > 1:
                raise ValueError(f"{name} must lie in 0 ... 1, got values from {low} to {high}")
        if self.epsilon.of != "steps":
            raise ValueError("epsilon goes by steps: policies do not know how long the run will be")
        if not self.prioritized:
            self._without_effect("prioritized: false", "true", "priority_alpha", "priority_beta", "priority_floor")
        return self
