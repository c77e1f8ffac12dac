"""Copies in bfloat16: they follow what they stand for, and hand its gradients back."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from rlray.algos.dqn import DQNConfig
from rlray.algos.q_learning.updater import QUpdater
from rlray.algos.replica import Replica
from rlray.algos.transfer import TensorBatch
from rlray.algos.types import LearnerContext
from rlray.envs.types import EnvSpec

SPEC = EnvSpec("Pixels-v0", spaces.Box(0, 255, (4, 16, 16), np.uint8), spaces.Discrete(3), 4)


def updater(precision: str, **settings: Any) -> QUpdater:
    network = {"kind": "conv", "filters": [8], "kernels": [4], "strides": [2], "hidden": 16, **settings}
    config = DQNConfig(network=network, precision=precision, target_update_every=2)  # type: ignore[arg-type]
    return QUpdater(SPEC, config, LearnerContext("cpu", 0, 1000), 3)


def batch(seed: int, size: int = 8) -> TensorBatch:
    rng = np.random.default_rng(seed)
    pictures = [torch.from_numpy(rng.integers(0, 256, (size, 4, 16, 16)).astype(np.uint8)) for _ in range(2)]
    return TensorBatch(
        s_tm1=pictures[0], a_tm1=torch.from_numpy(rng.integers(0, 3, size)), s_t=pictures[1], weight=torch.ones(size),
        r_t=torch.from_numpy(rng.normal(size=size).astype(np.float32)), discount_t=torch.full((size,), 0.9),
    )  # fmt: skip


def test_one_that_is_not_wanted_is_the_thing_itself() -> None:
    layer = nn.Linear(3, 2)
    replica = Replica(layer, False)
    assert replica.network is layer
    layer(torch.ones(1, 3)).sum().backward()
    before = copy.deepcopy(layer.weight.grad)
    replica.return_gradients()
    replica.refresh()
    assert torch.equal(layer.weight.grad, before)


def test_gradients_go_to_the_parameters_and_do_not_add_up() -> None:
    layer = nn.Linear(3, 2)
    replica = Replica(layer, True)
    for _ in range(2):
        replica.network(torch.full((4, 3), 0.5, dtype=torch.bfloat16)).float().sum().backward()
        replica.return_gradients()
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32
    torch.testing.assert_close(layer.weight.grad, torch.full((2, 3), 2.0))
    torch.testing.assert_close(layer.bias.grad, torch.full((2,), 4.0))


def test_it_changes_when_told() -> None:
    layer = nn.Linear(3, 2)
    replica = Replica(layer, True)
    with torch.no_grad():
        layer.weight.fill_(3.0)
    assert not bool((replica.network.weight == 3.0).any())
    replica.refresh()
    assert bool((replica.network.weight == 3.0).all())


@pytest.mark.parametrize("extra", [{}, {"layer_norm": True, "dueling": True}, {"noisy": True}])
def test_updates_in_bfloat16_are_nearly_those_in_float32(extra: dict[str, Any]) -> None:
    """The same losses to the precision of bfloat16, while online and target network both move."""
    exact, fast = updater("float32", **extra), updater("bfloat16", **extra)
    losses = np.array([[float(one.update(batch(i)).figures[0]) for one in (exact, fast)] for i in range(6)])
    np.testing.assert_allclose(losses[:, 1], losses[:, 0], rtol=0.05, atol=0.02)
    assert not np.array_equal(losses[:, 1], losses[:, 0])
    for name, weight in fast.network.state_dict().items():
        assert weight.dtype in (torch.float32, torch.bool), name


def test_going_on_from_a_state_gives_the_same_bits() -> None:
    """Also in the networks that the state does not hold."""
    one, other = updater("bfloat16"), updater("bfloat16")
    for i in range(3):
        one.update(batch(i))
    other.load_state(copy.deepcopy(one.state()))
    for i in range(3, 6):
        assert torch.equal(one.update(batch(i)).figures, other.update(batch(i)).figures)
    for name, weight in one.network.state_dict().items():
        assert torch.equal(weight, other.network.state_dict()[name]), name
