"""Ape-X in one process: the ladder, the priorities of its simulators, and its updates beside those of DQN."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from pydantic import ValidationError

from rlray.algos import Fragment, LearnerContext, get_algorithm
from rlray.algos.apex.learner import ApexLearner
from rlray.algos.apex.policy import ApexPolicy, ladder
from rlray.algos.apex.replay import ApexReplay
from rlray.algos.types import CompletingPolicy, Place, PlacedPolicy
from rlray.envs.types import EnvSpec
from tests.algos.toys import Catch, Corridor, Endings, Toy, fragments, mean_return

APEX, DQN = get_algorithm("apex"), get_algorithm("dqn")
COMMON: dict[str, Any] = {
    "network": {"kind": "mlp", "hidden": [16]}, "n_step": 3, "batch_size": 16, "samples_per_step": 4.0,
    "warmup_steps": 64, "replay_capacity": 300, "learning_rate": 1e-3, "priority_beta": 0.4, "target_update_every": 10,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "mean": {},
    "clipped": {"clip_reward": True},
    "categorical": {"distribution": "categorical", "atoms": 11, "v_min": -2.0, "v_max": 4.0},
    "quantile": {"distribution": "quantile", "atoms": 5},
}


def settings(**changes: Any) -> Any:
    return APEX.config.model_validate({**COMMON, **changes})


def play(env: Toy, count: int, length: int = 10, **changes: Any) -> list[Fragment]:
    """Fragments with the priorities of an untrained policy."""
    policy = APEX.make_policy(env.spec, settings(**changes))
    found = []
    for fragment in itertools.islice(fragments(env, policy, np.random.default_rng(3), length), count):
        policy.complete(fragment)  # type: ignore[attr-defined]
        found.append(fragment)
    return found


class Pair:
    """A replay and a learner, and what goes between them; ``draws`` batches at a time."""

    def __init__(self, spec: EnvSpec, seed: int = 5, draws: int = 1, **changes: Any) -> None:
        config, context = settings(**changes), LearnerContext("cpu", seed, 1000)
        assert APEX.make_replay is not None
        self.replay, self.learner = APEX.make_replay(spec, config, context), APEX.make_learner(spec, config, context)
        assert isinstance(self.replay, ApexReplay)
        assert isinstance(self.learner, ApexLearner)
        self.draws, self.metrics, self.updates = draws, dict[str, float](), 0

    def learn(self, fragment: Fragment) -> int:
        due, self.metrics = self.replay.add(fragment)
        for done in range(0, due or 0, self.draws):
            metrics, returned = self.learner.learn_drawn(self.replay.draw(min(self.draws, (due or 0) - done)))
            self.replay.take_back(returned)
            self.metrics |= metrics
            self.updates += int(metrics["updates"])
        return due or 0

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return self.replay.state(), self.learner.state()


def assert_equal(one: Any, other: Any) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_the_ladder_in_closed_form() -> None:
    """Over two simulators of three environments: 0.4^(1 + 7 i / 5); alone, and before it is placed, just epsilon."""
    parts = [ladder(0.4, 7.0, Place(first, 3, 6)) for first in (0, 3)]
    np.testing.assert_allclose(np.concatenate(parts), [0.4 ** (1 + 7 * i / 5) for i in range(6)])
    assert ladder(0.4, 7.0, Place(0, 1, 1)) == [0.4]
    np.testing.assert_array_equal(ladder(1.0, 7.0, Place(0, 4, 8)), np.ones(4))


def test_each_environment_explores_in_its_own_measure() -> None:
    """Two thirds of three random actions differ from the best one."""
    spec = EnvSpec("Three-v0", spaces.Box(0, 1, (4,), np.float32), spaces.Discrete(3, start=2))
    policy = APEX.make_policy(spec, settings(epsilon=0.5, epsilon_alpha=1.0))
    assert isinstance(policy, PlacedPolicy)
    assert isinstance(policy, CompletingPolicy)
    rng, obs, other = np.random.default_rng(0), np.random.default_rng(1).random((4, 4), np.float32), np.zeros(4)
    best = policy.act_greedy(obs)
    policy.place(Place(4, 4, 8))
    for _ in range(4000):
        actions, extras = policy.act(obs, 0, rng)
        assert extras.keys() == {"outputs"}
        assert actions.min() >= 2
        assert actions.max() <= 4
        other += actions != best
    expected = [0.5 ** (1 + i / 7) * 2 / 3 for i in (4, 5, 6, 7)]
    np.testing.assert_allclose(other / 4000, expected, atol=0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_priorities_of_simulators_are_those_of_the_learner(kind: str) -> None:
    """Untrained, the learner's two networks are the policy's: its updates find what the fragments brought along."""
    checked = 0
    for env in (Endings(4, seed=1), Corridor(3, seed=1)):
        pair = Pair(env.spec, replay_capacity=1000, learning_rate=0.0, **KINDS[kind])
        policy = APEX.make_policy(env.spec, settings(**KINDS[kind]))
        policy.load(pair.learner.weights())
        for fragment in itertools.islice(fragments(env, policy, np.random.default_rng(3), 10), 5):
            policy.complete(fragment)  # type: ignore[attr-defined]
            assert fragment.extras.keys() == {"priority"}
            pair.replay.add(fragment)
        at = pair.replay.state()["replay"]["at"]
        _, returned = pair.learner.learn_drawn(pair.replay.draw(40))
        for slot, found in zip(returned.index.reshape(-1), returned.priority.reshape(-1), strict=True):
            given = at["priority"][slot]
            if not np.isnan(given):
                checked += 1
                assert given == pytest.approx(found, rel=1e-4, abs=1e-5)
    assert checked > 300


def test_priorities_are_known_but_at_the_end_of_a_fragment_and_of_a_truncated_episode() -> None:
    """By a slow oracle: step by step until the episode ends, or three steps are over."""
    unknown = truncations = 0
    for fragment in play(Endings(6, seed=2), 6, length=7):
        length, envs = fragment.reward.shape
        for t, b in itertools.product(range(length), range(envs)):
            known = False
            for k in range(3):
                if t + k >= length or fragment.terminated[t + k, b] or fragment.truncated[t + k, b]:
                    known = t + k < length and bool(fragment.terminated[t + k, b])
                    truncations += t + k < length and not known
                    break
            else:
                known = True
            assert np.isnan(fragment.extras["priority"][t, b]) != known
            unknown += not known
    assert unknown > truncations > 10


@pytest.mark.parametrize("start", [0, 5])
def test_its_updates_are_those_of_dqn(start: int) -> None:
    """The same fragments, draw by draw: a learner with a replay of its own ends in the same bits."""
    parts = play(Catch(4), 12)
    context = LearnerContext("cpu", 5 + start, 1000)
    dqn = DQN.make_learner(Catch.spec, DQN.config.model_validate({**COMMON, "prioritized": True}), context)
    pair = Pair(Catch.spec, seed=5 + start)
    for fragment in parts:
        theirs: dict[str, float] = dqn.learn(fragment)  # type: ignore[union-attr]
        assert pair.learn(fragment) == theirs["updates"]
    assert pair.updates > 50
    assert_equal(pair.learner.weights(), dqn.weights())


def test_updates_follow_the_steps_whatever_the_length_of_fragments() -> None:
    for length in (1, 5, 16):
        pair, owed = Pair(Corridor.spec), 0
        for fragment in play(Corridor(4), 100 // length, length):
            due = pair.learn(fragment)
            owed += fragment.steps if len(pair.replay._held) >= 64 else 0
            assert pair.updates == owed * 4 // 16
            assert due == 0 or owed > 0
        assert pair.updates > 50


def test_without_a_ratio_it_is_as_many_as_the_learner_can() -> None:
    pair = Pair(Corridor.spec, samples_per_step=None)
    found = [pair.replay.add(fragment)[0] for fragment in play(Corridor(4), 3)]
    assert found == [0, None, None], "not before the warm-up of 64"


def test_the_same_seed_gives_the_same_weights_and_another_does_not() -> None:
    parts, pairs = play(Corridor(4), 10), [Pair(Corridor.spec, seed, draws=3) for seed in (7, 7, 8)]
    for pair, fragment in itertools.product(pairs, parts):
        pair.learn(fragment)
    one, same, other = (pair.learner.weights() for pair in pairs)
    assert_equal(one, same)
    assert any(not np.array_equal(one[name], other[name]) for name in one)


def test_going_on_from_a_state_is_bit_for_bit_the_same() -> None:
    parts = play(Catch(4), 14)
    first, second = (Pair(Catch.spec, seed, draws=2, samples_per_step=5.0) for seed in (5, 99))
    for fragment in parts[:8]:
        first.learn(fragment)
    replay, learner = first.state()
    second.replay.load_state(replay)
    second.learner.load_state(learner)
    for fragment in parts[8:]:
        assert first.learn(fragment) == second.learn(fragment) > 0
    assert_equal(first.learner.weights(), second.learner.weights())
    drawings = [pair.replay.state()["replay"]["drawing"] for pair in (first, second)]
    np.testing.assert_array_equal(drawings[0]["probability"], drawings[1]["probability"])


def test_without_what_it_held_a_replay_fills_anew() -> None:
    pair, fresh = Pair(Corridor.spec), Pair(Corridor.spec)
    for fragment in play(Corridor(4), 5):
        pair.learn(fragment)
    fresh.replay.load_state({name: part for name, part in pair.replay.state().items() if name != "replay"})
    assert [fresh.learn(fragment) > 0 for fragment in play(Corridor(4), 3)] == [False, True, True]


def test_metrics_are_finite_and_have_a_place_in_the_documentation() -> None:
    pair, text = Pair(Catch.spec), (Path(__file__).parents[3] / "docs" / "metrics.md").read_text(encoding="utf-8")
    for fragment in play(Catch(4), 6):
        pair.learn(fragment)
    assert np.isfinite(list(pair.metrics.values())).all()
    names = {"updates", "lr", "loss", "q_mean", "td_error", "grad_norm", "replay_fill", "replay_beta"}
    assert pair.metrics.keys() == names
    for name in names:
        tag = name.replace("_", "/", 1) if name.startswith("replay_") else f"learner/{name}"
        assert f"`{tag}`" in text, tag


def test_the_normalisation_is_measured_on_the_first_frames_drawn() -> None:
    pair = Pair(Catch.spec, network={"kind": "mlp", "hidden": [16], "input_norm": "per_pixel"})
    for fragment in play(Catch(4), 6):
        before = bool(pair.learner.weights()["input.fitted"])
        assert bool(pair.learn(fragment)) >= before
        assert bool(pair.learner.weights()["input.fitted"]) == (pair.updates > 0)


def test_a_loss_that_is_no_number_stops_learning() -> None:
    pair, parts = Pair(Corridor.spec), play(Corridor(4), 5)
    for fragment in parts[:4]:
        pair.learn(fragment)
    parts[4].reward[:] = np.inf
    parts[4].extras.clear()
    with pytest.raises(FloatingPointError, match=r"apex: the loss became .* use a smaller learning_rate"):
        pair.learn(parts[4])


def test_it_learns_the_corridor() -> None:
    """Straight to the end from then on, which random walks hardly ever do."""
    changes: dict[str, Any] = {
        "samples_per_step": 16.0, "batch_size": 32, "replay_capacity": 4000, "discount": 0.9, "epsilon": 0.6,
    }  # fmt: skip
    env, pair = Corridor(8), Pair(Corridor.spec, draws=4, learning_rate=3e-3, **changes)
    policy = APEX.make_policy(env.spec, settings(**changes))
    assert isinstance(policy, ApexPolicy)
    policy.place(Place(0, 8, 8))
    for fragment in itertools.islice(fragments(env, policy, np.random.default_rng(0), 16), 25):
        policy.complete(fragment)
        pair.learn(fragment)
        policy.load(pair.learner.weights())
    assert mean_return(Corridor(4), policy, 4) == 1.0
    obs = torch.from_numpy(np.eye(7, dtype=np.float32))
    assert (policy.act_greedy(obs.numpy()) == 2).all(), "right in every cell"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"warmup_steps": 400}, "warmup_steps 400 is more than replay_capacity 300"),
        ({"epsilon": 1.5}, "epsilon must lie in 0 ... 1"),
        ({"epsilon": {"points": [[0, 1], [1, 0]], "of": "run"}}, "epsilon goes by steps"),
        ({"priority_beta": 2.0}, "priority_beta must lie in 0 ... 1"),
        ({"batches_per_draw": 0}, "greater than or equal to 1"),
        ({"prioritized": True}, "Extra inputs are not permitted"),
    ],
)
def test_nonsense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings(**changes)


def test_every_setting_has_a_text_and_is_on_the_page() -> None:
    text = (Path(__file__).parents[3] / "docs" / "algos" / "apex.md").read_text(encoding="utf-8")
    for name, field in APEX.config.model_fields.items():
        assert field.description, name
        assert f"`{name}`" in text, name


def test_actions_must_be_numbered() -> None:
    spec = EnvSpec("Box-v0", spaces.Box(0, 1, (4,), np.float32), spaces.Box(-1, 1, (2,), np.float32))
    with pytest.raises(ValueError, match=r"apex needs a Discrete action space, but Box-v0 has Box"):
        APEX.make_policy(spec, settings())
