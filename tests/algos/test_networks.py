from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from rlray.algos.network_config import NetworkConfig
from rlray.algos.networks import export_weights, import_weights
from rlray.algos.q_learning.network import QNetwork, make_q_network
from rlray.envs.types import EnvSpec


def pictures(height: int = 84, stack: int = 4, dtype: Any = np.uint8) -> EnvSpec:
    return EnvSpec("Pixels-v0", spaces.Box(0, 255, (stack, height, height), dtype), spaces.Discrete(6), stack)


def vectors(shape: tuple[int, ...] = (8,), stack: int = 1) -> EnvSpec:
    return EnvSpec("Vector-v0", spaces.Box(-np.inf, np.inf, shape, np.float32), spaces.Discrete(4), stack)


def make(spec: EnvSpec, network: Any, actions: int = 6, seed: int = 0) -> QNetwork:
    return make_q_network(spec, NetworkConfig.model_validate(network), actions, seed)


def values(made: QNetwork, obs: torch.Tensor) -> torch.Tensor:
    """One number for each action, without the axis that distributions have."""
    return made(obs).squeeze(2)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def observations(spec: EnvSpec, batch: int = 3) -> torch.Tensor:
    rng = np.random.default_rng(0)
    shape = (batch, *(spec.observation_space.shape or ()))
    if spec.observation_space.dtype == np.uint8:
        return torch.from_numpy(rng.integers(0, 256, shape).astype(np.uint8))
    return torch.from_numpy(rng.normal(size=shape).astype(np.float32))


@pytest.mark.parametrize(
    ("network", "height", "parameters"),
    [
        # weights + biases of each layer, by hand
        ("nature", 84, (8224 + 32832 + 36928) + (3136 * 512 + 512) + (512 * 6 + 6)),
        ("auto", 84, (8224 + 32832 + 36928) + (3136 * 512 + 512) + (512 * 6 + 6)),
        ("dqn2013", 84, (4112 + 8224) + (2592 * 256 + 256) + (256 * 6 + 6)),
        ("small", 42, (1184 + 9248 + 9248) + (512 * 256 + 256) + (256 * 6 + 6)),
        ("auto", 42, (1184 + 9248 + 9248) + (512 * 256 + 256) + (256 * 6 + 6)),
        (
            {"kind": "conv", "filters": [16, 32], "kernels": [8, 3], "strides": [4, 2], "hidden": 128, "dueling": True},
            42,
            (4112 + 4640) + 2 * (512 * 128 + 128) + (128 * 6 + 6) + (128 + 1),
        ),
        ({"kind": "nature", "hidden": [64, 32]}, 84, 77984 + (3136 * 64 + 64) + (64 * 32 + 32) + (32 * 6 + 6)),
    ],
)
def test_sizes_are_those_of_the_papers(network: Any, height: int, parameters: int) -> None:
    spec = pictures(height)
    made = make(spec, network)
    assert count(made) == parameters
    q = values(made, observations(spec))
    assert q.shape == (3, 6)
    assert q.dtype == torch.float32


@pytest.mark.parametrize("spec", [vectors(), vectors((4, 3), stack=4)])
def test_vectors_get_a_multilayer_perceptron(spec: EnvSpec) -> None:
    made = make(spec, {"kind": "auto", "hidden": [16, 32], "dueling": True})
    size = int(np.prod(spec.observation_space.shape or ()))
    assert count(made) == (size * 16 + 16) + (16 * 64 + 64) + (32 * 6 + 6) + (32 + 1)
    assert values(made, observations(spec)).shape == (3, 6)


def test_pictures_with_channels_at_the_end_are_turned() -> None:
    spec = EnvSpec("Rgb-v0", spaces.Box(0, 255, (96, 80, 3), np.uint8), spaces.Discrete(6))
    made = make(spec, {"kind": "small", "input_norm": "divide"})
    obs = observations(spec)
    torch.testing.assert_close(made.input(obs), obs.permute(0, 3, 1, 2) / 255)
    assert values(made, obs).shape == (3, 6)


def test_dueling_values_are_those_of_equation_9() -> None:
    spec = vectors()
    made = make(spec, {"kind": "mlp", "hidden": 16, "dueling": True})
    x = observations(spec)
    head: Any = made.body[1]  # type: ignore[index]
    hidden = torch.relu(x @ head.hidden.weight.T + head.hidden.bias)
    value = hidden[:, :16] @ head.value.weight.T + head.value.bias
    advantage = hidden[:, 16:] @ head.output.weight.T + head.output.bias
    torch.testing.assert_close(values(made, x), value + advantage - advantage.mean(1, keepdim=True))
    torch.testing.assert_close(values(made, x).mean(1, keepdim=True), value)


@pytest.mark.parametrize("stack", [1, 3, 4])
def test_bytes_are_divided_by_255_into_channels_last(stack: int) -> None:
    """Four planes take a way of their own."""
    spec = pictures(42, stack)
    obs = observations(spec)
    x = make(spec, {"kind": "small", "input_norm": "divide"}).input(obs)
    torch.testing.assert_close(x, obs.float() / 255)
    assert x.is_contiguous(memory_format=torch.channels_last)
    unfitted = make(spec, {"kind": "small", "input_norm": "per_pixel"}).input(obs)
    torch.testing.assert_close(unfitted, obs.float() / 255)


def test_each_pixel_is_normalised_by_its_own_mean_and_deviation() -> None:
    spec = pictures(8)
    network = {"kind": "conv", "filters": 2, "kernels": 3, "strides": 1, "hidden": 4}
    made, frames = make(spec, network), np.random.default_rng(1).integers(0, 256, (700, 8, 8)).astype(np.uint8)
    frames[:, 0] = 77  # never changes
    frames[:, 1] = 100 + frames[:, 1] % 4  # hardly changes
    assert made.input.needs_fit
    made.input.fit(frames)
    assert not made.input.needs_fit
    std = np.maximum(frames.astype(float).std(0), 8.0)
    obs = observations(spec)
    expected = (obs.numpy() - frames.astype(float).mean(0)) / std
    np.testing.assert_allclose(made.input(obs).numpy(), expected, atol=1e-4)
    other = make(spec, network, seed=9)
    import_weights(other, export_weights(made))
    assert not other.input.needs_fit
    torch.testing.assert_close(other(obs), made(obs))


def test_observations_are_left_as_they_were() -> None:
    spec = vectors()
    made, x = make(spec, {"kind": "mlp", "input_norm": "per_pixel"}), observations(vectors())
    before = x.clone()
    made.input.fit(np.random.default_rng(0).normal(3, 2, (100, 8)).astype(np.float32))
    assert not torch.equal(made.input(x), x)
    assert torch.equal(x, before)
    assert make(spec, "mlp").input(x) is x  # auto leaves floats alone


def test_first_weights_depend_on_the_seed_only() -> None:
    state = torch.get_rng_state()
    one, same, other = (export_weights(make(pictures(42), "small", seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not np.array_equal(one["body.0.0.weight"], other["body.0.0.weight"])


def test_orthogonal_weights() -> None:
    made = make(vectors(), {"kind": "mlp", "hidden": [8, 8], "init": "orthogonal"})
    weights = export_weights(made)
    torch.testing.assert_close(
        torch.from_numpy(weights["body.0.1.weight"] @ weights["body.0.1.weight"].T), 2 * torch.eye(8)
    )
    assert np.abs(weights["body.1.output.weight"]).max() <= 0.01
    assert not any(weights[name].any() for name in weights if name.endswith("bias"))


def test_weights_are_copied_and_must_fit() -> None:
    made, other = make(vectors(), "mlp"), make(vectors(), "mlp", seed=1)
    weights = export_weights(made)
    for array in weights.values():
        array.flags.writeable = False  # as they come from shared memory
    import_weights(other, weights)
    with torch.no_grad():
        made.body[1].output.bias += 1  # type: ignore[index, union-attr, operator]
    assert not np.array_equal(export_weights(made)["body.1.output.bias"], weights["body.1.output.bias"])
    assert np.array_equal(export_weights(other)["body.1.output.bias"], weights["body.1.output.bias"])
    kept = export_weights(other)
    wrong = {**weights, "body.1.output.bias": np.zeros(3), "extra": np.zeros(1)}
    del wrong["body.0.1.bias"]
    with pytest.raises(
        ValueError, match=r"missing \['body.0.1.bias'\], unknown \['extra'\], wrong shapes \['body.1.out"
    ):
        import_weights(other, wrong)
    assert all(np.array_equal(kept[name], array) for name, array in export_weights(other).items())


class Doubled(nn.Module):
    """Someone's own network."""

    def __init__(self, spec: EnvSpec, outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(int(np.prod(spec.observation_space.shape or ())), outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.dtype == torch.float32
        return 2 * self.layer(x.flatten(1))


NO_NETWORK = 3


def test_a_network_of_ones_own() -> None:
    spec, here = pictures(8), sys.modules[__name__].__name__
    made = make(spec, f"{here}:Doubled")
    assert isinstance(made.body, Doubled)
    assert values(made, observations(spec)).shape == (3, 6)
    with pytest.raises(TypeError, match=r"must make a torch.nn.Module, but made a int"):
        make(spec, f"{here}:NO_NETWORK")
    with pytest.raises(ValueError, match=r"has no 'Dubled'. Did you mean 'Doubled'\?"):
        make(spec, f"{here}:Dubled")


@pytest.mark.parametrize(
    ("spec", "network", "message"),
    [
        (pictures(42), "nature", None),
        (pictures(20), "nature", "a 3×3 kernel does not fit the 1×1 that is left of the 20×20"),
        (vectors(), "nature", r"'nature' takes pictures \[C, H, W\], but Vector-v0 observes \[8\]"),
        (vectors(), {"kind": "mlp", "input_norm": "divide"}, "'divide' is for bytes, but Vector-v0 observes float32"),
        (
            EnvSpec("D", spaces.Discrete(5), spaces.Discrete(2)),
            "auto",
            r"observation space of D is Discrete\(5\): wrap",
        ),
        (EnvSpec("D", spaces.Dict(), spaces.Discrete(2)), "auto", "observation space of D is Dict"),
    ],
)
def test_what_does_not_fit_is_explained(spec: EnvSpec, network: Any, message: str | None) -> None:
    if message is None:
        assert values(make(spec, network), observations(spec)).shape == (3, 6)
        return
    with pytest.raises(ValueError, match=message):
        make(spec, network)


@pytest.mark.parametrize("dueling", [False, True])
def test_normalised_layers_put_out_numbers_of_mean_zero_and_deviation_one(dueling: bool) -> None:
    """However large the observations are: of each picture by itself, and of each stream by itself."""
    network = {"kind": "small", "layer_norm": True, "dueling": dueling, "input_norm": "divide"}
    made = make(pictures(42), network)
    seen: list[torch.Tensor] = []
    norms = [module for module in made.modules() if isinstance(module, nn.GroupNorm)]
    for norm in norms:
        norm.register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    made(observations(pictures(42)))
    assert len(seen) == 4
    streams = seen[-1].view(3, 2 if dueling else 1, -1).flatten(0, 1)
    for output in (*(one.flatten(1) for one in seen[:-1]), streams):
        np.testing.assert_allclose(output.mean(dim=1), 0.0, atol=1e-4)
        np.testing.assert_allclose(output.std(dim=1, unbiased=False), 1.0, atol=0.01)
    plain = make(pictures(42), {**network, "layer_norm": False})
    assert count(made) - count(plain) == 2 * (3 * 32 + 256 * (2 if dueling else 1))
