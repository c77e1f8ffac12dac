"""SAC: an actor that is rewarded for its entropy, and two critics (Haarnoja et al. 2018, arXiv 1812.05905)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlray.algos.sac.config import SACConfig
from rlray.algos.types import Algorithm, Held, LearnerContext
from rlray.envs.types import EnvSpec

if TYPE_CHECKING:
    from rlray.algos.sac.learner import SACLearner
    from rlray.algos.sac.policy import SACPolicy


def _make_policy(spec: EnvSpec, config: SACConfig) -> SACPolicy:
    from rlray.algos.sac.policy import SACPolicy

    return SACPolicy(spec, config)


def _make_learner(spec: EnvSpec, config: SACConfig, context: LearnerContext) -> SACLearner:
    from rlray.algos.sac.learner import SACLearner

    return SACLearner(spec, config, context)


def _memory(spec: EnvSpec, config: SACConfig) -> list[Held]:
    from rlray.algos.replay.slots import held

    return held(spec, config.replay_capacity, config.prioritized)


ALGORITHM = Algorithm("sac", SACConfig, _make_policy, _make_learner, memory=_memory)
"""What `rlray.algos.get_algorithm("sac")` returns."""

__all__ = ["ALGORITHM", "SACConfig"]
