"""The driver of a run: it creates the actors, passes references between them, and yields what happens as metrics."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np

import rlray
from rlray import ObjectRef
from rlray.algos.types import Metrics
from rlray.config.schema import RunConfig
from rlray.envs.types import EnvSpec
from rlray.train import seeds
from rlray.train.checkpoint import new_checkpoint_path
from rlray.train.evaluator import EvalResult, EvaluatorSetup
from rlray.train.fleet import Fleet, Rollout
from rlray.train.learner import LearnerSetup
from rlray.train.learning import LearnerLink
from rlray.train.measuring import Evaluation, EvaluatorLink
from rlray.train.plan import Plan
from rlray.train.progress import Progress
from rlray.train.simulator import RolloutStats, SimulatorSetup
from rlray.train.sources import AlgorithmSource, EnvSource

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
"""How long the driver waits at a stretch before it looks at the clock and at requests to stop."""

MAX_RECORDS = 2000
"""Records of training metrics in a run, about."""


class Marks:
    """The multiples of ``every`` steps; ``every=None`` has none."""

    def __init__(self, every: int | None) -> None:
        self._every = every
        self._next = every

    def passed(self, steps: int) -> bool:
        """Whether ``steps`` reached a mark that was not reported yet; several at once count as one."""
        if self._every is None or self._next is None or steps < self._next:
            return False
        self._next = (steps // self._every + 1) * self._every
        return True


class Experiment:
    """One run: iterate over it for its metrics, or close it early. Use it as a context manager.

    The runtime must be initialised. A frame never comes into this process: fragments and weights pass through as
    references.

    Guarantees, ``mode: sync``: simulators and learner take turns in a fixed order, so that equal configurations give
    equal metrics (but for tags under ``time/``). ``mode: async``: every simulator plays while the learner learns, and
    none runs more than a few fragments ahead. A simulator that is killed costs one fragment.

    Raises, while iterated: the errors of `rlray.train.failures`; the actors are then ended already.
    """

    def __init__(self, config: RunConfig, env: EnvSource, spec: EnvSpec, plan: Plan, checkpoints: Path) -> None:
        self.config = config
        self.progress = Progress()
        self.last_evaluation: EvalResult | None = None
        self._asked: str | None = None
        self._limit: str | None = None
        self._checkpoints = checkpoints
        self._collected = 0  # agent steps played, learned from or not yet
        self._finished: list[tuple[Rollout, RolloutStats]] = []  # not yet given to the learner
        self._sync = config.mode == "sync"
        self._eval_marks = Marks(config.eval.every)
        self._checkpoint_marks = Marks(config.checkpoint.every)
        round_steps = config.simulators.envs * config.simulators.fragment_length * config.simulators.count
        self._record_marks = Marks(max(round_steps, config.stop.steps // MAX_RECORDS))
        self._evaluations = 0
        self._saved_at: int | None = None
        algorithm = AlgorithmSource(config.algo, config.hyperparameters)
        seed = config.seed

        def simulator(number: int, life: int, stream: int) -> SimulatorSetup:
            envs, length = config.simulators.envs, config.simulators.fragment_length
            return SimulatorSetup(env, algorithm, number, life, stream, seed, envs, length, plan.simulator_cpus)

        self._learner = LearnerLink(
            LearnerSetup(spec, algorithm, seed, config.stop.steps, plan.learner_cpus, plan.learner_gpus),
            config.checkpoint.keep,
        )
        self._fleet = Fleet(simulator, plan.simulators)
        self._evaluator = EvaluatorLink(EvaluatorSetup(env, algorithm, plan.evaluator_cpus))

    def __enter__(self) -> Experiment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def last_checkpoint(self) -> str | None:
        """The newest complete checkpoint, if there is one."""
        return self._learner.last_checkpoint

    @property
    def stopped_by(self) -> str | None:
        """Why the run ends: ``steps``, ``minutes``, ``eval_return`` or what `stop` was given; None while it goes on."""
        return self._asked or self._limit

    def stop(self, reason: str) -> None:
        """Ask the run to end soon, with a checkpoint but without the final evaluation. Safe in a signal handler."""
        self._asked = self._asked or reason

    def __iter__(self) -> Iterator[Metrics]:
        """Train; yields records of the training as it goes on, and one for each evaluation."""
        try:
            log.info("%s", self._learner.start())
            while not self._drained():
                self._launch()
                ready = self._wait()
                self._take(ready)
                yield from self._measured(ready)
                if self._settled():
                    yield from self._at_marks()
            yield from self._end()
        finally:
            self.close()

    def close(self) -> None:
        """End all actors at once. Calling it twice, or after the runtime was shut down, is harmless."""
        if not rlray.is_initialized():
            return
        for part in (self._fleet, self._evaluator, self._learner):
            part.close()

    def _drained(self) -> bool:
        """Whether the run is to end, and all that was played has been learned from."""
        stop = self.config.stop
        if self._collected >= stop.steps:
            self._limit = self._limit or "steps"
        elif stop.minutes is not None and self.progress.seconds >= stop.minutes * 60:
            self._limit = self._limit or "minutes"
        return self.stopped_by is not None and not self._finished and self._learner.backlog == 0

    def _settled(self) -> bool:
        """Whether counters and weights may be looked at: always, or between two rounds where all is in fixed order."""
        under_way = self._finished or self._learner.backlog or any(self._fleet.rollouts())
        return not self._sync or not under_way

    def _launch(self) -> None:
        """Ask simulators for fragments: as many as the step limit allows and the learner can soon take."""
        if self.stopped_by or not self._settled() or (self._sync and self._evaluator.busy):
            return
        step, sims = self._collected, self.config.simulators
        for number in self._fleet.idle():
            playing = sum(1 for _ in self._fleet.rollouts())
            if step + playing * sims.envs * sims.fragment_length >= self.config.stop.steps:
                break
            if not self._sync and playing + self._learner.backlog > len(self._fleet):
                break  # one fragment more than simulators: enough for the learner never to wait for a message
            self._fleet.launch(number, self._learner.weights, self._learner.version, step)

    def _wait(self) -> set[ObjectRef]:
        """Wait a moment for anything to happen; returns what is ready."""
        refs = [rollout.stats for rollout in self._fleet.rollouts()]
        refs += self._learner.under_way()
        if self._evaluator.under_way is not None:
            refs.append(self._evaluator.under_way)
        if not refs:
            return set()
        rlray.wait(refs, num_returns=1, timeout=POLL_SECONDS)
        return set(rlray.wait(refs, num_returns=len(refs), timeout=0)[0])

    def _take(self, ready: set[ObjectRef]) -> None:
        """Fragments from simulators to the learner; reports of the learner into the counters."""
        for rollout in [one for one in self._fleet.rollouts() if one.stats in ready]:
            stats = self._fleet.collect(rollout)
            if stats is not None:
                self._collected += stats.steps
                self._finished.append((rollout, stats))
        if self._finished and not (self._sync and any(self._fleet.rollouts())):
            self._finished.sort(key=lambda one: one[0].number)
            last = self._finished[-1][0]
            for rollout, stats in self._finished:
                self._learner.learn(rollout.fragment, stats, publish=not self._sync or rollout is last)
            self._finished = []
        for report, stats in self._learner.collect(ready.__contains__):
            self.progress.add(report, stats)

    def _at_marks(self) -> Iterator[Metrics]:
        """What is due at this count of steps."""
        steps = self.progress.steps
        if self._record_marks.passed(steps):
            yield self.progress.record()
        if not self._learner.saving and self._checkpoint_marks.passed(steps):
            self._save()
        is_last = self._collected >= self.config.stop.steps and self.config.eval.final_episodes > 0
        if not self._evaluator.busy and not is_last and self._eval_marks.passed(steps):
            self._evaluate(self.config.eval.episodes)

    def _measured(self, ready: set[ObjectRef]) -> Iterator[Metrics]:
        """The record of the evaluation under way, if it is ready."""
        if self._evaluator.under_way not in ready:
            return
        ended = self._evaluator.collect()
        if ended is not None:
            asked, self.last_evaluation = ended
            enough = self.config.stop.eval_return
            if enough is not None and self.last_evaluation.mean >= enough:
                self._limit = self._limit or "eval_return"
            yield evaluation_record(asked.step, self.last_evaluation)

    def _end(self) -> Iterator[Metrics]:
        """Last checkpoint, last evaluation, last record."""
        self._fleet.close()
        if self.progress.fresh:
            yield self.progress.record()
        self._learner.settle_checkpoint()
        if self._saved_at != self.progress.steps:
            self._save()
        self._learner.refresh()
        yield from self._evaluation_to_its_end()  # one that is still under way
        if self.config.eval.final_episodes and self._asked is None:
            self._evaluate(self.config.eval.final_episodes)
            yield from self._evaluation_to_its_end()
        self._learner.settle_checkpoint()

    def _evaluation_to_its_end(self) -> Iterator[Metrics]:
        while self._evaluator.busy and self._asked is None:
            yield from self._measured(self._wait())

    def _evaluate(self, episodes: int) -> None:
        number = self._evaluations
        self._evaluations += 1
        seed = seeds.integer(seeds.sequence(self.config.seed, seeds.Role.EVALUATOR, number))
        self._evaluator.launch(Evaluation(self._learner.weights, self.progress.steps, episodes, seed))

    def _save(self) -> None:
        self._saved_at = self.progress.steps
        path = new_checkpoint_path(self._checkpoints, self.progress.steps)
        self._learner.save(str(path), self.progress.state())


def evaluation_record(step: int, result: EvalResult) -> Metrics:
    """An evaluation as metrics; ``step`` is the run's count when it was asked for."""
    return {
        "steps": float(step),
        "eval/return_mean": result.mean,
        "eval/return_std": result.std,
        "eval/episode_length": float(np.mean(result.lengths)),
    }
