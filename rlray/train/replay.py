"""The actor that keeps what was played, where an algorithm wants that apart from its learner, and draws batches."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from rlray import method
from rlray.algos.types import Fragment, LearnerContext, Metrics, Replay
from rlray.envs.types import EnvSpec
from rlray.train import seeds, threads
from rlray.train.checkpoint import load_checkpoint
from rlray.train.saving import Draft, KeepReplay, add_to_checkpoint
from rlray.train.sources import AlgorithmSource


@dataclass(frozen=True)
class ReplaySetup:
    """What the replay is made from; small enough to travel in the message that creates it."""

    spec: EnvSpec
    algorithm: AlgorithmSource
    seed: int  # of the run
    total_steps: int  # agent steps the run is planned for
    keep_replay: KeepReplay = "auto"  # whether checkpoints hold what it holds


@dataclass
class AddReport:
    """What became of one fragment."""

    due: int | None  # updates that it made due; None: as many as the learner can do
    metrics: Metrics


class ReplayActor:
    """Takes fragments in and draws batches, in the order of the calls; one thread of calls.

    As with the learner, nothing expensive runs in the constructor: `start` does that.
    """

    def __init__(self, setup: ReplaySetup) -> None:
        self._setup = setup

    def start(self) -> int:
        """Make the replay; returns how many updates one `draw` may be for."""
        setup = self._setup
        threads.limit_torch(0)
        sequence = seeds.sequence(setup.seed, seeds.Role.REPLAY)
        seeds.seed_torch(sequence)
        context = LearnerContext("cpu", seeds.integer(sequence), setup.total_steps)
        self._replay: Replay = setup.algorithm.make_replay(setup.spec, context)
        return self._replay.most

    def ping(self) -> None:
        """Answer, as only the living do."""

    def add(self, fragment: Fragment) -> AddReport:
        """Take in ``fragment``."""
        return AddReport(*self._replay.add(fragment))

    @method(num_returns=2)
    def draw(self, updates: int) -> tuple[Any, float]:
        """What ``updates`` gradient steps shall learn from, and the seconds that this took."""
        begin = time.perf_counter()
        drawn = self._replay.draw(updates)
        return drawn, time.perf_counter() - begin

    def take_back(self, returned: Any) -> None:
        """What the learner's updates gave: new priorities."""
        self._replay.take_back(returned)

    def save(self, draft: Draft) -> Draft:
        """Add its own two parts to a checkpoint that the learner has begun."""
        state = dict(self._replay.state())
        held = state.pop("replay", None)
        own = {"state": state, "torch": seeds.get_torch_state()}
        return add_to_checkpoint(draft, {"drawing": own}, held, self._setup.keep_replay)

    def load(self, path: str) -> bool:
        """Take everything back from a checkpoint; returns whether it held what the replay held.

        Raises: CheckpointError where it cannot be read.
        """
        state = load_checkpoint(path, ("drawing", "replay"))
        held = {"replay": state["replay"]} if "replay" in state else {}
        self._replay.load_state({**state["drawing"]["state"], **held})
        seeds.set_torch_state(state["drawing"]["torch"])
        return "replay" in state
