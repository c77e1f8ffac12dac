"""Environments that say where they stand: another copy goes there and on from there, bit for bit."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv

from rlray.envs import EnvError, Resumable, VectorEnv, make_vec
from rlray.envs import episodes as episodes_module
from rlray.train.state_tree import put_together, take_apart
from tests.envs.toys import Counting

ENVS: list[tuple[Any, dict[str, Any]]] = [
    ("CartPole-v1", {}),
    ("Acrobot-v1", {"max_episode_steps": 60}),
    ("MountainCarContinuous-v0", {"max_episode_steps": 50}),
    ("LunarLander-v3", {}),
    ("LunarLander-v3", {"continuous": True, "enable_wind": True}),
    ("Blackjack-v1", {}),  # a tuple of numbers, flattened
    ("CliffWalking-v1", {"max_episode_steps": 40}),
    ("rlray/Pong-v0", {"frame_skip": 16}),
    ("rlray/Pong-v0", {"obs": "pixels", "frame_skip": 16, "frame_stack": 3, "max_frames": 500}),
]


def actions(env: VectorEnv, rng: np.random.Generator) -> Any:
    space = env.spec.action_space
    if isinstance(space, spaces.Discrete):
        return rng.integers(0, space.n, env.num_envs)
    assert isinstance(space, spaces.Box)
    return rng.uniform(-1, 1, (env.num_envs, *(space.shape or ()))).astype(space.dtype)


def play(env: VectorEnv, steps: int, rng: np.random.Generator) -> list[Any]:
    """Copies of all that ``env`` shows."""
    seen = []
    for _ in range(steps):
        chosen = actions(env, rng)
        answer = env.step(chosen)
        chosen[:] = 0  # the caller's array may be used again
        seen.append(copy.deepcopy(vars(answer)))
    return seen


def as_saved(state: Any) -> Any:
    """Through the form in which checkpoints hold it."""
    tree, arrays = take_apart({"env": state})
    return put_together(tree, {name: array.copy() for name, array in arrays.items()})["env"]


@pytest.mark.parametrize(("env", "settings"), ENVS, ids=str)
@pytest.mark.parametrize("before", [0, 1, 130])
def test_another_copy_goes_on_from_there(env: Any, settings: dict[str, Any], before: int) -> None:
    """The observation there, and 150 steps with the same actions: everything is equal, the ends of episodes too."""
    one, two = make_vec(env, 3, settings=settings), make_vec(env, 3, seed=99, settings=settings)
    assert isinstance(one, Resumable)
    assert isinstance(two, Resumable)
    obs = one.reset(7)
    play_rng = np.random.default_rng(1)
    played = play(one, before, play_rng)
    obs = played[-1]["obs"] if played else obs.copy()
    state = as_saved(one.state())
    there = two.load_state(state)
    assert there.dtype == obs.dtype
    assert np.array_equal(there, obs)
    left, right = (play(each, 150, np.random.default_rng(2)) for each in (one, two))
    for mine, theirs in zip(left, right, strict=True):
        assert all(np.array_equal(mine[name], theirs[name]) for name in mine)
    ended = sum(int(answer["terminated"].sum() + answer["truncated"].sum()) for answer in left)
    assert ended or settings.get("obs") != "pixels", "the test must see an end"
    one.close()
    two.close()


def test_telling_changes_nothing() -> None:
    runs = []
    for tells in (False, True):
        env = make_vec("LunarLander-v3", 2)
        assert isinstance(env, Resumable)
        env.reset(3)
        rng, seen = np.random.default_rng(0), []
        for _ in range(30):
            seen += play(env, 10, rng)
            if tells:
                env.state()
        runs.append(seen)
    for one, two in zip(*runs, strict=True):
        assert all(np.array_equal(one[name], two[name]) for name in one)


def test_before_the_first_reset_there_is_nothing_to_tell() -> None:
    for env in ("CartPole-v1", "rlray/Pong-v0"):
        vec = make_vec(env, 2)
        assert isinstance(vec, Resumable)
        assert vec.state() is None


def test_who_cannot_tell() -> None:
    """Vector environments of others, and an emulator in C++."""
    together = make_vec(lambda num_envs: SyncVectorEnv([Counting] * num_envs, autoreset_mode="SameStep"), 2)
    together.reset(0)
    assert isinstance(together, Resumable)
    assert together.state() is None
    pytest.importorskip("ale_py")
    assert not isinstance(make_vec("ALE/Pong-v5", 1), Resumable)


def test_an_episode_without_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(episodes_module, "MAX_STEPS", 30)
    env = make_vec("Pendulum-v1", 2, settings={"max_episode_steps": 50})
    assert isinstance(env, Resumable)
    env.reset(0)
    rng = np.random.default_rng(0)
    told = []
    for _ in range(100):
        play(env, 1, rng)
        told.append(env.state() is not None)
    assert told == [t % 50 < 30 or t % 50 == 49 for t in range(100)]


class Moody(Counting):
    """Ends after a number of steps that no seed decides."""

    made = 0

    def __init__(self) -> None:
        super().__init__()
        Moody.made += 1
        self.limit = 20 if Moody.made == 1 else 5

    def step(self, action: Any) -> Any:
        obs, reward, _, _, info = super().step(action)
        self.count = getattr(self, "count", 0) + 1
        return obs, reward, self.count >= self.limit, False, info


def test_an_episode_that_ends_on_the_way_is_noticed() -> None:
    one = make_vec(Moody, 1)
    assert isinstance(one, Resumable)
    one.reset(0)
    play(one, 10, np.random.default_rng(0))
    two = make_vec(Moody, 1)
    assert isinstance(two, Resumable)
    with pytest.raises(ValueError, match="ended earlier than when it was played first"):
        two.load_state(as_saved(one.state()))


class Brittle(Counting):
    """The second one breaks."""

    made = 0

    def __init__(self) -> None:
        super().__init__()
        Brittle.made += 1
        self.breaks = Brittle.made == 2

    def step(self, action: Any) -> Any:
        if self.breaks:
            raise OSError("out of order")
        return super().step(action)


def test_what_raises_on_the_way_is_told_as_ever() -> None:
    one = make_vec(Brittle, 1)
    assert isinstance(one, Resumable)
    one.reset(0)
    play(one, 1, np.random.default_rng(0))
    two = make_vec(Brittle, 1)
    assert isinstance(two, Resumable)
    with pytest.raises(EnvError, match="raised OSError in step 1: out of order"):
        two.load_state(one.state() or {})
