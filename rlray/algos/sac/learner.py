"""Turns fragments into a better policy."""

from __future__ import annotations

from rlray.algos.replay import NStepReplay
from rlray.algos.replaying import ReplayLearner
from rlray.algos.sac.config import SACConfig
from rlray.algos.sac.updater import SACUpdater
from rlray.algos.squashed import squashed_gaussian
from rlray.algos.types import LearnerContext
from rlray.envs.types import EnvSpec


class SACLearner(ReplayLearner):
    """SAC from a replay. Figures: see `SACUpdater`.

    Guarantees: the same spec, settings, context and fragments give the same weights, bit for bit on a CPU with the
    same count of threads; so does going on from a saved state.

    Raises: ValueError where the actions are no Box of floats with finite bounds, or the network does not fit the
    observations.
    """

    def __init__(self, spec: EnvSpec, config: SACConfig, context: LearnerContext) -> None:
        updater = SACUpdater(spec, config, context, squashed_gaussian(spec.action_space, "sac", spec.id))
        replay = NStepReplay(
            spec,
            config.replay_capacity,
            config.n_step,
            config.discount,
            clip_reward=config.clip_reward,
            priorities=config.priorities,
        )
        super().__init__("sac", replay, updater, config, config.batch_size, context)
