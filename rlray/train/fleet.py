"""The simulators of a run, seen from the driver: their rollouts under way, and new ones for those that die."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import rlray
from rlray import ObjectRef
from rlray.exceptions import RayActorError, RayTaskError
from rlray.train.env_failures import EnvFailures
from rlray.train.failures import EnvironmentFailed, SimulatorFailed, translated
from rlray.train.players import Rollout
from rlray.train.simulator import RolloutStats, Simulator, SimulatorSetup

log = logging.getLogger(__name__)

MAX_DEATHS = 3
"""Deaths of one simulator in a row, without a fragment between them, that end the run."""

MakeSetup = Callable[[int, int, int], SimulatorSetup]
"""(number, life, stream) to the setup of that simulator."""


@dataclass
class _Slot:
    """One of the run's simulators through all its lives."""

    actor: Any
    life: int = 0
    deaths_in_row: int = 0
    asked: int = 0  # the number of the last rollout asked of it, over all simulators
    rollout: Rollout | None = None


class Fleet:
    """Simulators, each with at most one rollout under way, once `begin` has created them.

    Guarantees: a simulator that dies costs the fragment it was playing and no more: it is replaced by a fresh one
    with new seeds and a new stream; so is one whose environment raises, as often as its ``failures`` allow. One that
    dies `MAX_DEATHS` times in a row is an error instead.

    Args:
        steps: agent steps of a fragment, for each simulator.
        failures: one for each simulator, which those of a group share.
    """

    shared = None

    def __init__(self, make_setup: MakeSetup, steps: Sequence[int], failures: Sequence[EnvFailures]) -> None:
        self._make_setup = make_setup
        self._count = len(failures)
        self._steps, self._failures = steps, failures
        self._asked = 0
        self._streams = 0  # numbers given so far
        self._slots: list[_Slot] = []

    def __len__(self) -> int:
        return self._count

    def steps_of(self, number: int) -> int:
        """Agent steps of a fragment of simulator ``number``."""
        return self._steps[number]

    def begin(self) -> None:
        """Create the simulators."""
        self._slots = [_Slot(self._create(number, 0)) for number in range(self._count)]

    def idle(self) -> list[int]:
        """Numbers of the simulators without a rollout under way: the one that was asked longest ago comes first."""
        idle = [number for number, slot in enumerate(self._slots) if slot.rollout is None]
        return sorted(idle, key=lambda number: self._slots[number].asked)

    def rollouts(self) -> Iterator[Rollout]:
        """The rollouts under way, in the order of the simulators."""
        return (slot.rollout for slot in self._slots if slot.rollout is not None)

    def launch(self, number: int, weights: ObjectRef, version: int, step: int) -> None:
        """Ask simulator ``number`` for its next fragment."""
        slot = self._slots[number]
        fragment, stats = slot.actor.rollout.remote(weights, version, step)
        slot.rollout = Rollout(number, fragment, stats)
        self._asked += 1
        slot.asked = self._asked

    def collect(self, rollout: Rollout) -> RolloutStats | None:
        """The stats of a rollout that is ready; None if it is not to be learned from: its simulator died or failed, and
        then a fresh one stands in its place, or it was withdrawn.

        Raises: EnvironmentFailed where environments raised too often; SimulatorFailed where anything else of it raised,
        or where it keeps dying.
        """
        slot = self._slots[rollout.number]
        slot.rollout = None
        stats: RolloutStats | None = self._answer(rollout.number, rollout.stats)
        if stats is not None:
            slot.deaths_in_row = 0
        return None if rollout.withdrawn else stats

    def snapshot(self, steps: int) -> list[ObjectRef | None]:
        """References to the states of all simulators, none of which may be playing; see `Simulator.snapshot`.

        None for one that died or failed, and has been replaced.
        """
        before = self._streams
        asked = [slot.actor.snapshot.remote(steps, self._next_stream()) for slot in self._slots]
        kept = [self._answer(number, answer) for number, (_, answer) in enumerate(asked)]
        if all(kept):
            self._streams = before  # no stream was begun: one checkpoint more or less leaves no trace
        return [None if one is None else state for one, (state, _) in zip(kept, asked, strict=True)]

    def state(self) -> dict[str, Any]:
        """What `restore` needs besides the simulators' own states."""
        return {"lives": [slot.life for slot in self._slots], "streams": self._streams}

    def restore(
        self,
        state: Mapping[str, Any] | None,
        checkpoint: str | None,
        saved: Collection[int],
        steps: int,
        new_lives: bool,
    ) -> None:
        """As `Players.restore`, with fresh simulators; those in ``saved`` take over what ``checkpoint`` says.

        A simulator whose environments do not come back begins new episodes, with a warning.
        """
        self.close()
        if state is None:
            state = {"lives": [0] * self._count, "streams": 0}
        self._streams = state["streams"]
        lives = dict(enumerate(state["lives"]))
        loading = []
        for number in range(self._count):
            if number in saved:
                actor = self._actor(self._make_setup(number, lives[number], 0))  # which stream it is, it will be told
                self._slots.append(_Slot(actor, lives[number]))
                loading.append((number, actor.load_from.remote(checkpoint, steps)))
            else:
                life = lives[number] + new_lives if number in lives else 0
                self._slots.append(_Slot(self._create(number, life), life))
        for number, answer in loading:
            complaint = self._answer(number, answer)
            if complaint is not None:
                log.warning("%s", complaint)
                self._slots[number].actor.begin_stream.remote(self._next_stream())

    def go_on(self) -> None:
        """As `Players.go_on`; every simulator begins a stream."""
        for slot in self._slots:
            if slot.rollout is not None:
                slot.rollout.withdrawn = True
            slot.actor.begin_stream.remote(self._next_stream())

    def close(self) -> None:
        """End all simulators at once."""
        for slot in self._slots:
            rlray.kill(slot.actor)
        self._slots = []

    @property
    def playing(self) -> bool:
        """Whether there are simulators."""
        return bool(self._slots)

    def _next_stream(self) -> int:
        self._streams += 1
        return self._streams - 1

    def _create(self, number: int, life: int) -> Any:
        actor = self._actor(self._make_setup(number, life, self._next_stream()))
        actor.start.remote()  # all of them start beside each other; what fails here fails again in the first rollout
        return actor

    def _actor(self, setup: SimulatorSetup) -> Any:
        return rlray.remote(Simulator).options(num_cpus=setup.num_cpus).remote(setup)

    def _answer(self, number: int, ref: ObjectRef) -> Any:
        """What simulator ``number`` has answered; None if it died or its environment raised, and it is replaced."""
        try:
            return rlray.get(ref)
        except RayActorError as error:
            self._replace(number, error)
        except RayTaskError as error:
            who = self._make_setup(number, 0, 0).who
            ours = translated(error, SimulatorFailed, who)
            if not isinstance(ours, EnvironmentFailed):
                raise ours from error
            ours.__cause__ = error
            self._failures[number].survived(ours, f"life {self._slots[number].life + 1} of {who} begins")
            self._next_life(number)
        return None

    def _replace(self, number: int, error: RayActorError) -> None:
        slot = self._slots[number]
        slot.deaths_in_row += 1
        setup = self._make_setup(number, slot.life, 0)
        if slot.deaths_in_row >= MAX_DEATHS:
            raise SimulatorFailed(
                f"{setup.who} (environment {setup.env.id!r}, seed {setup.env_seed}) died {slot.deaths_in_row} "
                f"times in a row without delivering a fragment; the last time: {error}. What its processes printed is "
                "in the log folder of the run"
            ) from error
        log.warning("%s died (%s); its fragment is lost, life %d begins", setup.who, error, slot.life + 1)
        self._next_life(number)

    def _next_life(self, number: int) -> None:
        slot = self._slots[number]
        slot.life += 1
        rlray.kill(slot.actor)
        slot.actor = self._create(number, slot.life)
