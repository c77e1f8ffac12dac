"""The evaluator of a run, seen from the driver: one evaluation at a time, beside the training."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import rlray
from rlray import ObjectRef
from rlray.exceptions import RayActorError, RayTaskError
from rlray.train.evaluator import EvalResult, Evaluator, EvaluatorSetup
from rlray.train.failures import EvaluatorFailed, translated

log = logging.getLogger(__name__)

MAX_DEATHS = 3
"""Deaths in a row over one evaluation that end the run."""


@dataclass(frozen=True)
class Evaluation:
    """What is measured: which weights, how often, from which seed."""

    weights: ObjectRef
    step: int  # the run's agent steps when it was asked for
    episodes: int
    seed: int


class EvaluatorLink:
    """Calls the evaluator. One that dies is replaced and the evaluation repeated: seeds are part of the request."""

    def __init__(self, setup: EvaluatorSetup) -> None:
        self._setup = setup
        self._actor = self._create()
        self._running: tuple[Evaluation, ObjectRef] | None = None
        self._deaths = 0

    @property
    def busy(self) -> bool:
        """Whether an evaluation is under way."""
        return self._running is not None

    @property
    def under_way(self) -> ObjectRef | None:
        """The reference to wait for."""
        return None if self._running is None else self._running[1]

    def launch(self, asked: Evaluation) -> None:
        """Begin an evaluation; there must be none under way."""
        assert self._running is None
        ref = self._actor.evaluate.remote(asked.weights, asked.episodes, asked.seed)
        self._running = asked, ref

    def collect(self) -> tuple[Evaluation, EvalResult] | None:
        """Wait for the evaluation under way; None if the evaluator died and the evaluation was begun again.

        Raises: EnvironmentFailed where the environment raised; EvaluatorFailed where it keeps dying or raised.
        """
        assert self._running is not None
        (asked, ref), self._running = self._running, None
        try:
            result: EvalResult = rlray.get(ref)
        except RayActorError as error:
            self._deaths += 1
            if self._deaths >= MAX_DEATHS:
                raise EvaluatorFailed(f"the evaluator died {self._deaths} times in a row; now: {error}") from error
            log.warning("the evaluator died (%s); the evaluation of step %d begins again", error, asked.step)
            rlray.kill(self._actor)
            self._actor = self._create()
            self.launch(asked)
            return None
        except RayTaskError as error:
            raise translated(error, EvaluatorFailed, "the evaluator") from error
        self._deaths = 0
        return asked, result

    def close(self) -> None:
        """End the evaluator at once."""
        rlray.kill(self._actor)

    def _create(self) -> Any:
        return rlray.remote(Evaluator).options(num_cpus=self._setup.num_cpus).remote(self._setup)
