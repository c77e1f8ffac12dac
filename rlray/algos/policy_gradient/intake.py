"""What learners of policies take of a fragment: whole observations, and rewards as they are to be learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlray.algos.policy_gradient.policy import LOG_PROB, MEMORY, SAMPLED
from rlray.algos.policy_gradient.settings import PolicyGradientSettings
from rlray.algos.running import RewardScaler, RunningMoments
from rlray.algos.stacking import Stacker
from rlray.algos.types import Fragment
from rlray.envs.types import EnvSpec


@dataclass
class Taken:
    """Of a fragment; arrays may be read-only views of it."""

    obs: NDArray[Any]  # [T, B, *observation_shape]
    finals: NDArray[Any]  # [K, *observation_shape], in the order of the fragment's final_index
    action: NDArray[Any]  # [T, B, ...] as they were sampled
    log_prob: NDArray[np.float32]  # [T, B] of the policy that acted
    reward: NDArray[np.float32]  # [T, B] scaled, or clipped
    memory: NDArray[np.float32]  # [T, B, M] before each step; M is 0 where none remembers


class Intake:
    """Works fragments out, and remembers what that takes: frames of stacks, deviations of rewards and observations.

    Fragments of one stream must be given in their order.
    """

    def __init__(self, spec: EnvSpec, config: PolicyGradientSettings) -> None:
        self._config = config
        self._stacker = Stacker(spec)
        self._rewards = RewardScaler(config.discount) if config.normalize_reward else None
        self._moments = RunningMoments(spec.frame_shape) if config.normalize_obs else None

    def take(self, fragment: Fragment) -> Taken:
        """The next fragment."""
        obs, finals = self._stacker.observations(fragment)
        if self._moments is not None:
            self._moments.add(fragment.obs[fragment.valid])
        reward = fragment.reward
        if self._rewards is not None:
            last = fragment.terminated | fragment.truncated | ~fragment.valid
            reward = self._rewards.scaled(fragment.stream, reward, last, fragment.valid)
        if self._config.clip_reward:
            reward = np.clip(reward, -1.0, 1.0)
        return Taken(
            obs=obs,
            finals=finals,
            action=fragment.extras.get(SAMPLED, fragment.action),
            log_prob=fragment.extras[LOG_PROB],
            reward=reward * np.float32(self._config.scale_reward),
            memory=fragment.extras.get(MEMORY, np.zeros((*fragment.valid.shape, 0), np.float32)),
        )

    def moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and deviation of the observations so far, [*frame_shape] each; needs ``normalize_obs``."""
        assert self._moments is not None
        return self._moments.mean, self._moments.std

    def state(self) -> dict[str, Any]:
        """All of it."""
        return {
            "stacker": self._stacker.state(),
            "rewards": None if self._rewards is None else self._rewards.state(),
            "moments": None if self._moments is None else self._moments.state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Undo `state`, which is copied; what else is in it is left alone."""
        self._stacker.load_state(state["stacker"])
        if self._rewards is not None:
            self._rewards.load_state(state["rewards"])
        if self._moments is not None:
            self._moments.load_state(state["moments"])
