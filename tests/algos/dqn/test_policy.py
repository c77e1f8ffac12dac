from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces

from rlray.algos.dqn import DQNConfig
from rlray.algos.dqn.policy import DQNPolicy
from rlray.envs.types import EnvSpec

SPEC = EnvSpec("Vector-v0", spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(5, start=-2))


def make_policy(epsilon: object) -> DQNPolicy:
    return DQNPolicy(SPEC, DQNConfig.model_validate({"network": {"kind": "mlp", "hidden": 8}, "epsilon": epsilon}))


def observations(batch: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (batch, 3)).astype(np.float32)


def test_explores_with_the_scheduled_probability() -> None:
    policy, obs, rng = make_policy([[0, 1.0], [100, 0.2]]), observations(20_000), np.random.default_rng(1)
    greedy = policy.act_greedy(obs)
    for step, epsilon in ((0, 1.0), (50, 0.6), (100, 0.2), (10**6, 0.2)):
        actions, extras = policy.act(obs, step, rng)
        assert extras == {}
        assert (actions.dtype, actions.shape) == (np.int64, (20_000,))
        assert (actions != greedy).mean() == pytest.approx(epsilon * 4 / 5, abs=0.02)
        explored = actions[actions != greedy] if epsilon < 1 else actions
        assert set(explored) == {-2, -1, 0, 1, 2}


def test_is_greedy_without_epsilon() -> None:
    policy, obs = make_policy(0.0), observations(50)
    actions, _ = policy.act(obs, 0, np.random.default_rng(0))
    np.testing.assert_array_equal(actions, policy.act_greedy(obs))


def test_the_greedy_action_has_the_greatest_value() -> None:
    policy = make_policy(0.0)
    weights = {name: np.zeros_like(array) for name, array in export(policy).items()}
    weights["body.1.output.bias"] = np.array([0, 1, 5, 2, 5], np.float32)
    policy.load(weights)
    assert policy.act_greedy(observations(3)).tolist() == [0, 0, 0]  # the third, counted from the start of -2


def test_the_same_seed_gives_the_same_actions() -> None:
    policy, obs = make_policy(0.5), observations(100)
    one, two, other = (policy.act(obs, 0, np.random.default_rng(seed))[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


def test_observations_may_be_read_only_and_are_left_alone() -> None:
    policy, obs = make_policy(0.0), observations(10)
    before = policy.act_greedy(obs)
    obs.flags.writeable = False
    np.testing.assert_array_equal(policy.act_greedy(obs), before)


def make_noisy(**settings: object) -> DQNPolicy:
    network = {"kind": "mlp", "hidden": 8, "noisy": True}
    return DQNPolicy(SPEC, DQNConfig.model_validate({"network": network, "epsilon": 0.0, **settings}))


def test_noise_is_fresh_for_each_environment_and_step() -> None:
    policy, obs, rng = make_noisy(), np.repeat(observations(1), 400, axis=0), np.random.default_rng(1)
    first, second = (policy.act(obs, 0, rng)[0] for _ in range(2))
    assert len(set(first)) > 1  # all see the same, and do not do the same
    assert (first != second).any()
    again = policy.act(obs, 0, np.random.default_rng(1))[0]
    np.testing.assert_array_equal(again, first)  # the seed decides


def test_greedy_actions_are_without_noise() -> None:
    policy, obs = make_noisy(), observations(200)
    before = policy.act_greedy(obs)
    policy.act(obs, 0, np.random.default_rng(0))
    np.testing.assert_array_equal(policy.act_greedy(obs), before)
    quiet = {name: np.zeros_like(a) if name.endswith("sigma") else a for name, a in export(policy).items()}
    policy.load(quiet)
    np.testing.assert_array_equal(policy.act_greedy(obs), before)
    np.testing.assert_array_equal(policy.act(obs, 0, np.random.default_rng(0))[0], before)


@pytest.mark.parametrize(
    "distribution",
    [
        {"distribution": "categorical", "v_min": -1.0, "v_max": 1.0, "atoms": 5},
        {"distribution": "quantile", "atoms": 5},
    ],
)
def test_the_greedy_action_of_a_distribution_has_the_greatest_mean(distribution: dict[str, object]) -> None:
    policy = DQNPolicy(SPEC, DQNConfig.model_validate({"network": {"kind": "mlp", "hidden": 8}, **distribution}))
    weights = {name: np.zeros_like(array) for name, array in export(policy).items()}
    of_actions = np.zeros((5, 5), np.float32)
    of_actions[3] = [-3, -2, 0, 2, 3.5]  # the greatest mean, though not the greatest single number
    of_actions[1] = [0, 0, 9, 0, 0] if distribution["distribution"] == "categorical" else [-9, 0, 0, 0, 9]
    weights["body.1.output.bias"] = of_actions.flatten()
    policy.load(weights)
    assert policy.act_greedy(observations(2)).tolist() == [1, 1]  # the fourth, counted from the start of -2


def test_other_action_spaces_are_refused() -> None:
    spec = EnvSpec("Box-v0", SPEC.observation_space, spaces.Box(-1, 1, (2,)))
    with pytest.raises(ValueError, match=r"dqn needs a Discrete action space, but Box-v0 has Box\(-1.0, 1.0, \(2,\)"):
        DQNPolicy(spec, DQNConfig())


def export(policy: DQNPolicy) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in policy._actor._network.state_dict().items()}
