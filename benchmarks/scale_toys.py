"""An environment and an algorithm that do nothing but sleep, so that only the loop around them counts."""

from __future__ import annotations

import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from pydantic import BaseModel, ConfigDict

from rlray.algos.types import Algorithm, Fragment, LearnerContext, Metrics, Weights
from rlray.envs.types import EnvSpec


class Sleeper(gymnasium.Env[Any, Any]):
    """A step takes ``seconds``; observations have ``size`` numbers; there is one long episode."""

    def __init__(self, seconds: float = 0.0, size: int = 8) -> None:
        self.observation_space = spaces.Box(-1.0, 1.0, (size,), np.float32)
        self.action_space = spaces.Discrete(2)
        self._seconds, self._obs = seconds, np.zeros(size, np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self._obs, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self._seconds:
            time.sleep(self._seconds)
        return self._obs, 0.0, False, False, {}


class SleepingSettings(BaseModel):
    """Settings of `SleepingLearner`."""

    model_config = ConfigDict(extra="forbid")
    seconds: float = 0.0
    """How long learning from one fragment takes."""
    weights: int = 1_000
    """Numbers in the weights."""


class SleepingPolicy:
    """Always does the same."""

    def __init__(self, spec: EnvSpec, settings: SleepingSettings) -> None:
        pass

    def load(self, weights: Weights) -> None:
        """There is nothing to know."""

    def act(self, obs: Any, step: int, rng: np.random.Generator) -> tuple[Any, dict[str, Any]]:
        return np.zeros(len(obs), np.int64), {}

    def act_greedy(self, obs: Any) -> Any:
        return np.zeros(len(obs), np.int64)


class SleepingLearner:
    """One update for each fragment."""

    def __init__(self, spec: EnvSpec, settings: SleepingSettings, context: LearnerContext) -> None:
        self._settings = settings
        self._weights = np.zeros(settings.weights, np.float32)

    def learn(self, fragment: Fragment) -> Metrics:
        if self._settings.seconds:
            time.sleep(self._settings.seconds)
        return {"updates": 1.0, "loss": 0.0}

    def weights(self) -> Weights:
        return {"weights": self._weights.copy()}

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: Any) -> None:
        """There is nothing to take back."""


ALGORITHM = Algorithm("sleeping", SleepingSettings, SleepingPolicy, SleepingLearner)
