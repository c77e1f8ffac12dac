"""The settings of PQN. Loads no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from rlray.algos.network_config import FeedForwardConfig, NetworkConfig
from rlray.algos.schedules import Schedule
from rlray.algos.settings import Count, Finite, Fraction, Positive, Settings


class PQNConfig(Settings):
    """Hyperparameters; the defaults suit small vectors. "Steps" are agent steps, "updates" gradient steps."""

    network: FeedForwardConfig = NetworkConfig(hidden=(128, 128), layer_norm=True)
    """The network, or just its kind: auto, nature, dqn2013, small, conv, mlp, `package.module:MyNet`."""
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    """What networks compute in; auto is bfloat16 where the CPU or GPU has it natively, else float32."""
    discount: Fraction = 0.99
    """Gamma, per step."""
    q_lambda: Fraction = 0.65
    """Lambda of the returns: 0 bootstraps after one step, 1 sums rewards to the end of the fragment."""
    rollout_steps: Count = 4_096
    """Steps, over all simulators, that are gathered for each round of updates; whole fragments count."""
    minibatch_size: Count = 256
    """Steps in one update, about: a round is cut into equal parts."""
    epochs: Count = 2
    """How often a round's steps are gone through."""
    learning_rate: Schedule = Schedule(points=((0, 5e-4),))
    """RAdam's step size: a number, points `[[step, value], ...]`, or `{points, of: run}` by the part done."""
    max_grad_norm: Positive | None = 10.0
    """Gradients are scaled down to this norm over all parameters; null leaves them."""
    epsilon: Schedule = Schedule(points=((0, 1.0), (50_000, 0.05)))
    """Probability of a random action: a number, or points `[[step, value], ...]`."""
    scale_reward: Finite = 1.0
    """Rewards are multiplied by it for learning; reports stay raw."""
    clip_reward: bool = False
    """Clip each reward to -1 ... 1 for learning; reports stay raw."""

    @model_validator(mode="after")
    def _check(self) -> PQNConfig:
        if self.minibatch_size > self.rollout_steps:
            raise ValueError(
                f"minibatch_size {self.minibatch_size} is more than rollout_steps {self.rollout_steps}: make it smaller"
            )
        if self.learning_rate.bounds()[0] < 0:
            raise ValueError(f"learning_rate must not be negative, got {self.learning_rate.bounds()[0]}")
        low, high = self.epsilon.bounds()
        if low < 0 or high > 1:
            raise ValueError(f"epsilon must lie in 0 ... 1, got values from {low} to {high}")
        if self.epsilon.of != "steps":
            raise ValueError("epsilon goes by steps: policies do not know how long the run will be")
        if self.network.noisy:
            raise ValueError("network: noisy is not for pqn, which explores by epsilon; leave it out")
        return self
