"""The settings of whatever learns action values. Loads no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rlray.algos.network_config import FeedForwardConfig, NetworkConfig
from rlray.algos.schedules import Schedule
from rlray.algos.settings import Count, Finite, Fraction, Positive, Settings


class QLearningSettings(Settings):
    """What the values are, what they are learned with; "updates" are gradient steps."""

    network: FeedForwardConfig = NetworkConfig()
    """The network, or just its kind: auto, nature, dqn2013, small, conv, mlp, `package.module:MyNet`."""
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    """What networks compute in; auto is bfloat16 where the CPU or GPU has it natively, else float32."""
    discount: Fraction = 0.99
    """Gamma, per step."""
    n_step: Count = 1
    """Rewards that are summed before the target bootstraps."""
    double: bool = True
    """Choose the target's action by the online network (double DQN)."""
    distribution: Literal["none", "categorical", "quantile"] = "none"
    """What is learned of an action's return: its mean, probabilities on fixed atoms (C51), or quantiles (QR-DQN)."""
    atoms: Count = 51
    """Atoms or quantiles of such a distribution."""
    v_min: Finite | None = None
    """The least return that a categorical distribution can stand for, after clipping and discounting."""
    v_max: Finite | None = None
    """The greatest one."""
    clip_reward: bool = False
    """Clip each reward to -1 ... 1 for learning; reports stay raw."""
    batch_size: Count = 32
    """Transitions in one update."""
    learning_rate: Schedule = Schedule(points=((0, 1e-4),))
    """Adam's step size: a number, points `[[step, value], ...]`, or `{points, of: run}` by the part of the run done."""
    adam_eps: Positive = 1.5e-4
    """Adam's epsilon."""
    max_grad_norm: Positive | None = 10.0
    """Gradients are scaled down to this norm over all parameters; null leaves them."""
    huber_delta: Positive = 1.0
    """Errors (of means or quantiles) beyond it count linearly instead of squared."""
    target_update_every: Count = 1_000
    """Updates between two moves of the target network."""
    target_tau: float = Field(default=1.0, gt=0, le=1)
    """How far the target network moves towards the online one: 1 copies it; 0.005 every update is common too."""

    @model_validator(mode="after")
    def _check_values(self) -> QLearningSettings:
        if self.learning_rate.bounds()[0] < 0:
            raise ValueError(f"learning_rate must not be negative, got {self.learning_rate.bounds()[0]}")
        if self.distribution == "none":
            self._without_effect("distribution: none", "categorical or quantile", "atoms")
        if self.distribution != "categorical":
            self._without_effect(f"distribution: {self.distribution}", "categorical", "v_min", "v_max")
        else:
            self._without_effect("distribution: categorical", "none or quantile", "huber_delta")
            self._check_support()
        return self

    def _check_support(self) -> None:
        if self.v_min is None or self.v_max is None:
            missing = "v_min" if self.v_min is None else "v_max"
            raise ValueError(
                f"distribution: categorical needs v_min and v_max, and {missing} is null: set both to the least and "
                f"the greatest (discounted) return that can be worth telling apart, or use distribution: quantile"
            )
        if not self.v_min < self.v_max:
            raise ValueError(f"v_min {self.v_min} must be less than v_max {self.v_max}")
        if self.atoms < 2:
            raise ValueError(f"distribution: categorical needs at least 2 atoms, got atoms {self.atoms}")
