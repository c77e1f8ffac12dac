"""Numbers that keep coming, by the million: their mean, deviation and quantiles in little memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

BLOCK = 4096  # numbers that are summed up at once
SAMPLE = 2**15  # numbers that are kept for the quantiles

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Summary:
    """What is known of the numbers so far. Only quantiles are estimates, from every ``stride``-th number."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0  # the sum of squared deviations from the mean
    low: float = float("inf")
    high: float = float("-inf")
    sample: Floats = field(default_factory=lambda: np.zeros(0))  # numbers 0, stride, 2 * stride, ...
    stride: int = 1  # a power of two

    @property
    def std(self) -> float:
        """Population standard deviation; NaN where there are no numbers."""
        return float(np.sqrt(self.squares / self.count)) if self.count else float("nan")

    def quantile(self, part: float) -> float:
        """The number that ``part`` of all do not exceed, between neighbours in proportion; NaN without any."""
        return float(np.quantile(self.sample, part)) if self.sample.size else float("nan")

    def plus(self, block: Floats) -> Summary:
        """With ``block`` behind the numbers so far (Chan, Golub and LeVeque 1983, eq. 2.1)."""
        mean = float(block.mean())
        squares = float(np.square(block - mean).sum())
        sample = np.concatenate([self.sample, block[-self.count % self.stride :: self.stride]])
        stride = self.stride
        while sample.size > SAMPLE:
            sample, stride = sample[::2], stride * 2
        low, high = min(self.low, float(block.min())), max(self.high, float(block.max()))
        return Summary(*_together(self, Summary(block.size, mean, squares)), low, high, sample, stride)


def merged(summaries: Sequence[Summary]) -> Summary:
    """One summary of the numbers of all."""
    stride = max((one.stride for one in summaries), default=1)
    whole = Summary()
    for one in summaries:
        sample = np.concatenate([whole.sample, one.sample[:: stride // one.stride]])
        low, high = min(whole.low, one.low), max(whole.high, one.high)
        whole = Summary(*_together(whole, one), low, high, sample, stride)
    return whole


class Tally:
    """Takes in numbers.

    Guarantees: the summary depends on the numbers and their order and on nothing else, such as how they were handed
    over or when somebody looked.
    """

    def __init__(self) -> None:
        self._summary = Summary()
        self._fresh: list[Floats] = []
        self._waiting = 0

    def add(self, numbers: Floats) -> None:
        """Take in ``numbers`` [K], which must not be changed after it."""
        self._fresh.append(numbers)
        self._waiting += numbers.size
        if self._waiting >= BLOCK:
            everything = np.concatenate(self._fresh)
            whole = everything.size // BLOCK * BLOCK
            for begin in range(0, whole, BLOCK):
                self._summary = self._summary.plus(everything[begin : begin + BLOCK])
            self._fresh = [everything[whole:].copy()]
            self._waiting = everything.size - whole

    def summary(self) -> Summary:
        """Of all numbers so far."""
        return self._summary.plus(np.concatenate(self._fresh)) if self._waiting else self._summary


def _together(one: Summary, other: Summary) -> tuple[int, float, float]:
    """Count, mean and squared deviations of the numbers of both."""
    count = one.count + other.count
    if not count:
        return 0, 0.0, 0.0
    apart = other.mean - one.mean
    mean = one.mean + apart * other.count / count
    return count, mean, one.squares + other.squares + apart * apart * one.count * other.count / count
