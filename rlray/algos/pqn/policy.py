"""What simulators and evaluators run."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rlray.algos.networks import autocast, import_weights
from rlray.algos.pqn import discrete_actions
from rlray.algos.pqn.config import PQNConfig
from rlray.algos.q_learning.network import make_q_network
from rlray.algos.types import Weights
from rlray.envs.types import EnvSpec

BEST = "best_value"
"""Extra of a fragment, [T, B] float32: the value of the best action, in the eyes of the network that acted."""


class PQNPolicy:
    """Epsilon-greedy over a Q-network on the CPU. Until `load` its weights are arbitrary, but always the same.

    Raises: ValueError where the action space is not Discrete, or the network does not fit the observations.
    """

    def __init__(self, spec: EnvSpec, config: PQNConfig) -> None:
        space = discrete_actions(spec)
        self._actions, self._start = int(space.n), int(space.start)
        self._config = config
        network = make_q_network(spec, config.network, self._actions, seed=0)
        self._network = network.requires_grad_(False).eval()

    def load(self, weights: Weights) -> None:
        """Take new weights; they are copied. Raises: ValueError unless names and shapes match exactly."""
        import_weights(self._network, weights)

    def act(
        self, obs: NDArray[Any], step: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
        """Actions int64 [B]: each random with the probability that ``epsilon`` has after ``step`` agent steps.

        Keeps the value of the best action, whichever was chosen: what returns bootstrap from.
        """
        explore = rng.random(len(obs)) < self._config.epsilon.at(step)
        actions = rng.integers(self._start, self._start + self._actions, len(obs))
        values, best = self._best(obs)
        return np.where(explore, actions, best), {BEST: values}

    def act_greedy(self, obs: NDArray[Any]) -> NDArray[np.int64]:
        """The actions of greatest value: int64 [B]; the first of equals."""
        return self._best(obs)[1]

    def _best(self, obs: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        shared = torch.from_numpy(obs if obs.flags.writeable else obs.copy())  # torch warns of read-only memory
        with torch.inference_mode(), autocast("cpu", self._config.precision):
            values, best = self._network(shared).squeeze(2).max(dim=1)
        return values.numpy(), best.numpy() + self._start
