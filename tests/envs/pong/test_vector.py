"""The bundled Pong as a `VectorEnv`, against games stepped by hand."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pytest

from rlray.envs import make_spec, make_vec
from rlray.envs.pong import PongEnv, PongVec
from rlray.envs.pong import game as pong
from rlray.envs.pong.draw import AGENT, BACKGROUND, BALL, OPPONENT, WALL, draw_frames
from rlray.envs.pong.game import PongGames
from rlray.envs.seeding import stream_seeds

PONG = "rlray/Pong-v0"
STACKED = {"obs": "pixels", "frame_stack": 3}


def test_specs() -> None:
    state, pixels, deep = make_spec(PONG), make_spec(PONG, {"obs": "pixels"}), make_spec(PONG, STACKED)
    assert (state.observation_space.shape, state.observation_space.dtype, state.frame_stack) == ((10,), np.float32, 1)
    assert (pixels.observation_space.shape, pixels.observation_space.dtype) == ((4, 84, 84), np.uint8)
    assert (pixels.frame_stack, pixels.pad, pixels.frame_shape, deep.frame_stack) == (4, "zero", (84, 84), 3)
    assert pixels.action_space.n == 6  # type: ignore[attr-defined]


@pytest.mark.parametrize("settings", [{}, STACKED])
def test_a_vector_is_single_games_side_by_side(settings: dict[str, Any]) -> None:
    """Observations, rewards, both kinds of end, final observations, over several episodes; game 0 by `PongEnv`."""
    count, limit, seed = 3, 2800, 4
    vec = make_vec(PONG, count, seed=seed, settings={**settings, "max_frames": limit})
    alone = [PongVec(1, **settings, max_frames=limit) for _ in range(count)]
    single = PongEnv(**settings, max_frames=limit)
    rng = np.random.default_rng(0)
    obs = vec.reset()
    for i, game in enumerate(alone):
        assert np.array_equal(game.reset(stream_seeds(seed, count)[i : i + 1])[0], obs[i])
    assert np.array_equal(single.reset(seed=seed)[0], obs[0])
    ends = {"terminated": 0, "truncated": 0}
    for _ in range(1100):
        # The last copy plays well, so that it sees its time out; the others lose long before.
        state = vec._games.state[:, -1]  # type: ignore[attr-defined]
        ahead = state[pong.BALL_Y] - state[pong.AGENT_Y]
        actions = rng.integers(0, 6, count)
        actions[-1] = 2 if ahead > 5 else 3 if ahead < -5 else 0
        step = vec.step(actions)
        finals = dict(zip(step.final_index.tolist(), [] if step.final_obs is None else step.final_obs, strict=True))
        assert step.valid.all()
        assert not (step.terminated & step.truncated).any()
        assert set(finals) == set(np.flatnonzero(step.terminated | step.truncated))
        for i, game in enumerate(alone):
            one = game.step(actions[i : i + 1])
            assert np.array_equal(one.obs[0], step.obs[i])
            assert one.reward[0] == step.reward[i]
            assert (one.terminated[0], one.truncated[0]) == (step.terminated[i], step.truncated[i])
            assert (one.final_obs is None) == (i not in finals)
            assert one.final_obs is None or np.array_equal(one.final_obs[0], finals[i])
        after, reward, terminated, truncated, _ = single.step(actions[0])
        assert (reward, terminated, truncated) == (step.reward[0], step.terminated[0], step.truncated[0])
        if terminated or truncated:
            assert np.array_equal(after, finals[0])
            after, _ = single.reset()
        assert np.array_equal(after, step.obs[0])
        ends["terminated"] += int(step.terminated.sum())
        ends["truncated"] += int(step.truncated.sum())
    assert ends["terminated"] >= 2, ends
    assert ends["truncated"] >= 1, ends


@pytest.mark.parametrize("stack", [1, 2, 4])
def test_stacks_are_rebuilt_from_newest_frames_with_zeros_before_an_episode(stack: int) -> None:
    count = 4
    vec = PongVec(count, seed=0, obs="pixels", frame_stack=stack, max_frames=52)
    rng = np.random.default_rng(0)
    obs = vec.reset()
    zeros = [np.zeros((84, 84), np.uint8)] * stack
    frames = [deque([*zeros, each[-1].copy()], stack) for each in obs]
    ended = 0
    for t in range(300):
        step = vec.step(rng.integers(0, 6, count))
        for b in range(count):
            if b in step.final_index:
                assert step.final_obs is not None
                final = step.final_obs[list(step.final_index).index(b)]
                frames[b].append(final[-1])
                np.testing.assert_array_equal(final, np.stack(frames[b]))
                frames[b].extend(zeros)
                ended += 1
            frames[b].append(step.obs[b, -1].copy())
            np.testing.assert_array_equal(step.obs[b], np.stack(frames[b]))
        if t in (100, 250):
            for b, first in enumerate(vec.reset()):
                frames[b].extend([*zeros, first[-1].copy()])
                np.testing.assert_array_equal(first, np.stack(frames[b]))
    assert ended > 50


def test_the_number_of_games_changes_none_of_them() -> None:
    many, few = make_vec(PONG, 50, seed=3), make_vec(PONG, 3, seed=3)
    np.testing.assert_array_equal(many.reset()[:3], few.reset())
    rng = np.random.default_rng(0)
    for _ in range(600):
        actions = rng.integers(0, 6, 50)
        one, two = many.step(actions), few.step(actions[:3])
        np.testing.assert_array_equal(one.obs[:3], two.obs)
        np.testing.assert_array_equal(one.reward[:3], two.reward)


def test_seeds() -> None:
    def play(seed: int | None) -> np.ndarray:
        vec = make_vec(PONG, 2, seed=seed)
        vec.reset()
        return np.concatenate([vec.step(np.zeros(2, np.int64)).obs.copy() for _ in range(30)])

    np.testing.assert_array_equal(play(1), play(1))
    assert not np.array_equal(play(1), play(2))
    assert not np.array_equal(play(None), play(None))
    vec = make_vec(PONG, 2, seed=1)
    first, second = vec.reset().copy(), vec.reset().copy()
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(vec.reset(1), first)


def test_states_are_scaled_as_documented() -> None:
    vec = make_vec(PONG, 3, seed=0)
    vec.reset()
    rng = np.random.default_rng(0)
    space = vec.spec.observation_space
    for _ in range(900):
        step = vec.step(rng.integers(0, 6, 3))
        games = vec._games.state  # type: ignore[attr-defined]
        units = np.array([80, 80, 80, 80, 4.375, 3, 2.5, 2, 21, 21])
        np.testing.assert_allclose(step.obs, games.T / units, atol=1e-6)
        assert all(space.contains(np.ascontiguousarray(each)) for each in step.obs)


@pytest.mark.parametrize(("max_frames", "steps"), [(40, 10), (41, 11), (1, 1)])
def test_an_episode_is_truncated_after_max_frames(max_frames: int, steps: int) -> None:
    vec = make_vec(PONG, 2, seed=0, settings={"max_frames": max_frames})
    vec.reset()
    for t in range(1, 2 * steps + 1):
        step = vec.step(np.zeros(2, np.int64))
        assert step.truncated.all() == (t % steps == 0)
        assert not step.terminated.any()


def test_a_game_won_in_its_last_frames_is_not_truncated() -> None:
    vec = PongVec(2, seed=0, max_frames=4)
    vec.reset()
    state = vec._games._state
    state[pong.AGENT_SCORE, 0] = 20
    state[[pong.BALL_X, pong.BALL_VX, pong._LINE, pong._DUE], 0] = [-79.0, -2.0, pong.HALF, 1.0]
    step = vec.step(np.zeros(2, np.int64))
    assert (step.reward.tolist(), step.terminated.tolist(), step.truncated.tolist()) == (
        [1.0, 0.0],
        [True, False],
        [False, True],
    )
    assert step.final_obs is not None
    assert step.final_obs[0, 8] == 1.0, "the final observation shows the last point"


def test_frames_show_the_objects_where_they_are() -> None:
    games = PongGames(3)
    games._state[pong.BALL_X], games._state[pong.BALL_Y] = [-80, 0, 80], [78, 0, -78]
    games._state[pong.AGENT_Y], games._state[pong.OPPONENT_Y] = [72, 0, -72], [-72, 0, 72]
    frames = np.zeros((3, 84, 84), np.uint8)
    draw_frames(games.state, frames)

    def box(i: int, grey: int) -> tuple[int, int, int, int]:
        rows, columns = np.nonzero(frames[i] == grey)
        return int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())

    assert [box(i, AGENT) for i in range(3)] == [(2, 9, 72, 73), (38, 45, 72, 73), (74, 81, 72, 73)]
    assert [box(i, OPPONENT) for i in range(3)] == [(74, 81, 10, 11), (38, 45, 10, 11), (2, 9, 10, 11)]
    assert [box(i, BALL) for i in range(3)] == [(2, 3, 1, 2), (41, 42, 41, 42), (80, 81, 81, 82)]
    assert (frames[:, [0, 1, 82, 83]] == WALL).all()
    assert (frames == BACKGROUND).sum() == 3 * (84 * 80 - 16 - 16 - 4)


def test_small_frames_are_the_means_of_four_pixels_of_large_ones() -> None:
    """The same games with both, over ends of episodes and a second reset; means are rounded down."""
    large, small = (PongVec(3, seed=1, obs="pixels", max_frames=200, img_size=size) for size in (84, 42))
    assert (small.spec.frame_shape, small.spec.observation_space.shape) == ((42, 42), (4, 42, 42))

    def halved(frames: Any) -> Any:
        return frames.reshape(*frames.shape[:-2], 42, 2, 42, 2).mean(axis=(-3, -1)).astype(np.uint8)

    rng = np.random.default_rng(0)
    for t in range(120):
        if t in (0, 60):
            np.testing.assert_array_equal(halved(large.reset()), small.reset())
        actions = rng.integers(0, 6, 3)
        one, two = large.step(actions), small.step(actions)
        np.testing.assert_array_equal(halved(one.obs), two.obs)
        if one.final_obs is not None:
            np.testing.assert_array_equal(halved(one.final_obs), two.final_obs)
    assert len(np.unique(two.obs)) > 5, "a ball between pixels shades them"


def test_the_picture_shows_the_first_game_and_its_score() -> None:
    vec = make_vec(PONG, 2, seed=0, render=True)
    vec.reset()
    before = vec.render()
    assert (before.shape, before.dtype) == ((210, 160, 3), np.uint8)
    games = vec._games  # type: ignore[attr-defined]
    games._state[[pong.AGENT_SCORE, pong.OPPONENT_SCORE], 0] = [19, 7]
    after = vec.render()
    changed = np.argwhere((before != after).any(axis=2))
    assert changed[:, 0].max() < 24, "only the score above the field"
    assert (changed[:, 1] < 80).any()
    assert (changed[:, 1] > 80).any()


@pytest.mark.parametrize(
    ("settings", "kind", "text"),
    [
        ({"obs": "rgb"}, ValueError, r"'obs' of environment 'rlray/Pong-v0' must be 'state' or 'pixels', got 'rgb'"),
        ({"obs": 1}, TypeError, r"'obs' .* must be str, got 1 \(int\)"),
        ({"frame_stack": 4}, ValueError, r"'frame_stack' .* is for obs 'pixels', got 4 with obs 'state': leave it out"),
        ({"frame_stack": -1}, ValueError, r"'frame_stack' .* must be at least 0, got -1"),
        ({"frameskip": 2}, ValueError, r"has no setting 'frameskip'; did you mean 'frame_skip'"),
        ({"max_frames": 0}, ValueError, r"'max_frames' .* must be at least 1, got 0"),
        ({"img_size": 64}, ValueError, r"'img_size' of environment 'rlray/Pong-v0' must be 84 or 42, got 64"),
    ],
)
def test_wrong_settings_are_explained(settings: dict[str, Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        make_vec(PONG, 2, settings=settings)
    with pytest.raises(kind, match=text):
        PongEnv(**settings)
