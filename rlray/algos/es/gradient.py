"""The maths of evolution strategies, as pure functions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK = 64
"""Pieces of noise that are summed at once: enough for the processor, little memory."""


def centred_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each of ``values`` [N] by its rank, from -0.5 for the smallest to 0.5 for the largest; equal ones share theirs.

    Only their order counts, so that a single enormous return moves the policy no further than any other that is the
    best (Wierstra et al. 2014, section 3.1; Salimans et al. 2017, section 2.1). One value alone has rank 0, and so have
    values that are all equal.
    """
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    below = np.cumsum(counts) - counts
    middle = below + (counts - 1) / 2
    ranks: NDArray[np.float64] = middle[which.reshape(-1)] / max(len(values) - 1, 1) - 0.5 * (len(values) > 1)
    return ranks


def estimate(
    noise: NDArray[np.float32], offsets: NDArray[np.int64], gains: NDArray[np.float64], size: int, sigma: float
) -> NDArray[np.float32]:
    """The gradient of E F(theta + sigma eps) over theta, from mirrored pairs (Salimans et al. 2017, section 2.1).

        gradient = 1 / (2 n sigma)  sum over i of (F(theta + sigma eps_i) - F(theta - sigma eps_i)) eps_i

    Args:
        noise: the table that all eps are pieces of.
        offsets: [n] where eps_i begins in it.
        gains: [n] the two fitnesses' differences.
        size: of theta.

    Returns: [size] float32. Summed in the order of ``offsets``: the same numbers give the same bits.
    """
    pieces = np.lib.stride_tricks.sliding_window_view(noise, size)
    total = np.zeros(size, np.float32)
    scaled = (gains / (2 * len(gains) * sigma)).astype(np.float32)
    for begin in range(0, len(offsets), BLOCK):
        chosen = slice(begin, begin + BLOCK)
        total += scaled[chosen] @ pieces[offsets[chosen]]
    return total
