"""What the outputs of a Q-network mean: action values, and how wrong they are. One class for each kind of output."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from rlray.algos.q_learning.losses import categorical_loss, q_learning_loss, quantile_loss
from rlray.algos.q_learning.settings import QLearningSettings
from rlray.algos.transfer import TensorBatch


class Losses(NamedTuple):
    """Of each transition."""

    loss: Tensor  # [B] to be minimised
    priority: Tensor  # [B] >= 0, how much there is to learn from it; no gradient


class Head(Protocol):
    """Outputs are [B, A, N] float32: N numbers for each action."""

    size: int  # N

    def q_values(self, outputs: Tensor) -> Tensor:
        """The mean returns [B, A]."""

    def losses(self, outputs_tm1: Tensor, a_tm1: Tensor, batch: TensorBatch, outputs_t: Tensor, a_t: Tensor) -> Losses:
        """How far ``outputs_tm1`` are from the target that ``outputs_t`` and the rewards of ``batch`` make.

        Args:
            a_tm1: [B] int64 the actions taken, counted from 0.
            outputs_t: of the target network.
            a_t: [B] int64 the actions at t whose values the target is made of.
        """


def make_head(settings: QLearningSettings, device: str) -> Head:
    """The head that ``distribution`` asks for; its constants lie on ``device``."""
    if settings.distribution == "categorical":
        assert settings.v_min is not None
        assert settings.v_max is not None
        return CategoricalHead(settings.v_min, settings.v_max, settings.atoms, device)
    if settings.distribution == "quantile":
        return QuantileHead(settings.atoms, settings.huber_delta)
    return MeanHead(settings.huber_delta)


class MeanHead:
    """The mean return itself (Mnih et al. 2015). Priorities are absolute TD errors."""

    size = 1

    def __init__(self, huber_delta: float) -> None:
        self._huber_delta = huber_delta

    def q_values(self, outputs: Tensor) -> Tensor:
        return outputs.squeeze(2)

    def losses(self, outputs_tm1: Tensor, a_tm1: Tensor, batch: TensorBatch, outputs_t: Tensor, a_t: Tensor) -> Losses:
        loss, td_error = q_learning_loss(
            outputs_tm1.squeeze(2), a_tm1, batch.r_t, batch.discount_t, outputs_t.squeeze(2), a_t, self._huber_delta
        )
        return Losses(loss, td_error.abs())


class CategoricalHead:
    """Logits of probabilities on fixed atoms (C51, Bellemare et al. 2017). Priorities are KL divergences."""

    def __init__(self, v_min: float, v_max: float, atoms: int, device: str) -> None:
        self.size = atoms
        self._v_min, self._v_max = v_min, v_max
        self._support = torch.linspace(v_min, v_max, atoms, device=device)

    def q_values(self, outputs: Tensor) -> Tensor:
        return torch.softmax(outputs, dim=2) @ self._support

    def losses(self, outputs_tm1: Tensor, a_tm1: Tensor, batch: TensorBatch, outputs_t: Tensor, a_t: Tensor) -> Losses:
        loss, divergence = categorical_loss(
            outputs_tm1, a_tm1, batch.r_t, batch.discount_t, outputs_t, a_t, self._v_min, self._v_max
        )
        return Losses(loss, divergence)


class QuantileHead:
    """Quantiles of the return at the midpoints of N equal parts (QR-DQN, Dabney et al. 2018).

    Priorities are the losses.
    """

    def __init__(self, quantiles: int, kappa: float) -> None:
        self.size = quantiles
        self._kappa = kappa

    def q_values(self, outputs: Tensor) -> Tensor:
        return outputs.mean(dim=2)

    def losses(self, outputs_tm1: Tensor, a_tm1: Tensor, batch: TensorBatch, outputs_t: Tensor, a_t: Tensor) -> Losses:
        loss = quantile_loss(outputs_tm1, a_tm1, batch.r_t, batch.discount_t, outputs_t, a_t, self._kappa)
        return Losses(loss, loss.detach())
