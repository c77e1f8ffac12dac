"""What simulators and evaluators run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlray.algos.actor_critic import ActorCritic, make_actor_critic
from rlray.algos.distributions import ActionDistribution, distribution_for
from rlray.algos.networks import autocast, import_weights
from rlray.algos.policy_gradient.settings import PolicyGradientSettings
from rlray.algos.types import Weights
from rlray.envs.types import EnvSpec

LOG_PROB, VALUE, SAMPLED, MEMORY = "log_prob", "value", "sampled", "memory"
"""Extras of a fragment, [T, B] float32 each: the action's log-probability, and the critic's value of the observation.
``sampled`` [T, B, ...] is the action before it was clipped to the environment's bounds; ``memory`` [T, B, M] float32,
of a recurrent network, what was remembered before each step, zero where an episode begins."""


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

    def _run(self, obs: NDArray[Any]) -> tuple[Tensor, Tensor]:
        """The policy's outputs, and values in the units of returns."""
        outputs, value, _ = self._said(obs, None)
        return outputs, value

    def _said(self, obs: NDArray[Any], memory: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """The same of the step after ``memory``, and the memory after it."""
        shared = torch.from_numpy(obs if obs.flags.writeable else obs.copy())  # torch warns of read-only memory
        with torch.inference_mode(), autocast("cpu", self._config.precision):
            outputs, value, memory = self._network(shared[None], memory)
            return outputs[0], self._network.value_norm(value[0]), memory


class RecurrentSamplingPolicy(SamplingPolicy):
    """The same with a network that remembers: a `RecurrentPolicy`. Extras hold what it remembered before each step."""

    def __init__(self, spec: EnvSpec, config: PolicyGradientSettings, algorithm: str) -> None:
        super().__init__(spec, config, algorithm)
        self._memory: Tensor | None = None  # [B, M] after the last step; None: there was none. Never written into

    def begin(self, first: NDArray[np.bool_]) -> None:
        """Forget the episodes before those that begin now.

        Raises: ValueError where there are not as many environments as before, and not all of them begin.
        """
        if first.all():
            self._memory = torch.zeros(len(first), self._network.memory_size)
            return
        remembered = self._past()
        if len(first) != len(remembered):
            raise ValueError(
                f"begin() is about {len(first)} environments, but episodes of {len(remembered)} are remembered: give a "
                f"policy the same environments at each call, or let all of them begin (first all true)"
            )
        if first.any():
            self._memory = remembered.masked_fill(torch.from_numpy(first)[:, None], 0.0)

    def act(
        self, obs: NDArray[Any], step: int, rng: np.random.Generator
    ) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
        """As without a memory."""
        before = self._past().numpy()
        actions, extras = super().act(obs, step, rng)
        return actions, {**extras, MEMORY: before}

    def state(self) -> dict[str, Any]:
        """What it remembers."""
        return {"memory": None if self._memory is None else self._memory.numpy()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Undo `state`, which is copied."""
        self._memory = None if state["memory"] is None else torch.from_numpy(np.array(state["memory"]))

    def _past(self) -> Tensor:
        if self._memory is None:
            raise RuntimeError("a recurrent policy must be told where episodes begin: call begin(first) before act")
        return self._memory

    def _run(self, obs: NDArray[Any]) -> tuple[Tensor, Tensor]:
        outputs, value, self._memory = self._said(obs, self._past())
        return outputs, value


def make_policy(spec: EnvSpec, config: PolicyGradientSettings, algorithm: str) -> SamplingPolicy:
    """The policy that ``config`` describes; errors name the ``algorithm``."""
    kind = SamplingPolicy if config.network.recurrent is None else RecurrentSamplingPolicy
    return kind(spec, config, algorithm)
