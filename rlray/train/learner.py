"""The actor that learns: it owns an algorithm's learner, on a GPU where it was granted one, else on the CPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from rlray import method
from rlray.algos.types import (
    DrawnLearner,
    Fragment,
    GradientLearner,
    Learner,
    LearnerContext,
    Metrics,
    NotFinite,
    Outcomes,
    Weights,
)
from rlray.envs.types import EnvSpec
from rlray.train import seeds, threads
from rlray.train.checkpoint import load_checkpoint
from rlray.train.failures import NotFiniteFound
from rlray.train.histograms import Histogram, of_gradients
from rlray.train.memory import size
from rlray.train.not_finite import keep_evidence, not_finite_in
from rlray.train.saving import Draft, KeepReplay, begin_checkpoint
from rlray.train.seats import Seated
from rlray.train.sources import AlgorithmSource

T = TypeVar("T")


@dataclass(frozen=True)
class LearnerSetup:
    """What the learner is made from; small enough to travel in the message that creates it."""

    spec: EnvSpec
    algorithm: AlgorithmSource
    seed: int  # of the run
    total_steps: int  # agent steps the run is planned for
    num_cpus: float
    num_gpus: float
    failures: str = "failures"  # the folder for batches with a loss that is no number
    keep_replay: KeepReplay = "auto"  # whether checkpoints hold what the replay holds


@dataclass
class LearnReport:
    """What became of one fragment."""

    version: int  # of the weights after it: gradient steps since the start of the run
    updates: int  # gradient steps done for it
    metrics: Metrics  # what the algorithm reports
    published: bool  # whether weights of that version came with it
    busy_seconds: float  # spent in learning from it
    idle_seconds: float  # waited for it since the call before


class LearnerActor(Seated):
    """Learns from fragments in the order of the calls. One thread of calls, so that no call sees half an update.

    As with the simulator, nothing expensive runs in the constructor: `start` does that.
    """

    def __init__(self, setup: LearnerSetup) -> None:
        self._setup = setup
        self._version = 0
        self._published: int | None = None
        self._idle_since = time.perf_counter()

    def start(self, shared: Any = None) -> str:
        """Make network, optimiser and replay; returns a line about the device, the threads and the network.

        Args:
            shared: what the algorithm's tasks read, if it has tasks.
        """
        import torch

        setup = self._setup
        count = threads.limit_torch(setup.num_cpus)
        threads.keep_freed_memory()
        device = "cuda" if setup.num_gpus > 0 and torch.cuda.is_available() else "cpu"
        sequence = seeds.sequence(setup.seed, seeds.Role.LEARNER)
        seeds.seed_torch(sequence)
        context = LearnerContext(device, seeds.integer(sequence), setup.total_steps, shared)
        self._learner: Learner | DrawnLearner = setup.algorithm.make_learner(setup.spec, context)
        self._idle_since = time.perf_counter()
        weights = sum(array.nbytes for array in self._learner.weights().values())
        return f"learner: {device}, {count} thread(s), {size(weights)} of weights"

    @method(num_returns=2)
    def learn(self, played: Fragment | Outcomes, publish: bool) -> tuple[LearnReport, Weights | None]:
        """Take in what was ``played`` and do the updates that are due.

        The second result is the weights after it, if ``publish`` asks for them and they are newer than the last ones
        published; else None.

        Raises: NotFiniteFound where a loss is infinite or not a number; the batch, the fragment and the learner's state
        have been saved.
        """
        learner = cast(Learner, self._learner)
        report, _ = self._timed(lambda: (learner.learn(played), None), {"fragment": played})
        report.published = publish and self._version != self._published
        return report, self.weights()[0] if report.published else None

    @method(num_returns=3)
    def learn_drawn(self, drawn: Any) -> tuple[LearnReport, Weights, Any]:
        """Do the updates that ``drawn`` is for, which the replay has drawn in an actor of its own.

        Further results: the weights after it, and what goes back to the replay.

        Raises: as `learn`.
        """
        learner = cast(DrawnLearner, self._learner)
        report, returned = self._timed(lambda: learner.learn_drawn(drawn), {})
        report.published = True
        return report, self.weights()[0], returned

    def gradients(self) -> dict[str, Histogram]:
        """How the gradients of the last update are distributed, by tag; empty where the learner does not show them."""
        learner = self._learner
        return of_gradients(learner.gradients()) if isinstance(learner, GradientLearner) else {}

    @method(num_returns=2)
    def weights(self) -> tuple[Weights, int]:
        """The weights that policies should run with now, as numpy arrays by name, and their version."""
        self._published = self._version
        return dict(self._learner.weights()), self._version

    def save(
        self, path: str, run: Mapping[str, Any], evaluated: Weights | None, *simulators: Mapping[str, Any] | None
    ) -> Draft:
        """Begin a checkpoint at ``path``: when this returns, learning may go on, and `finish_checkpoint` must follow.

        Args:
            run: what the driver keeps.
            evaluated: the weights of the evaluation under way, if there is one.
            simulators: their states, in order; None for one without.
        """
        begin = time.perf_counter()
        learner = dict(self._learner.state())
        replay = learner.pop("replay", None)
        own = {"learner": learner, "version": self._version, "torch": seeds.get_torch_state()}
        state = {"run": dict(run), "weights": dict(self._learner.weights()), "learner": own}
        if evaluated is not None:
            state["evaluated"] = dict(evaluated)
        state.update((f"simulator_{i}", dict(one)) for i, one in enumerate(simulators) if one is not None)
        draft = begin_checkpoint(Path(path), state, replay, self._setup.keep_replay)
        self._idle_since = time.perf_counter()
        draft.seconds = self._idle_since - begin
        return draft

    def load(self, path: str) -> bool | None:
        """Take everything back from a checkpoint.

        Returns whether it held what the replay held; None where the learner has no replay.

        Raises: CheckpointError where it cannot be read.
        """
        state = load_checkpoint(path, ("learner", "replay"))
        own = state["learner"]
        replay = {"replay": state["replay"]} if "replay" in state else {}
        self._learner.load_state({**own["learner"], **replay})
        self._version = own["version"]
        seeds.set_torch_state(own["torch"])
        self._idle_since = time.perf_counter()
        return "replay" in state if "replay" in self._learner.state() else None

    def _timed(self, learn: Callable[[], tuple[Metrics, T]], given: Mapping[str, Any]) -> tuple[LearnReport, T]:
        """Learn, and count and time it; nothing is published yet. What was ``given`` is saved where a loss is none."""
        begin = time.perf_counter()
        idle = begin - self._idle_since
        try:
            metrics, result = learn()
        except FloatingPointError as error:
            raise self._not_finite(str(error), given, error) from error
        if bad := not_finite_in(metrics):
            raise self._not_finite(f"{bad} became {metrics[bad]}", given, None)
        if "updates" not in metrics:
            raise TypeError(f"learn() must say how many 'updates' it did, beside other metrics, but returned {metrics}")
        updates = int(metrics.pop("updates"))
        self._version += updates
        self._idle_since = time.perf_counter()
        return LearnReport(self._version, updates, metrics, False, self._idle_since - begin, idle), result

    def _not_finite(self, what: str, given: Mapping[str, Any], error: FloatingPointError | None) -> NotFiniteFound:
        """The error to raise, once everything that led to it has been saved."""
        state = {name: part for name, part in self._learner.state().items() if name != "replay"}
        evidence: dict[str, Any] = {"batch": error.batch} if isinstance(error, NotFinite) else {}
        evidence |= {**{name: vars(one) for name, one in given.items()}, "learner": state}
        return NotFiniteFound(
            f"the learner, in update {self._version} or a few later: {what}. "
            + keep_evidence(Path(self._setup.failures), "learner", evidence)
        )
