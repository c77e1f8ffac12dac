"""DQN learns: values that are known, and behaviour up to a threshold. Each switch by itself, and all together."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from rlray.algos import LearnerContext, get_algorithm
from tests.algos.dqn.switches import QUANTILE, RAINBOW, with_switches
from tests.algos.toys import Catch, Corridor, Endings, Toy, fragments, mean_return

DQN = get_algorithm("dqn")
RAINBOW_WITH_QUANTILES = {**RAINBOW, **QUANTILE, "v_min": None, "v_max": None}
CATEGORICAL = {"distribution": "categorical", "atoms": 31, "v_min": -1.0, "v_max": 4.0}


def train(env: Toy, settings: dict[str, Any], count: int, length: int = 4, seed: int = 0) -> tuple[Any, Any]:
    """Play and learn in turn, for ``count`` fragments; returns policy and learner."""
    config = DQN.config.model_validate(settings)
    policy = DQN.make_policy(env.spec, config)
    learner = DQN.make_learner(env.spec, config, LearnerContext("cpu", seed, count * length * env.num_envs))
    for fragment in itertools.islice(fragments(env, policy, np.random.default_rng(seed), length), count):
        learner.learn(fragment)
        policy.load(learner.weights())
    return policy, learner


@pytest.mark.parametrize(
    "switches",
    [
        {}, {"n_step": 3}, {"double": False}, {"network": {"dueling": True}}, {"prioritized": True}, CATEGORICAL,
        QUANTILE, {"network": {"noisy": True}}, {**RAINBOW, **CATEGORICAL}, RAINBOW_WITH_QUANTILES,
    ],
    ids=[
        "plain", "3-step", "not-double", "dueling", "prioritized", "categorical", "quantile", "noisy", "rainbow",
        "rainbow-with-quantiles",
    ],
)  # fmt: skip
def test_values_where_episodes_end_in_either_way(switches: dict[str, Any]) -> None:
    settings = {
        "network": {"kind": "mlp", "hidden": 32}, "discount": 0.6, "warmup_steps": 64, "samples_per_step": 24,
        "epsilon": 1.0, "target_update_every": 20, "learning_rate": {"points": [[0, 1e-2], [1, 1e-4]], "of": "run"},
    }  # fmt: skip
    policy, _ = train(Endings(8), with_switches(settings, switches), count=20)
    values = policy._actor.q_values(np.eye(6, dtype=np.float32), None).numpy()
    expected = np.array(Endings.values(0.6))
    noisy = switches.get("network", {}).get("noisy", False)  # what was learned under noise is a little off without it
    np.testing.assert_allclose(values, np.stack([expected, expected], axis=1), atol=0.2 if noisy else 0.06)


@pytest.mark.parametrize(
    "switches",
    [
        {},
        # once the warm-up is full, nothing but its noise explores
        {**RAINBOW, "network": {"dueling": True, "noisy": True, "hidden": 48}, "epsilon": [[0, 1], [500, 1], [500, 0]]},
    ],
    ids=["3-step", "rainbow"],
)
def test_finds_its_way_along_a_corridor(switches: dict[str, Any]) -> None:
    settings = {
        "network": {"kind": "mlp", "hidden": 32, "dueling": True}, "discount": 0.9, "n_step": 3, "warmup_steps": 100,
        "learning_rate": 3e-3, "target_tau": 0.05, "target_update_every": 1, "epsilon": [[0, 1.0], [1500, 0.1]],
    }  # fmt: skip
    settings = with_switches(settings, switches)
    untrained = DQN.make_policy(Corridor.spec, DQN.config.model_validate(settings))
    assert mean_return(Corridor(2), untrained, 2) == 0.0
    policy, _ = train(Corridor(8), settings, count=70)
    assert mean_return(Corridor(2), policy, 2) == 1.0


def test_learns_to_catch_from_pictures() -> None:
    settings = {
        "network": {"kind": "conv", "filters": 16, "kernels": 3, "strides": 1, "hidden": 64, "dueling": True},
        "discount": 0.95, "n_step": 3, "warmup_steps": 500, "learning_rate": 2e-3, "target_tau": 0.02,
        "target_update_every": 1, "epsilon": [[0, 1.0], [1500, 0.05]],
    }  # fmt: skip
    untrained = DQN.make_policy(Catch.spec, DQN.config.model_validate(settings))
    assert mean_return(Catch(16, seed=1), untrained, 160) < 0.5
    policy, _ = train(Catch(16), settings, count=50)
    assert mean_return(Catch(16, seed=1), policy, 160) > 0.8
