"""Turns fragments into better action values."""

from __future__ import annotations

from rlray.algos.dqn import discrete_actions
from rlray.algos.dqn.config import DQNConfig
from rlray.algos.q_learning.updater import QUpdater
from rlray.algos.replay import NStepReplay
from rlray.algos.replaying import ReplayLearner
from rlray.algos.types import Fragment, LearnerContext, Metrics
from rlray.envs.types import EnvSpec


class DQNLearner(ReplayLearner):
    """Q-learning from a replay: which kind, the settings say.

    Guarantees: the same spec, settings, context and fragments give the same weights, bit for bit on a CPU with the
    same count of threads; so does going on from a saved state.

    Raises: ValueError where the action space is not Discrete, or the network does not fit the observations.
    """

    def __init__(self, spec: EnvSpec, config: DQNConfig, context: LearnerContext) -> None:
        space = discrete_actions(spec)
        updater = QUpdater(spec, config, context, int(space.n), int(space.start))
        replay = NStepReplay(
            spec,
            config.replay_capacity,
            config.n_step,
            config.discount,
            clip_reward=config.clip_reward,
            priorities=config.priorities,
        )
        super().__init__("dqn", replay, updater, config, config.batch_size, context)
        self._epsilon = config.epsilon

    def learn(self, fragment: Fragment) -> Metrics:
        """As `ReplayLearner.learn`.

        Besides, ``epsilon``; its figures are ``loss``, ``q_mean``, ``td_error``, ``grad_norm``, and with noisy layers
        ``noise``.
        """
        metrics = super().learn(fragment)
        metrics["epsilon"] = self._epsilon.at(self._steps)
        return metrics
