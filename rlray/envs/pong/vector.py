"""The bundled Pong as a `VectorEnv`: all games in one call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlray.envs.checks import check_discrete
from rlray.envs.pong.draw import draw_picture
from rlray.envs.pong.game import ACTIONS, PongGames
from rlray.envs.pong.observe import PONG_ID, PongSettings, make_observer
from rlray.envs.seeding import SeedOnce, stream_seeds
from rlray.envs.settings import read_settings
from rlray.envs.types import EnvSpec, VecStep


class PongVec:
    """``num_envs`` games of Pong.

    Guarantees: the same seed and actions give the same games, bit for bit, and game i is the same whatever the number
    of games. Ended games start anew in the same step. All arrays returned are overwritten by the next call.

    Args:
        num_envs: how many games.
        seed: for the first reset that gets none.
        render: whether `render` will be called; costs nothing.
        settings: see `PongSettings`.
    """

    def __init__(self, num_envs: int, *, seed: int | None = None, render: bool = False, **settings: Any) -> None:
        chosen = read_settings(PongSettings, settings, PONG_ID)
        self.num_envs = num_envs
        self._games = PongGames(num_envs, chosen.frame_skip)
        self._observer = make_observer(self._games, chosen)
        self._max_frames = chosen.max_frames
        stack = self._observer.frame_stack
        self.spec = EnvSpec(PONG_ID, self._observer.space, spaces.Discrete(ACTIONS), stack, "zero")
        self._seed = SeedOnce(seed)
        self._started = False
        self._render = render
        self._all = np.arange(num_envs)
        self._valid = np.ones(num_envs, np.bool_)
        self._truncated = np.zeros(num_envs, np.bool_)
        self._ended = np.zeros(num_envs, np.bool_)

    def reset(self, seed: int | NDArray[np.uint64] | None = None) -> NDArray[Any]:
        """Start all games anew; ``seed`` may also be the numbers of the games' random streams, uint64 [N]."""
        if isinstance(seed, np.ndarray):
            self._games.seed(seed)
        else:
            seed, seeded = self._seed.take(seed)
            if seeded:
                self._games.seed(stream_seeds(seed, self.num_envs))
        self._games.reset(self._all)
        self._started = True
        return self._observer.restart(self._all)

    def step(self, actions: NDArray[Any]) -> VecStep:
        """Hold ``actions`` [N], integers from 0 to 5, for ``frame_skip`` frames.

        Raises: ValueError or TypeError for actions of another shape, range or type; RuntimeError before `reset`.
        """
        games = self._games
        if not self._started:
            raise RuntimeError(f"environment {PONG_ID!r}: call reset() before step()")
        games.step(check_discrete(actions, self.num_envs, ACTIONS, PONG_ID))
        np.greater_equal(games.frames, self._max_frames, out=self._truncated)
        np.greater(self._truncated, games.terminated, out=self._truncated)  # at most one of the two
        obs = self._observer.observe()
        answer = VecStep(obs, games.reward, games.terminated, self._truncated, self._valid)
        ended = np.flatnonzero(np.logical_or(games.terminated, self._truncated, out=self._ended))
        if ended.size:
            answer.final_index, answer.final_obs = ended, obs[ended]
            games.reset(ended)
            answer.obs = self._observer.restart(ended)
        return answer

    def state(self) -> dict[str, Any] | None:
        """All of every game, and the frames that players still see; None before the first `reset`."""
        if not self._started:
            return None
        return {"games": self._games.save(), "seen": self._observer.observe_again()}

    def load_state(self, state: Mapping[str, Any]) -> NDArray[Any]:
        """Go on from ``state``; returns the observations [N, ...] there."""
        self._seed.take(None)
        self._games.load(state["games"])
        self._started = True
        return self._observer.resume(state["seen"])

    def render(self) -> NDArray[np.uint8]:
        """The first game in colour, [210, 160, 3]."""
        if not self._render:
            raise RuntimeError(f"environment {PONG_ID!r} was made without pictures: use make_vec(..., render=True)")
        return draw_picture(self._games.state[:, 0])

    def close(self) -> None:
        """Nothing is held."""
