"""What the driver of a run keeps in a checkpoint, and how it goes on from one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from rlray.algos.registry import get_algorithm
from rlray.config.schema import RunConfig
from rlray.train.evaluator import EvalResult
from rlray.train.marks import Marks
from rlray.train.measuring import Evaluation
from rlray.train.progress import Progress

MAX_RECORDS = 2000
"""Records of training metrics in a run, about."""


class Records(Protocol):
    """Where the records of a run go, so that those after a checkpoint can be withdrawn; `MetricsWriter` is one."""

    def position(self) -> dict[str, Any]:
        """Where they end now."""

    def rewind(self, position: Mapping[str, Any] | None, step: int) -> None:
        """Withdraw what came after ``position``, or everything; the run goes on after ``step``."""


class NoRecords:
    """The records of a run that somebody iterates over for themselves."""

    def position(self) -> dict[str, Any]:
        return {}

    def rewind(self, position: Mapping[str, Any] | None, step: int) -> None:
        """There is nothing to withdraw."""


class RunState:
    """Counters, what is due when, evaluations so far: all that the driver decides by."""

    def __init__(self, config: RunConfig, records: Records) -> None:
        self._config = config
        self._records = records
        self.progress = Progress(config.groups if config.has_sources else ())
        self.evaluations = 0  # begun
        self.last_evaluation: EvalResult | None = None
        by_tasks = get_algorithm(config.algo).make_trials is not None  # then nobody knows how long a round will be
        round_steps = (
            1 if by_tasks else sum(group.count * group.envs * group.fragment_length for group in config.groups)
        )
        self.record_marks = Marks(max(round_steps, config.stop.steps // MAX_RECORDS))
        self.eval_marks = Marks(config.eval.every)
        self.checkpoint_marks = Marks(config.checkpoint.every)
        self._beginning = self.save({}, None)

    @property
    def good_enough(self) -> bool:
        """Whether the last evaluation reached what the run was to reach."""
        enough, last = self._config.stop.eval_return, self.last_evaluation
        return enough is not None and last is not None and last.mean >= enough

    @property
    def trained_enough(self) -> bool:
        """Whether the newest training episodes reached it."""
        enough, mean = self._config.stop.train_return, self.progress.episodes.mean_return
        return enough is not None and mean is not None and mean >= enough

    def save(self, fleet: Mapping[str, Any], evaluating: Evaluation | None) -> dict[str, Any]:
        """All of it, with the state of the simulators' fleet and the evaluation under way."""
        last = self.last_evaluation
        return {
            "progress": self.progress.state(),
            "marks": {name: marks.next for name, marks in self._marks().items()},
            "evaluations": self.evaluations,
            "last_evaluation": None
            if last is None
            else {"returns": last.returns, "lengths": last.lengths, "explored": last.explored},
            "evaluating": None
            if evaluating is None
            else {"step": evaluating.step, "episodes": evaluating.episodes, "seed": evaluating.seed},
            "records": self._records.position(),
            "fleet": dict(fleet),
        }

    def load(self, saved: Mapping[str, Any] | None, clock: bool) -> None:
        """Go on from ``saved``, or from the beginning; records that came after it are withdrawn.

        Args:
            clock: whether the time goes on from there, too; else it runs on.
        """
        state = self._beginning if saved is None else saved
        self.progress.load_state(state["progress"])
        for name, marks in self._marks().items():
            marks.resume(self.progress.steps, state["marks"][name])
        self.evaluations = state["evaluations"]
        last = state["last_evaluation"]
        self.last_evaluation = None if last is None else EvalResult(**last)
        if clock:
            self.progress.set_clock(state["progress"]["seconds"])
        self._records.rewind(None if saved is None else state["records"], self.progress.steps)

    def _marks(self) -> dict[str, Marks]:
        return {"record": self.record_marks, "eval": self.eval_marks, "checkpoint": self.checkpoint_marks}
