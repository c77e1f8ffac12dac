"""The actor that learns: it owns an algorithm's learner, on a GPU where it was granted one, else on the CPU."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlray import method
from rlray.algos.types import Fragment, Learner, LearnerContext, Metrics, Weights
from rlray.envs.types import EnvSpec
from rlray.train import seeds, threads
from rlray.train.checkpoint import load_checkpoint, save_checkpoint
from rlray.train.sources import AlgorithmSource


@dataclass(frozen=True)
class LearnerSetup:
    """What the learner is made from; small enough to travel in the message that creates it."""

    spec: EnvSpec
    algorithm: AlgorithmSource
    seed: int  # of the run
    total_steps: int  # agent steps the run is planned for
    num_cpus: float
    num_gpus: float


@dataclass
class LearnReport:
    """What became of one fragment."""

    version: int  # of the weights after it: gradient steps since the start of the run
    updates: int  # gradient steps done for it
    metrics: Metrics  # what the algorithm reports
    published: bool  # whether weights of that version came with it
    busy_seconds: float  # spent in learning from it
    idle_seconds: float  # waited for it since the call before


class LearnerActor:
    """Learns from fragments in the order of the calls. One thread of calls, so that no call sees half an update.

    As with the simulator, nothing expensive runs in the constructor: `start` does that.
    """

    def __init__(self, setup: LearnerSetup) -> None:
        self._setup = setup
        self._version = 0
        self._published: int | None = None
        self._idle_since = time.perf_counter()

    def start(self) -> str:
        """Make network, optimiser and replay; returns a line about the device and the threads."""
        import torch

        setup = self._setup
        count = threads.limit_torch(setup.num_cpus)
        device = "cuda" if setup.num_gpus > 0 and torch.cuda.is_available() else "cpu"
        sequence = seeds.sequence(setup.seed, seeds.Role.LEARNER)
        seeds.seed_torch(sequence)
        context = LearnerContext(device, seeds.integer(sequence), setup.total_steps)
        self._learner: Learner = setup.algorithm.make_learner(setup.spec, context)
        self._idle_since = time.perf_counter()
        return f"learner: {device}, {count} thread(s)"

    @method(num_returns=2)
    def learn(self, fragment: Fragment, publish: bool) -> tuple[LearnReport, Weights | None]:
        """Take in ``fragment`` and do the updates that are due.

        The second result is the weights after it, if ``publish`` asks for them and they are newer than the last ones
        published; else None.
        """
        begin = time.perf_counter()
        idle = begin - self._idle_since
        metrics = self._learner.learn(fragment)
        updates = int(metrics.pop("updates"))
        self._version += updates
        weights = self.weights()[0] if publish and self._version != self._published else None
        self._idle_since = time.perf_counter()
        report = LearnReport(self._version, updates, metrics, weights is not None, self._idle_since - begin, idle)
        return report, weights

    @method(num_returns=2)
    def weights(self) -> tuple[Weights, int]:
        """The weights that policies should run with now, as numpy arrays by name, and their version."""
        self._published = self._version
        return dict(self._learner.weights()), self._version

    def save(self, path: str, progress: Mapping[str, Any]) -> str:
        """Write a checkpoint of the learner and of the run's ``progress`` to ``path``; returns the path.

        The checkpoint is whole or not there at all.
        """
        state = {
            "version": self._version,
            "weights": dict(self._learner.weights()),
            "learner": self._learner.state(),
            "progress": dict(progress),
        }
        return str(save_checkpoint(path, state))

    def load(self, path: str) -> dict[str, Any]:
        """Take everything back from a checkpoint; returns the run's progress that was saved with it.

        Raises: CheckpointError where it cannot be read.
        """
        state = load_checkpoint(path)
        self._learner.load_state(state["learner"])
        self._version = state["version"]
        progress: dict[str, Any] = state["progress"]
        return progress
