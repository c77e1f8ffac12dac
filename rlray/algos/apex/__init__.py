"""Ape-X: DQN with many simulators, each with its own exploration, and a replay between them and the learner."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gymnasium.spaces import Discrete

from rlray.algos.apex.config import ApexConfig
from rlray.algos.types import Algorithm, Held, LearnerContext
from rlray.envs.types import EnvSpec

if TYPE_CHECKING:
    from rlray.algos.apex.learner import ApexLearner
    from rlray.algos.apex.policy import ApexPolicy
    from rlray.algos.apex.replay import ApexReplay


def discrete_actions(spec: EnvSpec) -> Discrete:
    """The action space of ``spec``. Raises: ValueError unless it is `Discrete`."""
    if not isinstance(spec.action_space, Discrete):
        raise ValueError(
            f"apex needs a Discrete action space, but {spec.id} has {spec.action_space}: choose another algorithm, or "
            f"wrap the environment so that its actions are numbered"
        )
    return spec.action_space


def _make_policy(spec: EnvSpec, config: ApexConfig) -> ApexPolicy:
    from rlray.algos.apex.policy import ApexPolicy

    return ApexPolicy(spec, config)


def _make_learner(spec: EnvSpec, config: ApexConfig, context: LearnerContext) -> ApexLearner:
    from rlray.algos.apex.learner import ApexLearner

    return ApexLearner(spec, config, context)


def _make_replay(spec: EnvSpec, config: ApexConfig, context: LearnerContext) -> ApexReplay:
    from rlray.algos.apex.replay import ApexReplay

    return ApexReplay(spec, config, context)


def _memory(spec: EnvSpec, config: ApexConfig) -> list[Held]:
    from rlray.algos.replay.slots import held

    return held(spec, config.replay_capacity, prioritized=True)


ALGORITHM = Algorithm("apex", ApexConfig, _make_policy, _make_learner, make_replay=_make_replay, memory=_memory)
"""What `rlray.algos.get_algorithm("apex")` returns."""

__all__ = ["ALGORITHM", "ApexConfig", "discrete_actions"]
