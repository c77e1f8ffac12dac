"""The evaluator of a run, seen from the driver: one evaluation at a time, beside the training."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import rlray
from rlray import ObjectRef
from rlray.algos.types import Metrics
from rlray.exceptions import ObjectLostError, RayActorError, RayTaskError
from rlray.train.env_failures import EnvFailures
from rlray.train.evaluator import EvalResult, Evaluator, EvaluatorSetup
from rlray.train.failures import EnvironmentFailed, EvaluatorFailed, translated

log = logging.getLogger(__name__)

MAX_DEATHS = 3
"""Deaths in a row over one evaluation after which it is left out."""


@dataclass(frozen=True)
class Evaluation:
    """What is measured: which weights, how often, from which seed."""

    weights: ObjectRef
    step: int  # the run's agent steps when it was asked for
    episodes: int
    seed: int
    gradients: ObjectRef | None = None  # histograms of the learner's at that step; None where they are gone


class EvaluatorLink:
    """Calls the evaluator. One that dies is replaced and the evaluation repeated: seeds are part of the request.

    An evaluation that kills it again and again, or whose environment raises, is left out; the run goes on.
    """

    def __init__(self, setup: EvaluatorSetup, failures: EnvFailures, videos: Path | None = None) -> None:
        """``videos``: the folder for a video of each evaluation's first episode; None for none."""
        self._setup = setup
        self._videos = videos
        self._failures = failures
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
        video = None if self._videos is None else str(self._videos / f"step_{asked.step:09d}.mp4")
        ref = self._actor.evaluate.remote(asked.weights, asked.episodes, asked.seed, video, asked.step)
        self._running = asked, ref

    @property
    def asked(self) -> Evaluation | None:
        """The evaluation under way."""
        return None if self._running is None else self._running[0]

    def collect(self) -> tuple[Evaluation, EvalResult] | None:
        """Wait for the evaluation under way; None if it came to nothing: it has begun again, or is left out.

        Raises: EnvironmentFailed where environments raised too often; EvaluatorFailed where anything else raised.
        """
        assert self._running is not None
        (asked, ref), self._running = self._running, None
        try:
            result: EvalResult = rlray.get(ref)
        except RayActorError as error:
            self._died(asked, error)
            return None
        except ObjectLostError as error:  # on a cluster: the weights, with the learner's node
            log.warning("the evaluation of step %d is left out: %s", asked.step, error)
            return None
        except RayTaskError as error:
            ours = translated(error, EvaluatorFailed, "the evaluator")
            if not isinstance(ours, EnvironmentFailed):
                raise ours from error
            ours.__cause__ = error
            self._failures.survived(ours, f"the evaluation of step {asked.step} is left out")
            return None
        self._deaths = 0
        if result.trouble is not None:
            log.warning("the evaluation of step %d: %s", asked.step, result.trouble)
        return asked, result

    def abandon(self) -> None:
        """Drop the evaluation under way, if any: nobody wants it any more."""
        if self._running is not None:
            self._running = None
            self._replace()

    def _died(self, asked: Evaluation, error: RayActorError) -> None:
        self._deaths += 1
        self._replace()
        if self._deaths >= MAX_DEATHS:
            log.error(
                "the evaluator died %d times in a row (%s); the evaluation of step %d is left out",
                self._deaths,
                error,
                asked.step,
            )
            self._deaths = 0
            return
        log.warning("the evaluator died (%s); the evaluation of step %d begins again", error, asked.step)
        self.launch(asked)

    def _replace(self) -> None:
        rlray.kill(self._actor)
        self._actor = self._create()

    def close(self) -> None:
        """End the evaluator at once."""
        rlray.kill(self._actor)

    def _create(self) -> Any:
        return rlray.remote(Evaluator).options(num_cpus=self._setup.num_cpus).remote(self._setup)


def evaluation_record(step: int, result: EvalResult) -> Metrics:
    """An evaluation as metrics; ``step`` is the run's count when it was asked for."""
    return {
        "steps": float(step),
        "eval/return_mean": result.mean,
        "eval/return_std": result.std,
        "eval/episode_length": float(np.mean(result.lengths)),
    }
