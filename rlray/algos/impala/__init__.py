"""IMPALA: V-trace puts right what was played by older policies (Espeholt et al. 2018, arXiv 1802.01561)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlray.algos.impala.config import ImpalaConfig
from rlray.algos.types import Algorithm, LearnerContext
from rlray.envs.types import EnvSpec

if TYPE_CHECKING:
    from rlray.algos.impala.learner import ImpalaLearner
    from rlray.algos.policy_gradient.policy import SamplingPolicy


def _make_policy(spec: EnvSpec, config: ImpalaConfig) -> SamplingPolicy:
    from rlray.algos.policy_gradient.policy import make_policy

    return make_policy(spec, config, "impala")


def _make_learner(spec: EnvSpec, config: ImpalaConfig, context: LearnerContext) -> ImpalaLearner:
    from rlray.algos.impala.learner import ImpalaLearner

    return ImpalaLearner(spec, config, context)


ALGORITHM = Algorithm(name="impala", config=ImpalaConfig, make_policy=_make_policy, make_learner=_make_learner)
"""What `rlray.algos.get_algorithm("impala")` returns."""

__all__ = ["ALGORITHM", "ImpalaConfig"]
