"""Mean and deviation of numbers that keep coming, and rewards scaled by them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class RunningMoments:
    """Mean and variance of all rows seen so far, each number of a row apart (Chan et al. 1983, parallel update)."""

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self.count = 0.0
        self.mean = np.zeros(shape)
        self._sum_squares = np.zeros(shape)  # of the differences from the mean

    @property
    def std(self) -> NDArray[np.float64]:
        """The standard deviation; 1 as long as there are fewer than two rows."""
        if self.count < 2:
            return np.ones_like(self.mean)
        return np.sqrt(self._sum_squares / self.count)

    def add(self, rows: NDArray[Any]) -> None:
        """Take in ``rows`` [N, *shape]; none is fine."""
        if not len(rows):
            return
        rows = rows.astype(np.float64)
        mean = rows.mean(axis=0)
        self._merge(float(len(rows)), mean, ((rows - mean) ** 2).sum(axis=0))

    def add_sums(self, count: float, total: NDArray[np.float64], squares: NDArray[np.float64]) -> None:
        """Take in ``count`` rows of which only the sum and the sum of squares are known, [*shape] each."""
        if count:
            self._merge(float(count), total / count, np.maximum(squares - total * total / count, 0.0))

    def _merge(self, count: float, mean: NDArray[np.float64], sum_squares: NDArray[np.float64]) -> None:
        delta, total = mean - self.mean, self.count + count
        self._sum_squares = self._sum_squares + sum_squares + delta**2 * (self.count * count / total)
        self.mean = self.mean + delta * (count / total)
        self.count = total

    def state(self) -> dict[str, Any]:
        """All of it."""
        return {"count": self.count, "mean": self.mean, "sum_squares": self._sum_squares}

    def load_state(self, state: dict[str, Any]) -> None:
        """Undo `state`; arrays are copied."""
        self.count = float(state["count"])
        self.mean, self._sum_squares = np.array(state["mean"]), np.array(state["sum_squares"])


class RewardScaler:
    """Divides rewards by the deviation of the discounted returns, which makes them of size one.

    The return is summed forward, R = discount R + r, as is common (Engstrom et al. 2020, arXiv 2005.12729, section 3),
    and starts at zero with each episode. Rewards are not centred: that would change what is best.
    """

    def __init__(self, discount: float) -> None:
        self._discount = discount
        self._moments = RunningMoments()
        self._returns: dict[int, NDArray[np.float64]] = {}  # by stream: [B]

    def scaled(
        self, stream: int, reward: NDArray[np.float32], last: NDArray[np.bool_], valid: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """``reward`` [T, B] of a fragment, scaled by what has been seen up to and with it."""
        returns = self._returns.get(stream, np.zeros(reward.shape[1]))
        seen = np.empty(reward.shape)
        for t in range(len(reward)):
            returns = returns * self._discount + reward[t]
            seen[t] = returns
            returns = np.where(last[t], 0.0, returns)
        self._returns[stream] = returns
        self._moments.add(seen[valid])
        return (reward / max(float(self._moments.std), 1e-4)).astype(np.float32)

    def state(self) -> dict[str, Any]:
        """All of it."""
        return {"moments": self._moments.state(), "returns": {str(one): sums for one, sums in self._returns.items()}}

    def load_state(self, state: dict[str, Any]) -> None:
        """Undo `state`; arrays are copied."""
        self._moments.load_state(state["moments"])
        self._returns = {int(one): np.array(sums) for one, sums in state["returns"].items()}
