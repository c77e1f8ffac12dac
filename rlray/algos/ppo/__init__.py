"""PPO: policy gradients that stay close to the policy that acted (Schulman et al. 2017, arXiv 1707.06347)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from rlray.algos.ppo.config import PPOConfig
from rlray.algos.types import Algorithm, Held, LearnerContext
from rlray.envs.types import EnvSpec

if TYPE_CHECKING:
    from rlray.algos.policy_gradient.policy import SamplingPolicy
    from rlray.algos.ppo.learner import PPOLearner


def _make_policy(spec: EnvSpec, config: PPOConfig) -> SamplingPolicy:
    from rlray.algos.policy_gradient.policy import make_policy

    return make_policy(spec, config, "ppo")


def _make_learner(spec: EnvSpec, config: PPOConfig, context: LearnerContext) -> PPOLearner:
    from rlray.algos.ppo.learner import PPOLearner

    return PPOLearner(spec, config, context)


def _memory(spec: EnvSpec, config: PPOConfig) -> list[Held]:
    """The steps of a round with their whole observations: in parts, put together, and normalised, in float32."""
    obs, action = spec.observation_space, spec.action_space
    one = sum(math.prod(space.shape or ()) * (space.dtype or np.dtype(float)).itemsize for space in (obs, action))
    each = 2 * (one + 16) + 4 * math.prod(obs.shape or ())
    return [Held("rollout", each * config.rollout_steps, "rollout_steps", config.rollout_steps)]


ALGORITHM = Algorithm("ppo", PPOConfig, _make_policy, _make_learner, memory=_memory)
"""What `rlray.algos.get_algorithm("ppo")` returns."""

__all__ = ["ALGORITHM", "PPOConfig"]
