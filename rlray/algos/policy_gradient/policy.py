"""What simulators and evaluators run."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rlray.algos.actor_critic import ActorCritic, make_actor_critic
from rlray.algos.distributions import ActionDistribution, distribution_for
from rlray.algos.networks import autocast, import_weights
from rlray.algos.policy_gradient.settings import PolicyGradientSettings
from rlray.algos.types import Weights
from rlray.envs.types import EnvSpec

LOG_PROB, VALUE, SAMPLED = "log_prob", "value", "sampled"
"""Extras of a fragment, [T, B] float32 each: the action's log-probability, and the critic's value of the observation.
``sampled`` [T, B, ...] is the action before it was clipped to the environment's bounds."""


def make_network(
    spec: EnvSpec, config: PolicyGradientSettings, algorithm: str, seed: int
) -> tuple[ActorCritic, ActionDistribution]:
    """The network, and what its policy's outputs mean; errors name the ``algorithm``."""
    actions = distribution_for(spec.action_space, algorithm, spec.id)
    pictures = len(spec.observation_space.shape or ()) == 3
    shared = pictures if config.shared == "auto" else config.shared
    network = config.network
    if config.normalize_obs:
        network = network.model_copy(update={"input_norm": "per_pixel"})
    return make_actor_critic(spec, network, actions, shared, seed), actions


class SamplingPolicy:
    """Samples actions on the CPU; until `load` its weights are arbitrary, but always the same.

    Raises: ValueError for an action space that is neither Discrete nor a Box of floats, or where the network does not
    fit the observations.
    """

    def __init__(self, spec: EnvSpec, config: PolicyGradientSettings, algorithm: str) -> None:
        self._config = config
        network, self._actions = make_network(spec, config, algorithm, seed=0)
        self._network = network.requires_grad_(False).eval()

    def load(self, weights: Weights) -> None:
        """Take new weights; they are copied. Raises: ValueError unless names and shapes match exactly."""
        import_weights(self._network, weights)

    def act(
        self, obs: NDArray[Any], step: int, rng: np.random.Generator
    ) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
        """Sampled actions [B, ...] within the environment's bounds; keeps what learners want of them."""
        outputs, value = self._run(obs)
        sampled = self._actions.sample(outputs.numpy(), rng)
        log_prob = self._actions.log_prob(outputs, torch.from_numpy(sampled))
        for_env = self._actions.for_env(sampled)
        extras = {LOG_PROB: log_prob.numpy(), VALUE: value.numpy()}
        if for_env is not sampled:
            extras[SAMPLED] = sampled
        return for_env, extras

    def act_greedy(self, obs: NDArray[Any]) -> NDArray[Any]:
        """The likeliest actions [B, ...]."""
        return self._actions.for_env(self._actions.best(self._run(obs)[0].numpy()))

    def _run(self, obs: NDArray[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """The policy's outputs, and values in the units of returns."""
        shared = torch.from_numpy(obs if obs.flags.writeable else obs.copy())  # torch warns of read-only memory
        with torch.inference_mode(), autocast("cpu", self._config.precision):
            outputs, value = self._network(shared)
            return outputs, self._network.value_norm(value)
