"""The settings of PPO. Loads no torch."""

from __future__ import annotations

from pydantic import model_validator

from rlray.algos.policy_gradient.settings import PolicyGradientSettings
from rlray.algos.schedules import Schedule
from rlray.algos.settings import Fraction, Positive


class PPOConfig(PolicyGradientSettings):
    """Hyperparameters; the defaults suit small vectors. "Steps" are agent steps, "updates" gradient steps."""

    gae_lambda: Fraction = 0.95
    """Lambda of generalised advantage estimation: 0 trusts the value, 1 the rewards."""
    adam_eps: Positive = 1e-5
    """Adam's epsilon."""
    clip: Schedule = Schedule(points=((0, 0.2),))
    """How far the policy's ratio may leave 1 before the gradient stops."""
    clip_value: Positive | None = None
    """The same for values, in their normalised units; null: no clip."""
    target_kl: Positive | None = None
    """A round ends early once the policy has moved further than 1.5 times this (approximate KL); null: never."""
    normalize_value: bool = False
    """The value is learned in deviations from the mean return, which follow the returns."""

    @model_validator(mode="after")
    def _check(self) -> PPOConfig:
        self._not_negative("clip")
        return self
