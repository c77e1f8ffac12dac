"""PPO's contract: rounds, metrics, determinism, state; and that it learns."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlray.algos import Fragment, LearnerContext, get_algorithm
from rlray.algos.ppo.rollout import Rollout, RolloutBuilder
from tests.algos.toys import Aim, Catch, Corridor, Endings, Toy, fragments, mean_return

PPO = get_algorithm("ppo")
SETTINGS: dict[str, Any] = {
    "network": {"kind": "conv", "filters": 8, "kernels": 3, "strides": 1, "hidden": 16},
    "rollout_steps": 64, "minibatch_size": 32, "epochs": 2, "entropy": 0.01,
    "learning_rate": {"points": [[0, 1e-3], [1, 0]], "of": "run"},
}  # fmt: skip
SWITCHES: list[dict[str, Any]] = [
    {},
    {"normalize_value": True, "clip_value": 0.2},
    {"normalize_reward": True, "network": {**SETTINGS["network"], "input_norm": "divide"}},
]


def make_learner(seed: int = 0, env: Toy | None = None, **settings: Any) -> Any:
    config = PPO.config.model_validate({**SETTINGS, **settings})
    return PPO.make_learner((env or Catch(1)).spec, config, LearnerContext("cpu", seed, total_steps=1000))


def play(count: int, length: int = 8, envs: int = 4, stream: int = 0, **settings: Any) -> list[Fragment]:
    policy = PPO.make_policy(Catch.spec, PPO.config.model_validate({**SETTINGS, **settings}))
    played = fragments(Catch(envs, stream), policy, np.random.default_rng(stream), length, stream)
    return list(itertools.islice(played, count))


def assert_equal_weights(one: Any, other: Any) -> None:
    one, other = one.weights(), other.weights()
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_a_round_begins_when_there_are_enough_steps() -> None:
    learner = make_learner()
    updates = [int(learner.learn(fragment)["updates"]) for fragment in play(5)]
    assert updates == [0, 4, 0, 4, 0]  # 32 steps a fragment; 64 in 2 parts, twice


def test_a_round_holds_fragments_of_all_shapes() -> None:
    """Two sources with other T and B, in turns: observations, advantages and targets are those of each alone."""

    def brightness(obs: Any, before: Any, memory: Any) -> torch.Tensor:
        return torch.from_numpy(obs.astype(np.float32)).flatten(1).mean(dim=1)

    def gathered(played: list[Fragment]) -> Rollout:
        builder = RolloutBuilder(Catch.spec, PPO.config.model_validate(SETTINGS), brightness)
        for fragment in played:
            builder.add(fragment)
        return builder.take()

    wide, long = play(3, length=8, envs=4), play(3, length=13, envs=3, stream=1)
    both = gathered([fragment for pair in zip(wide, long, strict=True) for fragment in pair])
    alone, other = gathered(wide), gathered(long)
    assert len(both) == 3 * (32 + 39)
    ours = torch.arange(len(both)) % (32 + 39) < 32
    for name in vars(both):
        assert torch.equal(getattr(both, name)[ours], getattr(alone, name)), name
        assert torch.equal(getattr(both, name)[~ours], getattr(other, name)), name


def test_dummy_reset_steps_are_not_learned_from() -> None:
    learner = make_learner()
    one, other = play(2)
    for fragment in (one, other):
        fragment.valid[5:], fragment.terminated[5:], fragment.truncated[5:] = False, False, False
        kept = fragment.final_index[:, 0] < 5
        fragment.final_index, fragment.final_obs = fragment.final_index[kept], fragment.final_obs[kept]
    assert [learner.learn(fragment)["updates"] for fragment in (one, other)] == [0, 0]  # 40 steps


def test_metrics_are_finite_and_have_a_place_in_the_documentation() -> None:
    learner, seen = make_learner(), {}
    for fragment in play(4):
        metrics = learner.learn(fragment)
        assert np.isfinite(list(metrics.values())).all()
        seen |= metrics
    expected = {"updates", "lr", "entropy_coef", "loss", "policy_loss", "value_loss", "entropy", "approx_kl"}
    assert seen.keys() == expected | {"clip_fraction", "grad_norm", "explained_variance"}
    text = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text(encoding="utf-8")
    for name in seen.keys() - {"updates"}:
        assert f"`learner/{name}`" in text, name


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_the_same_seed_twice_is_the_same_and_another_is_not(switches: dict[str, Any]) -> None:
    played = play(4, **switches)
    learners = [make_learner(seed, **switches) for seed in (0, 0, 1)]
    for learner in learners:
        for fragment in copy.deepcopy(played):
            learner.learn(fragment)
    assert_equal_weights(learners[0], learners[1])
    with pytest.raises(AssertionError):
        assert_equal_weights(learners[0], learners[2])


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
@pytest.mark.parametrize("at", [2, 3])
def test_state_is_all_there_is(switches: dict[str, Any], at: int) -> None:
    """Also in the midst of a round: at 3 there are fragments that have not been learned from."""
    played = play(6, **switches)
    straight, begun, resumed = (make_learner(0, **switches) for _ in range(3))
    for fragment in copy.deepcopy(played):
        straight.learn(fragment)
    for fragment in copy.deepcopy(played[:at]):
        begun.learn(fragment)
    resumed.load_state(copy.deepcopy(begun.state()))
    for fragment in copy.deepcopy(played[at:]):
        resumed.learn(fragment)
    assert_equal_weights(straight, resumed)


def train(env: Toy, settings: dict[str, Any], count: int, length: int, seed: int = 0) -> tuple[Any, Any]:
    config = PPO.config.model_validate(settings)
    policy = PPO.make_policy(env.spec, config)
    learner = PPO.make_learner(env.spec, config, LearnerContext("cpu", seed, count * length * env.num_envs))
    policy.load(learner.weights())
    for fragment in itertools.islice(fragments(env, policy, np.random.default_rng(seed), length), count):
        learner.learn(fragment)
        policy.load(learner.weights())
    return policy, learner


@pytest.mark.parametrize("normalised", [False, True])
def test_values_where_episodes_end_in_either_way(normalised: bool) -> None:
    settings = {
        "network": {"kind": "mlp", "hidden": 32}, "discount": 0.6, "gae_lambda": 0.9, "rollout_steps": 256,
        "minibatch_size": 64, "epochs": 8, "learning_rate": {"points": [[0, 1e-2], [1, 1e-4]], "of": "run"},
        "normalize_value": normalised,
    }  # fmt: skip
    _, learner = train(Endings(16), settings, count=40, length=16)
    with torch.no_grad():
        values = learner._network.value(torch.eye(6)).numpy()
    np.testing.assert_allclose(values, Endings.values(0.6), atol=0.08)


def test_finds_its_way_along_a_corridor() -> None:
    settings = {
        "network": {"kind": "mlp", "hidden": [32, 32], "activation": "tanh"}, "discount": 0.95, "rollout_steps": 512,
        "minibatch_size": 128, "learning_rate": 3e-3, "entropy": 0.01,
    }  # fmt: skip
    policy, _ = train(Corridor(16), settings, count=25, length=32)
    assert mean_return(Corridor(2), policy, 2) == 1.0


def test_learns_to_catch_from_pictures() -> None:
    settings = {
        "network": {"kind": "conv", "filters": 16, "kernels": 3, "strides": 1, "hidden": 64},
        "discount": 0.95, "rollout_steps": 1024, "minibatch_size": 256, "learning_rate": 2e-3, "entropy": 0.01,
    }  # fmt: skip
    untrained = PPO.make_policy(Catch.spec, PPO.config.model_validate(settings))
    assert mean_return(Catch(16, seed=1), untrained, 160) < 0.5
    policy, _ = train(Catch(32), settings, count=16, length=32)
    assert mean_return(Catch(16, seed=1), policy, 160) > 0.8


def test_learns_continuous_actions() -> None:
    settings = {
        "network": {"kind": "mlp", "hidden": [32, 32], "activation": "tanh"}, "discount": 0.0, "rollout_steps": 512,
        "minibatch_size": 128, "learning_rate": 3e-3, "epochs": 8,
    }  # fmt: skip
    untrained = PPO.make_policy(Aim.spec, PPO.config.model_validate(settings))
    assert mean_return(Aim(16, seed=1), untrained, 160) < -0.3
    policy, _ = train(Aim(32), settings, count=30, length=16)
    assert mean_return(Aim(16, seed=1), policy, 160) > -0.05


def test_a_loss_that_is_no_number_is_an_error_that_says_what_to_try() -> None:
    learner = make_learner()
    one, other = play(2)
    other.reward[3, 1] = np.inf
    learner.learn(one)
    with pytest.raises(FloatingPointError, match="learning_rate"):
        learner.learn(other)
