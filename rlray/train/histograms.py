"""How numbers are distributed, in the form that TensorBoard shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlray.algos.types import Weights

BINS = 50
MAX_ACTIONS = 16  # dimensions of an action that get a histogram each


@dataclass(frozen=True)
class Histogram:
    """How many numbers lie in each bin: those up to ``edges[i]``, and above the one before."""

    low: float
    high: float
    total: float
    squares: float  # the sum of their squares
    edges: list[float]  # the upper end of each bin
    counts: list[float]

    @classmethod
    def of(cls, numbers: NDArray[Any], bins: int | Sequence[float] = BINS) -> Histogram | None:
        """The histogram of ``numbers``; None where there are none, or one is infinite or not a number."""
        flat = np.asarray(numbers, np.float64).ravel()
        if not flat.size or not np.isfinite(flat).all():
            return None
        counts, edges = np.histogram(flat, bins)
        return cls(
            float(flat.min()),
            float(flat.max()),
            float(flat.sum()),
            float(flat @ flat),
            edges[1:].tolist(),
            counts.astype(np.float64).tolist(),
        )


def of_evaluation(
    weights: Weights,
    space: spaces.Space[Any],
    actions: Sequence[NDArray[Any]],
    returns: Sequence[float],
    lengths: Sequence[int],
) -> dict[str, Histogram]:
    """Histograms by tag: of every array of weights, of returns and lengths, and of the actions [B, ...]."""
    found: dict[str, Histogram | None] = {
        "eval/returns": Histogram.of(np.array(returns)),
        "eval/lengths": Histogram.of(np.array(lengths)),
        **_of_actions(space, np.concatenate(list(actions))),
    }
    return {**_found(found), **_of_arrays("weights", weights)}


def of_gradients(gradients: Weights) -> dict[str, Histogram]:
    """A histogram by tag of every array of gradients."""
    return _of_arrays("gradients", gradients)


def _of_arrays(prefix: str, arrays: Weights) -> dict[str, Histogram]:
    return _found({f"{prefix}/{name}": Histogram.of(array) for name, array in _floats(arrays).items()})


def _found(histograms: Mapping[str, Histogram | None]) -> dict[str, Histogram]:
    return {tag: one for tag, one in histograms.items() if one is not None}


def _of_actions(space: spaces.Space[Any], actions: NDArray[Any]) -> dict[str, Histogram | None]:
    """One for numbered actions, with a bin for each; for others one for each of the first dimensions."""
    if isinstance(space, spaces.Discrete):
        edges = np.arange(space.start, space.start + space.n + 1) - 0.5
        return {"eval/actions": Histogram.of(actions, edges.tolist())}
    columns = actions.reshape(len(actions), -1).T[:MAX_ACTIONS]
    return {f"eval/actions/{number}": Histogram.of(column) for number, column in enumerate(columns)}


def _floats(weights: Weights) -> Mapping[str, NDArray[Any]]:
    """Those of more than one floating-point number."""
    return {
        name: array for name, array in weights.items() if array.size > 1 and np.issubdtype(array.dtype, np.floating)
    }
