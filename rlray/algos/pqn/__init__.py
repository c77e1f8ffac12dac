"""PQN: Q-learning of many parallel environments, without replay or target network (Gallici et al. 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gymnasium import spaces

from rlray.algos.pqn.config import PQNConfig
from rlray.algos.types import Algorithm, LearnerContext
from rlray.envs.types import EnvSpec

if TYPE_CHECKING:
    from rlray.algos.pqn.learner import PQNLearner
    from rlray.algos.pqn.policy import PQNPolicy


def discrete_actions(spec: EnvSpec) -> spaces.Discrete:
    """The action space of ``spec``. Raises: ValueError if it is not Discrete."""
    if not isinstance(spec.action_space, spaces.Discrete):
        raise ValueError(
            f"pqn needs a Discrete action space, but {spec.id} has {spec.action_space}: choose another algorithm, or "
            f"wrap the environment so that its actions are numbered"
        )
    return spec.action_space


def _make_policy(spec: EnvSpec, config: PQNConfig) -> PQNPolicy:
    from rlray.algos.pqn.policy import PQNPolicy

    return PQNPolicy(spec, config)


def _make_learner(spec: EnvSpec, config: PQNConfig, context: LearnerContext) -> PQNLearner:
    from rlray.algos.pqn.learner import PQNLearner

    return PQNLearner(spec, config, context)


ALGORITHM = Algorithm(name="pqn", config=PQNConfig, make_policy=_make_policy, make_learner=_make_learner)
"""What `rlray.algos.get_algorithm("pqn")` returns."""

__all__ = ["ALGORITHM", "PQNConfig"]
