"""The simulator without actors around it: what is in a fragment, against a slow replay of the same games."""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from rlray.algos.dqn import DQNConfig
from rlray.algos.types import Fragment, LearnerContext
from rlray.train.failures import EnvironmentFailed
from rlray.train.simulator import RolloutStats, Simulator, SimulatorSetup
from rlray.train.sources import AlgorithmSource, EnvSource
from tests.train.toys import Corridor, CountingPolicy, CountingSettings

WEIGHTS = {"count": np.array(7)}


def setup(
    env: str = "tests.train.toys:Corridor", settings: dict[str, Any] | None = None, **changes: Any
) -> SimulatorSetup:
    algorithm = changes.pop("algorithm", AlgorithmSource("tests.train.toys:ALGORITHM", CountingSettings()))
    values: dict[str, Any] = {"number": 0, "life": 0, "stream": 5, "seed": 1, "envs": 3, "fragment_length": 7}
    return SimulatorSetup(EnvSource.of(env, settings or {}), algorithm, num_cpus=1, **{**values, **changes})


def play(simulator: Simulator, rollouts: int, version: int = 0) -> list[tuple[Fragment, RolloutStats]]:
    return [simulator.rollout(WEIGHTS, version, 0) for _ in range(rollouts)]


def flat(played: list[tuple[Fragment, RolloutStats]], name: str) -> Any:
    """One array [T * rollouts, B, ...] of a field."""
    return np.concatenate([getattr(fragment, name) for fragment, _ in played])


def flat_extra(played: list[tuple[Fragment, RolloutStats]], name: str) -> Any:
    return np.concatenate([fragment.extras[name] for fragment, _ in played])


def test_fragments_tell_what_happened() -> None:
    """Every number of twelve fragments follows from the rules of the corridor, the actions and the first draw."""
    played = play(Simulator(setup(settings={"limit": 9})), 12)
    obs, action, first = flat(played, "obs"), flat(played, "action"), flat(played, "first")
    reward, terminated, truncated = (flat(played, name) for name in ("reward", "terminated", "truncated"))
    assert terminated.sum() > 10
    assert truncated.sum() > 0, "the test must see both ends"
    returns: list[tuple[int, int, float, int]] = []  # (t, b, return, length) of ended episodes
    for b in range(3):
        at = steps = 0
        fresh = True
        for t in range(len(obs)):
            if fresh:
                at, steps, drawn = 0, 0, obs[t, b, 2]
            assert first[t, b] == fresh
            assert obs[t, b].tolist() == [at, steps, drawn]
            at, steps = at + action[t, b], steps + 1
            assert terminated[t, b] == (at == 5)
            assert reward[t, b] == (at == 5)
            assert truncated[t, b] == (steps == 9 and at < 5)
            fresh = at == 5 or steps == 9
            if fresh:
                returns.append((t, b, float(at == 5), steps))
    assert flat(played, "valid").all()
    returns.sort()
    assert [value for _, stats in played for value in stats.returns] == [value for _, _, value, _ in returns]
    assert [length for _, stats in played for length in stats.lengths] == [length for *_, length in returns]


def test_final_observations_are_the_true_last_ones() -> None:
    seen = 0
    for fragment, _ in play(Simulator(setup()), 12):
        ends = np.argwhere(fragment.terminated | fragment.truncated)
        assert np.array_equal(fragment.final_index, ends)
        for (t, b), final in zip(fragment.final_index, fragment.final_obs, strict=True):
            before, step = fragment.obs[t, b], fragment.action[t, b]
            assert final.tolist() == [before[0] + step, before[1] + 1, before[2]]
            seen += 1
    assert seen > 10


def test_fragments_of_a_stream_follow_each_other() -> None:
    played = play(Simulator(setup()), 5)
    for (one, _), (two, _) in itertools.pairwise(played):
        assert np.array_equal(one.last_obs, two.obs[0])
    assert [(fragment.stream, fragment.sequence) for fragment, _ in played] == [(5, i) for i in range(5)]
    assert [(stats.stream, stats.sequence, stats.steps) for _, stats in played] == [(5, i, 21) for i in range(5)]


def test_a_fragment_does_not_change_when_the_next_one_is_played() -> None:
    simulator = Simulator(setup())
    fragment, _ = simulator.rollout(WEIGHTS, 0, 0)
    before = pickle.dumps(fragment)
    simulator.rollout(WEIGHTS, 0, 0)
    assert pickle.dumps(fragment) == before


@pytest.mark.parametrize("env", ["ALE/Pong-v5", "rlray/Pong-v0"])
def test_of_stacked_frames_only_the_newest_is_kept(env: str) -> None:
    pytest.importorskip("ale_py")
    settings = {"obs": "pixels"} if env == "rlray/Pong-v0" else {}
    simulator = Simulator(setup(env, settings, envs=2, fragment_length=6))
    simulator.start()
    assert simulator._env.spec.frame_stack == 4
    played = play(simulator, 3)
    frames = flat(played, "obs")
    assert frames.shape == (18, 2, 84, 84)
    assert frames.dtype == np.uint8
    last = played[-1][0].last_obs
    assert last.shape == (2, 4, 84, 84)
    assert np.array_equal(last[:, :3].swapaxes(0, 1), frames[-3:]), "the stack is the last frames, oldest first"
    assert len(np.unique(frames.reshape(18, -1), axis=0)) >= 6, "the game moves"


def test_weights_are_loaded_when_their_version_changes() -> None:
    simulator = Simulator(setup())
    for version in (3, 3, 4, 4, 4, 9):
        fragment, stats = simulator.rollout(WEIGHTS, version, 0)
        assert stats.version == version
    policy = simulator._policy
    assert isinstance(policy, CountingPolicy)
    assert policy.loads == 3
    assert fragment.extras["count"].shape == (7, 3)
    assert (fragment.extras["count"] == 7).all()


def test_the_policy_is_told_the_step() -> None:
    fragment, _ = Simulator(setup()).rollout(WEIGHTS, 0, 1000)
    assert fragment.extras["step"][:, 0].tolist() == [1000 + 3 * t for t in range(7)]


def test_same_setup_same_bits() -> None:
    one, two = (play(Simulator(setup()), 4) for _ in range(2))
    for (left, _), (right, _) in zip(one, two, strict=True):
        assert pickle.dumps(left) == pickle.dumps(right)


@pytest.mark.parametrize("change", [{"number": 1}, {"life": 1}, {"seed": 2}], ids=str)
def test_other_simulators_lives_and_seeds_play_other_games(change: dict[str, int]) -> None:
    one, two = (play(Simulator(setup(**kind)), 2) for kind in ({}, change))
    assert not np.array_equal(flat(one, "action"), flat(two, "action"))
    assert not np.array_equal(flat(one, "obs")[0, :, 2], flat(two, "obs")[0, :, 2]), "the environments' seeds"


def test_environments_of_one_simulator_differ() -> None:
    fragment, _ = Simulator(setup()).rollout(WEIGHTS, 0, 0)
    assert len(set(fragment.obs[0, :, 2].tolist())) == 3


@pytest.mark.parametrize(("where", "step"), [("reset", 0), ("step", 4)])
def test_an_environment_that_raises_is_told_with_all_that_is_known(where: str, step: int) -> None:
    simulator = Simulator(setup(settings={"fail": where, "fail_at": 3}, number=2))
    with pytest.raises(EnvironmentFailed, match=f"the corridor fell in at {where}") as caught:
        simulator.rollout(WEIGHTS, 0, 0)
    message = str(caught.value)
    assert "simulator 2" in message
    assert "'tests.train.toys:Corridor'" in message
    assert "seed " in message
    assert f"step {step}" in message if step else "reset" in message
    assert "ZeroDivisionError" in message
    assert "in _misbehave" in caught.value.user_traceback
    assert "rlray/train" not in caught.value.user_traceback
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.user_traceback) == (message, caught.value.user_traceback)


def test_dummy_reset_steps_are_neither_counted_nor_returned() -> None:
    """An environment with next-step autoreset, given as a factory of all copies at once."""

    def make(num_envs: int) -> Any:
        makers = [lambda: Corridor(length=2, limit=6)] * num_envs
        return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.NEXT_STEP)

    source = EnvSource.of(make, {})
    toy = AlgorithmSource("tests.train.toys:ALGORITHM", CountingSettings())
    simulator = Simulator(SimulatorSetup(source, toy, 0, 0, 0, 1, 2, 50, 1))
    fragment, stats = simulator.rollout(WEIGHTS, 0, 0)
    assert not fragment.valid.all()
    assert stats.steps == fragment.steps == fragment.valid.sum()
    assert (fragment.reward[~fragment.valid] == 0).all()
    ends = (fragment.terminated | fragment.truncated).sum()
    assert len(stats.returns) == ends
    for b in range(2):
        assert sum(stats.lengths) <= fragment.valid.sum()
        firsts = np.flatnonzero(fragment.first[:, b] & fragment.valid[:, b])
        assert (fragment.obs[firsts, b, 1] == 0).all(), "an episode begins with its first observation"
    assert set(stats.lengths) <= set(range(2, 7))


def test_dqn_plays_in_it() -> None:
    dqn = AlgorithmSource("dqn", DQNConfig(network="mlp", epsilon=0.5))
    simulator = Simulator(setup("CartPole-v1", algorithm=dqn))
    learner = dqn.make_learner(EnvSource.of("CartPole-v1", {}).spec(), LearnerContext("cpu", 1, 1000))
    fragment, stats = simulator.rollout(learner.weights(), 0, 0)
    assert fragment.obs.shape == (7, 3, 4)
    assert fragment.obs.dtype == np.float32
    assert set(np.unique(fragment.action)) == {0, 1}
    assert stats.steps == 21
    assert stats.env_seconds > 0
    assert stats.policy_seconds > 0


@pytest.mark.parametrize("env", ["tests.train.toys:Corridor", "CartPole-v1", "tests.train.toys:Together"])
@pytest.mark.parametrize("keep", [True, False])
def test_another_simulator_goes_on_from_a_snapshot(env: str, keep: bool) -> None:
    """With episodes kept or cut: later fragments are equal, bit for bit."""
    toy = AlgorithmSource("tests.train.toys:ALGORITHM", CountingSettings())
    one, two = (Simulator(setup(env, algorithm=toy, keep_episodes=keep)) for _ in range(2))
    play(one, 3)
    state, kept = one.snapshot(60, stream=9)
    assert kept == (keep and env != "tests.train.toys:Together")
    saved = pickle.loads(pickle.dumps(state))
    ahead = play(one, 4)
    assert two.load(saved, 60) is None
    for (left, mine), (right, theirs) in zip(ahead, play(two, 4), strict=True):
        assert pickle.dumps(left) == pickle.dumps(right)
        assert (mine.returns, mine.lengths) == (theirs.returns, theirs.lengths)
    fragment = ahead[0][0]
    assert (fragment.stream, fragment.sequence) == ((5, 3) if kept else (9, 0))
    assert fragment.first[0].all() or kept, "after a cut everything is a beginning"


def test_a_snapshot_of_running_episodes_changes_nothing() -> None:
    one, two = Simulator(setup()), Simulator(setup())
    undisturbed = play(one, 6)
    seen = []
    for _ in range(6):
        seen += play(two, 1)
        two.snapshot(0, stream=9)
    for (left, _), (right, _) in zip(undisturbed, seen, strict=True):
        assert pickle.dumps(left) == pickle.dumps(right)


def test_cuts_at_other_steps_give_other_episodes() -> None:
    played = {}
    for steps in (60, 120):
        simulator = Simulator(setup(keep_episodes=False))
        play(simulator, 1)
        simulator.snapshot(steps, stream=9)
        played[steps] = flat(play(simulator, 1), "obs")[0, :, 2]
    assert not np.array_equal(played[60], played[120])


@pytest.mark.parametrize("env", ["tests.train.toys:Corridor", "tests.train.toys:Together"])
def test_a_policy_that_remembers_is_told_where_episodes_begin(env: str) -> None:
    """Also in a simulator that goes on from a snapshot."""
    ageing = AlgorithmSource("tests.train.toys:AGEING", CountingSettings())
    one, two = (Simulator(setup(env, algorithm=ageing)) for _ in range(2))
    played = play(one, 6)
    saved, _ = one.snapshot(60, stream=9)
    assert two.load(copy.deepcopy(saved), 60) is None
    for some in (played, play(two, 6)):
        age, steps, valid = flat_extra(some, "age"), flat(some, "obs")[..., 1], flat(some, "valid")
        assert np.array_equal(age[valid], steps[valid])
        assert (age > 5).any()


def test_a_new_stream_begins_where_the_old_one_ends() -> None:
    simulator = Simulator(setup())
    ((last, _),) = play(simulator, 1)
    simulator.begin_stream(8)
    ((fragment, _),) = play(simulator, 1)
    assert (fragment.stream, fragment.sequence) == (8, 0)
    assert np.array_equal(fragment.obs[0], last.last_obs), "its episodes go on"
