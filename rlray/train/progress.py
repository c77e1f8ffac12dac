"""How far a run is: counters, and the averages that one record of metrics holds."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlray.algos.types import Metrics
from rlray.config.schema import SimulatorsConfig
from rlray.train.episodes import Episodes
from rlray.train.learner import LearnReport
from rlray.train.simulator import RolloutStats
from rlray.train.source_metrics import SourceMetrics

RATE_SECONDS = 10.0
"""How long the reported speeds look back."""


class Progress:
    """Counts what the learner has taken in, and sums up what happened since the last record.

    Everything in a record but the tags under ``time/`` follows from the fragments alone, so that two equal runs give
    equal records.

    Args:
        sources: the groups of simulators that the records tell apart.
    """

    def __init__(self, sources: Sequence[SimulatorsConfig] = ()) -> None:
        self.steps = 0  # agent steps learned from
        self.episodes = Episodes()
        self.version = 0  # gradient steps
        self._sources = SourceMetrics(sources)
        self._rollouts = 0  # learned from, by this process
        self.begun = time.monotonic()
        self._marks = deque([self._mark(self.begun)])  # of the records that rates look back on
        self._reports: list[LearnReport] = []
        self._stats: list[RolloutStats] = []
        self._lags: list[int] = []

    def add(self, report: LearnReport, stats: RolloutStats) -> None:
        """One more fragment has been learned from."""
        before = report.version - report.updates
        self.steps += stats.steps
        self.version = report.version
        self._rollouts += 1
        self.episodes.add(stats.returns, stats.lengths)
        self._sources.add(stats)
        self._reports.append(report)
        self._stats.append(stats)
        self._lags.append(max(0, before - stats.version))

    @property
    def seconds(self) -> float:
        """Wall-clock time since the start."""
        return time.monotonic() - self.begun

    @property
    def fresh(self) -> bool:
        """Whether anything was learned since the last record."""
        return bool(self._reports)

    def record(self) -> Metrics:
        """What happened since the last record, and how far the run is."""
        now = time.monotonic()
        steps = sum(stats.steps for stats in self._stats)
        busy = sum(report.busy_seconds for report in self._reports)
        idle = sum(report.idle_seconds for report in self._reports)
        self._marks.append(self._mark(now))
        while len(self._marks) > 2 and self._marks[1][0] < now - RATE_SECONDS:
            self._marks.popleft()
        then, steps_then, updates_then, rollouts_then, sources_then = self._marks[0]
        took = max(now - then, 1e-9)
        metrics: Metrics = {
            "steps": float(self.steps),
            **self.episodes.metrics("train"),
            **self._sources.counts(),
            "learner/updates": float(self.version),
            **{tag_of(name): mean for name, mean in _means([report.metrics for report in self._reports]).items()},
            "time/policy_lag": float(np.mean(self._lags)) if self._lags else 0.0,
            "time/seconds": self.seconds,
            "time/steps_per_second": (self.steps - steps_then) / took,
            "time/rollouts_per_second": (self._rollouts - rollouts_then) / took,
            "time/updates_per_second": (self.version - updates_then) / took,
            "time/learner_busy": busy / max(busy + idle, 1e-9),
            "time/env_ms_per_step": 1e3 * sum(stats.env_seconds for stats in self._stats) / max(steps, 1),
            "time/policy_ms_per_step": 1e3 * sum(stats.policy_seconds for stats in self._stats) / max(steps, 1),
            **self._sources.times(list(zip(self._stats, self._lags, strict=True)), sources_then, took),
        }
        self._reports, self._stats, self._lags = [], [], []
        return metrics

    def state(self) -> dict[str, Any]:
        """All of it, with what the next record will hold. The clock's part is ``seconds``."""
        return {
            "steps": self.steps,
            "version": self.version,
            "seconds": self.seconds,
            "episodes": self.episodes.state(),
            "sources": self._sources.state(),
            "reports": [vars(report) for report in self._reports],
            "stats": [vars(stats) for stats in self._stats],
            "lags": list(self._lags),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Undo `state`, but for the clock, which runs on; see `set_clock`."""
        self.steps, self.version = state["steps"], state["version"]
        self.episodes.load_state(state["episodes"])
        self._sources.load_state(state.get("sources", {}))  # older checkpoints have none
        self._reports = [LearnReport(**report) for report in state["reports"]]
        self._stats = [RolloutStats(**stats) for stats in state["stats"]]
        self._lags = list(state["lags"])
        self._marks = deque([self._mark(time.monotonic())])

    def set_clock(self, seconds: float) -> None:
        """Let ``seconds`` have gone by until now."""
        self.begun = time.monotonic() - seconds

    def _mark(self, now: float) -> tuple[float, int, int, int, tuple[int, ...]]:
        """Time, steps, updates, rollouts, and the steps of each source."""
        return now, self.steps, self.version, self._rollouts, tuple(self._sources.steps)


def tag_of(name: str) -> str:
    """Where an algorithm's metric is shown: ``replay_fill`` under ``replay/fill``, any other under ``learner/``."""
    group, _, rest = name.partition("_")
    return f"replay/{rest}" if group == "replay" and rest else f"learner/{name}"


def _means(several: Sequence[Mapping[str, float]]) -> Metrics:
    """The mean of every metric over the reports that have it, in order of first appearance."""
    values: dict[str, list[float]] = {}
    for metrics in several:
        for name, value in metrics.items():
            values.setdefault(name, []).append(value)
    return {name: float(np.mean(numbers)) for name, numbers in values.items()}
