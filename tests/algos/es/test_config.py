"""What the settings of ES, and its network, refuse, and in which words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from pydantic import ValidationError

from rlray.algos import get_algorithm
from rlray.algos.es import ESConfig
from rlray.config import ConfigError, RunConfig
from rlray.envs.types import EnvSpec
from rlray.train.plan import make_task_plan
from tests.algos.toys import Catch, Corridor

ES = get_algorithm("es")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"population": 7}, "population must be even, .* got 7"),
        ({"learning_rate": -0.1}, "learning_rate must not be negative"),
        ({"sigma": 0.0}, "sigma"),
        ({"momentum": 1.0}, "momentum"),
        ({"popluation": 8}, "popluation"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ESConfig.model_validate(settings)


def test_pictures_and_strange_actions_are_refused() -> None:
    with pytest.raises(ValueError, match="es takes vectors of numbers, but Catch-v0 observes"):
        ES.make_policy(Catch.spec, ESConfig())
    many = EnvSpec("Many-v0", Corridor.spec.observation_space, spaces.MultiDiscrete([2, 2]))
    with pytest.raises(ValueError, match="es takes Discrete actions or a Box of floats, but Many-v0 has"):
        ES.make_policy(many, ESConfig())


def test_a_table_that_is_smaller_than_the_policy_is_refused() -> None:
    assert ES.make_trials is not None
    with pytest.raises(ValueError, match=r"noise_size 100 is smaller than the policy, which has 642 parameters"):
        ES.make_trials(Corridor.spec, ESConfig(hidden=(64,), noise_size=100, population=2))


def test_what_would_have_no_effect_is_refused() -> None:
    config = {"env": "CartPole-v1", "algo": "es", "stop": {"steps": 100}, "simulators": {"fragment_length": 64}}
    with pytest.raises(ConfigError, match="fragment_length 64 has no effect: es plays whole episodes"):
        RunConfig.from_dict(config)
    assert RunConfig.from_dict({**config, "simulators": {"count": 4}}).simulators.count == 4


def test_tasks_wait_for_their_turn_however_many_they_are() -> None:
    plain = {"env": "CartPole-v1", "algo": "es", "stop": {"steps": 100}}
    config = RunConfig.from_dict({**plain, "simulators": {"count": 100}})
    plan = make_task_plan(config.groups[0], config.learner, {"CPU": 2.0, "GPU": 1.0})
    [tasks] = plan.groups
    assert (tasks.simulators, tasks.cpus, plan.learner_cpus, plan.learner_gpus) == (100, 1.0, 0.0, 0.0)
    assert "100 task(s) a round with 1 CPU" in str(plan)
    config = RunConfig.from_dict({**plain, "simulators": {"num_cpus": 2.0}, "learner": {"num_cpus": 1.0}})
    with pytest.raises(ValueError, match=r"asks for 2 CPU for a task \+ learner 1 CPU .* there are 2 CPU"):
        make_task_plan(config.groups[0], config.learner, {"CPU": 2.0})


def test_bounded_actions_stay_within_their_bounds() -> None:
    low, high = np.array([-2.0, 0.0, -np.inf], np.float32), np.array([2.0, 10.0, np.inf], np.float32)
    spec = EnvSpec("Aim-v0", spaces.Box(-1, 1, (4,), np.float32), spaces.Box(low, high))
    policy = ES.make_policy(spec, ESConfig(hidden=(8,)))
    zero = policy.act_greedy(np.ones((5, 4), np.float32))
    np.testing.assert_array_equal(zero, np.tile(np.array([0.0, 5.0, 0.0], np.float32), (5, 1)))
    size = (4 + 1) * 8 + (8 + 1) * 3
    rng = np.random.default_rng(0)
    large = rng.standard_normal(size, np.float32) * 50
    policy.load({"theta": large, "mean": np.zeros(4, np.float32), "std": np.ones(4, np.float32)})
    actions = policy.act_greedy(rng.standard_normal((200, 4)).astype(np.float32))
    assert (actions.dtype, actions.shape) == (np.float32, (200, 3))
    assert all(spec.action_space.contains(action) for action in actions)
    assert (actions[:, 1] == 10.0).any()
    assert (np.abs(actions[:, 2]) > 10.0).any(), "without bounds the outputs are the actions"
