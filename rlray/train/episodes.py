"""The training episodes of a run or of one of its sources, as means over the newest of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlray.algos.types import Metrics

WINDOW = 100
"""Training episodes that the reported means look back on."""


class Episodes:
    """The training episodes that have ended: how many, and the means over the last `WINDOW` of them."""

    def __init__(self) -> None:
        self.count = 0
        self._returns: deque[float] = deque(maxlen=WINDOW)
        self._lengths: deque[int] = deque(maxlen=WINDOW)

    def add(self, returns: Sequence[float], lengths: Sequence[int]) -> None:
        """Raw returns and lengths in agent steps, in the order of ending."""
        self.count += len(returns)
        self._returns.extend(returns)
        self._lengths.extend(lengths)

    @property
    def mean_return(self) -> float | None:
        """The mean over a full window; None as long as it is not full."""
        return float(np.mean(self._returns)) if len(self._returns) == WINDOW else None

    def state(self) -> dict[str, Any]:
        """For `load_state`."""
        return {"count": self.count, "returns": list(self._returns), "lengths": list(self._lengths)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Undo `state`."""
        self.count = state["count"]
        self._returns = deque(state["returns"], maxlen=WINDOW)
        self._lengths = deque(state["lengths"], maxlen=WINDOW)

    def metrics(self, prefix: str) -> Metrics:
        """Under ``prefix``; the means once there is an episode."""
        found: Metrics = {f"{prefix}/episodes": float(self.count)}
        if self._returns:
            found[f"{prefix}/return_mean"] = float(np.mean(self._returns))
            found[f"{prefix}/episode_length"] = float(np.mean(self._lengths))
        return found
