"""The driver of a run: it creates the actors, passes references between them, and yields what happens as metrics."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import rlray
from rlray import ObjectRef
from rlray.algos.types import Metrics
from rlray.config.schema import RunConfig
from rlray.envs.types import EnvSpec
from rlray.train.crew import Crew
from rlray.train.evaluator import EvalResult
from rlray.train.failures import LearnerDied, LearnerFailed, NoRoom
from rlray.train.flow import Flow
from rlray.train.measuring import evaluation_record
from rlray.train.plan import Plan
from rlray.train.progress import Progress
from rlray.train.run_state import NoRecords, Records, RunState
from rlray.train.sources import EnvSource

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
"""How long the driver waits at a stretch before it looks at the clock and at requests to stop."""

MAX_LEARNER_DEATHS = 3
"""Deaths of the learner in a row, without a checkpoint between them, that end the run."""


class Experiment:
    """One run: iterate over it for its metrics, or close it early. Use it as a context manager.

    The runtime must be initialised. A frame never comes into this process: fragments and weights pass through as
    references.

    Guarantees, ``mode: sync``: simulators and learner take turns in a fixed order, so that equal configurations give
    equal metrics (but for tags under ``time/``), however often the run was interrupted, killed and resumed. ``mode:
    async``: every simulator plays while the learner learns, and none runs more than a few fragments ahead. A simulator
    that is killed costs one fragment, a learner what it learned since the last checkpoint. On a cluster the run goes on
    with the simulators that there is room for; in ``mode: sync`` a round is of those, and so its numbers depend on when
    nodes leave and join.

    Args:
        checkpoints: the folder for them.
        records: where the caller keeps the records, to be told what to withdraw where the run falls back.
        resume: a checkpoint to go on from.

    Raises, while iterated: the errors of `rlray.train.failures`; the actors are then ended already.
    """

    def __init__(
        self,
        config: RunConfig,
        env: EnvSource,
        spec: EnvSpec,
        plan: Plan,
        checkpoints: Path,
        *,
        records: Records | None = None,
        resume: Path | None = None,
    ) -> None:
        self.config = config
        self._state = RunState(config, records or NoRecords())
        self._resume = resume
        self._asked: str | None = None
        self._limit: str | None = None
        self._sync = config.mode == "sync"
        self._saved_at: int | None = None
        self._deaths = 0  # of the learner, since the last checkpoint
        crew = self._crew = Crew(config, env, spec, plan, checkpoints, self._state)
        self._evaluator, self._keeper = crew.evaluator, crew.keeper
        self._flow = Flow(config, crew.players, crew.learner, self._state.progress)

    def __enter__(self) -> Experiment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def progress(self) -> Progress:
        """How far the run is."""
        return self._state.progress

    @property
    def last_evaluation(self) -> EvalResult | None:
        """The newest evaluation, if there is one."""
        return self._state.last_evaluation

    @property
    def last_checkpoint(self) -> str | None:
        """The newest complete checkpoint, if there is one."""
        return self._keeper.last

    @property
    def stopped_by(self) -> str | None:
        """Why the run ends: one of the keys of ``stop:``, or what `stop` was given; None while it goes on."""
        return self._asked or self._limit

    def stop(self, reason: str) -> None:
        """Ask the run to end soon, with a checkpoint but without the final evaluation. Safe in a signal handler."""
        self._asked = self._asked or reason

    def __iter__(self) -> Iterator[Metrics]:
        """Train; yields records of the training as it goes on, and one for each evaluation."""
        died: LearnerDied | None = None
        try:
            while True:
                try:
                    self._begin() if died is None else self._recover(died)
                    yield from self._train()
                    yield from self._end()
                    return
                except LearnerDied as error:
                    died = error
                except (LearnerFailed, NoRoom) as error:
                    raise type(error)(f"{error}; {self._kept}") from error.__cause__
        finally:
            self.close()

    def close(self) -> None:
        """End all actors at once. Calling it twice, or after the runtime was shut down, is harmless."""
        if rlray.is_initialized():
            self._crew.close()

    def _begin(self) -> None:
        """From the beginning, or from the checkpoint to go on from."""
        if self._resume is None:
            self._crew.start()
        else:
            self._keeper.last = str(self._resume)
            self._restore(clock=True)

    def _recover(self, error: LearnerDied) -> None:
        """Go on from the last checkpoint with a fresh learner, unless that has been in vain before."""
        with contextlib.suppress(LearnerDied):  # a draft that it had not handed over is lost
            self._settle_checkpoint()
        self._deaths += 1
        if self._deaths >= MAX_LEARNER_DEATHS:
            row = f"{self._deaths} times in a row without a checkpoint between"
            raise LearnerFailed(f"{error}, {row}") from error.__cause__
        log.error("%s; a fresh one goes on from %s", error, self._keeper.last or "the beginning")
        self._crew.learner.restart()
        self._restore(clock=False)

    def _restore(self, clock: bool) -> None:
        """Bring everything to where it was in the last checkpoint, or to the beginning."""
        self._evaluator.abandon()
        self._crew.restore(self._keeper.last, clock)
        self._flow.restart()
        self._limit = "eval_return" if self._state.good_enough else None
        self._saved_at = self.progress.steps if self._keeper.last is not None else None

    @property
    def _kept(self) -> str:
        last = self._keeper.last
        return f"the last checkpoint is {last}" if last else "there is no checkpoint yet"

    def _train(self) -> Iterator[Metrics]:
        while True:
            yield from self._at_marks()
            if self._drained():
                return
            # Before a checkpoint the learner works off what it has: then its state and our counters belong together.
            if not self._saving_is_due:
                self._flow.hand_over()
                if self.stopped_by is None:
                    self._crew.learner.go_on()
            if self.stopped_by is None and not (self._sync and (self._evaluator.busy or self._saving_is_due)):
                self._flow.launch()
            ready = self._wait()
            self._flow.take(ready)
            if self._keeper.under_way in ready:
                self._settle_checkpoint()
            yield from self._measured(ready)

    def _drained(self) -> bool:
        """Whether the run is to end, and all that was played has been learned from."""
        stop = self.config.stop
        if self._flow.collected >= stop.steps:
            self._limit = self._limit or "steps"
        elif stop.minutes is not None and self.progress.seconds >= stop.minutes * 60:
            self._limit = self._limit or "minutes"
        return self.stopped_by is not None and self._flow.idle and self._flow.settled

    def _wait(self) -> set[ObjectRef]:
        """Wait a moment for anything to happen; returns what is ready."""
        refs = self._flow.under_way()
        refs += [ref for ref in (self._evaluator.under_way, self._keeper.under_way) if ref is not None]
        if not refs:
            return set()
        # On a cluster frames stay where they are: nothing is fetched.
        rlray.wait(refs, num_returns=1, timeout=POLL_SECONDS, fetch_local=False)
        return set(rlray.wait(refs, num_returns=len(refs), timeout=0, fetch_local=False)[0])

    @property
    def _saving_is_due(self) -> bool:
        """One checkpoint after the other; in mode sync at its step and nowhere else, even if that means to wait."""
        return self._state.checkpoint_marks.reached(self.progress.steps) and (self._sync or not self._keeper.busy)

    def _at_marks(self) -> Iterator[Metrics]:
        """What is due at this count of steps: a record, an evaluation and, in mode sync after its end, a checkpoint."""
        if not self._flow.settled:
            return
        steps, state = self.progress.steps, self._state
        if state.record_marks.passed(steps):
            yield self.progress.record()
        if state.trained_enough:
            self._limit = self._limit or "train_return"
        is_last = self._flow.collected >= self.config.stop.steps and self.config.eval.final_episodes > 0
        if not self._evaluator.busy and not is_last and state.eval_marks.passed(steps):
            self._crew.evaluate(self.config.eval.episodes)
        if self._saving_is_due and self._crew.learner.idle and not (self._sync and self._evaluator.busy):
            self._settle_checkpoint()
            state.checkpoint_marks.passed(steps)
            self._save()

    def _measured(self, ready: set[ObjectRef]) -> Iterator[Metrics]:
        """The record of the evaluation under way, if it is ready."""
        if self._evaluator.under_way not in ready:
            return
        ended = self._crew.evaluation()
        if ended is not None:
            asked, self._state.last_evaluation = ended
            if self._state.good_enough:
                self._limit = self._limit or "eval_return"
            yield evaluation_record(asked.step, ended[1])

    def _end(self) -> Iterator[Metrics]:
        """Last checkpoint, last evaluation, last record.

        The checkpoint comes first, so that it is what it would be on the way of a longer run.
        """
        self._settle_checkpoint()
        if self._saved_at != self.progress.steps:
            self._save()
        self._crew.players.close()
        if self.progress.fresh:
            yield self.progress.record()
        self._crew.learner.refresh()
        yield from self._evaluation_to_its_end()  # one that is still under way
        if self.config.eval.final_episodes and self._asked is None:
            self._crew.evaluate(self.config.eval.final_episodes)
            yield from self._evaluation_to_its_end()
        self._settle_checkpoint()

    def _evaluation_to_its_end(self) -> Iterator[Metrics]:
        while self._evaluator.busy and self._asked is None:
            yield from self._measured(self._wait())

    def _save(self) -> None:
        self._saved_at = self.progress.steps
        self._crew.save()

    def _settle_checkpoint(self) -> None:
        if self._crew.settle_checkpoint():
            self._deaths = 0
