"""The learner of a run, seen from the driver: fragments on their way in, weights and checkpoints on their way out."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import rlray
from rlray import ObjectRef
from rlray.exceptions import RayActorError, RayTaskError
from rlray.train.checkpoint import prune_checkpoints
from rlray.train.failures import LearnerFailed, translated
from rlray.train.learner import LearnerActor, LearnerSetup, LearnReport
from rlray.train.simulator import RolloutStats

log = logging.getLogger(__name__)


class LearnerLink:
    """Calls the learner, in order, and never waits for it unless told to.

    Guarantees: reports come in the order in which fragments were given; new weights come together with the report of
    the fragment after which they were taken; at most one checkpoint is under way, and of
    finished ones the newest ``keep`` stay.
    """

    def __init__(self, setup: LearnerSetup, keep: int) -> None:
        self._actor = rlray.remote(LearnerActor).options(num_cpus=setup.num_cpus, num_gpus=setup.num_gpus).remote(setup)
        self._learning: deque[tuple[ObjectRef, ObjectRef, RolloutStats]] = deque()  # report, weights, stats
        self._saving: ObjectRef | None = None
        self._keep = keep
        self.last_checkpoint: str | None = None
        self.weights: ObjectRef  # the newest that are ready, and ...
        self.version = 0  # ... their version

    def start(self) -> str:
        """Wait until the learner stands and its first weights are there; returns a line about its device."""
        line: str = self._get(self._actor.start.remote())
        self.refresh()
        return line

    @property
    def backlog(self) -> int:
        """Fragments given and not yet reported on."""
        return len(self._learning)

    @property
    def saving(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._saving is not None

    def learn(self, fragment: ObjectRef, stats: RolloutStats, publish: bool) -> None:
        """Hand over the next fragment; ``publish``: with the weights after it."""
        report, weights = self._actor.learn.remote(fragment, publish)
        self._learning.append((report, weights, stats))

    def refresh(self) -> None:
        """Wait for everything given so far, and for the weights after it. Nothing may be left to report on."""
        assert not self._learning
        self.weights, version = self._actor.weights.remote()
        self.version = self._get(version)

    def save(self, path: str, progress: Mapping[str, Any]) -> None:
        """Write a checkpoint of the learner as it is after everything given so far."""
        assert self._saving is None
        self._saving = self._actor.save.remote(path, dict(progress))

    def under_way(self) -> Iterator[ObjectRef]:
        """References worth waiting for: what comes next of each kind."""
        if self._learning:
            yield self._learning[0][0]
        if self._saving is not None:
            yield self._saving

    def collect(self, is_ready: Callable[[ObjectRef], bool]) -> list[tuple[LearnReport, RolloutStats]]:
        """Take what has come, as far as ``is_ready``; returns the reports with the stats of their fragments.

        Raises: LearnerFailed where the learner died or raised.
        """
        reports = []
        while self._learning and is_ready(self._learning[0][0]):
            ref, weights, stats = self._learning.popleft()
            report: LearnReport = self._get(ref)
            if report.published:
                self.weights, self.version = weights, report.version
            reports.append((report, stats))
        if self._saving is not None and is_ready(self._saving):
            self.settle_checkpoint()
        return reports

    def settle_checkpoint(self) -> None:
        """Wait for the checkpoint that is being written, if any."""
        if self._saving is not None:
            ref, self._saving = self._saving, None
            self.last_checkpoint = path = str(self._get(ref))
            log.info("checkpoint %s", path)
            prune_checkpoints(Path(path).parent, self._keep)

    def close(self) -> None:
        """End the learner at once."""
        rlray.kill(self._actor)

    def _get(self, ref: ObjectRef) -> Any:
        try:
            return rlray.get(ref)
        except (RayActorError, RayTaskError) as error:
            self._fail(error)

    def _fail(self, error: RayActorError | RayTaskError) -> NoReturn:
        kept = (
            f"the last checkpoint is {self.last_checkpoint}" if self.last_checkpoint else "there is no checkpoint yet"
        )
        if isinstance(error, RayTaskError):
            raise translated(error, LearnerFailed, "the learner", f"; {kept}") from error
        raise LearnerFailed(f"the learner died ({error}); {kept}") from error
