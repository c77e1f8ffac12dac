"""SAC learns: soft values that are known, the policy that is best at a temperature, and from pictures."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from rlray.algos import LearnerContext, get_algorithm
from rlray.algos.sac.learner import SACLearner
from rlray.algos.sac.policy import SACPolicy
from tests.algos.toys import Aim, AimFar, CatchFreely, Idle, Toy, fragments, mean_return

SAC = get_algorithm("sac")


def train(env: Toy, settings: dict[str, Any], count: int, length: int = 4) -> tuple[SACPolicy, SACLearner]:
    """Play and learn in turn, for ``count`` fragments."""
    config = SAC.config.model_validate(settings)
    policy = SAC.make_policy(env.spec, config)
    learner = SAC.make_learner(env.spec, config, LearnerContext("cpu", 0, count * length * env.num_envs))
    for fragment in itertools.islice(fragments(env, policy, np.random.default_rng(0), length), count):
        learner.learn(fragment)
        policy.load(learner.weights())
    assert isinstance(policy, SACPolicy)
    assert isinstance(learner, SACLearner)
    return policy, learner


@pytest.mark.parametrize("switches", [{}, {"n_step": 3, "prioritized": True}], ids=["1-step", "3-step"])
def test_soft_values_where_episodes_end_in_either_way(switches: dict[str, Any]) -> None:
    """No action is better than another, so that the best policy is uniform: log 2 nats of bonus for each decision.

    With three steps to a window only the last decision's bonus counts, which none of these episodes makes a difference
    to but one: see `Idle.values`.
    """
    settings = {
        "network": {"kind": "mlp", "hidden": 32}, "discount": 0.6, "warmup_steps": 64, "samples_per_step": 100,
        "batch_size": 64, "target_tau": 0.05, "random_steps": 0, "temperature": 0.5, "tune_temperature": False,
        "learning_rate": {"points": [[0, 1e-2], [1, 1e-4]], "of": "run"},
    }  # fmt: skip
    _, learner = train(Idle(8), {**settings, **switches}, count=20)
    bonus = 0.5 * math.log(2)
    expected = Idle.values(0.6, bonus)
    if switches:  # its first decision lies within the window
        expected[4] -= 0.6 * bonus
        expected[5] -= 0.6 * bonus
    actions = torch.linspace(-0.9, 0.9, 7)[:, None]
    for state, value in enumerate(expected):
        x = torch.eye(6)[state].expand(7, 6)
        with torch.no_grad():
            found = learner._updater.critics(x, actions).numpy()
        np.testing.assert_allclose(found, value, atol=0.15, err_msg=f"state {state}")
    with torch.no_grad():
        assert float(learner._updater._of_policy[1]) == pytest.approx(math.log(2), abs=0.05)


def test_the_policy_is_as_wide_as_the_temperature_says() -> None:
    """The reward is minus the square of the distance: exp(reward / alpha) is a Gaussian of variance alpha / 2."""
    settings = {
        "network": {"kind": "mlp", "hidden": [48, 48]}, "discount": 0.0, "warmup_steps": 200, "random_steps": 400,
        "samples_per_step": 64, "batch_size": 64, "temperature": 0.02, "tune_temperature": False,
        "learning_rate": {"points": [[0, 5e-3], [1, 1e-4]], "of": "run"},
    }  # fmt: skip
    policy, _ = train(AimFar(16), settings, count=30)
    target = np.array([[0.4, -0.5]], np.float32)
    actions, _ = policy.act(np.tile(target, (4_000, 1)), 10**6, np.random.default_rng(0))
    unit = AimFar(1).unit(actions)
    np.testing.assert_allclose(unit.mean(axis=0), target[0], atol=0.08)
    np.testing.assert_allclose(unit.std(axis=0), 0.1, atol=0.035)


def test_learns_continuous_actions() -> None:
    settings = {
        "network": {"kind": "mlp", "hidden": [32, 32]}, "discount": 0.0, "warmup_steps": 100, "random_steps": 200,
        "samples_per_step": 32, "batch_size": 64, "learning_rate": 5e-3,
    }  # fmt: skip
    untrained = SAC.make_policy(Aim.spec, SAC.config.model_validate(settings))
    assert mean_return(Aim(16, seed=1), untrained, 160) < -0.3
    policy, _ = train(AimFar(16), settings, count=40)
    assert mean_return(AimFar(16, seed=1), policy, 160) > -0.05


def test_learns_to_catch_from_pictures() -> None:
    settings = {
        "network": {"kind": "conv", "filters": 16, "kernels": 3, "strides": 1, "hidden": 64}, "discount": 0.95,
        "n_step": 3, "warmup_steps": 500, "random_steps": 800, "samples_per_step": 16, "batch_size": 64,
        "learning_rate": 2e-3, "target_tau": 0.02,
    }  # fmt: skip
    untrained = SAC.make_policy(CatchFreely.spec, SAC.config.model_validate(settings))
    assert mean_return(CatchFreely(16, seed=1), untrained, 160) < 0.5
    policy, _ = train(CatchFreely(16), settings, count=50)
    assert mean_return(CatchFreely(16, seed=1), policy, 160) > 0.8
