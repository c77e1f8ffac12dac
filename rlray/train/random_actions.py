"""Random actions for many environments at once, at next to no cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray


def random_actions(space: spaces.Space[Any], count: int, rng: np.random.Generator) -> Callable[[], NDArray[Any]]:
    """A function that draws ``count`` actions of ``space``, each equally likely, in one call of numpy.

    As with gymnasium's ``sample``, numbers that are bounded on one side only are exponential from there, and those
    without bounds are normal.

    Raises: TypeError for a space that is not of arrays.
    """
    if isinstance(space, spaces.Discrete):
        first, n = int(space.start), int(space.n)
        return lambda: rng.integers(first, first + n, count)
    if isinstance(space, spaces.MultiDiscrete):
        low, high, dtype = space.start, space.start + space.nvec, space.dtype
        return lambda: rng.integers(low, high, (count, *space.shape)).astype(dtype, copy=False)
    if isinstance(space, spaces.MultiBinary):
        return lambda: rng.integers(0, 2, (count, *space.shape), np.int8)
    if isinstance(space, spaces.Box):
        return _boxes(space, count, rng)
    raise TypeError(f"random actions need a space of arrays (Discrete, Box, MultiDiscrete, MultiBinary), got {space}")


def _boxes(space: spaces.Box, count: int, rng: np.random.Generator) -> Callable[[], NDArray[Any]]:
    shape = (count, *space.shape)
    below, above = space.bounded_below, space.bounded_above
    if np.issubdtype(space.dtype, np.integer):
        least, most = space.low.astype(np.int64), space.high.astype(np.int64)
        return lambda: rng.integers(least, most, shape, endpoint=True).astype(space.dtype, copy=False)
    if (below & above).all():
        return lambda: rng.uniform(space.low, space.high, shape).astype(space.dtype, copy=False)
    low = np.where(below, space.low, np.where(above, space.high, 0.0))
    high = np.where(above, space.high, low)

    def draw() -> NDArray[Any]:
        far = rng.standard_exponential(shape)
        actions = np.where(below & above, rng.uniform(low, high, shape), np.where(below, low + far, high - far))
        return np.where(below | above, actions, rng.standard_normal(shape)).astype(space.dtype, copy=False)

    return draw
