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
    """As `ImpalaLearner`, with another loss. Its ratio is that to the weights that a round begins with; how far these
    are from the policy that acted is what V-trace's rho weighs. Where they are the same, all of it is PPO.

    `learn` reports ``clip_fraction`` besides.
    """

    algorithm = "appo"

    def __init__(self, spec: EnvSpec, config: APPOConfig, context: LearnerContext) -> None:
        super().__init__(spec, config, context)
        self._clip = config.clip

    def policy_loss(self, acted: Acted) -> tuple[Tensor, dict[str, Tensor]]:
        clip, ratio = self.now(self._clip), acted.since.exp()
        beyond = ((ratio - 1).abs() > clip).float().mean()
        return clipped_surrogate(ratio, acted.rho * acted.advantage, clip), {"clip_fraction": beyond}
