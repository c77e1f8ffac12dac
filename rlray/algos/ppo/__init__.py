"""PPO: policy gradients that stay close to the policy that acted (Schulman et al. 2017, arXiv 1707.06347)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlray.algos.ppo.config import PPOConfig
from rlray.algos.types import Algorithm, LearnerContext
from rlray.envs.types import EnvSpec

if TYPE_CHECKING:
    from rlray.algos.policy_gradient.policy import SamplingPolicy
    from rlray.algos.ppo.learner import PPOLearner


def _make_policy(spec: EnvSpec, config: PPOConfig) -> SamplingPolicy:
    from rlray.algos.policy_gradient.policy import SamplingPolicy

    return SamplingPolicy(spec, config, "ppo")


def _make_learner(spec: EnvSpec, config: PPOConfig, context: LearnerContext) -> PPOLearner:
    from rlray.algos.ppo.learner import PPOLearner

    return PPOLearner(spec, config, context)


ALGORITHM = Algorithm(name="ppo", config=PPOConfig, make_policy=_make_policy, make_learner=_make_learner)
"""What `rlray.algos.get_algorithm("ppo")` returns."""

__all__ = ["ALGORITHM", "PPOConfig"]
