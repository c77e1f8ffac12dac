"""The bundled Pong as a `gymnasium.Env`: one game, for gymnasium's tools and other libraries."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlray.envs.pong.draw import draw_picture
from rlray.envs.pong.game import ACTIONS, PongGames
from rlray.envs.pong.observe import PONG_ID, PongSettings, make_observer
from rlray.envs.seeding import stream_seeds
from rlray.envs.settings import read_settings

_ONLY = np.zeros(1, np.intp)


class PongEnv(gymnasium.Env[NDArray[Any], np.int64]):
    """One game of Pong; see `PongSettings` for ``settings``.

    Guarantees: with the same seed and actions it is game 0 of a `PongVec`, bit for bit, episode after episode.
    Observations are fresh arrays.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012 - as gymnasium declares it

    def __init__(self, render_mode: str | None = None, **settings: Any) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
        chosen = read_settings(PongSettings, settings, PONG_ID)
        self.render_mode = render_mode
        self._games = PongGames(1, chosen.frame_skip)
        self._observer = make_observer(self._games, chosen)
        self._max_frames = chosen.max_frames
        self._seeded = False
        self.observation_space = self._observer.space
        self.action_space = spaces.Discrete(ACTIONS)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Start a game at 0:0. Without a seed the running stream of random numbers goes on; ``options`` has none."""
        super().reset(seed=seed)
        if seed is not None:
            self._games.seed(stream_seeds(seed, 1))
        elif not self._seeded:
            self._games.seed(self.np_random.integers(2**63, size=1, dtype=np.uint64))
        self._seeded = True
        self._games.reset(_ONLY)
        return self._observer.restart(_ONLY)[0].copy(), {}

    def step(self, action: np.int64) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        """Hold ``action``, from 0 to 5, for ``frame_skip`` frames."""
        if not self.action_space.contains(action):
            raise ValueError(f"action must be an integer from 0 to {ACTIONS - 1}, got {action!r}")
        games = self._games
        games.step(np.array([action]))
        terminated = bool(games.terminated[0])
        truncated = bool(games.frames[0] >= self._max_frames) and not terminated
        return self._observer.observe()[0].copy(), float(games.reward[0]), terminated, truncated, {}

    def render(self) -> NDArray[np.uint8] | None:
        """The game in colour, [210, 160, 3]; None without ``render_mode="rgb_array"``."""
        return draw_picture(self._games.state[:, 0]) if self.render_mode else None
