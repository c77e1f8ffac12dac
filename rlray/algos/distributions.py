"""What a policy's outputs mean: a distribution over actions, for numbered actions and for continuous ones."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

_LOG_2PI = math.log(2 * math.pi)


class ActionDistribution(ABC):
    """Turns a network's outputs [B, ``outputs``] into actions and back into their log-probabilities."""

    outputs: int
    """How many numbers the network gives per observation."""

    @abstractmethod
    def sample(self, outputs: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        """Actions [B, ...], as the learner wants them back."""

    @abstractmethod
    def best(self, outputs: NDArray[Any]) -> NDArray[Any]:
        """The likeliest actions [B, ...]."""

    @abstractmethod
    def for_env(self, actions: NDArray[Any]) -> NDArray[Any]:
        """What the environment gets of such actions: within its bounds, in its dtype."""

    @abstractmethod
    def log_prob(self, outputs: Tensor, actions: Tensor) -> Tensor:
        """[B] log-probability (or its density) of actions, as they were sampled."""

    @abstractmethod
    def entropy(self, outputs: Tensor) -> Tensor:
        """[B] in nats."""


class Categorical(ActionDistribution):
    """Numbered actions: the outputs are logits."""

    def __init__(self, space: spaces.Discrete) -> None:
        self.outputs, self._start = int(space.n), int(space.start)

    def sample(self, outputs: NDArray[Any], rng: np.random.Generator) -> NDArray[np.int64]:
        # The largest of logits with Gumbel noise is distributed as their softmax (Gumbel 1954).
        chosen: NDArray[np.int64] = np.argmax(outputs + rng.gumbel(size=outputs.shape), axis=1)
        return chosen + self._start

    def best(self, outputs: NDArray[Any]) -> NDArray[np.int64]:
        chosen: NDArray[np.int64] = np.argmax(outputs, axis=1)
        return chosen + self._start

    def for_env(self, actions: NDArray[Any]) -> NDArray[Any]:
        return actions

    def log_prob(self, outputs: Tensor, actions: Tensor) -> Tensor:
        chosen = (actions - self._start)[:, None]
        return outputs.log_softmax(dim=1).gather(1, chosen).squeeze(1)

    def entropy(self, outputs: Tensor) -> Tensor:
        logits = outputs.log_softmax(dim=1)
        return -(logits.exp() * logits).sum(dim=1)


class Gaussian(ActionDistribution):
    """Continuous actions, each number on its own: the outputs are means, then logarithms of deviations.

    An action is sampled without bounds; the environment gets it clipped to its own.
    """

    def __init__(self, space: spaces.Box) -> None:
        self._shape, self._dtype = space.shape, space.dtype
        self._size = math.prod(space.shape)
        self._low, self._high = space.low, space.high
        self.outputs = 2 * self._size

    def sample(self, outputs: NDArray[Any], rng: np.random.Generator) -> NDArray[np.float32]:
        mean, log_std = np.split(outputs, 2, axis=1)
        noise = rng.standard_normal(mean.shape)
        sampled: NDArray[np.float32] = (mean + np.exp(log_std) * noise).astype(np.float32)
        return sampled.reshape(-1, *self._shape)

    def best(self, outputs: NDArray[Any]) -> NDArray[np.float32]:
        return outputs[:, : self._size].astype(np.float32).reshape(-1, *self._shape)

    def for_env(self, actions: NDArray[Any]) -> NDArray[Any]:
        clipped: NDArray[Any] = np.clip(actions, self._low, self._high)
        return clipped.astype(self._dtype)

    def log_prob(self, outputs: Tensor, actions: Tensor) -> Tensor:
        mean, log_std = outputs.chunk(2, dim=1)
        scaled = (actions.flatten(1) - mean) * (-log_std).exp()
        return (-0.5 * scaled.square() - log_std - 0.5 * _LOG_2PI).sum(dim=1)

    def entropy(self, outputs: Tensor) -> Tensor:
        log_std = outputs[:, self._size :]
        return (log_std + 0.5 * (1 + _LOG_2PI)).sum(dim=1)


def distribution_for(space: spaces.Space[Any], algorithm: str, env_id: str) -> ActionDistribution:
    """The distribution over the actions of ``space``. Raises: ValueError for a space that has none here."""
    if isinstance(space, spaces.Discrete):
        return Categorical(space)
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return Gaussian(space)
    raise ValueError(
        f"{algorithm} takes Discrete actions or a Box of floats, but {env_id} has {space}: wrap the environment so "
        f"that its actions are numbered, or are a vector of floats"
    )
