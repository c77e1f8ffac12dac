"""What simulators and evaluators run."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rlray.algos.dqn import discrete_actions
from rlray.algos.dqn.config import DQNConfig
from rlray.algos.networks import autocast, import_weights, make_q_network
from rlray.algos.types import Weights
from rlray.envs.types import EnvSpec


class DQNPolicy:
    """Epsilon-greedy over a Q-network on the CPU; until `load` its weights are arbitrary, but always the same.

    Raises: ValueError where the action space is not Discrete, or the network does not fit the observations.
    """

    def __init__(self, spec: EnvSpec, config: DQNConfig) -> None:
        space = discrete_actions(spec)
        self._actions, self._start = int(space.n), int(space.start)
        self._config = config
        self._network = make_q_network(spec, config.network, self._actions, seed=0).requires_grad_(False).eval()

    def load(self, weights: Weights) -> None:
        """Take new weights; they are copied. Raises: ValueError unless names and shapes match exactly."""
        import_weights(self._network, weights)

    def act(
        self, obs: NDArray[Any], step: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
        """Actions int64 [B]: each random with the probability that ``epsilon`` has after ``step`` agent steps.

        Draws the same count of random numbers whatever they turn out to be. Keeps no extras.
        """
        explore = rng.random(len(obs)) < self._config.epsilon.at(step)
        actions = rng.integers(self._start, self._start + self._actions, len(obs))
        if not explore.all():
            actions = np.where(explore, actions, self.act_greedy(obs))
        return actions, {}

    def act_greedy(self, obs: NDArray[Any]) -> NDArray[np.int64]:
        """The actions of greatest value, int64 [B]; the first of equals."""
        shared = torch.from_numpy(obs if obs.flags.writeable else obs.copy())  # torch warns of read-only memory
        with torch.inference_mode(), autocast("cpu", self._config.precision):
            best: NDArray[np.int64] = self._network(shared).argmax(dim=1).numpy()
        return best + self._start
