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


def test_other_action_spaces_are_refused() -> None:
    spec = EnvSpec("Box-v0", SPEC.observation_space, spaces.Box(-1, 1, (2,)))
    with pytest.raises(ValueError, match=r"dqn needs a Discrete action space, but Box-v0 has Box\(-1.0, 1.0, \(2,\)"):
        DQNPolicy(spec, DQNConfig())


def export(policy: DQNPolicy) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in policy._actor._network.state_dict().items()}
