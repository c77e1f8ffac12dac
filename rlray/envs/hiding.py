"""Observations of which a part is not shown: what has to be remembered, or guessed."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray


class Hidden(gymnasium.ObservationWrapper[Any, Any, Any]):
    """``env`` without some of the numbers that it observes; the others keep their order.

    Args:
        env: one that observes vectors.
        hide: which numbers, from 0.
        env_id: for errors.

    Raises: TypeError where ``hide`` is no list of whole numbers; ValueError where ``env`` has no such numbers, or none
    that would be left.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], hide: Any, env_id: str) -> None:
        super().__init__(env)
        space = env.observation_space
        if not isinstance(hide, list | tuple) or not all(type(number) is int for number in hide):
            raise TypeError(f"setting 'hide' of environment {env_id!r} must be a list of whole numbers, got {hide!r}")
        if not isinstance(space, spaces.Box) or len(space.shape) != 1:
            raise ValueError(f"setting 'hide' is for environments that observe vectors; {env_id!r} observes {space}")
        size = space.shape[0]
        if not all(0 <= number < size for number in hide) or len(set(hide)) == size:
            raise ValueError(
                f"setting 'hide' of environment {env_id!r} must leave some of its numbers 0 to {size - 1}, got {hide!r}"
            )
        self._shown = np.setdiff1d(np.arange(size), np.array(hide, np.int64))
        self.observation_space = spaces.Box(space.low[self._shown], space.high[self._shown], dtype=space.dtype.type)

    def observation(self, observation: Any) -> NDArray[Any]:
        """The numbers that are shown, as an array of their own."""
        shown: NDArray[Any] = np.asarray(observation)[self._shown]
        return shown
