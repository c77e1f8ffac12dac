"""The learner of a run, seen from the driver: fragments on their way in, weights on their way out."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import rlray
from rlray import ObjectRef
from rlray.exceptions import ObjectLostError, RayActorError, RayTaskError
from rlray.train import seats
from rlray.train.failures import LearnerDied, LearnerFailed, translated
from rlray.train.learner import LearnerActor, LearnerSetup, LearnReport
from rlray.train.simulator import RolloutStats

log = logging.getLogger(__name__)


class LearnerLink:
    """Calls the learner, in order, and never waits for it unless told to.

    Guarantees: reports come in the order in which fragments were given; new weights come together with the report of
    the fragment after which they were taken.

    Raises, in all that waits: LearnerDied where its process is gone; LearnerFailed or NotFiniteFound where it raised.
    """

    def __init__(self, setup: LearnerSetup) -> None:
        self._setup = setup
        self._actor = self._create()
        self._learning: deque[tuple[ObjectRef, ObjectRef, RolloutStats]] = deque()  # report, weights, stats
        self.weights: ObjectRef  # the newest that are ready, and ...
        self.version = 0  # ... their version

    def start(self, shared: ObjectRef | None, checkpoint: str | None = None) -> tuple[str, bool | None]:
        """Wait until the learner stands, as it was in ``checkpoint`` if one is given, and its weights are there.

        ``shared`` is what the algorithm's tasks read, if it has tasks.

        Returns a line about its device, and whether the checkpoint held the replay; None where there is no such thing.
        """
        line: str = self.get(self._actor.start.remote(shared))
        replay: bool | None = None if checkpoint is None else self.get(self._actor.load.remote(checkpoint))
        self.refresh()
        return line, replay

    def has_room(self, seconds: float) -> bool:
        """Whether the learner has found room, or does within ``seconds``. Always, on one machine.

        One that dies before it has begun, often with a node that was gone already, looks for room anew.
        """
        deadline = time.monotonic() + seconds
        while self._where is not None:
            left = max(0.0, deadline - time.monotonic())
            if not rlray.wait([self._where], timeout=left, fetch_local=False)[0]:
                return False
            try:
                rlray.get(self._where)
                return True
            except RayActorError as error:
                log.warning("the learner died before it had begun (%s); it looks for room anew", error)
                rlray.kill(self._actor)
                self._actor = self._create()
        return True

    def check(self) -> None:
        """See whether it is alive, once it has done what it was given."""
        self.get(self._actor.where.remote())

    @property
    def asks(self) -> str:
        """What it asks for, for people."""
        return seats.asks(self._setup.num_cpus, self._setup.num_gpus)

    def restart(self) -> None:
        """Put a fresh learner, that is to be started, in the place of one that died. What it was given is gone."""
        self.close()
        self._learning.clear()
        self._actor = self._create()

    @property
    def idle(self) -> bool:
        """Whether it has reported on everything, and has nothing to do."""
        return not self._learning

    def go_on(self) -> None:
        """Do more than what fragments make due, where the algorithm wants that; this one does not."""

    def waiting(self) -> Iterator[RolloutStats]:
        """The stats of the fragments given and not yet reported on."""
        return (stats for _, _, stats in self._learning)

    def learn(self, played: ObjectRef, stats: RolloutStats, publish: bool) -> None:
        """Hand over the next fragment, or outcomes; ``publish``: with the weights after it."""
        report, weights = self._actor.learn.remote(played, publish)
        self._learning.append((report, weights, stats))

    def gradients(self) -> ObjectRef:
        """Histograms by tag of the gradients of the last update of all that was given so far."""
        histograms: ObjectRef = self._actor.gradients.remote()
        return histograms

    def refresh(self) -> None:
        """Wait for everything given so far, and for the weights after it. Nothing may be left to report on."""
        assert self.idle
        self.weights, version = self._actor.weights.remote()
        self.version = self.get(version)

    def save(
        self,
        path: str,
        run: Mapping[str, Any],
        evaluated: ObjectRef | None,
        simulators: Sequence[ObjectRef | None],
    ) -> ObjectRef:
        """Begin a checkpoint of the learner as it is after everything given so far; see `LearnerActor.save`."""
        draft: ObjectRef = self._actor.save.remote(path, dict(run), evaluated, *simulators)
        return draft

    def under_way(self) -> Iterator[ObjectRef]:
        """The reference worth waiting for: the next report."""
        if self._learning:
            yield self._learning[0][0]

    def collect(self, is_ready: Callable[[ObjectRef], bool]) -> list[tuple[LearnReport, RolloutStats]]:
        """Take what has come, as far as ``is_ready``; returns the reports with the stats of their fragments."""
        reports = []
        while self._learning and is_ready(self._learning[0][0]):
            ref, weights, stats = self._learning.popleft()
            try:
                report: LearnReport = self.get(ref)
            except ObjectLostError as error:  # on a cluster a node takes along what lies there
                log.warning("what was played is lost (%s); learning goes on without it", error)
                continue
            if report.published:
                self.weights, self.version = weights, report.version
            reports.append((report, stats))
        return reports

    def close(self) -> None:
        """End the learner at once."""
        rlray.kill(self._actor)

    def get(self, ref: ObjectRef) -> Any:
        """What the learner has answered."""
        try:
            return rlray.get(ref)
        except RayActorError as error:
            raise LearnerDied(f"the learner died ({error})") from error
        except RayTaskError as error:
            raise translated(error, LearnerFailed, "the learner") from error

    def _create(self) -> Any:
        setup = self._setup
        actor = rlray.remote(LearnerActor).options(num_cpus=setup.num_cpus, num_gpus=setup.num_gpus).remote(setup)
        self._where: ObjectRef | None = actor.where.remote() if seats.elastic() else None
        return actor
