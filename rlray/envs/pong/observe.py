"""What a player of the bundled Pong sees: a vector of numbers, or a stack of grey frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlray.envs.pong import game as pong
from rlray.envs.pong.draw import SIZE, draw_frames
from rlray.envs.pong.game import Index, PongGames
from rlray.envs.settings import setting

_UNITS = np.ones((pong.VISIBLE, 1), np.float32)  # what 1 stands for in an observation
_UNITS[[pong.BALL_X, pong.BALL_Y, pong.AGENT_Y, pong.OPPONENT_Y]] = pong.HALF
_UNITS[pong.BALL_VX] = pong.TOP_VX
_UNITS[pong.BALL_VY] = pong.TOP_VY
_UNITS[pong.AGENT_V] = pong.AGENT_SPEED
_UNITS[pong.OPPONENT_V] = pong.OPPONENT_SPEED
_UNITS[[pong.AGENT_SCORE, pong.OPPONENT_SCORE]] = pong.POINTS_TO_WIN

STEPS_KEPT = 16  # a FrameObserver moves its window back after that many steps, ...
BYTES_KEPT = 2**27  # ... or earlier, to take about that much memory


PONG_ID = "rlray/Pong-v0"


@dataclass(frozen=True)
class PongSettings:
    """Settings of `rlray/Pong-v0`."""

    obs: str = "state"  # or "pixels"
    frame_stack: int = setting(0, low=0)  # frames in an observation; 0 means 4 for pixels and 1 for state
    img_size: int = SIZE  # rows and columns of a frame, 84 or 42
    frame_skip: int = setting(4, low=1)  # frames that an action is held for
    max_frames: int = setting(108_000, low=1)  # an episode is truncated after that many frames: 30 minutes, as on Atari


class Observer(Protocol):
    """Turns the state of games into observations [N, ...]; each call may overwrite what the last one returned."""

    space: spaces.Space[Any]
    frame_stack: int

    def observe(self) -> NDArray[np.float32] | NDArray[np.uint8]:
        """What the players see after a step."""

    def restart(self, games: Index) -> NDArray[np.float32] | NDArray[np.uint8]:
        """The same, now that ``games`` have been reset since `observe`; nothing of their past remains."""

    def observe_again(self) -> NDArray[np.float32] | NDArray[np.uint8]:
        """What was returned last."""

    def resume(self, seen: NDArray[Any]) -> NDArray[np.float32] | NDArray[np.uint8]:
        """Go on as if ``seen`` had been returned last, of which a copy is returned."""


class StateObserver:
    """float32 [10] per game, from -1 to 1. Place: 1 is half the field. Velocity: 1 is the fastest possible.

    0 ball x (right +), 1 ball y (up +), 2 agent's paddle y, 3 opponent's paddle y, 4 ball velocity x, 5 ball velocity
    y, 6 agent's velocity, 7 opponent's velocity, 8 agent's points / 21, 9 opponent's points / 21.

    Memory is laid out by quantity, so the arrays returned are not C-contiguous.
    """

    frame_stack = 1

    def __init__(self, games: PongGames) -> None:
        self.space: spaces.Space[Any] = spaces.Box(-1.0, 1.0, (pong.VISIBLE,), np.float32)
        self._games = games
        self._scaled: NDArray[np.float32] = np.zeros((pong.VISIBLE, games.count), np.float32)
        self._seen: NDArray[np.float32] = self._scaled.T

    def observe(self) -> NDArray[np.float32]:
        np.divide(self._games.state, _UNITS, out=self._scaled)
        return self._seen

    def restart(self, games: Index) -> NDArray[np.float32]:
        self._scaled[:, games] = self._games.state[:, games] / _UNITS
        return self._seen

    def observe_again(self) -> NDArray[np.float32]:
        return self._seen

    def resume(self, seen: NDArray[Any]) -> NDArray[np.float32]:
        self._seen[:] = seen
        return self._seen


class FrameObserver:
    """uint8 [frame_stack, size, size] per game, oldest frame first; frames before the episode's first are zero.

    Frames of successive steps lie behind one another in memory and a stack is a window on them, so that each frame is
    written once. The arrays returned are therefore not C-contiguous, but each frame in them is.
    """

    def __init__(self, games: PongGames, frame_stack: int, size: int) -> None:
        self.space: spaces.Space[Any] = spaces.Box(0, 255, (frame_stack, size, size), np.uint8)
        self.frame_stack = frame_stack
        self._games = games
        kept = int(np.clip(BYTES_KEPT // (games.count * size * size), 2, STEPS_KEPT))
        self._frames = np.zeros((frame_stack + kept, games.count, size, size), np.uint8)
        self._next = frame_stack

    def observe(self) -> NDArray[np.uint8]:
        if self._next == len(self._frames):
            older = self.frame_stack - 1
            self._frames[:older] = self._frames[self._next - older :]
            self._next = older
        draw_frames(self._games.state, self._frames[self._next])
        self._next += 1
        return self._window()

    def restart(self, games: Index) -> NDArray[np.uint8]:
        window = self._frames[self._next - self.frame_stack : self._next]
        window[:-1, games] = 0
        first = np.empty((len(games), *self._frames.shape[2:]), np.uint8)
        draw_frames(self._games.state[:, games], first)
        window[-1, games] = first
        return self._window()

    def observe_again(self) -> NDArray[np.uint8]:
        return self._window()

    def resume(self, seen: NDArray[Any]) -> NDArray[np.uint8]:
        self._next = self.frame_stack
        self._window()[:] = seen
        return self._window()

    def _window(self) -> NDArray[np.uint8]:
        stacks: NDArray[np.uint8] = self._frames[self._next - self.frame_stack : self._next].swapaxes(0, 1)
        return stacks


def make_observer(games: PongGames, settings: PongSettings) -> Observer:
    """The observer that ``settings`` ask for.

    Raises: ValueError for another ``obs``, a stack of states, or frames of another size.
    """
    if settings.img_size not in (SIZE, SIZE // 2):
        raise ValueError(
            f"setting 'img_size' of environment {PONG_ID!r} must be {SIZE} or {SIZE // 2}, got {settings.img_size}"
        )
    if settings.obs == "pixels":
        return FrameObserver(games, settings.frame_stack or 4, settings.img_size)
    if settings.obs != "state":
        raise ValueError(f"setting 'obs' of environment {PONG_ID!r} must be 'state' or 'pixels', got {settings.obs!r}")
    if settings.frame_stack > 1:
        raise ValueError(
            f"setting 'frame_stack' of environment {PONG_ID!r} is for obs 'pixels', got {settings.frame_stack} with "
            "obs 'state': leave it out, a state holds the velocities"
        )
    return StateObserver(games)
