"""The three autoreset modes of gymnasium against a slow oracle: every copy stepped by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit

from rlray.envs import EnvError, make_vec
from rlray.envs.autoreset import AutoresetVec
from rlray.envs.seeding import env_seeds
from tests.envs.toys import Broken, Counting, Endless, counting_vector, step_until_it_raises

MODES = [mode.name for mode in AutoresetMode]


class ByHand:
    """The oracle: one copy, reset when it ended, as a textbook loop would do it."""

    def __init__(self, seed: int) -> None:
        self.env = Counting()
        self.obs, _ = self.env.reset(seed=seed)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, np.ndarray]:
        """The transition that belongs to ``action``: what it led to, and where the next action is chosen."""
        after, reward, terminated, truncated, _ = self.env.step(action)
        self.obs = self.env.reset()[0] if terminated or truncated else after
        return after, reward, terminated, truncated, self.obs


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", [0, 1])
def test_transitions_are_those_of_copies_stepped_by_hand(mode: str, seed: int) -> None:
    envs, rng = 5, np.random.default_rng(seed)
    vec = AutoresetVec(counting_vector(envs, mode), "toy", seed=seed)
    oracles = [ByHand(each) for each in env_seeds(seed, envs)]
    obs = vec.reset().copy()
    np.testing.assert_array_equal(obs, [oracle.obs for oracle in oracles])
    ends = {"terminated": 0, "truncated": 0, "dummy": 0}
    resetting = np.zeros(envs, np.bool_)
    for _ in range(200):
        actions = rng.integers(0, 3, envs)
        step = vec.step(actions)
        assert step.reward.dtype == np.float32
        np.testing.assert_array_equal(step.valid, ~resetting)
        finals = dict(zip(step.final_index.tolist(), [] if step.final_obs is None else step.final_obs, strict=True))
        assert set(finals) == set(np.flatnonzero(step.terminated | step.truncated))
        for b, oracle in enumerate(oracles):
            if resetting[b]:
                assert step.reward[b] == 0.0
                assert not step.terminated[b]
                assert not step.truncated[b]
                np.testing.assert_array_equal(step.obs[b], oracle.obs)
                ends["dummy"] += 1
                continue
            after, reward, terminated, truncated, following = oracle.step(int(actions[b]))
            assert (step.reward[b], step.terminated[b], step.truncated[b]) == (reward, terminated, truncated)
            np.testing.assert_array_equal(finals.get(b, step.obs[b]), after)
            if mode != "NEXT_STEP" or b not in finals:
                np.testing.assert_array_equal(step.obs[b], following)
            ends["terminated"] += terminated
            ends["truncated"] += truncated
        resetting = (step.terminated | step.truncated) if mode == "NEXT_STEP" else resetting
    assert ends["terminated"] > 20
    assert ends["truncated"] > 20
    assert (ends["dummy"] > 0) == (mode == "NEXT_STEP")


@pytest.mark.parametrize("mode", MODES)
def test_final_observations_outlive_the_next_steps(mode: str) -> None:
    vec = AutoresetVec(counting_vector(3, mode), "toy", seed=0)
    vec.reset()
    kept = []
    for _ in range(60):
        step = vec.step(np.zeros(3, np.int64))
        if step.final_obs is not None:
            kept.append((step.final_obs, step.final_obs.copy()))
    assert len(kept) > 10
    for seen, then in kept:
        np.testing.assert_array_equal(seen, then)


@pytest.mark.parametrize("mode", MODES)
def test_a_reset_in_mid_episode_forgets_what_was_pending(mode: str) -> None:
    vec = AutoresetVec(counting_vector(4, mode), "toy", seed=3)
    first = vec.reset(9).copy()
    while True:
        step = vec.step(np.zeros(4, np.int64))
        if (step.terminated | step.truncated).any():
            break
    np.testing.assert_array_equal(vec.reset(9), first)
    assert vec.step(np.zeros(4, np.int64)).valid.all()


def test_a_dummy_step_has_no_reward_and_no_end_whatever_the_environment_says() -> None:
    class Sloppy(SyncVectorEnv):
        def step(self, actions: Any) -> Any:
            dummy = self._autoreset_envs.copy()
            obs, reward, terminated, truncated, info = super().step(actions)
            return obs, reward + 7.0 * dummy, terminated | dummy, truncated, info

    vec = AutoresetVec(Sloppy([Counting] * 3, autoreset_mode=AutoresetMode.NEXT_STEP), "toy", seed=0)
    vec.reset()
    dummies = 0
    for _ in range(40):
        step = vec.step(np.zeros(3, np.int64))
        assert not step.reward[~step.valid].any()
        assert not (step.terminated | step.truncated)[~step.valid].any()
        dummies += int((~step.valid).sum())
    assert dummies > 10


def test_the_time_limit_shows_the_true_last_observation() -> None:
    makers = [lambda: TimeLimit(Endless(), 7)] * 2
    vec = AutoresetVec(SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP), "toy", seed=0)
    vec.reset()
    for t in range(1, 22):
        step = vec.step(np.array([0, 1]))
        assert step.truncated.all() == (t % 7 == 0)
        assert not step.terminated.any()
        if t % 7 == 0:
            assert step.final_obs is not None
            np.testing.assert_array_equal(step.final_obs, [[7.0], [7.0]])
            np.testing.assert_array_equal(step.obs, [[0.0], [0.0]])


def test_a_vector_environment_must_say_its_mode() -> None:
    env = counting_vector(1)
    env.metadata = {}
    with pytest.raises(
        ValueError, match=r"metadata\['autoreset_mode'\] of the vector environment 'toy' must be one of"
    ):
        AutoresetVec(env, "toy")


def test_same_step_mode_without_final_observations_is_an_error() -> None:
    env = counting_vector(1, "NEXT_STEP")
    env.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # a lie
    vec = AutoresetVec(env, "toy", seed=0)
    vec.reset()
    with pytest.raises(ValueError, match=r"'toy' resets in the same step but gives no infos\['final_obs'\]"):
        step_until_it_raises(vec)


def test_spaces_that_are_no_arrays_are_an_error() -> None:
    class Dictionary(Counting):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = spaces.Dict({"a": spaces.Discrete(2)})  # type: ignore[assignment]

    with pytest.raises(TypeError, match="the observation space of environment 'toy' must be one of Box, Discrete"):
        AutoresetVec(SyncVectorEnv([Dictionary]), "toy")


def test_what_a_vector_environment_raises_is_told() -> None:
    env = SyncVectorEnv([lambda: Broken("step")] * 2, autoreset_mode=AutoresetMode.NEXT_STEP)
    vec = AutoresetVec(env, "toy", seed=4)
    vec.reset()
    with pytest.raises(
        EnvError, match=r"'toy' \(one of its 2 copies, seed 4\) raised ZeroDivisionError in step"
    ) as caught:
        step_until_it_raises(vec)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_factory_of_vector_environments_gets_what_it_asks_for() -> None:
    vec = make_vec(counting_vector, 3, seed=1, settings={"mode": "DISABLED", "offset": 0.5}, render=True)
    obs = vec.reset()
    np.testing.assert_array_equal(obs, np.zeros((3, 2)))
    step = vec.step(np.array([0, 1, 2]))
    np.testing.assert_array_equal(step.reward, [1.5, 11.5, 21.5])
    assert vec.render().shape == (4, 5, 3)
