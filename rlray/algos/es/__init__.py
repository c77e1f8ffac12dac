"""ES: evolution strategies, many tasks that share a table of noise (Salimans et al. 2017, arXiv 1703.03864)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlray.algos.es.config import ESConfig
from rlray.algos.types import Algorithm, LearnerContext
from rlray.envs.types import EnvSpec

if TYPE_CHECKING:
    from rlray.algos.es.learner import ESLearner
    from rlray.algos.es.policy import ESPolicy
    from rlray.algos.es.trials import ESTrials


def _make_policy(spec: EnvSpec, config: ESConfig) -> ESPolicy:
    from rlray.algos.es.policy import ESPolicy

    return ESPolicy(spec, config)


def _make_learner(spec: EnvSpec, config: ESConfig, context: LearnerContext) -> ESLearner:
    from rlray.algos.es.learner import ESLearner

    return ESLearner(spec, config, context)


def _make_trials(spec: EnvSpec, config: ESConfig) -> ESTrials:
    from rlray.algos.es.trials import ESTrials

    return ESTrials(spec, config)


ALGORITHM = Algorithm("es", ESConfig, _make_policy, _make_learner, make_trials=_make_trials)
"""What `rlray.algos.get_algorithm("es")` returns."""

__all__ = ["ALGORITHM", "ESConfig"]
