"""Trials of an algorithm that learns from whole episodes, seen from the driver: a task for each part of a round."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from typing import Any

import rlray
from rlray import ObjectRef
from rlray.exceptions import ObjectLostError, RayError, RayTaskError, WorkerCrashedError
from rlray.train.env_failures import EnvFailures
from rlray.train.failures import EnvironmentFailed, SimulatorFailed, translated
from rlray.train.players import Rollout
from rlray.train.simulator import RolloutStats
from rlray.train.trials import CACHE, Part, TrialSetup, make_shared, play_trials

MAX_RETRIES = 3
"""How often a task whose worker died is run again, by the runtime."""


@dataclass
class _Asked:
    """A task under way, and what it was asked, should it have to be asked again."""

    rollout: Rollout
    part: Part
    weights: ObjectRef
    version: int


class TaskFleet:
    """A round's trials in up to ``count`` parts of equal size, each a task.

    Guarantees: parts are given out in order, round after round, and what a task comes to follows from its part and the
    weights: on however many CPUs they run, and however many workers are killed on the way. A worker that dies costs
    time only; the runtime runs its task again. A task whose environment raises is asked again with other seeds, as
    often as ``failures`` allows. On a cluster nobody is ever absent: tasks run
    where there is room, one after the other.
    """

    gathering = False

    def __init__(self, setup: TrialSetup, count: int, num_cpus: float, failures: EnvFailures) -> None:
        trials = setup.trials()
        groups = trials.count // trials.group
        count = min(count, groups)
        bounds = [trials.group * (groups * number // count) for number in range(count + 1)]
        self._parts = [(first, after - first) for first, after in itertools.pairwise(bounds)]
        self._setup = setup
        self._failures = failures
        self._task = rlray.remote(play_trials).options(num_returns=2, num_cpus=num_cpus, max_retries=MAX_RETRIES)
        self._make_shared = rlray.remote(make_shared).options(num_cpus=num_cpus, max_retries=MAX_RETRIES)
        self._told: ObjectRef | None = None  # the setup
        self._shared: ObjectRef | None = None
        self._given = 0  # parts so far
        self._asked: dict[int, _Asked] = {}

    def __len__(self) -> int:
        return len(self._parts)

    @property
    def shared(self) -> ObjectRef | None:
        """What tasks and learner read; made when it is first asked for."""
        if self._shared is None:
            self._told = rlray.put(self._setup)
            self._shared = self._make_shared.remote(self._told)
        return self._shared

    def steps_of(self, number: int) -> int:
        """Nobody knows how long episodes will be."""
        return 0

    @property
    def playing(self) -> bool:
        """Whether tasks are under way."""
        return bool(self._asked)

    def begin(self) -> None:
        """There is nothing to create but what is shared."""
        self._given = 0

    def idle(self) -> list[int]:
        return [number for number in range(len(self)) if number not in self._asked]

    def absent(self) -> Collection[int]:
        return ()

    def seeking(self) -> Iterator[ObjectRef]:
        return iter(())

    def look_around(self, ready: Set[ObjectRef]) -> None:
        """Nobody is absent."""

    def rollouts(self) -> Iterator[Rollout]:
        return (self._asked[number].rollout for number in sorted(self._asked))

    def launch(self, number: int, weights: ObjectRef, version: int, step: int) -> None:
        """Give out the next part."""
        round_, which = divmod(self._given, len(self))
        self._given += 1
        self._ask(number, Part(which, round_, *self._parts[which]), weights, version)

    def collect(self, rollout: Rollout) -> RolloutStats | None:
        """As `Players.collect`; where an environment raised, the part is under way again."""
        asked = self._asked.pop(rollout.number)
        try:
            stats: RolloutStats = rlray.get(rollout.stats)
        except RayTaskError as error:
            ours = translated(error, SimulatorFailed, f"task {asked.part.number} of round {asked.part.round}")
            if not isinstance(ours, EnvironmentFailed):
                raise ours from error
            ours.__cause__ = error
            if not rollout.withdrawn:
                self._failures.survived(ours, "the task is run again with other seeds")
                again = replace(asked.part, attempt=asked.part.attempt + 1)
                self._ask(rollout.number, again, asked.weights, asked.version)
            return None
        except ObjectLostError:
            if not rollout.withdrawn:
                self._ask(rollout.number, asked.part, asked.weights, asked.version)
            raise
        except WorkerCrashedError as error:
            raise SimulatorFailed(
                f"task {asked.part.number} of round {asked.part.round} (environment {self._setup.env.id!r}) killed "
                f"{MAX_RETRIES + 1} workers in a row; the last time: {error}. What its processes printed is in the log "
                "folder of the run"
            ) from error
        return None if rollout.withdrawn else stats

    def snapshot(self, steps: int) -> list[ObjectRef | None]:
        """Between two rounds nothing lives."""
        return []

    def state(self) -> dict[str, Any]:
        return {"given": self._given}

    def restore(
        self,
        state: Mapping[str, Any] | None,
        checkpoint: str | None,
        saved: Collection[int],
        steps: int,
        new_lives: bool,
    ) -> None:
        self._withdraw()
        self._given = 0 if state is None else state["given"]

    def go_on(self) -> None:
        for asked in self._asked.values():
            asked.rollout.withdrawn = True

    def close(self) -> None:
        """Cancel what is under way; environments at hand in this process (engine ``inline``) are closed."""
        self._withdraw()
        self._shared = self._told = None
        CACHE.clear()

    def _ask(self, number: int, part: Part, weights: ObjectRef, version: int) -> None:
        shared = self.shared
        played, stats = self._task.remote(self._told, shared, weights, version, part)
        self._asked[number] = _Asked(Rollout(number, played, stats), part, weights, version)

    def _withdraw(self) -> None:
        for asked in self._asked.values():
            with contextlib.suppress(RayError):
                rlray.cancel(asked.rollout.stats)
        self._asked = {}
