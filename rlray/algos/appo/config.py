"""The settings of APPO. Loads no torch."""

from __future__ import annotations

from pydantic import model_validator

from rlray.algos.impala.config import ImpalaConfig
from rlray.algos.schedules import Schedule
from rlray.algos.settings import Count


class APPOConfig(ImpalaConfig):
    """Hyperparameters; the defaults suit small vectors. "Steps" are agent steps, "updates" gradient steps."""

    epochs: Count = 2
    """How often a round's steps are gone through; V-trace is worked out once, before."""
    normalize_advantage: bool = True
    """Advantages of a minibatch are centred and scaled."""
    clip: Schedule = Schedule(points=((0, 0.2),))
    """How far the ratio to the policy that acted may leave 1 before the gradient stops."""

    @model_validator(mode="after")
    def _check_clip(self) -> APPOConfig:
        self._not_negative("clip")
        return self
