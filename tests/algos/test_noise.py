"""Noisy layers: the paper's equations, where the noise comes from, and that it can be taken away."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from rlray.algos.noise import Noise, NoisyLinear


def normals(seed: int) -> Callable[[int, int], torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda rows, size: torch.randn(rows, size, generator=generator)


@pytest.mark.parametrize("rows", [4, 1])
def test_a_row_of_noise_is_equations_9_to_11(rows: int) -> None:
    """Against weights that are really disturbed, one row at a time."""
    layer, x = NoisyLinear(5, 3), torch.randn(4, 5)
    with torch.no_grad():
        layer.weight_sigma.uniform_(0, 1)
        layer.bias_sigma.uniform_(0, 1)
    Noise(layer).draw(normals(0), rows)
    drawn = normals(0)(rows, 8).expand(4, 8)
    f = drawn.sign() * drawn.abs().sqrt()
    for row in range(4):
        of_inputs, of_outputs = f[row, :5], f[row, 5:]
        weight = layer.weight + layer.weight_sigma * torch.outer(of_outputs, of_inputs)
        bias = layer.bias + layer.bias_sigma * of_outputs
        torch.testing.assert_close(layer(x)[row], weight @ x[row] + bias)


def test_the_first_sizes_are_those_of_the_paper() -> None:
    layer = NoisyLinear(16, 1000)
    assert torch.all(layer.weight_sigma == 0.5 / 4)
    assert torch.all(layer.bias_sigma == 0.5 / 4)
    for mean in (layer.weight, layer.bias):
        assert 0.95 / 4 < mean.abs().max() <= 1 / 4
    assert torch.all(NoisyLinear(4, 2, sigma=0.2).weight_sigma == 0.1)


def test_one_row_is_the_noise_of_a_whole_batch() -> None:
    layer, x = NoisyLinear(5, 3), torch.randn(5).expand(4, 5)
    noise = Noise(layer)
    noise.draw(normals(0))
    rows = layer(x)
    torch.testing.assert_close(rows, rows[:1].expand(4, 3))
    noise.draw(normals(0), rows=4)
    assert not torch.allclose(layer(x)[0], layer(x)[1])


def test_without_noise_there_is_a_plain_linear_layer() -> None:
    layer, x = NoisyLinear(5, 3), torch.randn(4, 5)
    plain = nn.functional.linear(x, layer.weight, layer.bias)
    assert torch.equal(layer(x), plain)
    noise = Noise(layer)
    noise.draw(normals(0))
    assert not torch.allclose(layer(x), plain)
    noise.clear()
    assert torch.equal(layer(x), plain)


def test_layers_have_noise_of_their_own_that_the_seed_decides() -> None:
    body = nn.Sequential(NoisyLinear(4, 4), nn.ReLU(), nn.Linear(4, 4), NoisyLinear(4, 4))
    noise = Noise(body)

    def drawn(seed: int) -> list[torch.Tensor]:
        noise.draw(normals(seed))
        return [part for layer in (body[0], body[3]) for part in layer.noise]

    one, same, other = drawn(1), drawn(1), drawn(2)
    assert all(map(torch.equal, one, same))
    assert not any(map(torch.equal, one, other))
    assert len({tuple(part.flatten().tolist()) for part in one}) == 4


def test_the_sizes_learn_and_are_no_part_of_what_is_drawn() -> None:
    layer = NoisyLinear(5, 3)
    Noise(layer).draw(normals(0))
    layer(torch.randn(4, 5)).square().sum().backward()
    assert layer.weight_sigma.grad is not None
    assert layer.weight_sigma.grad.any()
    assert layer.bias_sigma.grad is not None
    assert layer.bias_sigma.grad.any()
    assert set(layer.state_dict()) == {"weight", "bias", "weight_sigma", "bias_sigma"}


def test_a_network_without_noisy_layers_draws_nothing() -> None:
    noise = Noise(nn.Linear(3, 3))
    assert not noise
    noise.draw(lambda rows, size: pytest.fail("drew"))
