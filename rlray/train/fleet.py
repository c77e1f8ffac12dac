"""The simulators of a run, seen from the driver: their rollouts under way, and new ones for those that die."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import rlray
from rlray import ObjectRef
from rlray.exceptions import RayActorError, RayTaskError
from rlray.train import seats
from rlray.train.env_failures import EnvFailures
from rlray.train.failures import EnvironmentFailed, NoRoom, SimulatorFailed, translated
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
    dies `MAX_DEATHS` times in a row is an error instead. On a cluster one that finds no room is `absent` until it
    does: nobody waits for it, a warning says so, and it plays as soon as a node with room joins.

    Args:
        steps: agent steps of a fragment, for each simulator.
        failures: one for each simulator, which those of a group share.

    Raises, in `look_around`: NoRoom where all have been absent for long.
    """

    shared = None

    def __init__(self, make_setup: MakeSetup, steps: Sequence[int], failures: Sequence[EnvFailures]) -> None:
        self._make_setup = make_setup
        self._count = len(failures)
        self._steps, self._failures = steps, failures
        self._asked = 0
        self._streams = 0  # numbers given so far
        self._slots: list[_Slot] = []
        self._elastic = seats.elastic()
        self._seekers = seats.Seekers()
        self._played_at = time.monotonic()  # when there was last somebody to play

    def __len__(self) -> int:
        return self._count

    def steps_of(self, number: int) -> int:
        """Agent steps of a fragment of simulator ``number``."""
        return self._steps[number]

    def begin(self) -> None:
        """Create the simulators."""
        self._played_at = time.monotonic()
        self._slots = [_Slot(self._create(number, 0)) for number in range(self._count)]

    def idle(self) -> list[int]:
        """Numbers of the simulators without a rollout under way: the one that was asked longest ago comes first."""
        idle = [number for number, slot in enumerate(self._slots) if slot.rollout is None]
        if self._seekers:
            idle = [number for number in idle if number not in self._seekers]
        return sorted(idle, key=lambda number: self._slots[number].asked)

    def absent(self) -> Collection[int]:
        """Numbers of the simulators that have found no room yet."""
        return tuple(self._seekers)

    @property
    def gathering(self) -> bool:
        """Whether a round should wait for somebody who may soon have found room, or would be of nobody."""
        return self._seekers.hopeful or len(self._seekers) == len(self) > 0

    def seeking(self) -> Iterator[ObjectRef]:
        """References that are ready when one that is absent has found room."""
        return self._seekers.refs()

    def look_around(self, ready: Set[ObjectRef]) -> None:
        """Count in those that have found room, and say who has looked for it for long.

        Raises: NoRoom where that are all of them, and very long.
        """
        for number, ref in self._seekers.answers(ready):
            who = self._make_setup(number, 0, 0).who
            try:
                node = rlray.get(ref)
            except RayActorError as error:  # often with a node that was gone already, which nobody knew
                log.warning("%s died before it had begun (%s); it looks for room anew", who, error)
                self._next_life(number)
                continue
            if self._seekers.found(number):
                log.info("%s has found room, on node %s, and plays", who, node)
        if late := self._seekers.late():
            there = len(self) - len(self._seekers)
            goes_on = (
                f"The run goes on with {there} of {len(self)}; the others play" if there else "The run waits: they play"
            )
            log.warning("%s. %s as soon as a node with room joins", self._lacking(late), goes_on)
        if len(self._seekers) < len(self):
            self._played_at = time.monotonic()
        elif time.monotonic() - self._played_at > seats.PATIENCE_SECONDS:
            raise NoRoom(
                f"for {seats.PATIENCE_SECONDS:g} s nobody has played: {self._lacking(self._seekers)}; add a node, or "
                "lower simulators.num_cpus"
            )

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

        None for one that died or failed, and has been replaced, or that is absent.
        """
        before = self._streams
        asked = {
            number: slot.actor.snapshot.remote(steps, self._next_stream())
            for number, slot in enumerate(self._slots)
            if number not in self._seekers
        }
        kept = {number: self._answer(number, answer) for number, (_, answer) in asked.items()}
        if all(kept.values()):
            self._streams = before  # no stream was begun: one checkpoint more or less leaves no trace
        return [None if kept.get(number) is None else asked[number][0] for number in range(self._count)]

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

        A simulator whose environments do not come back begins new episodes, with a warning; so does one that does not
        soon find room.
        """
        self.close()
        self._played_at = time.monotonic()
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
        self._gather()
        for number in [number for number, _ in loading if number in self._seekers]:
            self._next_life(number)
        for number, answer in loading:
            if number in self._seekers:
                continue
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
        self._seekers.clear()

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
        actor = rlray.remote(Simulator).options(num_cpus=setup.num_cpus).remote(setup)
        if self._elastic:
            self._seekers.add(setup.number, actor.where.remote())
        return actor

    def _gather(self) -> None:
        """Wait until everybody has found room, or has looked for it for long."""
        while self._seekers.hopeful:
            refs = list(self._seekers.refs())
            self.look_around(set(rlray.wait(refs, timeout=seats.POLL_SECONDS, fetch_local=False)[0]))

    def _lacking(self, numbers: Collection[int]) -> str:
        """Who has found no room, and what there is."""
        setups = [self._make_setup(number, 0, 0) for number in numbers]
        who = Counter((setup.group or "", seats.asks(setup.num_cpus)) for setup in setups)
        each = ", ".join(
            f"{count} simulator(s){f' of {name}' if name else ''} with {cpus} each"
            for (name, cpus), count in who.items()
        )
        return f"no room for {each}: {seats.room()}"

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
