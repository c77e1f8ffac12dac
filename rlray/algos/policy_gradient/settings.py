"""The settings of whatever follows the gradient of a policy. Loads no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from rlray.algos.network_config import NetworkConfig
from rlray.algos.schedules import Schedule
from rlray.algos.settings import Count, Finite, Fraction, Positive, Settings


class PolicyGradientSettings(Settings):
    """What acts, what it learns from and how far a gradient step goes; "updates" are gradient steps."""

    network: NetworkConfig = NetworkConfig(hidden=(64, 64), activation="tanh")
    """The network, or just its kind: auto, nature, dqn2013, small, conv, mlp, `package.module:MyNet`."""
    shared: bool | Literal["auto"] = "auto"
    """Whether policy and value share all layers but the last; auto: for pictures."""
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    """What networks compute in; auto is bfloat16 where the CPU or GPU has it natively, else float32."""
    discount: Fraction = 0.99
    """Gamma, per step."""
    rollout_steps: Count = 2_048
    """Steps, over all simulators, that are gathered for each round of updates; whole fragments count."""
    minibatch_size: Count = 256
    """Steps in one update, about: a round is cut into equal parts."""
    epochs: Count = 4
    """How often a round's steps are gone through."""
    learning_rate: Schedule = Schedule(points=((0, 3e-4),))
    """The optimiser's step size: a number, points `[[step, value], ...]`, or `{points, of: run}` by the part done."""
    entropy: Schedule = Schedule(points=((0, 0.0),))
    """Weight of the policy's entropy, which keeps it from settling early."""
    value_coef: Positive = 0.5
    """Weight of the value's loss."""
    max_grad_norm: Positive | None = 0.5
    """Gradients are scaled down to this norm over all parameters; null leaves them."""
    normalize_advantage: bool = True
    """Advantages of a minibatch are centred and scaled."""
    normalize_obs: bool = False
    """Observations are centred and scaled by what has been seen so far; for vectors."""
    scale_reward: Finite = 1.0
    """Rewards are multiplied by it for learning; reports stay raw."""
    normalize_reward: bool = False
    """Rewards are divided by the deviation of the discounted return so far."""
    clip_reward: bool = False
    """Clip each reward to -1 ... 1 for learning; reports stay raw."""

    @model_validator(mode="after")
    def _check_common(self) -> PolicyGradientSettings:
        if self.minibatch_size > self.rollout_steps:
            raise ValueError(
                f"minibatch_size {self.minibatch_size} is more than rollout_steps {self.rollout_steps}: make it smaller"
            )
        self._not_negative("learning_rate", "entropy")
        if self.normalize_reward and self.clip_reward:
            raise ValueError("normalize_reward and clip_reward exclude each other: leave one out")
        if self.normalize_obs and self.network.input_norm not in ("auto", "none"):
            raise ValueError(
                f"normalize_obs replaces network.input_norm, which is {self.network.input_norm!r}: leave one out"
            )
        return self

    def _not_negative(self, *schedules: str) -> None:
        for name in schedules:
            if (low := getattr(self, name).bounds()[0]) < 0:
                raise ValueError(f"{name} must not be negative, got {low}")
