"""What simulators and evaluators run."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlray.algos.dqn import discrete_actions
from rlray.algos.dqn.config import DQNConfig
from rlray.algos.q_learning.acting import QActor
from rlray.algos.types import Weights
from rlray.envs.types import EnvSpec


class DQNPolicy:
    """Epsilon-greedy over a Q-network on the CPU, with noise in its weights where it has noisy layers.

    Until `load` its weights are arbitrary, but always the same.

    Raises: ValueError where the action space is not Discrete, or the network does not fit the observations.
    """

    def __init__(self, spec: EnvSpec, config: DQNConfig) -> None:
        space = discrete_actions(spec)
        self._actions, self._start = int(space.n), int(space.start)
        self._epsilon = config.epsilon
        self._actor = QActor(spec, config, self._actions)

    def load(self, weights: Weights) -> None:
        """Take new weights; they are copied. Raises: ValueError unless names and shapes match exactly."""
        self._actor.load(weights)

    def act(
        self, obs: NDArray[Any], step: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
        """Actions int64 [B]: each random with the probability that ``epsilon`` has after ``step`` agent steps.

        The others are the best in the eyes of a network with fresh noise for each environment and step. Keeps no
        extras.
        """
        explore = rng.random(len(obs)) < self._epsilon.at(step)
        actions = rng.integers(self._start, self._start + self._actions, len(obs))
        if not explore.all():
            actions = np.where(explore, actions, self._actor.best(obs, rng) + self._start)
        return actions, {}

    def act_greedy(self, obs: NDArray[Any]) -> NDArray[np.int64]:
        """The actions of greatest value by the mean weights, without noise: int64 [B]; the first of equals."""
        return self._actor.best(obs) + self._start
