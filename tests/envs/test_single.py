"""One environment whose episodes the caller begins."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from rlray.envs import EnvError, SingleEnv, make_single, make_vec


class Countdown(gymnasium.Env[Any, Any]):
    """Ends after as many steps as its seed says; truncated where that is odd. Actions count from 3."""

    observation_space = spaces.Box(-100.0, 100.0, (2,), np.float32)
    action_space = spaces.Discrete(2, start=3)
    closed = 0

    def __init__(self, fail: bool = False) -> None:
        self.fail = fail

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.total = self.left = seed or 0
        return np.array([self.left, 0], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self.fail:
            raise ZeroDivisionError("the countdown stuck")
        self.left -= 1
        ended, odd = self.left == 0, self.total % 2 == 1
        return np.array([self.left, action], np.float32), float(action), ended and not odd, ended and odd, {}

    def close(self) -> None:
        type(self).closed += 1


def play(env: SingleEnv, seed: int, rng: np.random.Generator, steps: int = 10_000) -> list[Any]:
    seen: list[Any] = [np.array(env.reset(seed))]
    for _ in range(steps):
        obs, reward, terminated, truncated = env.step(rng.integers(env.spec.action_space.n))  # type: ignore[attr-defined]
        seen.append((np.array(obs), reward, terminated, truncated))
        if terminated or truncated:
            break
    return seen


def test_episodes_begin_by_their_seed_and_end_with_their_true_last_observation() -> None:
    env = make_single(Countdown)
    for seed in (4, 3):
        assert env.reset(seed).tolist() == [seed, 0]
        for left in range(seed - 1, -1, -1):
            obs, reward, terminated, truncated = env.step(np.int64(left % 2))
            assert obs.tolist() == [left, 3 + left % 2], "its actions count from 3, ours from 0"
            assert reward == 3.0 + left % 2
            assert (terminated, truncated) == (left == 0 and seed == 4, left == 0 and seed == 3)
    assert env.spec.action_space == spaces.Discrete(2)
    before = Countdown.closed
    env.close()
    assert Countdown.closed == before + 1


class TwoSteps(Countdown):
    """Always two steps, whatever the seed."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return super().reset(seed=2)


def Together(num_envs: int) -> Any:
    return gymnasium.vector.SyncVectorEnv([TwoSteps] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)


def test_what_comes_as_a_vector_only_shows_its_true_last_observation_too() -> None:
    env = make_single(Together)
    for _ in range(2):
        assert env.reset(5).tolist() == [2, 0]
        assert env.step(0)[0].tolist() == [1, 3]
        obs, reward, terminated, truncated = env.step(1)
        assert (obs.tolist(), reward, terminated, truncated) == ([0, 4], 4.0, True, False)
    env.close()


@pytest.mark.parametrize("name", ["CartPole-v1", "LunarLander-v3", "rlray/Pong-v0"])
def test_an_episode_follows_from_its_seed_alone(name: str) -> None:
    """Also the second time, after another one that was left in its midst."""
    env = make_single(name)
    first = play(env, 5, np.random.default_rng(0), 60)
    play(env, 6, np.random.default_rng(1), 7)
    again = play(env, 5, np.random.default_rng(0), 60)
    other = play(env, 7, np.random.default_rng(0), 60)
    env.close()
    assert str(first) == str(again)
    assert str(first) != str(other)


def test_it_is_what_a_vector_of_one_is() -> None:
    """But for the seed, of which a vector makes one for each copy."""
    single, vector = make_single("CartPole-v1"), make_vec("CartPole-v1", 1)
    obs = vector.reset(9)[0].copy()
    seed = int(np.random.SeedSequence(9).generate_state(1, np.uint32)[0]) & 0x7FFFFFFF
    assert single.reset(seed).tolist() == obs.tolist()
    for action in (0, 1, 1, 0, 1):
        mine, answer = single.step(action), vector.step(np.array([action]))
        assert mine[0].tolist() == answer.obs[0].tolist()
        assert mine[1:] == (answer.reward[0], answer.terminated[0], answer.truncated[0])


def test_what_the_environment_raises_is_told_with_its_seed() -> None:
    env = make_single(Countdown, {"fail": True})
    env.reset(6)
    with pytest.raises(EnvError, match=r"Countdown.*seed 6.*ZeroDivisionError in step 1: the countdown stuck"):
        env.step(0)
