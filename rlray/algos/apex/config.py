"""The settings of Ape-X. Loads no torch."""

from __future__ import annotations

from pydantic import Field, model_validator

from rlray.algos.q_learning.settings import QLearningSettings
from rlray.algos.schedules import Schedule
from rlray.algos.settings import Count, Fraction, Positive


class ApexConfig(QLearningSettings):
    """Hyperparameters; the defaults suit pixels. "Steps" are agent steps, "updates" gradient steps."""

    samples_per_step: Positive | None = 8.0
    """Transitions replayed per step, over all simulators; null: as many as the learner can (`mode: async`)."""
    batches_per_draw: Count = 8
    """Batches that go to the learner in one message; those of one message are drawn by the same priorities."""
    replay_capacity: Count = 100_000
    """Observations that the replay holds."""
    warmup_steps: Count = 5_000
    """Observations in the replay before learning begins; after a resume without the replay once more."""
    priority_alpha: Fraction = 0.6
    """How much priorities count: 0 not at all, 1 in proportion."""
    priority_beta: Schedule = Schedule(points=((0, 0.4),))
    """How far weights in the loss make up for it: 0 not at all, 1 wholly; a schedule."""
    priority_floor: Positive = 1e-6
    """Added to each priority, so that no transition is out of reach."""
    epsilon: Schedule = Schedule(points=((0, 0.4),))
    """Probability of a random action in the first environment: a number, or points `[[step, value], ...]`."""
    epsilon_alpha: float = Field(default=7.0, ge=0, allow_inf_nan=False)
    """How steep the ladder is: environment i of N has epsilon^(1 + epsilon_alpha * i / (N - 1))."""

    @model_validator(mode="after")
    def _check(self) -> ApexConfig:
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
        return self
