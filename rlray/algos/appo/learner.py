"""IMPALA's learner with the policy's loss of PPO."""

from __future__ import annotations

from torch import Tensor

from rlray.algos.appo.config import APPOConfig
from rlray.algos.impala.learner import ImpalaLearner
from rlray.algos.impala.loss import Acted
from rlray.algos.ppo.loss import clipped_surrogate
from rlray.algos.types import LearnerContext
from rlray.envs.types import EnvSpec


class APPOLearner(ImpalaLearner):
    """As `ImpalaLearner`; the ratio is that to the policy that acted, and stands in for V-trace's rho. Targets and
    advantages are those of the weights that a round begins with: else every update would shorten the traces further.

    `learn` reports ``clip_fraction`` besides.
    """

    algorithm = "appo"
    once_a_round = True

    def __init__(self, spec: EnvSpec, config: APPOConfig, context: LearnerContext) -> None:
        super().__init__(spec, config, context)
        self._clip = config.clip

    def policy_loss(self, acted: Acted) -> tuple[Tensor, dict[str, Tensor]]:
        clip, ratio = self.now(self._clip), acted.log_ratio.exp()
        beyond = ((ratio - 1).abs() > clip).float().mean()
        return clipped_surrogate(ratio, acted.advantage, clip), {"clip_fraction": beyond}
