"""The contract of IMPALA and APPO: rounds, metrics, determinism, state; and that they learn, also from others."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rlray.algos import Fragment, LearnerContext, get_algorithm
from rlray.algos.impala.loss import Acted
from rlray.envs.types import EnvSpec
from tests.algos.toys import Aim, Catch, Corridor, Endings, Toy, fragments, mean_return

BOTH = pytest.mark.parametrize("name", ["impala", "appo"])
SETTINGS: dict[str, Any] = {
    "network": {"kind": "conv", "filters": 8, "kernels": 3, "strides": 1, "hidden": 16},
    "rollout_steps": 64, "minibatch_size": 32, "epochs": 2, "entropy": 0.01,
    "learning_rate": {"points": [[0, 1e-3], [1, 0]], "of": "run"},
}  # fmt: skip
SWITCHES: list[dict[str, Any]] = [
    {"optimizer": "rmsprop", "normalize_advantage": False},
    {"normalize_reward": True, "normalize_advantage": True, "network": {**SETTINGS["network"], "input_norm": "divide"}},
]


def make_learner(name: str, seed: int = 0, env: Toy | None = None, **settings: Any) -> Any:
    algorithm = get_algorithm(name)
    config = algorithm.config.model_validate({**SETTINGS, **settings})
    return algorithm.make_learner((env or Catch(1)).spec, config, LearnerContext("cpu", seed, total_steps=1000))


def play(name: str, count: int, length: int = 8, envs: int = 4, **settings: Any) -> list[Fragment]:
    algorithm = get_algorithm(name)
    policy = algorithm.make_policy(Catch.spec, algorithm.config.model_validate({**SETTINGS, **settings}))
    return list(itertools.islice(fragments(Catch(envs, 0), policy, np.random.default_rng(0), length), count))


def assert_equal_weights(one: Any, other: Any) -> None:
    one, other = one.weights(), other.weights()
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@BOTH
def test_a_round_begins_when_there_are_enough_steps(name: str) -> None:
    learner = make_learner(name)
    updates = [int(learner.learn(fragment)["updates"]) for fragment in play(name, 5)]
    assert updates == [0, 4, 0, 4, 0]  # 32 steps a fragment; 64 in 2 parts, twice


@BOTH
def test_fragments_of_a_stream_are_one_sequence(name: str) -> None:
    """Cut in two or not, and whatever is played between by others: the weights are the same, bit for bit."""
    (long,), short = play(name, 1, length=16), play(name, 2, length=8)
    other = replace(play(name, 1, length=16, envs=2)[0], stream=long.stream + 1)
    network = {**SETTINGS["network"], "input_norm": "divide"}  # the other norm is fitted to the first fragment
    learners = [make_learner(name, rollout_steps=96, network=network) for _ in range(2)]
    for learner, parts in zip(learners, ([long, other], [short[0], other, short[1]]), strict=True):
        for fragment in copy.deepcopy(parts):
            learner.learn(fragment)
        assert learner._updates == 6
    assert_equal_weights(*learners)


@pytest.mark.parametrize(("epochs", "memory"), [(1, {}), (4, {}), (2, {"recurrent": "gru", "recurrent_size": 8})])
def test_appo_on_fresh_fragments_is_ppo(epochs: int, memory: dict[str, Any]) -> None:
    """Each round by the weights that acted: V-trace is GAE, and the losses are one; with a memory, of sequences."""
    settings = {
        "network": {"kind": "mlp", "hidden": [16], **memory},
        "discount": 0.95, "rollout_steps": 128, "minibatch_size": 32, "epochs": epochs,
        "learning_rate": 1e-2, "entropy": 0.01, "clip": 0.1,
    }  # fmt: skip
    found = []
    for name, lambda_ in (("ppo", "gae_lambda"), ("appo", "vtrace_lambda")):
        _, learner = train(name, Corridor(8), {**settings, lambda_: 0.9}, count=8, length=16)
        found.append(learner.weights())
    fresh = make_learner("appo", env=Corridor(8), **settings).weights()
    for name, weights in found[0].items():
        np.testing.assert_allclose(found[1][name], weights, atol=1e-4, err_msg=name)
        assert "value_norm" in name or np.abs(weights - fresh[name]).max() > 1e-2, f"{name} was not learned"


def test_appos_clip_is_about_the_round_and_its_rho_about_who_acted() -> None:
    """The weights have moved far since a fragment was played: in the first update of the round nothing is clipped."""
    settings = {"learning_rate": 0.1, "clip": 0.01, "minibatch_size": 64, "epochs": 1}
    learner, played = make_learner("appo", **settings), play("appo", 4)
    for fragment in played[:3]:
        learner.learn(fragment)
    late = learner.learn(played[3])
    assert late["updates"] == 1
    assert late["approx_kl"] > 0.01
    assert late["rho"] < 0.95
    assert late["clip_fraction"] == 0
    log_prob = torch.tensor([-1.0, -1.0, -1.0])
    since, rho, advantage = torch.tensor([0.0, 0.5, 0.5]), torch.tensor([0.5, 0.5, 1.0]), torch.tensor([2.0, 1.0, -1.0])
    loss, others = learner.policy_loss(Acted(log_prob, torch.full((3,), 9.0), since, advantage, rho))
    assert loss.item() == pytest.approx(-(0.5 * 2 + 1.01 * 0.5 - np.exp(0.5)) / 3)
    assert others["clip_fraction"].item() == pytest.approx(2 / 3)


@BOTH
def test_dummy_reset_steps_play_no_part(name: str) -> None:
    """Whatever an environment answers while it resets: the weights are the same, bit for bit."""
    learners = [make_learner(name, rollout_steps=40) for _ in range(2)]
    for learner, said in zip(learners, (0.0, 1e6), strict=True):
        for fragment in play(name, 2):
            late = np.zeros((8, 1), np.bool_) | (np.arange(8)[:, None] >= 5)
            for ended in (fragment.terminated, fragment.truncated, fragment.valid):
                ended[late[:, 0]] = False
            fragment.terminated[4] = True
            kept = fragment.final_index[:, 0] < 4
            fragment.final_index = np.array([*fragment.final_index[kept], *((4, b) for b in range(4))])
            fragment.final_obs = np.concatenate([fragment.final_obs[kept], fragment.obs[4]])
            fragment.reward[late[:, 0]] = said
            fragment.extras["log_prob"][late[:, 0]] = -said
            assert learner.learn(fragment)["updates"] in (0, 2)
    assert learners[0]._updates == 2, "dummy steps do not count: two fragments are needed"
    assert_equal_weights(*learners)


@BOTH
def test_fragments_that_are_nothing_but_resets_in_places(name: str) -> None:
    learner = make_learner(name, rollout_steps=3, minibatch_size=1, epochs=1)
    fragment = play(name, 1, length=1)[0]
    fragment.valid[0, 2] = False
    assert learner.learn(fragment)["updates"] == 3


@BOTH
def test_metrics_are_finite_and_have_a_place_in_the_documentation(name: str) -> None:
    learner, seen = make_learner(name), {}
    for fragment in play(name, 4):
        metrics = learner.learn(fragment)
        assert np.isfinite(list(metrics.values())).all()
        seen |= metrics
    expected = {"updates", "lr", "entropy_coef", "loss", "policy_loss", "value_loss", "entropy", "approx_kl", "rho"}
    expected |= {"grad_norm", "explained_variance", *(["clip_fraction"] if name == "appo" else [])}
    assert seen.keys() == expected
    text = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text(encoding="utf-8")
    for one in seen.keys() - {"updates"}:
        row = next(line for line in text.splitlines() if f"`learner/{one}`" in line)
        assert name in row or row.endswith(("| all |", "| all but es |")), one


@BOTH
@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_the_same_seed_twice_is_the_same_and_another_is_not(name: str, switches: dict[str, Any]) -> None:
    played = play(name, 4, **switches)
    learners = [make_learner(name, seed, **switches) for seed in (0, 0, 1)]
    for learner in learners:
        for fragment in copy.deepcopy(played):
            learner.learn(fragment)
    assert_equal_weights(learners[0], learners[1])
    with pytest.raises(AssertionError):
        assert_equal_weights(learners[0], learners[2])


@BOTH
@pytest.mark.parametrize("switches", SWITCHES, ids=str)
@pytest.mark.parametrize("at", [2, 3])
def test_state_is_all_there_is(name: str, switches: dict[str, Any], at: int) -> None:
    """Also in the midst of a round: at 3 there are fragments that have not been learned from."""
    played = play(name, 6, **switches)
    straight, begun, resumed = (make_learner(name, 0, **switches) for _ in range(3))
    for fragment in copy.deepcopy(played):
        straight.learn(fragment)
    for fragment in copy.deepcopy(played[:at]):
        begun.learn(fragment)
    resumed.load_state(copy.deepcopy(begun.state()))
    for fragment in copy.deepcopy(played[at:]):
        resumed.learn(fragment)
    assert_equal_weights(straight, resumed)


def train(
    name: str, env: Toy, settings: dict[str, Any], count: int, length: int, publish: int | None = 1
) -> tuple[Any, Any]:
    """Fragments are played by weights that are up to ``publish`` fragments old, or by the first ones for ever."""
    algorithm = get_algorithm(name)
    config = algorithm.config.model_validate(settings)
    policy = algorithm.make_policy(env.spec, config)
    learner = algorithm.make_learner(env.spec, config, LearnerContext("cpu", 0, count * length * env.num_envs))
    policy.load(learner.weights())
    played = itertools.islice(fragments(env, policy, np.random.default_rng(0), length), count)
    for number, fragment in enumerate(played):
        learner.learn(fragment)
        if publish and number % publish == 0:
            policy.load(learner.weights())
    policy.load(learner.weights())
    return policy, learner


@BOTH
@pytest.mark.parametrize("lambda_", [0.8, 1.0])
def test_values_where_episodes_end_in_either_way(name: str, lambda_: float) -> None:
    settings = {
        "network": {"kind": "mlp", "hidden": 32}, "discount": 0.6, "vtrace_lambda": lambda_, "rollout_steps": 256,
        "minibatch_size": 64, "epochs": 4, "learning_rate": {"points": [[0, 1e-2], [1, 1e-4]], "of": "run"},
    }  # fmt: skip
    _, learner = train(name, Endings(16), settings, count=50, length=16, publish=2)
    with torch.no_grad():
        values = learner._network.value(torch.eye(6)).numpy()
    np.testing.assert_allclose(values, Endings.values(0.6), atol=0.08)


class Ladder(Toy):
    """Four states, one-hot, each leads to the next, the action is the reward. Truncated after 1, terminated after 3."""

    spec = EnvSpec("Ladder-v0", spaces.Box(0, 1, (4,), np.float32), spaces.Discrete(2))

    def begin(self) -> int:
        return int(self.rng.integers(4))

    def move(self, state: int, action: int) -> tuple[int, float, bool, bool]:
        return min(state + 1, 3), float(action), state == 3, state == 1

    def look(self, state: int) -> np.ndarray:
        return np.eye(4, dtype=np.float32)[state]


@BOTH
def test_values_are_of_the_policy_that_learns_not_of_the_one_that_acts(name: str) -> None:
    """All is played by the first weights, which toss a coin; what is learned from them prefers action 1."""
    settings = {
        "network": {"kind": "mlp", "hidden": [32], "activation": "tanh"}, "discount": 0.5, "clip_rho": 8.0,
        "rollout_steps": 512, "minibatch_size": 128, "epochs": 2,
        "learning_rate": {"points": [[0, 1e-2], [1, 0]], "of": "run"},
    }  # fmt: skip
    _, learner = train(name, Ladder(32), settings, count=60, length=16, publish=None)
    with torch.no_grad():
        outputs, values, _ = learner._network(torch.eye(4)[None])
    prefers = outputs[0].softmax(dim=1)[:, 1]  # of all states: a truncated episode leads on to the next
    assert (prefers > 0.95).all()
    expected = torch.zeros(5)
    for state in (3, 2, 1, 0):
        expected[state] = prefers[state] + 0.5 * expected[state + 1]
    torch.testing.assert_close(values[0], expected[:4], atol=0.05, rtol=0)


@BOTH
def test_finds_its_way_along_a_corridor_with_late_weights(name: str) -> None:
    settings = {
        "network": {"kind": "mlp", "hidden": [32, 32], "activation": "tanh"}, "discount": 0.95, "rollout_steps": 512,
        "minibatch_size": 128, "epochs": 2, "learning_rate": 5e-3, "entropy": 0.01, "normalize_advantage": True,
    }  # fmt: skip
    policy, _ = train(name, Corridor(16), settings, count=30, length=32, publish=2)
    assert mean_return(Corridor(2), policy, 2) == 1.0


@BOTH
def test_learns_to_catch_from_pictures(name: str) -> None:
    settings = {
        "network": {"kind": "conv", "filters": 16, "kernels": 3, "strides": 1, "hidden": 64}, "discount": 0.95,
        "rollout_steps": 512, "minibatch_size": 128, "epochs": 3, "learning_rate": 2e-3, "entropy": 0.01,
        "normalize_advantage": True,
    }  # fmt: skip
    policy, _ = train(name, Catch(32), settings, count=32, length=16)
    assert mean_return(Catch(16, seed=1), policy, 160) > 0.8


@BOTH
def test_learns_continuous_actions(name: str) -> None:
    settings = {
        "network": {"kind": "mlp", "hidden": [32, 32], "activation": "tanh"}, "discount": 0.0, "rollout_steps": 512,
        "minibatch_size": 128, "learning_rate": 3e-3, "epochs": 4, "normalize_advantage": True,
    }  # fmt: skip
    policy, _ = train(name, Aim(32), settings, count=40, length=16)
    assert mean_return(Aim(16, seed=1), policy, 160) > -0.05


@BOTH
def test_a_loss_that_is_no_number_is_an_error_that_says_what_to_try(name: str) -> None:
    learner = make_learner(name)
    one, other = play(name, 2)
    other.reward[3, 1] = np.inf
    learner.learn(one)
    with pytest.raises(FloatingPointError, match=f"{name}: .*learning_rate"):
        learner.learn(other)
