"""Continuous actions within bounds: a Gaussian squashed by tanh, rescaled to the bounds of the action space."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

LOG_STD = (-20.0, 2.0)
"""Bounds of the logarithm of the Gaussian's deviation, as in the code that came with arXiv 1801.01290."""

_LOG_2PI = math.log(2 * math.pi)
_LOG_4 = math.log(4)


def squash(outputs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Actions in -1 ... 1 and their log-density, differentiable in ``outputs`` (arXiv 1812.05905, appendix C).

        u = mean + std noise,   action = tanh(u)
        log pi(action) = sum_i log N(u_i; mean_i, std_i) - log(1 - tanh(u_i)^2)

    The last term is computed as 2 (log 2 - u - softplus(-2 u)), which stays exact where tanh(u) rounds to 1.

    Args:
        outputs: [B, 2 A] means, then logarithms of deviations, which are kept within `LOG_STD`.
        noise: [B, A] standard normal.

    Returns:
        actions [B, A] and log-densities [B], in nats, with respect to -1 ... 1.
    """
    mean, log_std = outputs.chunk(2, dim=1)
    log_std = log_std.clamp(*LOG_STD)
    u = torch.addcmul(mean, log_std.exp(), noise)
    # log N = - noise^2 / 2 - log std - log(2 pi) / 2, since (u - mean) / std is the noise
    log_prob = 2 * (u + functional.softplus(-2 * u)) - log_std - 0.5 * noise.square()
    return u.tanh(), log_prob.sum(dim=1) - noise.shape[1] * (_LOG_4 + 0.5 * _LOG_2PI)


class SquashedGaussian:
    """What outputs mean for the actions of one `Box`: the same as in `squash`, for simulators.

    Guarantees: actions for the environment lie within its bounds, in its dtype; `unit` undoes the rescaling.
    """

    def __init__(self, space: spaces.Box) -> None:
        self.size = math.prod(space.shape)
        self._space = space
        self._center = 0.5 * (space.low.astype(np.float64) + space.high)
        self._half = 0.5 * (space.high.astype(np.float64) - space.low)

    @property
    def outputs(self) -> int:
        """How many numbers the network gives per observation."""
        return 2 * self.size

    def sample(self, outputs: NDArray[np.float32], rng: np.random.Generator) -> NDArray[Any]:
        """Actions [B, *shape] for the environment, drawn by ``outputs`` [B, 2 A]."""
        mean, log_std = np.split(outputs, 2, axis=1)
        noise = rng.standard_normal(mean.shape, np.float32)
        return self._for_env(np.tanh(mean + np.exp(np.clip(log_std, *LOG_STD)) * noise))

    def best(self, outputs: NDArray[np.float32]) -> NDArray[Any]:
        """Those of the means: [B, *shape]."""
        return self._for_env(np.tanh(outputs[:, : self.size]))

    def random(self, count: int, rng: np.random.Generator) -> NDArray[Any]:
        """Uniform ones [count, *shape]."""
        return self._for_env(rng.uniform(-1.0, 1.0, (count, self.size)))

    def unit(self, device: str) -> Rescaling:
        """From actions of the environment to -1 ... 1, as tensors on ``device``."""
        return Rescaling(self._center, self._half, device)

    def _for_env(self, unit: NDArray[Any]) -> NDArray[Any]:
        actions = self._center + self._half * unit.reshape(-1, *self._space.shape)
        bounded: NDArray[Any] = np.clip(actions.astype(self._space.dtype), self._space.low, self._space.high)
        return bounded


class Rescaling:
    """Actions of an environment [B, *shape] as [B, A] float32 in -1 ... 1."""

    def __init__(self, center: NDArray[np.float64], half: NDArray[np.float64], device: str) -> None:
        self._center = torch.as_tensor(center.reshape(-1), dtype=torch.float32, device=device)
        self._scale = torch.as_tensor(1 / half.reshape(-1), dtype=torch.float32, device=device)

    def __call__(self, actions: Tensor) -> Tensor:
        return ((actions.flatten(1).float() - self._center) * self._scale).clamp(-1, 1)


def squashed_gaussian(space: spaces.Space[Any], algorithm: str, env_id: str) -> SquashedGaussian:
    """The one for ``space``. Raises: ValueError unless it is a `Box` of floats with finite bounds that differ."""
    if not isinstance(space, spaces.Box) or not np.issubdtype(space.dtype, np.floating) or not math.prod(space.shape):
        raise ValueError(
            f"{algorithm} needs actions that are a Box of floats, but {env_id} has {space}: choose another algorithm "
            f"(dqn or ppo for Discrete actions), or wrap the environment"
        )
    if not space.is_bounded():
        raise ValueError(
            f"{algorithm} needs actions with finite bounds, but {env_id} has {space}: give it an "
            f"action space of the bounds that actions shall have, for example by gymnasium.wrappers.TransformAction"
        )
    if not (space.low < space.high).all():
        raise ValueError(
            f"{algorithm} needs actions whose low lies below high, but {env_id} has {space}: take the numbers that "
            f"cannot change out of the action space"
        )
    return SquashedGaussian(space)
