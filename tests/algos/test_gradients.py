"""The gradients that learners show: those of the last update, as they were applied."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from rlray.algos import LearnerContext, Weights, get_algorithm
from rlray.algos.types import GradientLearner
from tests.algos.apex import test_apex
from tests.algos.es.test_learner import Game
from tests.algos.toys import Catch, CatchFreely, Toy, fragments

NETWORK = {"kind": "mlp", "hidden": [8]}
REPLAYED = {"network": NETWORK, "batch_size": 24, "samples_per_step": 1, "warmup_steps": 24, "replay_capacity": 100}
ROLLED = {"network": NETWORK, "rollout_steps": 24, "minibatch_size": 24, "epochs": 1}
CASES: dict[str, tuple[type[Toy], dict[str, Any]]] = {
    "dqn": (Catch, {**REPLAYED, "network": {**NETWORK, "noisy": True, "dueling": True}}),
    "sac": (CatchFreely, {**REPLAYED, "random_steps": 0}),
    "ppo": (Catch, ROLLED),
    "pqn": (Catch, ROLLED),
    "impala": (Catch, ROLLED),
    "appo": (Catch, ROLLED),
}
"""What makes one update of each fragment of 24 steps but the first."""


def norm(gradients: Weights) -> float:
    return float(np.sqrt(sum(float(np.square(one, dtype=np.float64).sum()) for one in gradients.values())))


@pytest.mark.parametrize("limit", [None, 1e-3])
@pytest.mark.parametrize("name", CASES)
def test_they_are_those_of_the_last_update(name: str, limit: float | None) -> None:
    """Their norm is the one reported, or what it was scaled down to."""
    algorithm, (env, settings) = get_algorithm(name), CASES[name]
    config = algorithm.config.model_validate({**settings, "max_grad_norm": limit})
    policy = algorithm.make_policy(env.spec, config)
    learner: Any = algorithm.make_learner(env.spec, config, LearnerContext("cpu", 1, 1000))
    assert isinstance(learner, GradientLearner)
    assert learner.gradients() == {}
    first, *others = itertools.islice(fragments(env(4), policy, np.random.default_rng(0), 6), 3)
    learner.learn(first)
    for fragment in others:
        metrics = learner.learn(fragment)
        assert metrics["updates"] == 1
        shown = learner.gradients()
        assert norm(shown) == pytest.approx(metrics["grad_norm"] if limit is None else limit, rel=1e-4)
    weights = learner.weights()
    assert {name for name in shown if not name.startswith("critics.")} <= weights.keys()
    assert all(shown[name].shape == weights[name].shape for name in shown.keys() & weights.keys())
    for array in shown.values():
        array.fill(7.0)
    assert norm(learner.gradients()) != pytest.approx(norm(shown)), "they are copies"


def test_of_what_a_replay_elsewhere_has_drawn() -> None:
    pair = test_apex.Pair(Catch.spec, batch_size=24, samples_per_step=1, warmup_steps=24, max_grad_norm=None)
    learner = pair.learner
    assert isinstance(learner, GradientLearner)
    for fragment in test_apex.play(Catch(4), 3, length=6):
        pair.learn(fragment)
    assert norm(learner.gradients()) == pytest.approx(pair.metrics["grad_norm"], rel=1e-4)


def test_of_evolution_it_is_the_estimate() -> None:
    game = Game()
    assert game.learner.gradients() == {}
    metrics = game.round(0)
    shown = game.learner.gradients()
    assert shown.keys() == {"theta"}
    assert norm(shown) == pytest.approx(metrics["grad_norm"], rel=1e-4)
