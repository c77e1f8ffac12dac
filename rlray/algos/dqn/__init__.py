"""DQN: Q-learning with a network, a replay and a target network (Mnih et al. 2015), and what made it better since."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gymnasium.spaces import Discrete

from rlray.algos.dqn.config import DQNConfig
from rlray.algos.types import Algorithm, Held, LearnerContext
from rlray.envs.types import EnvSpec

if TYPE_CHECKING:
    from rlray.algos.dqn.learner import DQNLearner
    from rlray.algos.dqn.policy import DQNPolicy


def discrete_actions(spec: EnvSpec) -> Discrete:
    """The action space of ``spec``. Raises: ValueError unless it is `Discrete`."""
    if not isinstance(spec.action_space, Discrete):
        raise ValueError(
            f"dqn needs a Discrete action space, but {spec.id} has {spec.action_space}: choose another algorithm, or "
            f"wrap the environment so that its actions are numbered"
        )
    return spec.action_space


def _make_policy(spec: EnvSpec, config: DQNConfig) -> DQNPolicy:
    from rlray.algos.dqn.policy import DQNPolicy

    return DQNPolicy(spec, config)


def _make_learner(spec: EnvSpec, config: DQNConfig, context: LearnerContext) -> DQNLearner:
    from rlray.algos.dqn.learner import DQNLearner

    return DQNLearner(spec, config, context)


def _memory(spec: EnvSpec, config: DQNConfig) -> list[Held]:
    from rlray.algos.replay.slots import held

    return held(spec, config.replay_capacity, config.prioritized)


ALGORITHM = Algorithm("dqn", DQNConfig, _make_policy, _make_learner, memory=_memory)
"""What `rlray.algos.get_algorithm("dqn")` returns."""

__all__ = ["ALGORITHM", "DQNConfig", "discrete_actions"]
