"""Networks from observations to outputs, on CPU and GPU alike."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rlray.algos.network_config import NetworkConfig
from rlray.algos.patches import PatchConv2d, patch_side, patches
from rlray.algos.registry import import_attribute
from rlray.algos.types import Weights
from rlray.envs.types import EnvSpec

Precision = Literal["float32", "bfloat16", "auto"]

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}


class InputNorm(nn.Module):
    """Observations of the environment's dtype [B, *observation_shape] as normalised float32.

    Pictures come out as [B, C, H, W] in channels_last memory, which is what convolutions on a CPU want, or, where the
    network's first convolution is a `PatchConv2d`, as the patches that it takes. With ``per_pixel`` each pixel (or
    number) has a mean and a deviation of its own, the same for all stacked frames; until `fit` was called bytes are
    divided by 255 and floats left alone. Both travel in the state dict.

    It works in two steps, so that what is learned from several times is normalised once: `rows`, then `arranged`.
    """

    scale: Tensor
    shift: Tensor
    fitted: Tensor

    def __init__(self, spec: EnvSpec, config: NetworkConfig) -> None:
        super().__init__()
        shape, dtype = spec.observation_space.shape, spec.observation_space.dtype
        assert shape is not None
        self._stack = spec.frame_stack
        self._channels_at_end = len(shape) == 3 and spec.frame_stack == 1 and shape[-1] <= 4 < shape[0]
        self._picture = len(shape) == 3
        self._side = patch_side(config) if self._picture else 1
        self._kind, self._floor = config.input_norm, config.std_floor or 1.0
        self._unit = 1 / 255 if dtype == np.uint8 else 1.0
        self.shape = (shape[2], *shape[:2]) if self._channels_at_end else tuple(shape)  # of what comes out, without B
        if self._kind == "per_pixel":
            self.register_buffer("scale", torch.full((1, *self.shape), self._unit))
            self.register_buffer("shift", torch.zeros(1, *self.shape))
            self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    @property
    def needs_fit(self) -> bool:
        """Whether `fit` is wanted and has not been called, here or where the weights came from."""
        return self._kind == "per_pixel" and not bool(self.fitted)

    def fit(self, frames: NDArray[Any]) -> None:
        """Measure mean and deviation of ``frames`` [N, *frame_shape], N >= 1. Sums are taken in double precision."""
        total = np.zeros(frames.shape[1:])
        squares = np.zeros(frames.shape[1:])
        for begin in range(0, len(frames), 256):
            part = frames[begin : begin + 256].astype(np.float64)
            total += part.sum(axis=0)
            squares += (part * part).sum(axis=0)
        mean = total / len(frames)
        self.fit_to(mean, np.sqrt(np.maximum(squares / len(frames) - mean * mean, 0)))

    def fit_to(self, mean: NDArray[np.float64], std: NDArray[np.float64]) -> None:
        """Normalise by that mean and that deviation, [*frame_shape] each; the latter is at least ``std_floor``."""
        std = np.maximum(std, self._floor)
        if self._channels_at_end:
            mean, std = mean.transpose(2, 0, 1), std.transpose(2, 0, 1)
        self.scale.copy_(torch.as_tensor(1 / std))
        self.shift.copy_(torch.as_tensor(-mean / std))
        self.fitted.fill_(True)

    def forward(self, obs: Tensor) -> Tensor:
        return self.arranged(self.rows(obs))

    def rows(self, obs: Tensor) -> Tensor:
        """``obs`` normalised: [B, ...], contiguous, however it suits the network."""
        if self._channels_at_end:
            obs = obs.permute(0, 3, 1, 2)
        x = self._placed(obs)
        if self._kind == "none":
            return x
        fresh = x if x.dtype != obs.dtype else None  # a conversion made it: write into it
        if self._kind == "per_pixel":
            return torch.addcmul(self._placed(self.shift), x, self._placed(self.scale), out=fresh)
        return torch.mul(x, self._unit, out=fresh)

    def arranged(self, rows: Tensor) -> Tensor:
        """What networks take, as a view of ``rows``, which may have been converted meanwhile."""
        return rows.permute(0, 3, 1, 2) if self._picture else rows

    def _placed(self, x: Tensor) -> Tensor:
        """``x`` [B, *shape] as float32, each number where `rows` has it."""
        if not self._picture:
            return x.to(torch.float32)
        if self._side > 1:
            return patches(x, self._side).to(torch.float32)
        return _channels_last_float(x).permute(0, 2, 3, 1)


def make_trunk(config: NetworkConfig, shape: tuple[int, ...]) -> tuple[nn.Module, int]:
    """The layers before the last hidden one, from what an `InputNorm` of ``config`` puts out to [B, F], and F.

    ``shape`` is that of normalised observations, before any patches are made of them.
    """
    layers: list[nn.Module] = []
    if config.kind == "conv":
        channels, height, width = shape
        sizes = (config.filters or (), config.kernels or (), config.strides or ())
        for filters, kernel, stride in zip(*sizes, strict=True):
            if min(height, width) < kernel:
                raise ValueError(
                    f"network: a {kernel}×{kernel} kernel does not fit the {height}×{width} that is left of the "
                    f"{shape[1]}×{shape[2]} picture: use fewer or smaller convolutions, for example kind: small"
                )
            kind = PatchConv2d if not layers and patch_side(config) > 1 else nn.Conv2d
            layers += [kind(channels, filters, kernel, stride), *activated(filters, config)]
            channels, height, width = filters, (height - kernel) // stride + 1, (width - kernel) // stride + 1
        features = channels * height * width
    else:
        features = math.prod(shape)
    layers.append(nn.Flatten())
    for units in (config.hidden or ())[:-1]:
        layers += [nn.Linear(features, units), *activated(units, config)]
        features = units
    return nn.Sequential(*layers), features


def activated(units: int, config: NetworkConfig, streams: int = 1) -> list[nn.Module]:
    """What follows a layer that puts out ``units`` numbers, or channels, in each of ``streams`` streams.

    A group norm of one group is layer normalisation over channels and places, with a gain and a bias for each channel.
    """
    norm = [nn.GroupNorm(streams, units * streams)] if config.layer_norm else []
    return [*norm, ACTIVATIONS[config.activation]()]


def make_custom(spec: EnvSpec, config: NetworkConfig, outputs: int) -> nn.Module:
    """The network of someone's own that ``config.kind`` names, called as ``MyNet(spec, outputs)``.

    Raises:
        TypeError: what it makes is no ``torch.nn.Module``.
        ValueError: nothing is found under that name.
    """
    return _made(config, spec, outputs)


def make_features(spec: EnvSpec, config: NetworkConfig) -> tuple[nn.Module, int]:
    """The network of someone's own that ``config.kind`` names, called as ``MyNet(spec)``, and how many features it has.

    It gets normalised float32 observations [B, *observation_shape] (pictures [B, C, H, W]), returns features [B, F],
    and has an attribute ``features`` that says F. What follows is up to the algorithm.

    Raises:
        TypeError: what it makes is no ``torch.nn.Module``, or does not say its features.
        ValueError: nothing is found under that name.
    """
    made = _made(config, spec)
    features = getattr(made, "features", None)
    if not isinstance(features, int):
        raise TypeError(
            f"network {config.kind!r} must say how many features it returns (self.features), got {features!r}"
        )
    return made, features


def _made(config: NetworkConfig, *arguments: Any) -> nn.Module:
    body = import_attribute(config.kind, "network")
    made = body(*arguments) if callable(body) else body
    if not isinstance(made, nn.Module):
        raise TypeError(f"network {config.kind!r} must make a torch.nn.Module, but made a {type(made).__name__}")
    return made


def orthogonal(body: nn.Module, gain: float) -> None:
    """Give every layer in it orthogonal first weights of that ``gain``, and no bias."""
    for module in body.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.orthogonal_(module.weight, gain)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _channels_last_float(x: Tensor) -> Tensor:
    """[B, C, H, W] as float32 in channels_last memory."""
    if x.device.type != "cpu" or x.dtype != torch.uint8 or x.shape[1] != 4:
        return x.to(torch.float32, memory_format=torch.channels_last)
    # Weaving four planes of bytes into words first is three times as fast as torch's own strided conversion.
    words = x[:, 0].to(torch.int32)
    for plane in range(1, 4):
        words.bitwise_or_(x[:, plane].to(torch.int32).bitwise_left_shift_(8 * plane))
    woven = words.view(torch.uint8).view(*words.shape, 4)  # little-endian, as all machines that torch is built for
    return woven.to(torch.float32).permute(0, 3, 1, 2)


def autocast(device: str, precision: Precision) -> AbstractContextManager[None]:
    """The context to run networks in: ``auto`` is bfloat16 where ``device`` computes it fast, else float32."""
    return torch.autocast(device, dtype=torch.bfloat16, enabled=computes_in_bfloat16(device, precision))


def computes_in_bfloat16(device: str, precision: Precision) -> bool:
    """Whether networks run in bfloat16 there."""
    return precision == "bfloat16" or (precision == "auto" and has_fast_bfloat16(device))


def has_fast_bfloat16(device: str) -> bool:
    """Whether bfloat16 is native: on a GPU since Ampere, on a CPU with AMX or AVX512-BF16."""
    if device == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # newer versions of torch have them
    return any(getattr(torch.cpu, check, lambda: False)() for check in checks)


def export_weights(module: nn.Module) -> dict[str, NDArray[Any]]:
    """A copy of its state by name, as contiguous numpy arrays."""
    return {name: np.array(tensor.cpu().numpy(), order="C") for name, tensor in module.state_dict().items()}


def export_gradients(module: nn.Module, prefix: str = "") -> dict[str, NDArray[Any]]:
    """Copies of the gradients that its last backward pass has left, by the parameters' names after ``prefix``.

    Parameters that have none are left out.
    """
    return {
        f"{prefix}{name}": np.array(parameter.grad.cpu().numpy(), order="C")
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }


def import_weights(module: nn.Module, weights: Weights) -> None:
    """Copy ``weights``, which may be read-only, into a module on the CPU.

    Raises: ValueError unless names and shapes are exactly the module's own; nothing is changed then.
    """
    own = module.state_dict()
    missing, unknown = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    wrong = [
        f"{n}: {w.shape} for {tuple(own[n].shape)}" for n, w in weights.items() if n in own and w.shape != own[n].shape
    ]
    if missing or unknown or wrong:
        raise ValueError(
            f"weights do not fit the network: missing {missing}, unknown {unknown}, wrong shapes {wrong}; "
            f"make the policy from the same environment and settings as the learner"
        )
    for name, tensor in own.items():
        np.copyto(tensor.numpy(), weights[name])
