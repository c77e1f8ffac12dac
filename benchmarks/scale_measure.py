"""A real run of the training loop on this machine, and its figures: what the scaling model is compared with."""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rlray
from rlray.train.experiment import Experiment
from rlray.train.groups import spec_of
from rlray.train.learner import LearnReport
from rlray.train.run import plan_for, resolve
from rlray.train.simulator import RolloutStats


@dataclass
class Measured:
    """What a run did between its warm-up and its end."""

    steps_per_second: float
    fragments_per_second: float
    updates_per_second: float
    policy_lag: float
    learner_busy: float
    driver_cpu: float  # of its thread, per second
    passes_per_second: float
    wanted: float  # processes of this run that wanted a core, on average
    had: float  # the part of that time in which they had one; the rest went to each other and to other programs
    seconds: float

    def others(self, cores: float) -> float:
        """Jobs of other programs on as many ``cores`` that would explain that, if all had equal shares."""
        return max(0.0, cores / self.had - self.wanted)


@dataclass
class _Tap:
    """Notes every fragment that is learned from, and every pass of the driver."""

    warm_up: float
    seconds: float
    learned: list[tuple[float, LearnReport, RolloutStats]] = field(default_factory=list)
    passes: list[tuple[float, float]] = field(default_factory=list)  # wall-clock and CPU time at their ends
    first: float | None = None
    used: list[tuple[float, float, float]] = field(default_factory=list)  # when, and `wanting` at the begin and the end

    @property
    def counting(self) -> bool:
        return self.first is not None and time.monotonic() > self.first + self.warm_up

    def over(self) -> bool:
        return self.first is not None and time.monotonic() > self.first + self.warm_up + self.seconds


def measure(config: Mapping[str, Any], seconds: float, warm_up: float) -> Measured:
    """Train by ``config`` until ``seconds`` have gone by after ``warm_up``, which begins with the first fragment.

    Evaluations and checkpoints are left out, and nothing is written.
    """
    quiet = {"eval": {"every": None, "final_episodes": 0}, "checkpoint": {"every": None}, "stop": {"steps": 10**9}}
    checked, source = resolve({**config, **quiet})
    spec = spec_of(checked, source)
    tap = _Tap(warm_up, seconds)
    with tempfile.TemporaryDirectory(prefix="rb-") as folder, _runtime():
        run = Experiment(checked, source, spec, plan_for(checked), Path(folder) / "checkpoints")
        with run as experiment, _tapped(experiment, tap):
            for _ in experiment:
                """Until the tap has it stopped."""
    return _figures(tap)


@contextmanager
def _runtime() -> Iterator[None]:
    rlray.init(num_cpus=64, preload=("torch", "gymnasium"))
    try:
        yield
    finally:
        rlray.shutdown()


@contextmanager
def _tapped(experiment: Experiment, tap: _Tap) -> Iterator[None]:
    add, wait = experiment.progress.add, rlray.wait

    def noted_add(report: LearnReport, stats: RolloutStats) -> None:
        add(report, stats)
        tap.first = tap.first or time.monotonic()
        if tap.counting and not tap.over():
            if not tap.used:
                tap.used.append((time.monotonic(), *wanting()))
            tap.learned.append((time.monotonic(), report, stats))
        if tap.over() and len(tap.used) < 2:
            tap.used.append((time.monotonic(), *wanting()))
            experiment.stop("measured")

    def noted_wait(*arguments: Any, **options: Any) -> Any:
        answer = wait(*arguments, **options)
        if options.get("timeout") == 0 and tap.counting and not tap.over():
            tap.passes.append((time.monotonic(), time.thread_time()))
        return answer

    experiment.progress.add = noted_add  # type: ignore[method-assign]
    rlray.wait = noted_wait
    try:
        yield
    finally:
        rlray.wait = wait


def _figures(tap: _Tap) -> Measured:
    begin, end = tap.learned[0][0], tap.learned[-1][0]
    took = max(end - begin, 1e-9)
    learned = tap.learned[1:]
    reports, stats = [report for _, report, _ in learned], [one for _, _, one in learned]
    passes, ((start, had_then, waited_then), (stop, had_now, waited_now)) = tap.passes, tap.used
    had, waited = had_now - had_then, waited_now - waited_then
    return Measured(
        steps_per_second=sum(one.steps for one in stats) / took,
        fragments_per_second=len(learned) / took,
        updates_per_second=sum(report.updates for report in reports) / took,
        policy_lag=statistics.mean(
            max(0, report.version - report.updates - one.version) for report, one in zip(reports, stats, strict=True)
        ),
        learner_busy=sum(report.busy_seconds for report in reports) / took,
        driver_cpu=(passes[-1][1] - passes[0][1]) / (passes[-1][0] - passes[0][0]),
        passes_per_second=len(passes) / (passes[-1][0] - passes[0][0]),
        wanted=(had + waited) / (stop - start),
        had=had / (had + waited),
        seconds=took,
    )


def wanting() -> tuple[float, float]:
    """Seconds in which this process and its offspring have had a core so far, and in which they have waited for one."""
    parents: dict[int, int] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # gone
                parents[int(entry.name)] = int(Path(entry.path, "stat").read_text().rpartition(")")[2].split()[1])
    had = waited = 0.0
    for pid in parents:
        above: int | None = pid
        while above and above != os.getpid():
            above = parents.get(above)
        if above:
            for task in Path("/proc", str(pid), "task").glob("*/schedstat"):
                with contextlib.suppress(OSError):
                    run, wait, _ = task.read_text().split()
                    had, waited = had + int(run) / 1e9, waited + int(wait) / 1e9
    return had, waited
