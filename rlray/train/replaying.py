"""A learner with a replay in an actor of its own, seen from the driver: who gets which reference when."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import rlray
from rlray import ObjectRef
from rlray.algos.types import Metrics
from rlray.exceptions import ObjectLostError, RayActorError, RayTaskError
from rlray.train.failures import LearnerDied, LearnerFailed, ReplayDied, TrainingError, translated
from rlray.train.learner import LearnerSetup, LearnReport
from rlray.train.learning import LearnerLink
from rlray.train.replay import AddReport, ReplayActor, ReplaySetup
from rlray.train.simulator import RolloutStats

log = logging.getLogger(__name__)

AHEAD = 2
"""Draws under way in mode async: one is learned from while the next is drawn and waits."""


@dataclass
class _Adding:
    """A fragment on its way into the replay, and then until its updates are done."""

    report: ObjectRef
    stats: RolloutStats
    added: AddReport | None = None
    until: int = 0  # updates since the (re)start after which it has been learned from


@dataclass
class _Drawn:
    """Batches on their way through the learner."""

    seconds: ObjectRef  # of the draw
    report: ObjectRef
    weights: ObjectRef
    returned: ObjectRef
    taken_back: list[ObjectRef]  # given to the replay before this draw


class ReplayedLearnerLink(LearnerLink):
    """Fragments go to the replay, what it draws to the learner, new priorities back: as references.

    Guarantees, ``mode: sync``: fragments go in in the order given; then what each made due is drawn and learned from,
    draw by draw, each by the priorities that the one before led to. ``mode: async``: the next draw is under way while
    the learner learns from one, so that priorities are up to `AHEAD` draws old, and fragments go in meanwhile. A
    fragment counts as learned from when the updates that it made due are done, and is among those `waiting` until
    then; where the replay sets no ratio, when it is in the replay.

    Raises, in all that waits: as `LearnerLink`; ReplayDied where the replay's process is gone.
    """

    def __init__(self, setup: LearnerSetup, sync: bool) -> None:
        self._sync = sync
        super().__init__(setup)
        self._replay = self._create_replay()
        self._forget()

    def start(self, shared: ObjectRef | None, checkpoint: str | None = None) -> tuple[str, bool | None]:
        starting = self._replay.start.remote()
        loading = None if checkpoint is None else self._replay.load.remote(checkpoint)
        line, _ = super().start(shared, checkpoint)
        self._most: int = self._get_replay(starting)
        return f"{line}; replay: an actor of its own", None if loading is None else self._get_replay(loading)

    def restart(self) -> None:
        """Fresh ones of both, that are to be started: they go on from a checkpoint only together."""
        super().restart()
        self._replay = self._create_replay()
        self._forget()

    @property
    def idle(self) -> bool:
        return not self._adding and not self._drawn

    def waiting(self) -> Iterator[RolloutStats]:
        return (one.stats for one in self._adding)

    def learn(self, fragment: ObjectRef, stats: RolloutStats, publish: bool) -> None:
        self._adding.append(_Adding(self._replay.add.remote(fragment), stats))

    def go_on(self) -> None:
        """Where the replay sets no ratio, let the learner do as many updates as it can."""
        if self._unlimited:
            while len(self._drawn) < AHEAD:
                self._draw(self._most)

    def save(
        self,
        path: str,
        run: Mapping[str, Any],
        evaluated: ObjectRef | None,
        simulators: Sequence[ObjectRef | None],
    ) -> ObjectRef:
        draft: ObjectRef = self._replay.save.remote(super().save(path, run, evaluated, simulators))
        return draft

    def under_way(self) -> Iterator[ObjectRef]:
        yield from (one.report for one in self._adding if one.added is None)
        yield from (one.report for one in self._drawn)

    def collect(self, is_ready: Callable[[ObjectRef], bool]) -> list[tuple[LearnReport, RolloutStats]]:
        for one in list(self._adding):
            if one.added is None:
                if not is_ready(one.report):
                    break
                if not self._added(one):
                    continue
            if self._sync and one.until > self._done:
                break  # its updates come before the next fragment is looked at
        while self._drawn and is_ready(self._drawn[0].report):
            self._learned(self._drawn.popleft())
        while self._due > 0 and len(self._drawn) < (1 if self._sync else AHEAD):
            self._draw(min(self._most, self._due))
        return self._finished()

    def close(self) -> None:
        super().close()
        rlray.kill(self._replay)

    def get(self, ref: ObjectRef) -> Any:
        try:
            return super().get(ref)
        except LearnerFailed:
            self._get_replay(self._replay.ping.remote())  # if that is what has died, say so
            raise

    def _forget(self) -> None:
        self._adding: deque[_Adding] = deque()
        self._drawn: deque[_Drawn] = deque()
        self._taken_back: list[ObjectRef] = []
        self._due = 0  # updates that were not asked for yet
        self._asked = self._done = 0  # updates since then
        self._reported: LearnReport = LearnReport(0, 0, {}, False, 0.0, 0.0)
        self._metrics: list[Metrics] = []  # of draws since the last report
        self._unlimited = False

    def _added(self, one: _Adding) -> bool:
        """Take in what the replay reports; False where it never got the fragment."""
        try:
            added: AddReport = self._get_replay(one.report)
        except ObjectLostError as error:  # on a cluster a node takes along what lies there
            log.warning("what was played is lost (%s); learning goes on without it", error)
            self._adding.remove(one)
            return False
        if added.due is None and self._sync:
            raise TrainingError(
                "mode: sync needs a fixed number of updates for each step, and the algorithm's settings say as many as "
                "the learner can: set hyperparameters.samples_per_step to a number, or mode: async"
            )
        one.added = added
        self._unlimited = added.due is None
        self._due += added.due or 0
        one.until = self._asked + self._due if added.due is not None else 0
        return True

    def _draw(self, updates: int) -> None:
        """Have the replay draw for ``updates`` of those due, and the learner learn from it as soon as it is there."""
        drawn, seconds = self._replay.draw.remote(updates)
        report, weights, returned = self._actor.learn_drawn.remote(drawn)
        self._drawn.append(_Drawn(seconds, report, weights, returned, self._taken_back))
        self._taken_back = []
        self._asked += updates
        self._due = max(0, self._due - updates)

    def _learned(self, one: _Drawn) -> None:
        """Count what the learner has done, and let the replay have the priorities."""
        try:
            self._get_replay(one.seconds)  # a death is told of the one who died
            for ref in one.taken_back:
                self._get_replay(ref)  # ready, since the replay has drawn after it
            report: LearnReport = self.get(one.report)
        except ObjectLostError as error:  # with the node of whoever made it
            raise LearnerDied(f"what replay and learner gave each other is lost ({error})") from error
        self.weights, self.version = one.weights, report.version
        self._taken_back.append(self._replay.take_back.remote(one.returned))
        self._done += report.updates
        sum_ = self._reported
        self._reported = LearnReport(
            report.version,
            sum_.updates + report.updates,
            {},
            True,
            sum_.busy_seconds + report.busy_seconds,
            sum_.idle_seconds + report.idle_seconds,
        )
        self._metrics.append(report.metrics)

    def _finished(self) -> list[tuple[LearnReport, RolloutStats]]:
        """The fragments whose updates are done, the first of them with all that was done since the last."""
        found = []
        while self._adding and (added := self._adding[0].added) is not None and self._adding[0].until <= self._done:
            one, report = self._adding.popleft(), self._reported
            report.version = self.version
            names = dict.fromkeys(name for metrics in self._metrics for name in metrics)
            means = {name: float(np.mean([m[name] for m in self._metrics if name in m])) for name in names}
            report.metrics = {**added.metrics, **means}
            found.append((report, one.stats))
            self._reported = LearnReport(self.version, 0, {}, False, 0.0, 0.0)
            self._metrics = []
        return found

    def _get_replay(self, ref: ObjectRef) -> Any:
        try:
            return rlray.get(ref)
        except RayActorError as error:
            raise ReplayDied(f"the replay died ({error})") from error
        except RayTaskError as error:
            raise translated(error, LearnerFailed, "the replay") from error

    def _create_replay(self) -> Any:
        of = self._setup
        setup = ReplaySetup(of.spec, of.algorithm, of.seed, of.total_steps, of.keep_replay)
        return rlray.remote(ReplayActor).options(num_cpus=0).remote(setup)
