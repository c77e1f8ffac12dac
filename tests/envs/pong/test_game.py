"""The rules of the bundled Pong: against a slow oracle, and as a game."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from rlray.envs.pong import game as pong
from rlray.envs.pong.game import PongGames
from rlray.envs.seeding import stream_seeds
from tests.envs.pong.oracle import Game

Policy = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def start(count: int, seed: int = 0, frame_skip: int = 4) -> PongGames:
    games = PongGames(count, frame_skip)
    games.seed(stream_seeds(seed, count))
    games.reset(np.arange(count))
    return games


def at_random(state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 6, state.shape[1])


def follow(state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Keep the paddle at the height of the ball."""
    ahead = state[pong.BALL_Y] - state[pong.AGENT_Y]
    return np.where(ahead > 5, 2, np.where(ahead < -5, 3, 0))


def mixed(state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.where(np.arange(state.shape[1]) % 2 == 0, follow(state, rng), at_random(state, rng))


@pytest.mark.parametrize(("frame_skip", "steps"), [(1, 1000), (4, 500), (9, 200)])
def test_every_step_is_that_of_one_game_played_frame_by_frame(frame_skip: int, steps: int) -> None:
    count, rng = 16, np.random.default_rng(frame_skip)
    games = start(count, seed=frame_skip, frame_skip=frame_skip)
    seen = {"hits": 0, "points": 0, "walls": 0, "ends": 0, "unsure": 0}
    for _ in range(steps):
        actions = mixed(games.state, rng)
        games._state[pong.AGENT_SCORE, 0] = max(games._state[pong.AGENT_SCORE, 0], 20)  # so that it may end soon
        oracles = [Game.of(games, i) for i in range(count)]
        before = games.state.copy()
        games.step(actions)
        for oracle, action in zip(oracles, actions.tolist(), strict=True):
            oracle.step(action, frame_skip)
        sure = np.array([not oracle.unsure for oracle in oracles])
        numbers = np.array([oracle.numbers() for oracle in oracles]).T
        np.testing.assert_allclose(games._state[:13, sure], numbers[:, sure], atol=1e-3)
        for name, values in (("reward", games.reward), ("over", games.terminated), ("stream", games._stream)):
            assert values[sure].tolist() == [getattr(each, name) for each in oracles if not each.unsure]
        seen["unsure"] += count - int(sure.sum())
        seen["points"] += int(np.abs(games.reward).sum())
        seen["hits"] += int((games.state[pong.BALL_VX] * before[pong.BALL_VX] < 0).sum())
        seen["walls"] += int((games.state[pong.BALL_VY] * before[pong.BALL_VY] < 0).sum())
        seen["ends"] += int(games.terminated.sum())
        games.reset(np.flatnonzero(games.terminated))
    assert seen["unsure"] < steps * count / 50, seen
    assert min(seen["hits"], seen["points"], seen["walls"]) > 40, seen
    assert seen["ends"] >= 1, seen


def test_nothing_leaves_its_bounds_and_the_score_is_the_sum_of_the_rewards() -> None:
    games, rng = start(200, seed=3), np.random.default_rng(0)
    score = np.zeros(200)
    ended = 0
    for _ in range(1500):
        games.step(mixed(games.state, rng))
        score += games.reward
        state = games.state
        assert (np.abs(state[pong.BALL_X]) <= pong.HALF).all()
        assert (np.abs(state[pong.BALL_Y]) <= pong.WALL).all()
        assert (np.abs(state[[pong.AGENT_Y, pong.OPPONENT_Y]]) <= pong.PADDLE_LIMIT).all()
        assert (np.abs(state[pong.BALL_VX]) <= pong.TOP_VX).all()
        assert (np.abs(state[pong.BALL_VY]) <= pong.TOP_VY).all()
        np.testing.assert_array_equal(score, state[pong.AGENT_SCORE] - state[pong.OPPONENT_SCORE])
        best = state[[pong.AGENT_SCORE, pong.OPPONENT_SCORE]].max(axis=0)
        np.testing.assert_array_equal(best == pong.POINTS_TO_WIN, games.terminated)
        over = np.flatnonzero(games.terminated)
        ended += over.size
        games.reset(over)
        score[over] = 0
    assert ended > 100


def test_a_game_does_not_depend_on_the_others() -> None:
    """Bit for bit: in a batch, in a smaller batch, and alone, also when the others are reset at other times."""
    count, rng = 40, np.random.default_rng(0)
    streams = stream_seeds(5, count)
    together = start(count, seed=5)
    alone = {i: PongGames(1) for i in (0, 17, 39)}
    for i, game in alone.items():
        game.seed(streams[i : i + 1])
        game.reset(np.zeros(1, np.intp))
    for t in range(1500):
        actions = mixed(together.state, rng)
        together.step(actions)
        over = np.flatnonzero(together.terminated)
        for i, game in alone.items():
            game.step(actions[i : i + 1])
            np.testing.assert_array_equal(game._state[:, 0], together._state[:, i])
            assert (game.reward[0], game.terminated[0]) == (together.reward[i], together.terminated[i])
            if game.terminated[0]:
                game.reset(np.zeros(1, np.intp))
        if t == 700:
            over = np.union1d(over, np.arange(1, 10))
        together.reset(over)
    assert together.frames.min() > 0


def test_right_is_up_left_is_down_and_fire_does_nothing() -> None:
    games = start(6)
    games.step(np.arange(6))
    np.testing.assert_array_equal(games.state[pong.AGENT_Y], [0.0, 0.0, 10.0, -10.0, 10.0, -10.0])
    for _ in range(20):
        games.step(np.arange(6))
    np.testing.assert_array_equal(games.state[pong.AGENT_Y], [0.0, 0.0, 72.0, -72.0, 72.0, -72.0])


def test_where_the_paddle_is_hit_decides_angle_and_speed() -> None:
    offsets = np.array([-9.0, -4.0, 0.0, 4.0, 9.0], np.float32)
    games = start(5, frame_skip=1)
    games._state[pong.BALL_X], games._state[pong.BALL_VX], games._state[pong.BALL_VY] = 58.5, 2.0, 0.0
    games._state[pong.BALL_Y] = offsets
    games._state[pong._DUE] = 1
    games.step(np.zeros(5, np.int64))
    angle = games.state[pong.BALL_VY] / -games.state[pong.BALL_VX]
    assert (np.diff(angle) > 0.1).all()
    assert angle[2] == 0.0
    speed = -games.state[pong.BALL_VX]
    assert speed[0] > speed[1] > speed[2] > 0
    np.testing.assert_array_equal(speed, speed[::-1])


def mean_score(policy: Policy) -> float:
    games, rng = start(64, seed=1), np.random.default_rng(0)
    final = np.full(64, np.nan)
    for _ in range(5000):
        games.step(policy(games.state, rng))
        over = games.terminated & np.isnan(final)
        final[over] = (games.state[pong.AGENT_SCORE] - games.state[pong.OPPONENT_SCORE])[over]
        if not np.isnan(final).any():
            break
    return float(np.nanmean(final))


def test_the_opponent_beats_chance_and_is_beaten_by_skill() -> None:
    assert mean_score(at_random) < -16
    assert mean_score(follow) > 6
