"""Numbers with their sums in a tree: change some, or find where a running total lies, in log2(capacity) steps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class SumTree:
    """``capacity`` numbers >= 0, all 0 at first. Every operation is one pass of numpy over many of them.

    Guarantees: a node is always exactly the sum of its two children as they are now, so that no rounding piles up
    and the same numbers give the same tree however they came about. `find` never returns a number that is 0.

    Args:
        capacity: how many numbers, at least 1. 16 bytes each, rounded up to a power of two.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._depth = (capacity - 1).bit_length()
        self._first = 1 << self._depth  # of the leaves; the children of node i are 2 i and 2 i + 1, node 1 is the root
        self._nodes = np.zeros(2 * self._first, np.float64)

    @property
    def total(self) -> float:
        """The sum of all."""
        return float(self._nodes[1])

    @property
    def values(self) -> NDArray[np.float64]:
        """The numbers themselves [capacity]: a view, read it only."""
        return self._nodes[self._first : self._first + self._capacity]

    def set(self, index: NDArray[np.int64], values: NDArray[np.float64] | float) -> None:
        """Replace the numbers at ``index`` [N]. Where an index stands twice, its last value holds."""
        nodes, at = self._nodes, index + self._first
        nodes[at] = values
        for _ in range(self._depth):
            at >>= 1
            left = 2 * at
            nodes[at] = nodes[left] + nodes[left + 1]

    def load(self, values: NDArray[np.float64]) -> None:
        """Become ``values`` [N], N <= capacity, followed by zeros."""
        nodes = self._nodes
        nodes.fill(0.0)
        nodes[self._first : self._first + len(values)] = values
        begin = self._first
        while begin > 1:
            begin //= 2
            children = nodes[2 * begin : 4 * begin]
            np.add(children[::2], children[1::2], out=nodes[begin : 2 * begin])

    def find(self, prefix: NDArray[np.float64]) -> NDArray[np.int64]:
        """For each of ``prefix`` [N], in 0 ... total, the first index whose running total exceeds it.

        Drawn uniformly, an index is found with a probability that is proportional to its number. The total itself,
        and what rounding leaves beyond a subtree, lead to the last number that is not 0.

        Raises: ValueError where all numbers are 0.
        """
        nodes = self._nodes
        if not nodes[1] > 0:
            raise ValueError("a sum tree whose numbers are all 0 has nothing to find: set some first")
        rest, at = prefix.astype(np.float64), np.ones(len(prefix), np.int64)
        for _ in range(self._depth):
            at *= 2
            left = nodes[at]
            right = (rest >= left) & (nodes[at + 1] > 0)
            rest -= np.where(right, left, 0.0)
            at += right
        return at - self._first
