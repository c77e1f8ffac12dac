"""One environment at a time, for callers that begin every episode themselves, with a seed of its own."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlray.envs.types import EnvSpec, VectorEnv

Env = gymnasium.Env[Any, Any]


class GymSingle:
    """Adapts one `gymnasium.Env`, without what stepping many together costs.

    Discrete actions count from 0, whatever ``env`` counts them from.
    """

    def __init__(self, env: Env, env_id: str) -> None:
        self._env = env
        action = env.action_space
        self._first_action = int(action.start) if isinstance(action, spaces.Discrete) else 0
        action = spaces.Discrete(action.n) if isinstance(action, spaces.Discrete) else action
        self.spec = EnvSpec(env_id, env.observation_space, action)

    def reset(self, seed: int) -> NDArray[Any]:
        """Begin the episode that follows from ``seed``. Raises: EnvError from what the environment raised."""
        return np.asarray(self._env.reset(seed=seed)[0])

    def step(self, action: Any) -> tuple[NDArray[Any], float, bool, bool]:
        """Raises: EnvError from what the environment raised."""
        if self._first_action:
            action = action + self._first_action
        obs, reward, terminated, truncated, _ = self._env.step(action)
        return obs, float(reward), bool(terminated), bool(truncated)

    def close(self) -> None:
        """Close the environment."""
        self._env.close()


class SingleOfVec:
    """Adapts a `VectorEnv` of one copy, for environments that come no other way."""

    def __init__(self, env: VectorEnv) -> None:
        self._env = env
        self.spec = env.spec

    def reset(self, seed: int) -> NDArray[Any]:
        """Begin an episode that follows from ``seed``."""
        first: NDArray[Any] = self._env.reset(seed)[0]
        return first

    def step(self, action: Any) -> tuple[NDArray[Any], float, bool, bool]:
        """Whatever begins by itself after an episode is passed over: `reset` comes next."""
        answer = self._env.step(np.asarray(action)[None])
        obs = answer.obs[0] if answer.final_obs is None else answer.final_obs[0]
        return obs, float(answer.reward[0]), bool(answer.terminated[0]), bool(answer.truncated[0])

    def close(self) -> None:
        """Close the environment."""
        self._env.close()
