"""Atari on the real emulator."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pytest

from rlray.envs import make_spec, make_vec
from rlray.envs.seeding import env_seeds

ale_py = pytest.importorskip("ale_py", reason='needs pip install "rlray[atari]"')

PONG = "ALE/Pong-v5"
RIGHT, LEFT = 2, 3


def make(num_envs: int, seed: int | None = 0, **options: Any) -> Any:
    render, threads = options.pop("render", False), options.pop("num_threads", 1)
    return make_vec(PONG, num_envs, seed=seed, num_threads=threads, settings=options, render=render)


class Stacks:
    """The oracle: keeps the newest frame of every observation, and rebuilds the stacks from those."""

    def __init__(self, obs: np.ndarray) -> None:
        self.depth = obs.shape[1]
        self.frames = [deque([np.zeros_like(obs[0, 0])] * self.depth, self.depth) for _ in obs]
        self.add(obs)

    def add(self, obs: np.ndarray) -> None:
        for frames, stack in zip(self.frames, obs, strict=True):
            frames.append(stack[-1])

    def stack(self, b: int) -> np.ndarray:
        return np.stack(self.frames[b])

    def restart(self, b: int, first: np.ndarray) -> None:
        self.frames[b].extend([np.zeros_like(first)] * (self.depth - 1) + [first])


def test_the_spec_says_what_the_papers_say() -> None:
    spec = make_spec(PONG)
    assert (spec.id, spec.frame_stack, spec.pad, spec.frame_shape) == (PONG, 4, "zero", (84, 84))
    assert (spec.observation_space.shape, spec.observation_space.dtype) == ((4, 84, 84), np.uint8)
    assert spec.action_space.n == 6  # type: ignore[attr-defined]


@pytest.mark.parametrize("stack", [4, 2])
def test_stacks_are_rebuilt_from_newest_frames_with_zeros_before_an_episode(stack: int) -> None:
    vec = make(3, max_frames=90, frame_stack=stack)
    rng = np.random.default_rng(0)
    obs = vec.reset()
    oracle, kept, ended = Stacks(obs), [], 0
    for b in range(3):
        np.testing.assert_array_equal(obs[b], oracle.stack(b))
    for _ in range(100):
        step = vec.step(rng.integers(0, 6, 3))
        for b in range(3):
            if b in step.final_index:
                final = step.final_obs[list(step.final_index).index(b)]
                oracle.frames[b].append(final[-1])
                np.testing.assert_array_equal(final, oracle.stack(b))
                oracle.restart(b, step.obs[b, -1])
                assert not step.obs[b, :-1].any()
                ended += 1
            else:
                oracle.frames[b].append(step.obs[b, -1])
            np.testing.assert_array_equal(step.obs[b], oracle.stack(b))
        assert step.valid.all()
        kept.append((step.obs, step.obs.copy()))
    assert ended >= 9
    assert all(np.array_equal(seen, then) for seen, then in kept), "observations are promised to be fresh arrays"
    vec.close()


def test_frames_and_rewards_are_those_of_the_bare_emulator() -> None:
    """Without no-ops and scaling: frame skip, maximum over two frames, raw reward, the end at max_frames."""
    limit = 720
    vec = make(1, noop_max=0, fire_reset=False, img_height=210, img_width=160, frame_stack=1, max_frames=limit)
    console = ale_py.ALEInterface()
    console.setFloat("repeat_action_probability", 0.0)
    console.loadROM(ale_py.roms.get_rom_path("pong"))
    moves = console.getMinimalActionSet()
    rng = np.random.default_rng(1)
    obs = vec.reset()
    points = 0
    for _ in range(2):
        console.reset_game()
        np.testing.assert_array_equal(obs[0, 0], console.getScreenGrayscale())
        for t in range(1, limit // 4 + 1):
            action = int(rng.integers(0, 6))
            reward, screens = 0, []
            for _ in range(4):
                reward += console.act(moves[action])
                screens.append(console.getScreenGrayscale())
            step = vec.step(np.array([action]))
            obs = step.obs
            assert step.reward[0] == reward
            assert not step.terminated[0]
            assert step.truncated[0] == (t == limit // 4)
            points += reward != 0
            if t < limit // 4:  # the library leaves the screen after the end out of the last frame
                np.testing.assert_array_equal(obs[0, 0], np.maximum(screens[2], screens[3]))
    assert points > 4
    vec.close()


def test_final_observations_are_what_next_step_autoreset_shows() -> None:
    """The same game in ale-py's other mode, where the last observation comes as the observation itself."""
    from ale_py.vector_env import AtariVectorEnv

    vec = make(1, seed=5, max_frames=150, noop_max=29)
    other = AtariVectorEnv("pong", 1, num_threads=1, reward_clipping=False, max_num_frames_per_episode=150, noop_max=30)

    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(vec.reset(), other.reset(seed=np.array(env_seeds(5, 1)))[0])
    ended = 0
    for _ in range(150):
        action = rng.integers(0, 6, 1)
        step = vec.step(action)
        shown, reward, terminated, truncated, _ = other.step(action)
        assert (reward[0], terminated[0], truncated[0]) == (step.reward[0], step.terminated[0], step.truncated[0])
        if truncated[0]:
            np.testing.assert_array_equal(step.final_obs, shown)
            shown = other.step(action)[0]
            ended += 1
        np.testing.assert_array_equal(step.obs, shown)
    assert ended >= 3
    vec.close()


def test_the_same_seed_gives_the_same_games_with_any_number_of_threads() -> None:
    def play(threads: int, seed: int) -> list[np.ndarray]:
        vec = make(2, seed=seed, num_threads=threads, max_frames=200, repeat_action_probability=0.25)
        rng = np.random.default_rng(0)
        seen = [vec.reset()]
        seen += [vec.step(rng.integers(0, 6, 2)).obs for _ in range(80)]
        vec.close()
        return seen

    one, two, other = play(1, 3), play(2, 3), play(1, 4)
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert not np.array_equal(one[-1][0], one[-1][1]), "copies must differ"


@pytest.mark.parametrize("fire_reset", [True, False])
def test_episodes_start_after_up_to_noop_max_frames_without_an_action(fire_reset: bool) -> None:
    vec = make(2, noop_max=3, fire_reset=fire_reset)
    vec.reset()
    # Only the library's own infos say how many frames an episode has begun with.
    frames = {int(each) for _ in range(20) for each in vec._env.reset()[1]["episode_frame_number"]}
    assert frames == {1, 2, 3} if fire_reset else frames == {0, 1, 2, 3}  # pressing FIRE takes one of them
    vec.close()


def test_the_picture_is_the_real_screen_and_stays_in_step_with_the_game() -> None:
    """Also through resets, sticky actions and the reset in mid-game: what is drawn is the game that is played."""
    seen = dict(img_height=210, img_width=160, grayscale=False, max_pool=False, frame_stack=1)
    vec = make(2, max_frames=100, repeat_action_probability=0.25, render=True, **seen)
    rng = np.random.default_rng(0)
    obs, ended = vec.reset(), 0
    for t in range(120):
        np.testing.assert_array_equal(vec.render(), obs[0, 0])
        step = vec.step(rng.integers(0, 6, 2))
        obs, ended = step.obs, ended + int(step.truncated[0])
        if t in (30, 60):
            obs = vec.reset() if t == 30 else vec.reset(9)
    assert ended >= 3
    assert vec.render().shape == (210, 160, 3)
    assert len(np.unique(vec.render().reshape(-1, 3), axis=0)) > 3, "a coloured screen"
    vec.close()


def test_a_whole_game_is_lost_by_doing_nothing() -> None:
    vec = make(1)
    vec.reset()
    rewards = []
    for _ in range(1200):
        step = vec.step(np.zeros(1, np.int64))
        rewards.append(float(step.reward[0]))
        if step.terminated[0]:
            break
    assert step.terminated[0]
    assert not step.truncated[0]
    assert (sum(rewards), set(rewards)) == (-21.0, {-1.0, 0.0})
    vec.close()


def test_right_is_up() -> None:
    """The agent's paddle, alone in its columns of the screen, by the rows that it covers."""
    vec = make(2, noop_max=0, img_height=210, img_width=160, frame_stack=1)
    vec.reset()
    for _ in range(30):
        step = vec.step(np.array([RIGHT, LEFT]))
    columns = step.obs[:, 0, 34:194, 140:144].max(axis=2).astype(int)
    up, down = (np.flatnonzero(column != np.bincount(column).argmax()).mean() for column in columns)
    assert up < down - 50
    vec.close()


@pytest.mark.parametrize(
    ("settings", "shape", "actions"),
    [
        ({"full_action_space": True}, (4, 84, 84), 18),
        ({"img_height": 64, "img_width": 48, "frame_stack": 1}, (1, 64, 48), 6),
        ({"grayscale": False, "frame_stack": 2}, (2, 84, 84, 3), 6),
    ],
)
def test_settings_change_the_spaces(settings: dict, shape: tuple, actions: int) -> None:
    spec = make_spec(PONG, settings)
    assert spec.observation_space.shape == shape
    assert spec.action_space.n == actions  # type: ignore[attr-defined]
    assert spec.frame_shape == (shape if spec.frame_stack == 1 else shape[1:])


def test_the_loss_of_a_life_ends_an_episode_if_asked() -> None:
    def first_end(episodic_life: bool) -> int:
        vec = make_vec("ALE/Breakout-v5", 1, seed=0, settings={"episodic_life": episodic_life, "noop_max": 0})
        vec.reset()
        for t in range(1, 400):
            if vec.step(np.array([1 if t % 5 == 0 else 0])).terminated[0]:
                break
        vec.close()
        return t

    assert first_end(True) < first_end(False) / 2


@pytest.mark.parametrize(
    ("settings", "kind", "text"),
    [
        ({"frame_stak": 4}, ValueError, r"'ALE/Pong-v5' has no setting 'frame_stak'; did you mean 'frame_stack'"),
        (
            {"reward_clipping": True},
            ValueError,
            r"has no setting 'reward_clipping'.* It takes: episodic_life, fire_reset,",
        ),
        ({"frame_skip": 0}, ValueError, r"setting 'frame_skip' of environment 'ALE/Pong-v5' must be at least 1, got 0"),
        ({"frame_skip": "4"}, TypeError, r"'frame_skip' .* must be int, got '4' \(str\)"),
        ({"frame_stack": True}, TypeError, r"'frame_stack' .* must be int, got True \(bool\)"),
        ({"episodic_life": 1}, TypeError, r"'episodic_life' .* must be bool, got 1 \(int\)"),
        ({"repeat_action_probability": 1.5}, ValueError, r"must be from 0\.0 to 1\.0, got 1\.5"),
        ({"repeat_action_probability": float("nan")}, ValueError, r"must be from 0\.0 to 1\.0, got nan"),
    ],
)
def test_wrong_settings_are_explained(settings: dict, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        make_vec(PONG, 1, settings=settings)


def test_an_action_that_the_game_does_not_have_is_an_error_and_no_hang() -> None:
    vec = make(2)
    with pytest.raises(RuntimeError, match=r"call reset\(\) before step\(\)"):
        vec.step(np.zeros(2, np.int64))
    vec.reset()
    for bad in (6, -1):
        with pytest.raises(ValueError, match=rf"actions for environment 'ALE/Pong-v5' must be from 0 to 5, got {bad}"):
            vec.step(np.array([0, bad]))
    assert vec.step(np.array([0, 5], np.int32)).valid.all()
    vec.close()
    vec.close()
    with pytest.raises(RuntimeError, match="'ALE/Pong-v5' is closed"):
        vec.step(np.zeros(2, np.int64))
