"""APPO: PPO's clipped surrogate on IMPALA's path, with V-trace (Schulman et al. 2017; Luo et al. 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlray.algos.appo.config import APPOConfig
from rlray.algos.types import Algorithm, LearnerContext
from rlray.envs.types import EnvSpec

if TYPE_CHECKING:
    from rlray.algos.appo.learner import APPOLearner
    from rlray.algos.policy_gradient.policy import SamplingPolicy


def _make_policy(spec: EnvSpec, config: APPOConfig) -> SamplingPolicy:
    from rlray.algos.policy_gradient.policy import make_policy

    return make_policy(spec, config, "appo")


def _make_learner(spec: EnvSpec, config: APPOConfig, context: LearnerContext) -> APPOLearner:
    from rlray.algos.appo.learner import APPOLearner

    return APPOLearner(spec, config, context)


ALGORITHM = Algorithm(name="appo", config=APPOConfig, make_policy=_make_policy, make_learner=_make_learner)
"""What `rlray.algos.get_algorithm("appo")` returns."""

__all__ = ["ALGORITHM", "APPOConfig"]
