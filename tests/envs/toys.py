"""Small environments whose every observation says where it comes from."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from rlray.envs import VectorEnv


class Counting(gymnasium.Env[np.ndarray, int]):
    """Observes (episode, step within it). Episodes of random length 1 to 5; even ones terminate, odd ones truncate."""

    def __init__(self, offset: float = 0.0, render_mode: str | None = None) -> None:
        self.observation_space = spaces.Box(-1e6, 1e6, (2,), np.float32)
        self.action_space = spaces.Discrete(3)
        self.offset = offset
        self.render_mode = render_mode
        self.episode = -1
        self.closed = False

    def _obs(self) -> np.ndarray:
        return np.array([self.episode, self.t], np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.episode = -1 if seed is not None else self.episode
        self.episode += 1
        self.t = 0
        self.length = int(self.np_random.integers(1, 6))
        return self._obs(), {"t": self.t}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.t += 1
        done = self.t >= self.length
        reward = self.offset + 10.0 * float(action) + self.t
        return self._obs(), reward, done and self.length % 2 == 0, done and self.length % 2 == 1, {"t": self.t}

    def render(self) -> np.ndarray | None:
        return np.full((4, 5, 3), self.t, np.uint8) if self.render_mode else None

    def close(self) -> None:
        self.closed = True


class Endless(gymnasium.Env[np.ndarray, int]):
    """Observes its step count, never ends by itself."""

    observation_space = spaces.Box(0.0, 1e6, (1,), np.float64)
    action_space = spaces.Discrete(2, start=5)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.t = 0
        return np.array([0.0]), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert action in self.action_space, f"got {action}"
        self.t += 1
        return np.array([float(self.t)]), float(action), False, False, {}


class Broken(Counting):
    """Raises in ``where`` ("init", "reset", "step", "render", "shape", "tuple"), of the copies, in the third call."""

    def __init__(self, where: str, render_mode: str | None = None) -> None:
        super().__init__(render_mode=render_mode)
        self.where, self.calls = where, 0
        self._fail("init", 0)

    def _fail(self, place: str, after: int = 2) -> None:
        if self.where == place and self.calls >= after:
            self._the_users_own_bug()

    def _the_users_own_bug(self) -> None:
        raise ZeroDivisionError("my own bug")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        self._fail("reset")
        return super().reset(seed=seed, options=options)

    def step(self, action: int) -> Any:
        self.calls += 1
        self._fail("step", 3)
        result = super().step(action)
        if self.where == "shape":
            return np.zeros(3, np.float32), *result[1:]
        return result[:4] if self.where == "tuple" else result

    def render(self) -> np.ndarray | None:
        self._fail("render", 0)
        return super().render()


def counting_vector(
    num_envs: int, mode: str = "NEXT_STEP", offset: float = 0.0, render_mode: str | None = None
) -> SyncVectorEnv:
    """gymnasium's own vector environment of `Counting`, in any of its autoreset modes."""
    makers = [lambda: Counting(offset, render_mode)] * num_envs
    return SyncVectorEnv(makers, autoreset_mode=AutoresetMode[mode])


def step_until_it_raises(vec: VectorEnv) -> None:
    for _ in range(20):
        vec.step(np.zeros(vec.num_envs, np.int64))


NOT_CALLABLE = 3
