"""What the bookkeeping of a pass of the driver costs, by how many simulators there are; all actors are stand-ins."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

from rlray.algos.types import Metrics
from rlray.config import RunConfig
from rlray.train.flow import Flow
from rlray.train.learner import LearnReport
from rlray.train.players import Rollout
from rlray.train.progress import Progress
from rlray.train.simulator import RolloutStats

STEPS = 64


class _Players:
    """Simulators that play nothing: `deliver` says whose fragment is there."""

    shared = None
    gathering = False

    def __init__(self, count: int) -> None:
        self._rollouts: dict[int, Rollout] = {}
        self._asked = dict.fromkeys(range(count), 0)
        self._count = 0

    def __len__(self) -> int:
        return len(self._asked)

    def steps_of(self, number: int) -> int:
        return STEPS

    def idle(self) -> list[int]:
        return sorted((one for one in self._asked if one not in self._rollouts), key=lambda one: self._asked[one])

    def rollouts(self) -> Iterator[Rollout]:
        return iter(self._rollouts.values())

    def launch(self, number: int, weights: Any, version: int, step: int) -> None:
        self._count += 1
        self._asked[number] = self._count
        reference: Any = object()
        self._rollouts[number] = Rollout(number, reference, reference)

    def absent(self) -> tuple[int, ...]:
        return ()

    def seeking(self) -> Iterator[Any]:
        return iter(())

    def look_around(self, ready: Any) -> None:
        """Nobody looks for room."""

    def collect(self, rollout: Rollout) -> RolloutStats:
        del self._rollouts[rollout.number]
        return RolloutStats(rollout.number, 0, 0, STEPS, 0, 0.0, 0.0)


class _Learner:
    """A learner that has learned at once, or never."""

    version, weights = 0, None

    def __init__(self, quick: bool) -> None:
        self._quick = quick
        self._given: list[RolloutStats] = []

    @property
    def idle(self) -> bool:
        return not self._given

    def waiting(self) -> Iterator[RolloutStats]:
        return iter(self._given)

    def under_way(self) -> Iterator[Any]:
        return iter(())

    def learn(self, fragment: Any, stats: RolloutStats, publish: bool) -> None:
        self._given.append(stats)

    def collect(self, is_ready: Any) -> list[tuple[LearnReport, RolloutStats]]:
        if not self._quick or not self._given:
            return []
        metrics: Metrics = {}
        return [(LearnReport(1, 1, metrics, False, 0.0, 0.0), self._given.pop(0))]


def pass_seconds(count: int, idle: int, passes: int = 20) -> float:
    """CPU seconds of one pass with ``count`` simulators of which ``idle`` wait, because the learner has enough."""
    config = RunConfig.from_dict(
        {"env": "LunarLander-v3", "algo": "dqn", "simulators": {"count": count}, "stop": {"steps": 10**12}}
    )
    players, learner = _Players(count), _Learner(quick=idle == 0)
    flow: Any = Flow(config, players, learner, Progress())  # type: ignore[arg-type]
    flow.launch()
    first = [rollout.stats for rollout in list(players.rollouts())[:idle]]
    flow.take(set(first))
    flow.hand_over()
    flow.launch()
    samples = []
    for _ in range(passes):
        begin = time.thread_time()
        refs = flow.under_way()
        flow.take({refs[0]})
        flow.hand_over()
        flow.launch()
        samples.append(time.thread_time() - begin)
    return statistics.median(samples)
