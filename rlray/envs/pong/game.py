"""The rules of Pong, for thousands of games at once.

A struct of arrays: one row of ``state`` per quantity, one column per game. Lengths are field units (one pixel of the
Atari screen), times are frames, the origin is the centre of the field, x grows to the right, y upwards.

Within a step, paddles and balls move straight but for events: a wall, a paddle, a goal. The frame of a ball's next
event is known in advance. So a step moves all games in a few operations and looks up the rules only for the few games
in which something happens. No operation depends on how many games there are or on a game's place among them (no sums
over games, no transcendental functions): game i of a batch is bit for bit the same game played alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

BALL_X, BALL_Y, AGENT_Y, OPPONENT_Y, BALL_VX, BALL_VY, AGENT_V, OPPONENT_V, AGENT_SCORE, OPPONENT_SCORE = range(10)
VISIBLE = 10  # the rows above are what a player sees; those below are the rules' own
_AIM, _SPEED, _LINE, _DUE, _ROWS = range(10, 15)
_PLACES, _PADDLES, _VELOCITIES = slice(BALL_X, BALL_VX), slice(AGENT_Y, BALL_VX), slice(BALL_VX, AGENT_SCORE)
_SCORES = slice(AGENT_SCORE, VISIBLE)

HALF = 80.0  # half the width and half the height of the field
PADDLE_X = 62.0  # the agent's paddle is at +x, the opponent's at -x
PADDLE_LIMIT = HALF - 8.0  # how far a paddle's centre goes: a paddle is 16 high and 4 wide
PLANE = PADDLE_X - 3.0  # |x| at which a ball, 2 wide, touches a paddle
WALL = HALF - 2.0  # |y| at which a ball, 4 high, touches a wall
REACH = 10.0  # a paddle returns balls whose centre is at most that far from its own
POINTS_TO_WIN = 21

AGENT_SPEED = 2.5  # units per frame
OPPONENT_SPEED = 2.0
SERVE_SPEED = 1.75  # of the ball along x, when served ...
RALLY_GAIN = 0.15  # ... and what every return adds to it ...
TOP_SPEED = 3.5  # ... up to this
EDGE_GAIN = 0.25  # a return off the very edge of a paddle is faster by this share
TOP_VX = TOP_SPEED * (1.0 + EDGE_GAIN)
TOP_VY = 3.0  # along y, off the edge of a paddle; in between it grows with the distance from the paddle's centre
SERVE_VY = 1.5
AIM = 9.0  # the opponent means to meet the ball up to this far from its paddle's centre, anew for every return

_MOVES = np.array([0, 0, 1, -1, 1, -1], np.float32) * np.float32(AGENT_SPEED)
ACTIONS = len(_MOVES)  # NOOP, FIRE, RIGHT (up), LEFT (down), RIGHTFIRE, LEFTFIRE, as in the Atari game

_NEVER = np.float32(1e9)
_ONE = np.float32(1.0)
_GOLDEN, _MIX1, _MIX2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)

Index = NDArray[np.intp]
Floats = NDArray[np.float32]


class PongGames:
    """``N`` games. `reset` starts some of them, `step` plays all of them.

    Attributes, to be read and not written:
        state: float32 [10, N], the rows named at the top of this module.
        reward: float32 [N], points won minus points lost in the last step.
        terminated: bool [N], one side reached 21 in the last step.
        frames: int32 [N], frames since the game was started.
    """

    def __init__(self, count: int, frame_skip: int = 4) -> None:
        self.count = count
        self.frame_skip = frame_skip
        self._state: Floats = np.zeros((_ROWS, count), np.float32)
        self.state = self._state[:VISIBLE]
        self.reward: Floats = np.zeros(count, np.float32)
        self.terminated = np.zeros(count, np.bool_)
        self.frames = np.zeros(count, np.int32)
        self._stream: NDArray[np.uint64] = np.zeros(count, np.uint64)
        self._soon = np.zeros(count, np.bool_)
        self._way: Floats = np.zeros((BALL_VX, count), np.float32)

    def seed(self, streams: NDArray[np.uint64]) -> None:
        """Give every game its own stream of random numbers; ``streams`` is [N]."""
        self._stream[:] = streams

    def save(self) -> dict[str, NDArray[np.generic]]:
        """All that `load` needs to go on from here; not copied."""
        return {"state": self._state, "frames": self.frames, "streams": self._stream}

    def load(self, saved: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on from where `save` was called, on as many games."""
        for own, name in ((self._state, "state"), (self.frames, "frames"), (self._stream, "streams")):
            np.copyto(own, saved[name])

    def reset(self, games: Index) -> None:
        """Start ``games`` at 0:0 with the first serve; their streams of random numbers go on."""
        block: Floats = np.zeros((_ROWS, len(games)), np.float32)
        self._serve(games, block)
        _foresee(block)
        self._state[:, games] = block
        self.frames[games] = 0

    def step(self, actions: NDArray[np.integer]) -> None:
        """Hold ``actions`` [N], each from 0 to 5 (not checked here), for ``frame_skip`` frames in all games."""
        state, skip = self._state, self.frame_skip
        self.reward.fill(0.0)
        self.terminated.fill(False)
        np.take(_MOVES, actions, out=state[AGENT_V], mode="clip")
        chase = state[OPPONENT_V]  # the opponent, too, chooses once per step
        np.subtract(state[BALL_Y], state[OPPONENT_Y], out=chase)
        chase -= state[_AIM]
        chase *= np.float32(1.0 / skip)
        np.clip(chase, -OPPONENT_SPEED, OPPONENT_SPEED, out=chase)

        games = np.flatnonzero(np.less_equal(state[_DUE], skip, out=self._soon))
        block = np.take(state, games, axis=1)
        np.multiply(state[_VELOCITIES], skip, out=self._way)
        state[_PLACES] += self._way
        np.clip(state[_PADDLES], -PADDLE_LIMIT, PADDLE_LIMIT, out=state[_PADDLES])
        state[_DUE] -= skip
        if games.size:
            self._play(games, block, np.full(games.size, skip, np.float32))
            state[:, games] = block
        self.frames += skip

    def _play(self, games: Index, block: Floats, left: Floats) -> None:
        """Play ``left`` frames of ``games``, whose balls are due within them; ``block`` is their part of the state."""
        left = left - block[_DUE]
        _advance(block, block[_DUE])
        self._apply_rules(games, block)
        _foresee(block)
        again = np.flatnonzero(block[_DUE] <= left)
        if again.size:
            part = np.take(block, again, axis=1)
            self._play(games[again], part, left[again])
            left[again] = 0.0
        _advance(block, left)
        block[_DUE] -= left
        if again.size:
            block[:, again] = part

    def _apply_rules(self, games: Index, block: Floats) -> None:
        """Let happen what is due.

        Rounding may make a ball due a frame early or late. Early, nothing applies, and it is due again a frame later;
        late, it is a little further on. So the rules ask where a ball is, never when it should have come there.
        """
        y, vy = block[BALL_Y], block[BALL_VY]
        bounces = (np.abs(y) >= WALL) & (y * vy > 0.0)
        np.copyto(y, np.copysign(np.float32(2.0 * WALL), y) - y, where=bounces)
        np.negative(vy, out=vy, where=bounces)

        arrived = np.abs(block[BALL_X]) >= block[_LINE]
        at_goal = block[_LINE] == HALF
        meeting = np.flatnonzero(arrived & ~at_goal)
        if meeting.size:
            self._meet(games, block, meeting)
        scoring = np.flatnonzero(arrived & at_goal)
        if scoring.size:
            self._score(games, block, scoring)

    def _meet(self, games: Index, block: Floats, meeting: Index) -> None:
        """Balls reach the line of a paddle: they come back, or the next line they can reach is the goal's."""
        x, y, agent_y, opponent_y = np.take(block[_PLACES], meeting, axis=1)
        right = x > 0.0
        offset = (y - np.where(right, agent_y, opponent_y)) * np.float32(1.0 / REACH)
        hit = np.abs(offset) <= 1.0
        block[_LINE, meeting[~hit]] = HALF
        back, x, right, offset = meeting[hit], x[hit], right[hit], offset[hit]
        speed = np.minimum(block[_SPEED, back] + np.float32(RALLY_GAIN), np.float32(TOP_SPEED))
        side = np.where(right, _ONE, -_ONE)
        block[_SPEED, back] = speed
        block[BALL_X, back] = side * np.float32(2.0 * PLANE) - x
        block[BALL_VX, back] = -side * speed * (_ONE + np.float32(EDGE_GAIN) * np.abs(offset))
        block[BALL_VY, back] = offset * np.float32(TOP_VY)
        to_opponent = back[right]
        block[_AIM, to_opponent] = _signed(self._draw(games[to_opponent])) * np.float32(AIM)

    def _score(self, games: Index, block: Floats, scoring: Index) -> None:
        """Balls are in a goal: a point each, and a new serve unless it was the last point."""
        point = -np.sign(block[BALL_X, scoring])
        who = games[scoring]
        self.reward[who] += point
        block[AGENT_SCORE, scoring] += point > 0.0
        block[OPPONENT_SCORE, scoring] += point < 0.0
        part = np.take(block, scoring, axis=1)
        self._serve(who, part)
        over = part[_SCORES].max(axis=0) >= POINTS_TO_WIN
        part[BALL_VX : BALL_VY + 1, over] = 0.0
        block[:, scoring] = part
        self.terminated[who] = over

    def _serve(self, games: Index, block: Floats) -> None:
        """The ball starts at the centre, to either side, at any angle up to that of SERVE_VY."""
        bits = self._draw(games)
        block[BALL_X] = block[BALL_Y] = block[_AIM] = 0.0
        block[BALL_VX] = np.where(bits & np.uint64(1), np.float32(SERVE_SPEED), np.float32(-SERVE_SPEED))
        block[BALL_VY] = _signed(bits) * np.float32(SERVE_VY)
        block[_SPEED] = SERVE_SPEED
        block[_LINE] = PLANE

    def _draw(self, games: Index) -> NDArray[np.uint64]:
        """The next 64 random bits of each of ``games`` (SplitMix64: Steele, Lea and Flood, OOPSLA 2014)."""
        z: NDArray[np.uint64] = self._stream[games] + _GOLDEN
        self._stream[games] = z
        z = (z ^ (z >> np.uint64(30))) * _MIX1
        z = (z ^ (z >> np.uint64(27))) * _MIX2
        z ^= z >> np.uint64(31)
        return z


def _advance(block: Floats, frames: Floats) -> None:
    """Move paddles and balls on by ``frames`` [k]."""
    block[_PLACES] += block[_VELOCITIES] * frames
    np.clip(block[_PADDLES], -PADDLE_LIMIT, PADDLE_LIMIT, out=block[_PADDLES])


def _foresee(block: Floats) -> None:
    """Find out when balls are due: in whole frames, at least one, until each is at or beyond a wall or its line."""
    x, y, vx, vy, due = block[BALL_X], block[BALL_Y], block[BALL_VX], block[BALL_VY], block[_DUE]
    speed_x, speed_y = np.maximum(np.abs(vx), np.float32(1e-6)), np.maximum(np.abs(vy), np.float32(1e-6))
    np.divide(block[_LINE] - np.copysign(x, x * vx), speed_x, out=due)
    np.minimum(due, (np.float32(WALL) - np.copysign(y, y * vy)) / speed_y, out=due)
    np.ceil(due, out=due)
    np.maximum(due, _ONE, out=due)
    due[vx == 0.0] = _NEVER


def _signed(bits: NDArray[np.uint64]) -> Floats:
    """The upper 24 bits as a number from -1 to 1, exact in float32."""
    signed: Floats = (bits >> np.uint64(40)).astype(np.float32)
    signed *= np.float32(2.0**-23)
    signed -= _ONE
    return signed
