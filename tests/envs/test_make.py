"""`make_vec` and `make_spec`: what they take, and what they say when they cannot."""

from __future__ import annotations

import functools
import pickle
import sys
import traceback
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from rlray.envs import EnvError, EnvSpec, make_spec, make_vec
from rlray.envs.seeding import env_seeds
from tests.envs.toys import Broken, Counting, Endless, step_until_it_raises

HERE = "tests.envs.toys"


def play(env: Any, steps: int = 40, **options: Any) -> list[np.ndarray]:
    """All that an environment shows in ``steps`` steps with fixed actions."""
    vec = make_vec(env, 3, **options)
    rng = np.random.default_rng(0)
    seen = [vec.reset().copy()]
    for _ in range(steps):
        space = vec.spec.action_space
        if isinstance(space, spaces.Discrete):
            actions = rng.integers(0, space.n, 3)
        else:
            assert isinstance(space, spaces.Box)
            actions = rng.uniform(-1, 1, (3, *space.shape)).astype(space.dtype)
        step = vec.step(actions)
        seen += [step.obs.copy(), step.reward.copy(), step.terminated.copy(), step.truncated.copy()]
    vec.close()
    vec.close()
    return seen


def same(one: list[np.ndarray], two: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("env", [Counting, f"{HERE}:Counting", functools.partial(Counting), "CartPole-v1"])
def test_the_same_seed_gives_the_same_run(env: Any) -> None:
    assert same(play(env, seed=7), play(env, seed=7))
    assert not same(play(env, seed=7), play(env, seed=8))


def test_the_three_ways_to_name_a_class_are_one() -> None:
    assert same(play(Counting, seed=1), play(f"{HERE}:Counting", seed=1))
    assert same(play(Counting, seed=1), play(lambda: Counting(), seed=1))


def test_every_copy_has_a_seed_of_its_own_from_the_one_given() -> None:
    vec = make_vec("CartPole-v1", 3)
    obs = vec.reset(5)
    for b, seed in enumerate(env_seeds(5, 3)):
        np.testing.assert_array_equal(obs[b], gymnasium.make("CartPole-v1").reset(seed=seed)[0])
    assert env_seeds(5, 2) == env_seeds(5, 3)[:2]
    assert set(env_seeds(5, 100)).isdisjoint(env_seeds(6, 100))


def test_the_seed_of_make_vec_serves_the_first_reset_only() -> None:
    vec = make_vec("CartPole-v1", 2, seed=3)
    first, second = vec.reset().copy(), vec.reset().copy()
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, make_vec("CartPole-v1", 2).reset(3))
    assert not np.array_equal(make_vec("CartPole-v1", 2).reset(), make_vec("CartPole-v1", 2).reset())


@pytest.mark.parametrize(
    ("env", "settings", "shape", "action"),
    [
        ("LunarLander-v3", {}, (8,), spaces.Discrete(4)),
        ("LunarLander-v3", {"continuous": True}, (8,), spaces.Box(-1, 1, (2,), np.float32)),
        ("FrozenLake-v1", {"map_name": "4x4"}, (16,), spaces.Discrete(4)),  # a number becomes one of 16
        ("Blackjack-v1", {}, (32 + 11 + 2,), spaces.Discrete(2)),  # a tuple of numbers
        (Endless, {}, (1,), spaces.Discrete(2)),  # counts from 5 by itself
    ],
)
def test_spec_is_that_of_the_copies(env: Any, settings: dict, shape: tuple, action: spaces.Space) -> None:
    spec = make_spec(env, settings)
    vec = make_vec(env, 2, seed=0, settings=settings)
    assert isinstance(spec, EnvSpec)
    assert vec.spec == spec
    assert spec.observation_space.shape == spec.frame_shape == shape
    assert spec.action_space == action
    vec.reset()
    for _ in range(30):
        spec.action_space.seed(1)
        actions = np.array([spec.action_space.sample() for _ in range(2)])
        step = vec.step(actions)
        assert step.obs.shape == (2, *shape)
        assert step.obs.dtype == spec.observation_space.dtype
    vec.close()


def test_discrete_actions_count_from_zero() -> None:
    vec = make_vec(Endless, 2)
    vec.reset(0)
    np.testing.assert_array_equal(vec.step(np.array([0, 1])).reward, [5.0, 6.0])


@pytest.mark.parametrize("env", ["MountainCar-v0", Endless])
def test_a_step_limit_truncates_and_shows_the_true_last_observation(env: Any) -> None:
    limited, free = make_vec(env, 2, seed=0, settings={"max_episode_steps": 6}), make_vec(env, 2, seed=0)
    limited.reset(), free.reset()
    for t in range(1, 7):
        actions = np.array([t % 2, 1])
        step, other = limited.step(actions), free.step(actions)
        if t < 6:
            np.testing.assert_array_equal(step.obs, other.obs)
            assert step.final_obs is None
    assert step.truncated.all()
    assert not step.terminated.any()
    np.testing.assert_array_equal(step.final_obs, other.obs)
    assert not np.array_equal(step.obs, other.obs)


def test_what_is_hidden_is_not_shown_and_all_else_is_the_same() -> None:
    part, whole = make_vec("CartPole-v1", 2, seed=0, settings={"hide": [3, 1]}), make_vec("CartPole-v1", 2, seed=0)
    shown = [0, 2]
    assert part.spec.observation_space.shape == (2,)
    np.testing.assert_array_equal(part.spec.observation_space.high, whole.spec.observation_space.high[shown])
    np.testing.assert_array_equal(part.reset(), whole.reset()[:, shown])
    ended = 0
    for _ in range(40):
        step, other = part.step(np.ones(2, np.int64)), whole.step(np.ones(2, np.int64))
        np.testing.assert_array_equal(step.obs, other.obs[:, shown])
        if step.final_obs is not None:
            ended += len(step.final_index)
            np.testing.assert_array_equal(step.final_obs, other.final_obs[:, shown])
    assert ended > 2


class Square(Counting):
    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Box(-1e6, 1e6, (2, 2), np.float32)


@pytest.mark.parametrize(
    ("env", "hide", "message"),
    [
        ("CartPole-v1", [4], r"'hide' of environment 'CartPole-v1' must leave some of its numbers 0 to 3, got \[4\]"),
        ("CartPole-v1", [0, 1, 2, 3], "must leave some of its numbers 0 to 3"),
        ("CartPole-v1", 2, "must be a list of whole numbers, got 2"),
        (Square, [0], "'hide' is for environments that observe vectors"),
    ],
)
def test_what_cannot_be_hidden(env: Any, hide: Any, message: str) -> None:
    with pytest.raises(EnvError, match=message):
        make_vec(env, 2, settings={"hide": hide})


def test_pictures_of_the_first_copy() -> None:
    vec = make_vec(Counting, 2, seed=0, render=True)
    vec.reset()
    np.testing.assert_array_equal(vec.render(), np.zeros((4, 5, 3), np.uint8))
    vec = make_vec("CartPole-v1", 2, seed=0, render=True)
    vec.reset()
    picture = vec.render()
    assert picture.dtype == np.uint8
    assert picture.shape == (400, 600, 3)
    vec.close()


def test_gymnasiums_form_module_and_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_games.py").write_text(
        "import gymnasium\ngymnasium.register('MyGame-v0', 'tests.envs.toys:Counting')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    try:
        assert make_spec("my_games:MyGame-v0").observation_space.shape == (2,)
    finally:
        del gymnasium.registry["MyGame-v0"]


class NotAnEnv:
    pass


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ({"env": "CartPoll-v1"}, ValueError, r"unknown environment 'CartPoll-v1'; did you mean 'CartPole-v1' or"),
        ({"env": "LunarLander"}, ValueError, r"unknown environment 'LunarLander'; did you mean 'LunarLander-v3'"),
        ({"env": "ALE/Pnog-v5"}, ValueError, r"unknown environment 'ALE/Pnog-v5'; did you mean 'ALE/Pong-v5'"),
        ({"env": "Pong"}, ValueError, r"did you mean 'rlray/Pong-v0' or 'ALE/Pong-v5'"),
        ({"env": "xyzzyplugh"}, ValueError, r"unknown environment 'xyzzyplugh'\. An environment is a registered name"),
        ({"env": "no_such.module:Env"}, ValueError, r"no module 'no_such'; it must be installed, or lie beside"),
        ({"env": f"{HERE}:Countin"}, ValueError, r"has no 'Countin'; did you mean 'Counting'"),
        ({"env": f"{HERE}:NOT_CALLABLE"}, TypeError, r"must name a class or a function, got 3"),
        ({"env": 5}, TypeError, r"env must be a string, a class or a function, got 5"),
        ({"num_envs": 0}, ValueError, r"num_envs must be at least 1, got 0"),
        ({"num_envs": 2.0}, TypeError, r"num_envs must be an integer, got 2\.0"),
        ({"num_threads": 0}, ValueError, r"num_threads must be at least 1, got 0"),
        ({"seed": -1}, ValueError, r"seed must be at least 0, got -1"),
        ({"seed": "1"}, TypeError, r"seed must be an integer, got '1'"),
        ({"settings": [1]}, TypeError, r"settings must be a mapping of names to values, got \[1\]"),
        (
            {"env": "LunarLander-v3", "settings": {"continous": True}},
            ValueError,
            r"environment 'LunarLander-v3' has no setting 'continous'; did you mean 'continuous'\? It takes: cont",
        ),
        (
            {"env": Counting, "settings": {"ofset": 1}},
            ValueError,
            r"Counting' has no setting 'ofset'; did you mean 'off",
        ),
        ({"env": Counting, "settings": {"render_mode": "human"}}, ValueError, r"has no setting 'render_mode'"),
        (
            {"env": "rlray/Pong-v0", "settings": {"seed": 1}},
            ValueError,
            r"'seed' is no setting .* argument of make_vec",
        ),
        ({"env": Endless, "render": True}, EnvError, r"takes no render_mode, so it cannot be drawn"),
        ({"env": NotAnEnv}, EnvError, r"must be a gymnasium\.Env, got <.*NotAnEnv"),
        ({"env": lambda num_envs: NotAnEnv()}, TypeError, r"takes num_envs, so it must make a gymnasium\.vector"),
        ({"env": lambda num_envs: make_vec(Counting, 7)}, ValueError, r"made 7 copies, asked for 2"),
    ],
)
def test_what_cannot_be_made_is_explained(arguments: dict, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        make_vec(**{"env": "CartPole-v1", "num_envs": 2, **arguments})


def test_a_module_that_fails_to_import_shows_its_own_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_broken.py").write_text("import numpi_of_mine\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="numpi_of_mine"):
        make_vec("my_broken:Env", 1)


@pytest.mark.parametrize(
    ("actions", "kind", "text"),
    [
        (np.array([0, 2]), ValueError, r"actions for environment 'CartPole-v1' must be from 0 to 1, got 2"),
        (np.array([0, -1]), ValueError, r"must be from 0 to 1, got -1"),
        (np.array([0.0, 1.0]), TypeError, r"must be integers, got dtype float64"),
        (np.array([0, 1, 1]), ValueError, r"2 copies, must have shape \(2,\), got \(3,\)"),
    ],
)
def test_wrong_actions_are_explained(actions: np.ndarray, kind: type[Exception], text: str) -> None:
    vec = make_vec("CartPole-v1", 2, seed=0)
    vec.reset()
    with pytest.raises(kind, match=text):
        vec.step(actions)


def test_wrong_continuous_actions_are_explained() -> None:
    vec = make_vec("Pendulum-v1", 2, seed=0)
    vec.reset()
    with pytest.raises(ValueError, match=r"must have shape \(2, 1\), got \(2,\)"):
        vec.step(np.zeros(2, np.float32))


@pytest.mark.parametrize("env", ["CartPole-v1", "rlray/Pong-v0"])
def test_calls_in_the_wrong_order_are_explained(env: str) -> None:
    vec = make_vec(env, 2)
    with pytest.raises(RuntimeError, match=r"call reset\(\) before step\(\)"):
        vec.step(np.zeros(2, np.int64))
    vec.reset(0)
    with pytest.raises(RuntimeError, match=r"was made without pictures: use make_vec\(\.\.\., render=True\)"):
        vec.render()


def test_a_closed_environment_says_so() -> None:
    vec = make_vec("CartPole-v1", 2, seed=0)
    vec.close()
    with pytest.raises(RuntimeError, match="'CartPole-v1' is closed"):
        vec.reset()


@pytest.mark.parametrize(("where", "doing"), [("step", r"step 3"), ("reset", r"reset, after \d steps")])
def test_what_the_users_environment_raises_is_told_whole(where: str, doing: str) -> None:
    copies: list[Counting] = []

    def maze() -> Counting:
        copies.append(Broken(where) if len(copies) == 1 else Counting())
        return copies[-1]

    vec = make_vec(maze, 3, seed=11)
    vec.reset()
    with pytest.raises(EnvError) as caught:
        step_until_it_raises(vec)
    error, seed = caught.value, env_seeds(11, 3)[1]
    with pytest.raises(
        EnvError, match=rf"maze' \(copy 1 of 3, seed {seed}\) raised ZeroDivisionError in {doing}: my own"
    ):
        raise error
    assert (error.index, error.seed) == (1, seed)
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert "_the_users_own_bug" in "".join(traceback.format_exception(error))
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.env_id, again.index, again.steps) == (str(error), error.env_id, 1, error.steps)


def test_a_picture_that_fails_is_told_too() -> None:
    vec = make_vec(Broken, 2, seed=0, settings={"where": "render"}, render=True)
    vec.reset()
    with pytest.raises(EnvError, match=r"\(copy 0 of 2, seed \d+\) raised ZeroDivisionError in render, after 0 steps"):
        vec.render()


def test_an_environment_that_cannot_be_made_says_which_copy() -> None:
    with pytest.raises(
        EnvError, match=r"\(copy 0 of 2, not seeded\) raised ZeroDivisionError in making, after 0 steps"
    ):
        make_vec(Broken, 2, settings={"where": "init"})


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ("shape", r"step\(\) gave an observation of shape \(3,\), its observation_space says \(2,\)"),
        ("tuple", r"step\(\) must return \(obs, reward, terminated, truncated, info\), got \(array"),
    ],
)
def test_an_environment_that_breaks_the_rules_is_told_which(where: str, text: str) -> None:
    vec = make_vec(Broken, 2, seed=0, settings={"where": where})
    vec.reset()
    with pytest.raises(EnvError, match=text):
        vec.step(np.zeros(2, np.int64))


def test_a_missing_ale_py_names_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(ImportError, match=r"'ALE/Pong-v5' needs ale-py, .*: pip install \"rlray\[atari\]\"$"):
        make_vec("ALE/Pong-v5", 1)
