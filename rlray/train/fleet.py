"""The simulators of a run, seen from the driver: their rollouts under way, and new ones for those that die."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import rlray
from rlray import ObjectRef
from rlray.exceptions import RayActorError, RayTaskError
from rlray.train.failures import SimulatorFailed, translated
from rlray.train.simulator import RolloutStats, Simulator, SimulatorSetup

log = logging.getLogger(__name__)

MAX_DEATHS = 3
"""Deaths of one simulator in a row, without a fragment between them, that end the run."""

MakeSetup = Callable[[int, int, int], SimulatorSetup]
"""(number, life, stream) to the setup of that simulator."""


@dataclass
class Rollout:
    """One fragment asked for: two references, of which the driver only ever reads the small one."""

    number: int
    fragment: ObjectRef
    stats: ObjectRef


@dataclass
class _Slot:
    """One of the run's simulators through all its lives."""

    actor: Any
    life: int = 0
    deaths_in_row: int = 0
    rollout: Rollout | None = None


class Fleet:
    """``count`` simulators, each with at most one rollout under way.

    Guarantees: a simulator that dies costs the fragment it was playing and no more: it is replaced by a fresh one
    with new seeds and a new stream. One that dies `MAX_DEATHS` times in a row, or an environment that raises, is an
    error instead.
    """

    def __init__(self, make_setup: MakeSetup, count: int) -> None:
        self._make_setup = make_setup
        self._streams = 0
        self._slots = [_Slot(self._create(number, 0)) for number in range(count)]

    def __len__(self) -> int:
        return len(self._slots)

    def idle(self) -> list[int]:
        """Numbers of the simulators without a rollout under way, in order."""
        return [number for number, slot in enumerate(self._slots) if slot.rollout is None]

    def rollouts(self) -> Iterator[Rollout]:
        """The rollouts under way, in the order of the simulators."""
        return (slot.rollout for slot in self._slots if slot.rollout is not None)

    def launch(self, number: int, weights: ObjectRef, version: int, step: int) -> None:
        """Ask simulator ``number`` for its next fragment."""
        slot = self._slots[number]
        fragment, stats = slot.actor.rollout.remote(weights, version, step)
        slot.rollout = Rollout(number, fragment, stats)

    def collect(self, rollout: Rollout) -> RolloutStats | None:
        """The stats of a rollout that is ready; None if its simulator died, and then a fresh one stands in its place.

        Raises: EnvironmentFailed where its environment raised; SimulatorFailed where anything else of it raised, or
        where it keeps dying.
        """
        slot = self._slots[rollout.number]
        slot.rollout = None
        try:
            stats: RolloutStats = rlray.get(rollout.stats)
        except RayActorError as error:
            self._replace(rollout.number, error)
            return None
        except RayTaskError as error:
            raise translated(error, SimulatorFailed, f"simulator {rollout.number}") from error
        slot.deaths_in_row = 0
        return stats

    def close(self) -> None:
        """End all simulators at once."""
        for slot in self._slots:
            rlray.kill(slot.actor)
        self._slots = []

    def _create(self, number: int, life: int) -> Any:
        setup = self._make_setup(number, life, self._streams)
        self._streams += 1
        actor = rlray.remote(Simulator).options(num_cpus=setup.num_cpus).remote(setup)
        actor.start.remote()  # all of them start beside each other; what fails here fails again in the first rollout
        return actor

    def _replace(self, number: int, error: RayActorError) -> None:
        slot = self._slots[number]
        slot.deaths_in_row += 1
        if slot.deaths_in_row >= MAX_DEATHS:
            setup = self._make_setup(number, slot.life, 0)
            raise SimulatorFailed(
                f"simulator {number} (environment {setup.env.id!r}, seed {setup.env_seed}) died {slot.deaths_in_row} "
                f"times in a row without delivering a fragment; the last time: {error}. What its processes printed is "
                "in the log folder of the run"
            ) from error
        slot.life += 1
        log.warning("simulator %d died (%s); its fragment is lost, life %d begins", number, error, slot.life)
        rlray.kill(slot.actor)
        slot.actor = self._create(number, slot.life)
