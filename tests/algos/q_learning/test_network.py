"""Heads of several numbers for each action, noisy layers, and what the numbers mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from rlray.algos.network_config import NetworkConfig
from rlray.algos.networks import export_weights
from rlray.algos.noise import NoisyLinear
from rlray.algos.q_learning.heads import CategoricalHead, Head, MeanHead, QuantileHead, make_head
from rlray.algos.q_learning.network import QNetwork, make_q_network
from rlray.algos.q_learning.settings import QLearningSettings
from rlray.algos.transfer import TensorBatch
from rlray.envs.types import EnvSpec

SPEC = EnvSpec("Vector-v0", spaces.Box(-1, 1, (4,), np.float32), spaces.Discrete(3))


def make(size: int, **network: Any) -> QNetwork:
    config = NetworkConfig.model_validate({"kind": "mlp", "hidden": [8, 16], **network})
    return make_q_network(SPEC, config, actions=3, seed=0, size=size)


def test_dueling_holds_for_each_number_by_itself() -> None:
    """Equation 9 atom by atom, as Rainbow has it."""
    made, x = make(5, dueling=True), torch.rand(7, 4)
    head: Any = made.body[1]  # type: ignore[index]
    for_value, for_advantage = torch.relu(head.hidden(made.body[0](x))).chunk(2, dim=1)  # type: ignore[index, operator]
    value, advantage = head.value(for_value), head.output(for_advantage).view(7, 3, 5)
    outputs = made(x)
    assert outputs.shape == (7, 3, 5)
    for atom in range(5):
        of_atom = advantage[:, :, atom]
        expected = value[:, atom, None] + of_atom - of_atom.mean(dim=1, keepdim=True)
        torch.testing.assert_close(outputs[:, :, atom], expected)


def test_numbers_of_an_action_stand_together() -> None:
    """Output k of a body is number k mod N of action k div N."""
    made = make(5)
    with torch.no_grad():
        for parameter in made.body.parameters():
            parameter.zero_()
        made.body[1].output.bias.copy_(torch.arange(15.0))  # type: ignore[index, union-attr, operator]
    assert made(torch.rand(1, 4))[0].tolist() == torch.arange(15.0).view(3, 5).tolist()


def test_noise_is_in_the_head_only_and_begins_as_told() -> None:
    made = make(2, noisy=True, dueling=True, noise_sigma=0.8)
    noisy = {name for name, module in made.named_modules() if isinstance(module, NoisyLinear)}
    assert noisy == {"body.1.hidden", "body.1.output", "body.1.value"}
    weights = export_weights(made)
    assert weights["body.1.output.weight_sigma"][0, 0] == pytest.approx(0.8 / 4)
    assert weights["body.1.hidden.weight_sigma"][0, 0] == pytest.approx(0.8 / np.sqrt(8))
    assert make(2, noisy=True).body[1].output.weight_sigma[0, 0] == 0.5 / 4  # type: ignore[index, union-attr]
    assert not any(isinstance(module, NoisyLinear) for module in make(2).modules())


def test_orthogonal_heads_begin_near_zero_noisy_or_not() -> None:
    for noisy in (False, True):
        made = make(2, dueling=True, init="orthogonal", noisy=noisy)
        weights = export_weights(made)
        assert np.abs(weights["body.1.output.weight"]).max() <= 0.01
        assert np.abs(weights["body.1.value.weight"]).max() <= 0.01
        assert np.abs(weights["body.1.hidden.weight"]).max() > 0.1


class Own(nn.Module):
    def __init__(self, spec: EnvSpec, outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(4, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def test_a_network_of_ones_own_is_asked_for_all_the_numbers() -> None:
    made = make_q_network(SPEC, NetworkConfig(kind=f"{__name__}:Own"), actions=3, seed=0, size=5)
    assert made.body.layer.out_features == 15
    assert made(torch.rand(2, 4)).shape == (2, 3, 5)


def settings(**given: Any) -> QLearningSettings:
    return QLearningSettings.model_validate(given)


@pytest.mark.parametrize(
    ("given", "kind", "size"),
    [
        ({}, MeanHead, 1),
        ({"distribution": "categorical", "v_min": -1, "v_max": 3}, CategoricalHead, 51),
        ({"distribution": "quantile", "atoms": 7}, QuantileHead, 7),
    ],
)
def test_values_are_the_means_of_what_the_outputs_say(given: dict[str, Any], kind: type, size: int) -> None:
    head: Head = make_head(settings(**given), "cpu")
    assert isinstance(head, kind)
    assert head.size == size
    outputs = torch.randn(2, 3, size)
    values = head.q_values(outputs)
    assert values.shape == (2, 3)
    if kind is CategoricalHead:
        p = torch.exp(outputs) / torch.exp(outputs).sum(dim=2, keepdim=True)
        torch.testing.assert_close(values, (p * (-1 + torch.arange(51) * 4 / 50)).sum(dim=2))
    else:
        torch.testing.assert_close(values, outputs.mean(dim=2))


@pytest.mark.parametrize(
    "given", [{}, {"distribution": "categorical", "v_min": -9, "v_max": 9}, {"distribution": "quantile", "atoms": 8}]
)
def test_priorities_are_never_negative_and_nothing_is_learned_through_them(given: dict[str, Any]) -> None:
    head, rng = make_head(settings(**given), "cpu"), torch.Generator().manual_seed(0)
    outputs_tm1, outputs_t = (torch.randn(6, 3, head.size, generator=rng, requires_grad=True) for _ in range(2))
    a_tm1, a_t = torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([2, 2, 1, 1, 0, 0])
    r_t, discount_t, unused = torch.linspace(-1, 1, 6), torch.full((6,), 0.5), torch.zeros(6)
    losses = head.losses(
        outputs_tm1, a_tm1, TensorBatch(unused, a_tm1, r_t, discount_t, unused, unused), outputs_t, a_t
    )
    assert (losses.priority >= 0).all()
    assert not losses.priority.requires_grad
    assert losses.loss.requires_grad
    if not given:
        rows = torch.arange(6)
        td_error = r_t + 0.5 * outputs_t[rows, a_t, 0] - outputs_tm1[rows, a_tm1, 0]
        torch.testing.assert_close(losses.priority, td_error.abs().detach())
