"""PQN's contract: returns against a slow oracle, rounds, metrics, determinism, state; and that it learns."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from pydantic import ValidationError

from rlray.algos import Fragment, LearnerContext, get_algorithm
from rlray.algos.pqn import PQNConfig
from rlray.algos.pqn.rollout import RolloutBuilder
from rlray.envs.types import EnvSpec
from tests.algos.toys import Catch, Corridor, Endings, Toy, fragments, mean_return

PQN = get_algorithm("pqn")
SETTINGS: dict[str, Any] = {
    "network": {"kind": "conv", "filters": 8, "kernels": 3, "strides": 1, "hidden": 16, "layer_norm": True},
    "rollout_steps": 64, "minibatch_size": 32, "epochs": 2, "epsilon": [[0, 1.0], [200, 0.1]],
    "learning_rate": {"points": [[0, 1e-3], [1, 0]], "of": "run"},
}  # fmt: skip


def make_learner(seed: int = 0, **settings: Any) -> Any:
    config = PQN.config.model_validate({**SETTINGS, **settings})
    return PQN.make_learner(Catch.spec, config, LearnerContext("cpu", seed, total_steps=1000))


def play(count: int, length: int = 8, envs: int = 4) -> list[Fragment]:
    policy = PQN.make_policy(Catch.spec, PQN.config.model_validate(SETTINGS))
    return list(itertools.islice(fragments(Catch(envs, 0), policy, np.random.default_rng(0), length), count))


def assert_equal_weights(one: Any, other: Any) -> None:
    one, other = one.weights(), other.weights()
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def slow_return(fragment: Fragment, t: int, b: int, best: Any, discount: float, lambda_: float) -> float:
    """Of one step, by the definition: forward along the episode, as a mixture of n-step returns."""
    finals = {tuple(index): obs for index, obs in zip(fragment.final_index.tolist(), fragment.final_obs, strict=True)}
    rewards, total, weight = 0.0, 0.0, 1.0
    for n, at in enumerate(range(t, len(fragment.reward))):
        rewards += discount**n * float(fragment.reward[at, b])
        if fragment.terminated[at, b]:
            return total + weight * rewards
        ended, over = bool(fragment.truncated[at, b]), at + 1 == len(fragment.reward)
        following = finals[at, b] if ended else fragment.last_obs[b] if over else fragment.obs[at + 1, b]
        whole = rewards + discount ** (n + 1) * best(following)
        if ended or over:
            return total + weight * whole
        total += weight * (1 - lambda_) * whole
        weight *= lambda_
    raise AssertionError


@pytest.mark.parametrize("lambda_", [0.0, 0.65, 1.0])
def test_returns_are_those_of_a_slow_oracle(lambda_: float) -> None:
    """On a toy where episodes end in both ways, and where what follows an end is a trap."""
    worth = np.array([5.0, -3.0, 2.0, 7.0, 0.5, 11.0], np.float32)

    def best(obs: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(obs @ worth)

    class Eyes:
        def act(self, obs: np.ndarray, step: int, rng: Any) -> Any:
            return rng.integers(0, 2, len(obs)), {"best_value": obs @ worth}

    config = PQN.config.model_validate({"q_lambda": lambda_, "discount": 0.9, "network": "mlp"})
    builder = RolloutBuilder(Endings.spec, config, best)
    rng = np.random.default_rng(0)
    (fragment,) = itertools.islice(fragments(Endings(5, 3), Eyes(), rng, 12), 1)  # type: ignore[arg-type]
    assert fragment.terminated.any()
    assert fragment.truncated.any()
    builder.add(fragment)
    expected = [
        [slow_return(fragment, t, b, lambda obs: float(obs @ worth), 0.9, lambda_) for b in range(5)] for t in range(12)
    ]
    np.testing.assert_allclose(builder.take().target, np.array(expected).ravel(), rtol=1e-4, atol=1e-4)


def test_what_the_policy_keeps_is_the_value_of_the_best_action_also_where_it_explores() -> None:
    learner, policy = make_learner(), PQN.make_policy(Catch.spec, PQN.config.model_validate(SETTINGS))
    policy.load(learner.weights())
    obs = Catch(6, 1).reset()
    _, extras = policy.act(obs, 0, np.random.default_rng(0))  # epsilon 1
    np.testing.assert_allclose(extras["best_value"], learner._best(obs).numpy(), rtol=1e-5)
    greedy = policy.act_greedy(obs)
    acted = np.stack([policy.act(obs, 10_000, np.random.default_rng(seed))[0] for seed in range(200)])
    share = (acted == greedy).mean()
    assert 0.85 < share < 0.98, "0.9, and a third of 0.1"


def test_a_round_begins_when_there_are_enough_steps() -> None:
    learner = make_learner()
    updates = [int(learner.learn(fragment)["updates"]) for fragment in play(5)]
    assert updates == [0, 4, 0, 4, 0]  # 32 steps a fragment; 64 in 2 parts, twice


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
    assert seen.keys() == {"updates", "lr", "epsilon", "loss", "q_mean", "td_error", "grad_norm"}
    rows = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text(encoding="utf-8").splitlines()
    for name in seen.keys() - {"updates"}:
        (row,) = [row for row in rows if row.startswith("|") and f"`learner/{name}`" in row]
        assert "pqn" in row or "| all" in row, row


def test_the_same_seed_twice_is_the_same_and_another_is_not() -> None:
    played = play(4)
    learners = [make_learner(seed) for seed in (0, 0, 1)]
    for learner in learners:
        for fragment in copy.deepcopy(played):
            learner.learn(fragment)
    assert_equal_weights(learners[0], learners[1])
    with pytest.raises(AssertionError):
        assert_equal_weights(learners[0], learners[2])


@pytest.mark.parametrize("at", [2, 3])
def test_state_is_all_there_is(at: int) -> None:
    """Also in the midst of a round: at 3 there are fragments that have not been learned from."""
    played = play(6)
    straight, begun, resumed = (make_learner() for _ in range(3))
    for fragment in copy.deepcopy(played):
        straight.learn(fragment)
    for fragment in copy.deepcopy(played[:at]):
        begun.learn(fragment)
    resumed.load_state(copy.deepcopy(begun.state()))
    for fragment in copy.deepcopy(played[at:]):
        resumed.learn(fragment)
    assert_equal_weights(straight, resumed)


def train(env: Toy, settings: dict[str, Any], count: int, length: int) -> tuple[Any, Any]:
    config = PQN.config.model_validate(settings)
    policy = PQN.make_policy(env.spec, config)
    learner = PQN.make_learner(env.spec, config, LearnerContext("cpu", 0, count * length * env.num_envs))
    policy.load(learner.weights())
    for fragment in itertools.islice(fragments(env, policy, np.random.default_rng(0), length), count):
        learner.learn(fragment)
        policy.load(learner.weights())
    return policy, learner


def test_values_where_episodes_end_in_either_way() -> None:
    settings = {
        "network": {"kind": "mlp", "hidden": 32, "layer_norm": True}, "discount": 0.6, "q_lambda": 0.6,
        "rollout_steps": 256, "minibatch_size": 64, "epochs": 6, "epsilon": 1.0,
        "learning_rate": {"points": [[0, 1e-2], [1, 1e-4]], "of": "run"},
    }  # fmt: skip
    _, learner = train(Endings(16), settings, count=40, length=16)
    values = learner._best(np.eye(6, dtype=np.float32)).numpy()
    np.testing.assert_allclose(values, Endings.values(0.6), atol=0.1)


def test_finds_its_way_along_a_corridor() -> None:
    settings = {
        "network": {"kind": "mlp", "hidden": [32, 32], "layer_norm": True}, "discount": 0.9, "rollout_steps": 512,
        "minibatch_size": 128, "learning_rate": 3e-3, "epochs": 4, "epsilon": [[0, 1.0], [6000, 0.1]],
    }  # fmt: skip
    policy, _ = train(Corridor(16), settings, count=25, length=32)
    assert mean_return(Corridor(2), policy, 2) == 1.0


def test_learns_to_catch_from_pictures() -> None:
    settings = {
        "network": {"kind": "conv", "filters": 16, "kernels": 3, "strides": 1, "hidden": 64, "layer_norm": True},
        "discount": 0.95, "rollout_steps": 1024, "minibatch_size": 128, "epochs": 3, "learning_rate": 2e-3,
        "epsilon": [[0, 1.0], [8000, 0.1]],
    }  # fmt: skip
    untrained = PQN.make_policy(Catch.spec, PQN.config.model_validate(settings))
    assert mean_return(Catch(16, seed=1), untrained, 160) < 0.5
    policy, _ = train(Catch(32), settings, count=20, length=32)
    assert mean_return(Catch(16, seed=1), policy, 160) > 0.8


def test_a_loss_that_is_no_number_is_an_error_that_says_what_to_try() -> None:
    learner = make_learner()
    one, other = play(2)
    other.reward[3, 1] = np.inf
    learner.learn(one)
    with pytest.raises(FloatingPointError, match="learning_rate"):
        learner.learn(other)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"minibatch_size": 8192}, "minibatch_size 8192 is more than rollout_steps 4096"),
        ({"epsilon": 1.5}, "epsilon must lie in 0 ... 1"),
        ({"epsilon": {"points": [[0, 1.0], [1, 0.1]], "of": "run"}}, "epsilon goes by steps"),
        ({"learning_rate": -1.0}, "learning_rate must not be negative"),
        ({"network": {"kind": "mlp", "noisy": True}}, "noisy is not for pqn"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        PQNConfig.model_validate(settings)


def test_continuous_actions_are_refused() -> None:
    spec = EnvSpec("Aim-v0", spaces.Box(-1, 1, (2,), np.float32), spaces.Box(-1, 1, (2,), np.float32))
    with pytest.raises(ValueError, match="pqn needs a Discrete action space, but Aim-v0 has"):
        PQN.make_policy(spec, PQNConfig())
