"""The settings of DQN. Loads no torch."""

from __future__ import annotations

from pydantic import model_validator

from rlray.algos.q_learning.settings import QLearningSettings
from rlray.algos.replay.settings import ReplaySettings
from rlray.algos.schedules import Schedule


class DQNConfig(ReplaySettings, QLearningSettings):
    """Hyperparameters; the defaults suit pixels. "Steps" are agent steps, "updates" gradient steps."""

    epsilon: Schedule = Schedule(points=((0, 1.0), (5_000, 1.0), (100_000, 0.02)))
    """Probability of a random action: a number, or points `[[step, value], ...]`."""

    @model_validator(mode="after")
    def _check_epsilon(self) -> DQNConfig:
        low, high = self.epsilon.bounds()
        if low < 0 or high > 1:
            raise ValueError(f"epsilon must lie in 0 ... 1, got values from {low} to {high}")
        if self.epsilon.of != "steps":
            raise ValueError("epsilon goes by steps: policies do not know how long the run will be")
        return self
