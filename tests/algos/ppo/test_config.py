"""What PPO's settings refuse, and in which words."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from rlray.algos import get_algorithm
from rlray.algos.ppo import PPOConfig
from tests.algos.toys import Catch, Corridor

PPO = get_algorithm("ppo")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"minibatch_size": 4096}, "minibatch_size 4096 is more than rollout_steps 2048"),
        ({"clip": -0.1}, "clip must not be negative"),
        ({"normalize_reward": True, "clip_reward": True}, "exclude each other"),
        ({"normalize_obs": True, "network": {"input_norm": "divide"}}, "leave one out"),
        ({"gae_lamda": 1}, "gae_lamda"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        PPOConfig.model_validate(settings)


@pytest.mark.parametrize(
    ("network", "shared", "words"),
    [
        ({"kind": "mlp", "dueling": True}, True, "dueling is for Q-networks"),
        ({"kind": "small"}, False, "use shared: true"),
        ({"kind": "tests.algos.ppo.test_config:Nameless"}, True, "must say how many features"),
    ],
)
def test_networks_that_do_not_fit(network: dict[str, Any], shared: bool, words: str) -> None:
    config = PPOConfig.model_validate({"network": network, "shared": shared})
    spec = Corridor.spec if network["kind"] == "mlp" else Catch.spec
    with pytest.raises((TypeError, ValueError), match=words):
        PPO.make_policy(spec, config)


def Nameless(spec: Any) -> Any:
    import torch

    return torch.nn.Flatten()


def test_a_network_of_ones_own() -> None:
    import numpy as np

    config = PPOConfig.model_validate({"network": "tests.algos.ppo.test_config:MyNet"})
    policy = PPO.make_policy(Corridor.spec, config)
    action, extras = policy.act(np.eye(7, dtype=np.float32), 0, np.random.default_rng(0))
    assert action.shape == (7,)
    assert {name: array.shape for name, array in extras.items()} == {"log_prob": (7,), "value": (7,)}


def MyNet(spec: Any) -> Any:
    import torch

    net = torch.nn.Sequential(torch.nn.Linear(7, 9), torch.nn.Tanh())
    net.features = 9
    return net
