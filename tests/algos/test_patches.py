"""First convolutions over patches are the convolutions that they stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from rlray.algos.network_config import NetworkConfig
from rlray.algos.patches import PatchConv2d, patch_side, patches
from rlray.algos.q_learning.network import make_q_network
from rlray.envs.types import EnvSpec


def config(kernel: int, stride: int) -> NetworkConfig:
    return NetworkConfig(kind="conv", filters=(5,), kernels=(kernel,), strides=(stride,), hidden=(4,))


@pytest.mark.parametrize(("kernel", "stride", "side"), [(8, 4, 4), (4, 4, 4), (6, 3, 3), (3, 2, 1), (3, 1, 1)])
def test_the_stride_must_divide_the_kernel(kernel: int, stride: int, side: int) -> None:
    assert patch_side(config(kernel, stride)) == side
    assert patch_side(NetworkConfig(kind="mlp")) == 1


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
@pytest.mark.parametrize("side", [2, 3, 4, 8])
def test_each_number_has_its_place(dtype: torch.dtype, side: int) -> None:
    """Against a loop; the picture is no whole number of squares in either direction."""
    pictures = torch.randint(0, 255, (2, 3, 2 * side + 1, 3 * side + 1), dtype=dtype)
    made = patches(pictures, side)
    assert made.shape == (2, 2, 3, 3 * side * side)
    assert made.is_contiguous()
    assert made.dtype == dtype
    for y in range(2):
        for x in range(3):
            square = pictures[:, :, y * side : (y + 1) * side, x * side : (x + 1) * side]
            assert torch.equal(made[:, y, x], square.flatten(1))


def test_pictures_need_not_be_contiguous() -> None:
    pictures = torch.randint(0, 255, (2, 8, 8, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    assert torch.equal(patches(pictures, 4), patches(pictures.contiguous(), 4))


@pytest.mark.parametrize(("kernel", "stride", "size"), [(8, 4, 84), (8, 4, 42), (6, 3, 20), (4, 2, 17), (4, 4, 18)])
def test_the_convolution_and_its_gradients_are_those_over_pictures(kernel: int, stride: int, size: int) -> None:
    torch.manual_seed(0)
    pictures = torch.rand(2, 4, size, size, dtype=torch.float64)
    one, other = PatchConv2d(4, 5, kernel, stride).double(), nn.Conv2d(4, 5, kernel, stride).double()
    other.load_state_dict(one.state_dict())
    made, expected = one(patches(pictures, stride).permute(0, 3, 1, 2)), other(pictures)
    torch.testing.assert_close(made, expected)
    weight = torch.rand_like(made)
    (made * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(one.weight.grad, other.weight.grad)
    torch.testing.assert_close(one.bias.grad, other.bias.grad)


@pytest.mark.parametrize("norm", ["per_pixel", "divide"])
def test_a_network_over_patches_is_that_over_pictures(norm: Any) -> None:
    """Normalised, cut and convolved: the first layer puts out what it would, from pictures normalised by hand."""
    spec = EnvSpec("Pixels-v0", spaces.Box(0, 255, (4, 42, 42), np.uint8), spaces.Discrete(6), 4)
    network = make_q_network(spec, config(8, 4).model_copy(update={"input_norm": norm}), 6, seed=0)
    rng = np.random.default_rng(0)
    obs = torch.from_numpy(rng.integers(0, 256, (3, 4, 42, 42)).astype(np.uint8))
    expected = obs.float() / 255
    if norm == "per_pixel":
        frames = rng.integers(0, 256, (50, 42, 42)).astype(np.uint8)
        network.input.fit(frames)
        expected = (obs - torch.from_numpy(frames.mean(0))) / torch.from_numpy(frames.std(0).clip(8))
    first: Any = network.body[0][0]  # type: ignore[index]
    plain = nn.Conv2d(4, 5, 8, 4)
    plain.load_state_dict(first.state_dict())
    torch.testing.assert_close(first(network.input(obs)), plain(expected.float()), atol=1e-4, rtol=1e-4)
