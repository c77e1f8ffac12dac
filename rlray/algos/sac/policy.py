"""What simulators and evaluators run."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rlray.algos.networks import import_weights
from rlray.algos.sac.config import SACConfig
from rlray.algos.sac.network import make_networks
from rlray.algos.squashed import squashed_gaussian
from rlray.algos.types import Weights
from rlray.envs.types import EnvSpec


class SACPolicy:
    """Draws actions from a squashed Gaussian, on the CPU; until `load` its weights are arbitrary, but always the same.

    Raises: ValueError where the actions are no Box of floats with finite bounds, or the network does not fit the
    observations.
    """

    def __init__(self, spec: EnvSpec, config: SACConfig) -> None:
        self._actions = squashed_gaussian(spec.action_space, "sac", spec.id)
        self._random_steps = config.random_steps
        actor, _ = make_networks(spec, config.network, self._actions.size, seed=0)
        self._actor = actor.requires_grad_(False).eval()

    def load(self, weights: Weights) -> None:
        """Take new weights; they are copied. Raises: ValueError unless names and shapes match exactly."""
        import_weights(self._actor, weights)

    def act(
        self, obs: NDArray[Any], step: int, rng: np.random.Generator
    ) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
        """Actions [B, *shape] within the environment's bounds; uniform ones for the first ``random_steps``.

        Keeps no extras.
        """
        if step < self._random_steps:
            return self._actions.random(len(obs), rng), {}
        return self._actions.sample(self._outputs(obs), rng), {}

    def act_greedy(self, obs: NDArray[Any]) -> NDArray[Any]:
        """The squashed means [B, *shape], without noise."""
        return self._actions.best(self._outputs(obs))

    def _outputs(self, obs: NDArray[Any]) -> NDArray[np.float32]:
        shared = torch.from_numpy(obs if obs.flags.writeable else obs.copy())  # torch warns of read-only memory
        with torch.inference_mode():
            outputs: NDArray[np.float32] = self._actor(shared).numpy()
        return outputs
