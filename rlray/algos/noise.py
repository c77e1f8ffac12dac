"""NoisyNet: layers whose weights are disturbed by noise of learned size (Fortunato et al. 2018, arXiv 1706.10295)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

SIGMA = 0.5
"""Their sigma_0: how large the noise is at first, times 1/sqrt(inputs)."""


class NoisyLinear(nn.Linear):
    """A linear layer with factorised Gaussian noise, their eq. 9 to 11: per row of the batch

        y = W x + b + (S_w * f(e_out) f(e_in)^T) x + S_b * f(e_out)        f(e) = sgn(e) sqrt(|e|)

    of which it computes ``f(e_out) * (S_w (f(e_in) * x) + S_b)`` where each row has noise of its own, which then needs
    no weights of its own; one noise for the whole batch disturbs the weights themselves, which is a product less.
    ``W`` and ``b`` are ``weight`` and ``bias``, and begin as torch's `Linear` does, which is as theirs; the sizes ``S``
    begin at ``sigma / sqrt(inputs)``. Without noise (see `Noise`) it is a plain linear layer.
    """

    def __init__(self, inputs: int, outputs: int, sigma: float = SIGMA) -> None:
        super().__init__(inputs, outputs)
        begin = sigma / math.sqrt(inputs)
        self.weight_sigma = nn.Parameter(torch.full((outputs, inputs), begin))
        self.bias_sigma = nn.Parameter(torch.full((outputs,), begin))
        self.noise: tuple[Tensor, Tensor] | None = None  # f(e_in) [B or 1, inputs] and f(e_out) [B or 1, outputs]

    def forward(self, input: Tensor) -> Tensor:
        if self.noise is None:
            return super().forward(input)
        of_inputs, of_outputs = self.noise
        if len(of_inputs) == 1:
            weight = torch.addcmul(self.weight, self.weight_sigma, of_outputs.T * of_inputs)
            return functional.linear(input, weight, torch.addcmul(self.bias, self.bias_sigma, of_outputs[0]))
        return (
            super().forward(input)
            + functional.linear(input * of_inputs, self.weight_sigma, self.bias_sigma) * of_outputs
        )


class Noise:
    """The noise in all `NoisyLinear` layers of ``module``, set and taken away together. There may be none."""

    def __init__(self, module: nn.Module) -> None:
        self._layers = [layer for layer in module.modules() if isinstance(layer, NoisyLinear)]
        self._sizes = [size for layer in self._layers for size in (layer.in_features, layer.out_features)]

    def __bool__(self) -> bool:
        """Whether there is a noisy layer."""
        return bool(self._layers)

    def draw(self, normal: Callable[[int, int], Tensor], rows: int = 1) -> None:
        """Give every layer fresh noise, made from ``normal(rows, size)``, independent standard normals [rows, size].

        One row is the noise of a whole batch; else there must be as many as the batch has.
        """
        if not self._layers:
            return
        drawn = normal(rows, sum(self._sizes))
        parts = torch.split(drawn.sign() * drawn.abs().sqrt(), self._sizes, dim=1)
        for layer, of_inputs, of_outputs in zip(self._layers, parts[::2], parts[1::2], strict=True):
            layer.noise = (of_inputs, of_outputs)

    def clear(self) -> None:
        """Leave every layer with its mean weights."""
        for layer in self._layers:
            layer.noise = None

    def size(self) -> Tensor:
        """The mean absolute size of the noise in the layers' weights, a scalar."""
        with torch.no_grad():
            return torch.stack([layer.weight_sigma.abs().mean() for layer in self._layers]).mean()
