"""The contract of ES: mirrored trials, generations, metrics, determinism, state; and that it learns."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlray.algos import LearnerContext, Outcomes, get_algorithm
from rlray.train.sources import AlgorithmSource, EnvSource
from rlray.train.trials import Part, TrialSetup, make_shared, play_trials
from tests.algos.toys import Corridor

ES = get_algorithm("es")
SETTINGS: dict[str, Any] = {"hidden": [8], "population": 8, "noise_size": 20_000, "learning_rate": 0.05, "sigma": 0.1}
SWITCHES: list[dict[str, Any]] = [
    {},
    {"normalize_obs": True, "weight_decay": 0.1, "episodes": 2},
    {"optimizer": "sgd", "sample_actions": True, "same_episodes": "generation"},
]


class Game:
    """Learner and tasks in this process, one round after the other."""

    def __init__(self, env: str = "CartPole-v1", seed: int = 1, total_steps: int = 100_000, **settings: Any) -> None:
        config = ES.config.model_validate({**SETTINGS, **settings})
        source = EnvSource.of(env, {})
        self.setup = TrialSetup(
            f"{env} {seed} {settings}", source, source.spec(), AlgorithmSource("es", config), seed, 4
        )
        self.noise = make_shared(self.setup)
        context = LearnerContext("cpu", seed, total_steps, self.noise)
        self.learner: Any = ES.make_learner(self.setup.spec, config, context)
        self.policy = ES.make_policy(self.setup.spec, config)
        self.population = self.setup.trials().count

    def play(self, round_: int, *bounds: int) -> list[Outcomes]:
        """The round's outcomes with the weights of the moment, in parts that end at ``bounds``."""
        ends = [0, *bounds, self.population]
        parts = [Part(n, round_, a, b - a) for n, (a, b) in enumerate(itertools.pairwise(ends))]
        weights = self.learner.weights()
        return [play_trials(self.setup, self.noise, weights, 0, part)[0] for part in parts]

    def round(self, number: int) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for outcomes in self.play(number, self.population // 2):
            metrics |= self.learner.learn(outcomes)
        return metrics


def assert_equal_weights(one: Any, other: Any) -> None:
    one, other = one.weights(), other.weights()
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_a_policy_and_its_mirror_image_stand_on_both_sides_of_the_weights() -> None:
    game = Game(sigma=0.25)
    weights = game.learner.weights()
    trials = game.setup.trials()
    cast: Any = trials.cast(weights, game.noise, 2)
    for slot in (0, 1):
        cast.assign(slot, 6 + slot, np.random.default_rng(5))
    (offset, same) = cast.extras()["offset"]
    assert offset == same
    size = len(weights["theta"])
    disturbed = cast._parameters
    np.testing.assert_allclose(disturbed.mean(axis=0), weights["theta"], atol=1e-6)
    np.testing.assert_allclose(disturbed[0] - weights["theta"], 0.25 * game.noise[offset : offset + size], atol=1e-6)


def test_policies_side_by_side_act_as_each_would_alone() -> None:
    """Also where some have left: their outputs do not depend on who else is there."""
    game = Game()
    rng = np.random.default_rng(0)
    obs = rng.standard_normal((4, 4)).astype(np.float32)
    cast = game.setup.trials().cast(game.learner.weights(), game.noise, 4)
    for slot in range(4):
        cast.assign(slot, slot, np.random.default_rng(slot // 2))
    parameters = cast._parameters  # type: ignore[attr-defined]
    alone = []
    for slot in range(4):
        game.policy.load({**game.learner.weights(), "theta": parameters[slot]})
        alone.append(game.policy.act_greedy(obs)[slot])
    assert cast.act(obs, np.arange(4)).tolist() == alone
    assert cast.act(obs[[1, 3]], np.array([1, 3])).tolist() == [alone[1], alone[3]]
    assert cast.act(obs[[0, 1]], np.array([0, 1])).tolist() == alone[:2]


def test_a_slot_may_be_given_another_trial_at_any_time_and_in_any_order() -> None:
    game = Game(normalize_obs=True, hidden=[])
    obs = np.ones((1, 4), np.float32)
    cast: Any = game.setup.trials().cast(game.learner.weights(), game.noise, 2)
    fresh: Any = game.setup.trials().cast(game.learner.weights(), game.noise, 1)
    acted = []
    for trial in range(40, 0, -1):
        cast.assign(1, trial, np.random.default_rng(trial))
        fresh.assign(0, trial, np.random.default_rng(trial))
        acted.append((cast.act(obs * trial, np.array([1]))[0], fresh.act(obs * trial, np.array([0]))[0]))
    assert {one for one, _ in acted} == {0, 1}
    assert all(one == other for one, other in acted)
    extras = cast.extras()
    np.testing.assert_array_equal(extras["obs_total"][:, 0], np.arange(1, 41), "in the order of the trials")
    alone: Any = game.setup.trials().cast(game.learner.weights(), game.noise, 1)
    alone.assign(0, 7, np.random.default_rng(7))
    assert extras["offset"][6] == alone.extras()["offset"][0]


def test_a_generation_is_one_update() -> None:
    game = Game()
    updates = [game.learner.learn(one)["updates"] for number in range(2) for one in game.play(number, 2, 4)]
    assert updates == [0, 0, 1, 0, 0, 1]


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_how_a_round_is_cut_into_tasks_and_in_which_order_they_come_makes_no_difference(switches: Any) -> None:
    one, other = Game(**switches), Game(**switches)
    for number in range(2):
        for outcomes in one.play(number):
            one.learner.learn(outcomes)
        for outcomes in reversed(other.play(number, 2, 6)):
            other.learner.learn(outcomes)
    assert_equal_weights(one.learner, other.learner)


def test_the_update_goes_where_the_better_ones_are() -> None:
    """One pair of parameters decides: those that have it larger return more."""
    game = Game(population=200, optimizer="sgd", momentum=0.0, learning_rate=1.0)
    outcomes = Outcomes(0, np.arange(200), np.zeros((200, 1)), np.ones((200, 1), np.int64))
    rng = np.random.default_rng(0)
    offsets = np.repeat(rng.integers(len(game.noise) - len(game.learner.weights()["theta"]), size=100), 2)
    sign = np.tile([1.0, -1.0], 100)
    outcomes.returns[:, 0] = 1e6 * sign * game.noise[offsets + 3]
    outcomes.extras["offset"] = offsets
    before = game.learner.weights()["theta"]
    metrics = game.learner.learn(outcomes)
    step = game.learner.weights()["theta"] - before
    assert step.argmax() == 3
    assert metrics["step_norm"] == pytest.approx(metrics["grad_norm"], rel=1e-4)
    assert np.sort(np.abs(step))[-2] < step[3] / 2


def test_weight_decay_shrinks_what_nothing_pulls() -> None:
    for optimizer in ("adam", "sgd"):
        game = Game(optimizer=optimizer, momentum=0.0, learning_rate=0.1, weight_decay=0.5)
        before = game.learner.weights()["theta"]
        flat = Outcomes(0, np.arange(8), np.full((8, 1), 7.0), np.ones((8, 1), np.int64))
        flat.extras["offset"] = np.zeros(8, np.int64)
        game.learner.learn(flat)
        np.testing.assert_allclose(game.learner.weights()["theta"], 0.95 * before, rtol=1e-5)


def test_observations_are_normalised_by_what_was_seen_before() -> None:
    game = Game(normalize_obs=True)
    assert (game.learner.weights()["std"] == 1).all()
    (outcomes,) = game.play(0)
    game.learner.learn(outcomes)
    weights = game.learner.weights()
    count = outcomes.extras["obs_count"]
    np.testing.assert_array_equal(count, outcomes.lengths.sum(axis=1), "every observation that was acted on")
    mean = outcomes.extras["obs_total"].sum(axis=0) / count.sum()
    std = np.sqrt(outcomes.extras["obs_squares"].sum(axis=0) / count.sum() - mean**2)
    np.testing.assert_allclose(weights["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(weights["std"], std, rtol=1e-4)
    seen = (mean + std * np.array([[0.5, 1.2, -0.1, -2.0]])).astype(np.float32)
    bare = Game().policy
    bare.load({**weights, "mean": np.zeros(4, np.float32), "std": np.ones(4, np.float32)})
    game.policy.load(weights)
    scaled = ((seen - weights["mean"]) / weights["std"]).astype(np.float32)
    np.testing.assert_array_equal(game.policy._run(seen), bare._run(scaled))  # type: ignore[attr-defined]


def test_metrics_are_finite_and_have_a_place_in_the_documentation() -> None:
    metrics = Game().round(0)
    assert np.isfinite(list(metrics.values())).all()
    norms = {"grad_norm", "weight_norm", "step_norm"}
    assert metrics.keys() == {"updates", "lr", "trial_mean", "trial_max", "trial_std"} | norms
    text = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text(encoding="utf-8")
    for name in metrics.keys() - {"updates"}:
        assert f"`learner/{name}`" in text, name


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_the_same_seed_twice_is_the_same_and_another_is_not(switches: dict[str, Any]) -> None:
    games = [Game(seed=seed, **switches) for seed in (1, 1, 2)]
    for game in games:
        game.round(0)
        game.round(1)
    assert_equal_weights(games[0].learner, games[1].learner)
    with pytest.raises(AssertionError):
        assert_equal_weights(games[0].learner, games[2].learner)


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_state_is_all_there_is(switches: dict[str, Any]) -> None:
    """Also in the midst of a generation."""
    straight, begun, resumed = (Game(**switches) for _ in range(3))
    straight.round(0)
    begun.round(0)
    one, other = straight.play(1, 4)
    for game in (straight, begun):
        game.learner.learn(copy.deepcopy(one))
    resumed.learner.load_state(copy.deepcopy(begun.learner.state()))
    for game in (straight, resumed):
        game.learner.learn(copy.deepcopy(other))
        game.round(2)
    assert_equal_weights(straight.learner, resumed.learner)


def test_weights_that_do_not_fit_are_refused() -> None:
    game = Game()
    weights = dict(game.learner.weights())
    with pytest.raises(ValueError, match="weights do not fit the network"):
        game.policy.load({**weights, "theta": weights["theta"][1:]})
    with pytest.raises(ValueError, match="make the policy from the same environment"):
        game.policy.load({"theta": weights["theta"]})


def test_parameters_that_are_no_numbers_are_an_error_that_says_what_to_try() -> None:
    game = Game(learning_rate=1e38, optimizer="sgd", sigma=1e-4)
    with pytest.raises(FloatingPointError, match="use a smaller learning_rate"):
        game.round(0)


def test_numbered_actions_count_from_where_the_space_says_and_are_sampled_where_wanted() -> None:
    policy: Any = ES.make_policy(Corridor.spec, ES.config.model_validate({"hidden": [], "sample_actions": True}))
    obs = np.tile(np.eye(7, dtype=np.float32)[:1], (400, 1))
    assert set(policy.act_greedy(obs)) == {1}
    sampled, extras = policy.act(obs, 0, np.random.default_rng(0))
    assert extras == {}
    assert 150 < (sampled == 2).sum() < 250, "zero parameters: a fair coin"


@pytest.mark.parametrize("settings", [{}, {"normalize_obs": True, "optimizer": "sgd", "learning_rate": 0.3}], ids=str)
def test_balances_the_pole(settings: dict[str, Any]) -> None:
    game = Game(population=24, **{"hidden": [], "learning_rate": 0.2, "sigma": 0.2, **settings})
    first = game.round(0)["trial_mean"]
    assert first < 60
    best = 0.0
    for number in range(1, 25):
        best = game.round(number)["trial_mean"]
        if best > 450:
            break
    assert best > 450
