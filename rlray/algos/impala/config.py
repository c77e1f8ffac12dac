"""The settings of IMPALA. Loads no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from rlray.algos.policy_gradient.settings import PolicyGradientSettings
from rlray.algos.settings import Count, Fraction, Positive


class ImpalaConfig(PolicyGradientSettings):
    """Hyperparameters; the defaults suit small vectors. "Steps" are agent steps, "updates" gradient steps."""

    rollout_steps: Count = 512
    """Steps, over all simulators, that are gathered for each round of updates; whole fragments count."""
    minibatch_size: Count = 256
    """Steps in one update, about: a round is cut into equal parts."""
    epochs: Count = 1
    """How often a round's steps are gone through; V-trace is worked out once, before."""
    normalize_advantage: bool = False
    """Advantages of a minibatch are centred and scaled."""
    vtrace_lambda: Fraction = 1.0
    """Lambda of V-trace: 0 trusts the value, 1 the rewards."""
    clip_rho: Positive = 1.0
    """The most that a step's ratio weighs; infinity learns the policy's own values, less those of one nearer to mu."""
    clip_c: Positive = 1.0
    """The most that a step's ratio passes on of what came after it."""
    optimizer: Literal["adam", "rmsprop"] = "adam"
    """What takes the gradient steps; the paper's is rmsprop, without momentum."""
    optimizer_eps: Positive = 1e-5
    """Its epsilon, outside of the square root."""
    rmsprop_decay: Fraction | None = None
    """How slowly the mean of the squared gradients follows, for rmsprop; null is 0.99."""

    @model_validator(mode="after")
    def _check(self) -> ImpalaConfig:
        if self.clip_c > self.clip_rho:
            raise ValueError(
                f"clip_c {self.clip_c} is more than clip_rho {self.clip_rho}: V-trace wants it smaller or equal"
            )
        if self.optimizer != "rmsprop" and self.rmsprop_decay is not None:
            raise ValueError("rmsprop_decay has no effect with optimizer: adam: leave it out, or choose rmsprop")
        return self
