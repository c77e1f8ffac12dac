"""Choosing actions by their values, on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlray.algos.networks import autocast, import_weights
from rlray.algos.noise import Noise
from rlray.algos.q_learning.heads import make_head
from rlray.algos.q_learning.network import make_q_network
from rlray.algos.q_learning.settings import QLearningSettings
from rlray.algos.types import Weights
from rlray.envs.types import EnvSpec


class QActor:
    """A copy of a Q-network; until `load` its weights are arbitrary, but always the same.

    Raises: ValueError where the network does not fit the observations.
    """

    def __init__(self, spec: EnvSpec, settings: QLearningSettings, actions: int) -> None:
        self.head = make_head(settings, "cpu")
        network = make_q_network(spec, settings.network, actions, seed=0, size=self.head.size)
        self._network = network.requires_grad_(False).eval()
        self._noise = Noise(network)
        self._precision = settings.precision

    def load(self, weights: Weights) -> None:
        """Take new weights; they are copied. Raises: ValueError unless names and shapes match exactly."""
        import_weights(self._network, weights)

    def outputs(self, obs: NDArray[Any], rng: np.random.Generator | None) -> Tensor:
        """What the network says [B, A, N] of ``obs`` [B, ...], which is left alone.

        Where the network is noisy, each row has fresh noise of its own from ``rng``; with None all have the mean
        weights.
        """
        shared = torch.from_numpy(obs if obs.flags.writeable else obs.copy())  # torch warns of read-only memory
        if rng is None:
            self._noise.clear()
        else:
            self._noise.draw(
                lambda rows, size: torch.from_numpy(rng.standard_normal((rows, size), np.float32)), len(obs)
            )
        with torch.inference_mode(), autocast("cpu", self._precision):
            outputs: Tensor = self._network(shared)
            return outputs

    def q_values(self, obs: NDArray[Any], rng: np.random.Generator | None) -> Tensor:
        """Values [B, A] of ``obs`` [B, ...]. ``rng`` as of `outputs`."""
        return self.head.q_values(self.outputs(obs, rng))

    def best(self, obs: NDArray[Any], rng: np.random.Generator | None = None) -> NDArray[np.int64]:
        """The actions of greatest value, int64 [B] counted from 0; the first of equals. ``rng`` as of `outputs`."""
        best: NDArray[np.int64] = self.q_values(obs, rng).argmax(dim=1).numpy()
        return best
