"""What each source of a run, a group of its simulators, comes to: what it has played, how well, and how fast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlray.algos.types import Metrics
from rlray.config.schema import SimulatorsConfig
from rlray.train.episodes import Episodes
from rlray.train.groups import group_by_number
from rlray.train.simulator import RolloutStats


class SourceMetrics:
    """Counts by source. What follows from the fragments alone stands under ``source/``, what from the clock under
    ``time/source/``.

    Args:
        groups: the sources; none where nobody wants them told apart.
    """

    def __init__(self, groups: Sequence[SimulatorsConfig]) -> None:
        self._groups = groups
        self._group_of = group_by_number(groups)
        self.steps = [0] * len(groups)  # agent steps learned from
        self._episodes = [Episodes() for _ in groups]

    def add(self, stats: RolloutStats) -> None:
        """One more fragment has been learned from."""
        if self._groups:
            index = self._group_of[stats.simulator]
            self.steps[index] += stats.steps
            self._episodes[index].add(stats.returns, stats.lengths)

    def counts(self) -> Metrics:
        """How far each source is, and how well it goes there."""
        metrics: Metrics = {}
        for group, steps, episodes in zip(self._groups, self.steps, self._episodes, strict=True):
            metrics[f"source/{group.name}/steps"] = float(steps)
            metrics |= episodes.metrics(f"source/{group.name}")
        return metrics

    def times(self, fragments: Sequence[tuple[RolloutStats, int]], before: Sequence[int], seconds: float) -> Metrics:
        """How fast each source was.

        Args:
            fragments: those since the last record, each with its policy lag.
            before: `steps` as they were ``seconds`` ago.
        """
        metrics: Metrics = {}
        for index, group in enumerate(self._groups):
            own = [(stats, lag) for stats, lag in fragments if self._belongs(stats, index)]
            found = {"steps_per_second": (self.steps[index] - before[index]) / seconds, **_means(group, own)}
            metrics |= {f"time/source/{group.name}/{name}": value for name, value in found.items()}
        return metrics

    def state(self) -> dict[str, dict[str, Any]]:
        """By name, for `load_state`."""
        rows = zip(self._groups, self.steps, self._episodes, strict=True)
        return {group.name: {"steps": steps, "episodes": episodes.state()} for group, steps, episodes in rows}

    def load_state(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Undo `state`. Sources that it does not know begin at nothing."""
        self.steps = [0] * len(self._groups)
        self._episodes = [Episodes() for _ in self._groups]
        for index, group in enumerate(self._groups):
            if group.name in state:
                self.steps[index] = state[group.name]["steps"]
                self._episodes[index].load_state(state[group.name]["episodes"])

    def _belongs(self, stats: RolloutStats, index: int) -> bool:
        """Whether it is of source ``index``; a run that went on with fewer simulators knows not all of them."""
        return stats.simulator < len(self._group_of) and self._group_of[stats.simulator] == index


def _means(group: SimulatorsConfig, fragments: Sequence[tuple[RolloutStats, int]]) -> Metrics:
    """Over the fragments of one source, which may be none."""
    if not fragments:
        return {}
    stats, lags = [one for one, _ in fragments], [lag for _, lag in fragments]
    steps = max(1, sum(one.steps for one in stats))
    found: Metrics = {
        "env_ms_per_step": 1e3 * sum(one.env_seconds for one in stats) / steps,
        "policy_lag": float(np.mean(lags)),
    }
    if group.realtime_hz is not None:
        ticks = group.fragment_length * len(stats)
        found["hz"] = ticks / max(sum(one.paced_seconds for one in stats), 1e-9)
        found["late_ms"] = 1e3 * sum(one.late_seconds for one in stats) / ticks
    return found
