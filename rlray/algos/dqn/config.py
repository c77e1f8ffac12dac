"""The settings of DQN. Loads no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rlray.algos.network_config import NetworkConfig
from rlray.algos.schedules import Schedule
from rlray.algos.settings import Count, Fraction, Positive, Settings


class DQNConfig(Settings):
    """Hyperparameters; the defaults suit pixels. "Steps" are agent steps, "updates" gradient steps."""

    network: NetworkConfig = NetworkConfig()
    """The network, or just its kind: auto, nature, dqn2013, small, conv, mlp, `package.module:MyNet`."""
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    """What networks compute in; auto is bfloat16 where the CPU or GPU has it natively, else float32."""
    discount: Fraction = 0.99
    """Gamma, per step."""
    n_step: Count = 1
    """Rewards that are summed before the target bootstraps."""
    double: bool = True
    """Choose the target's action by the online network (double DQN)."""
    clip_reward: bool = False
    """Clip each reward to -1 ... 1 for learning; reports stay raw."""
    batch_size: Count = 32
    """Transitions in one update."""
    samples_per_step: Positive = 8.0
    """Transitions replayed per step: every `batch_size / samples_per_step` steps there is one update."""
    replay_capacity: Count = 100_000
    """Observations that the replay holds."""
    warmup_steps: Count = 5_000
    """Observations in the replay before learning begins, and begins again after a resume."""
    learning_rate: Schedule = Schedule(points=((0, 1e-4),))
    """Adam's step size: a number, points `[[step, value], ...]`, or `{points, of: run}` by the part of the run done."""
    adam_eps: Positive = 1.5e-4
    """Adam's epsilon."""
    max_grad_norm: Positive | None = 10.0
    """Gradients are scaled down to this norm over all parameters; null leaves them."""
    huber_delta: Positive = 1.0
    """TD errors beyond it count linearly instead of squared."""
    target_update_every: Count = 1_000
    """Updates between two moves of the target network."""
    target_tau: float = Field(default=1.0, gt=0, le=1)
    """How far the target network moves towards the online one: 1 copies it; 0.005 every update is common too."""
    epsilon: Schedule = Schedule(points=((0, 1.0), (5_000, 1.0), (100_000, 0.02)))
    """Probability of a random action: a number, or points `[[step, value], ...]`."""

    @model_validator(mode="after")
    def _check(self) -> DQNConfig:
        if self.warmup_steps > self.replay_capacity:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} is more than replay_capacity {self.replay_capacity}: learning would "
                f"never begin"
            )
        low, high = self.epsilon.bounds()
        if low < 0 or high > 1:
            raise ValueError(f"epsilon must lie in 0 ... 1, got values from {low} to {high}")
        if self.epsilon.of != "steps":
            raise ValueError("epsilon goes by steps: policies do not know how long the run will be")
        if self.learning_rate.bounds()[0] < 0:
            raise ValueError(f"learning_rate must not be negative, got {self.learning_rate.bounds()[0]}")
        return self
