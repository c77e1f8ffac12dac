"""Seeded random programs on real processes, checked against the oracle of reference_model.py, and shrunk if one fails.

A program is a list of plain tuples, so that a failing one can be pasted into a test. Any part of one is a program:
what a step names and finds missing, it leaves out.
"""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rlray
from tests.reliability.leftovers import cool, left, left_in_workers
from tests.reliability.reference_model import Holding, needed
from tests.reliability.reference_places import OWNER_DIED, PATIENCE, AsyncHolder, Finding, Holder, Place

Step = tuple[Any, ...]
"""``("do", seat, method, *arguments)``, ``("fetch", seat, slots)``, ``("storm", [do, ...], victim, seconds)``,
``("kill", seat)``, ``("end", seat)``, ``("seat", seat, kind, slots)``, ``("settle",)``. Seat 0 is the driver."""

_SETTLED = 15.0  # seconds
_LOST = (rlray.exceptions.ActorDiedError, rlray.exceptions.ActorUnavailableError)
_WITH_PEER = ("give", "give_value", "give_copy")

KINDS: dict[str, Callable[[Any], Any]] = {
    "plain": lambda box: rlray.remote(Holder).remote(box),
    "threads": lambda box: rlray.remote(Holder).options(max_concurrency=3).remote(box),
    "async": lambda box: rlray.remote(AsyncHolder).remote(box),
    "restarts": lambda box: rlray.remote(Holder).options(max_restarts=-1).remote(box),
}


class Failure(AssertionError):
    """The runtime and the oracle disagree."""


@dataclass
class Seat:
    """An actor of a program."""

    handle: Any
    kind: str
    box: list[Holding]  # what its constructor was given
    process: int = 0
    pid: int = 0


@dataclass
class World:
    """One run of one program. The runtime is up before, and everything must be as before in the end."""

    spilling: bool = False
    seats: dict[int, Seat] = field(default_factory=dict)
    here: Place = field(default_factory=Place)
    dead: set[int] = field(default_factory=set)
    folder: str = field(default_factory=lambda: tempfile.mkdtemp(prefix="rt-"))
    cycles: set[int] = field(default_factory=set)  # seats with garbage in cycles
    counts: Counter[str] = field(default_factory=Counter)

    def run(self, program: Sequence[Step]) -> None:
        """Do the steps, then let everything go. Raises Failure."""
        before = self._used()
        if before:
            raise Failure(f"{before} bytes were taken before the program began")
        try:
            for step in program:
                self.counts["operations"] += 1
                getattr(self, f"_{step[0]}")(*step[1:])
            self._settle()
            self._end_all()
        finally:
            self.here.clear()
            self.seats.clear()
            shutil.rmtree(self.folder, ignore_errors=True)

    # -- steps -------------------------------------------------------------------------------------------------------

    def _do(self, seat: int, method: str, *arguments: Any) -> None:
        begun = self._begin(seat, method, *arguments)
        self._judge(self._result(seat, begun))

    def _begin(self, seat: int, method: str, *arguments: Any) -> Any:
        """Start what a seat is to do; a reference, or the findings if it was the driver."""
        if seat and seat not in self.seats:
            return []
        if method in _WITH_PEER:
            *rest, peer = arguments
            if peer not in self.seats:
                return []
            arguments = (*rest, self.seats[peer].handle)
        elif method == "failing":
            arguments = (*arguments, self.folder)
        elif method == "drop" and arguments[1] == "cycle":
            self.cycles.add(seat)
        self.counts["values"] += method in ("put", "put_made", "call", "stream", "own", "failing")
        if seat == 0:
            return self.here.run(method, *arguments)
        return self.seats[seat].handle.do.remote(method, *arguments)

    def _result(self, seat: int, begun: Any, may_fail: bool = False) -> list[Finding]:
        if isinstance(begun, list):
            return begun
        try:
            return rlray.get(begun, timeout=PATIENCE)  # type: ignore[no-any-return]
        except _LOST as error:
            if may_fail:
                return []
            raise Failure(f"seat {seat} is lost: {error}") from error
        except rlray.exceptions.GetTimeoutError as error:
            raise Failure(f"seat {seat} hangs: {error}") from error
        except Exception as error:
            raise Failure(f"seat {seat} failed: {error}") from error

    def _fetch(self, seat: int, slots: Sequence[int]) -> None:
        """The driver takes references that an actor returns."""
        if seat in self.seats:
            self.here.take(self._result(seat, self._begin(seat, "send", slots)))  # type: ignore[arg-type]

    def _storm(self, steps: Sequence[Step], victim: int, seconds: float) -> None:
        """Many things at once, in the middle of which somebody is killed, if there is such a seat."""
        half = len(steps) // 2
        begun = [(one[1], self._begin(*one[1:])) for one in steps[:half]]
        time.sleep(seconds)
        if victim:
            self._kill(victim, wait=False)
        begun += [(one[1], self._begin(*one[1:])) for one in steps[half:]]
        for seat, one in begun:
            self._judge(self._result(seat, one, may_fail=seat == victim))
        if victim:
            self._after_death(victim)

    def _kill(self, seat: int, wait: bool = True) -> None:
        found = self.seats.get(seat)
        if found is None:
            return
        self.counts["kills"] += 1
        os.kill(found.pid, signal.SIGKILL)
        self.dead.add(found.process)
        if wait:
            self._after_death(seat)

    def _after_death(self, seat: int) -> None:
        found = self.seats.get(seat)
        if found is None:
            return
        self.cycles.discard(seat)
        if found.kind != "restarts":
            del self.seats[seat]
        else:
            self._meet(found)

    def _meet(self, seat: Seat) -> None:
        """Wait until an actor is there, and see which process it is."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with suppress(rlray.exceptions.ActorUnavailableError):
                process, pid = rlray.get(seat.handle.do.remote("where"), timeout=PATIENCE)
                if process not in self.dead:
                    seat.process, seat.pid = process, pid
                    return
        raise Failure("an actor does not come back")

    def _end(self, seat: int) -> None:
        """The last handle of an actor goes."""
        if seat in self.seats:
            self._wait_until_idle()
            self.dead.add(self.seats.pop(seat).process)
            self.cycles.discard(seat)

    def _seat(self, seat: int, kind: str, slots: Sequence[int]) -> None:
        """A new actor, if the seat is free."""
        if seat in self.seats:
            return
        records, refs = self.here._refs(slots)
        box = [(i, record, ref) for i, (record, ref) in enumerate(zip(records, refs, strict=True))]
        self.seats[seat] = Seat(KINDS[kind](box), kind, [Holding("ref", record) for record in records])
        self._meet(self.seats[seat])

    # -- the oracle --------------------------------------------------------------------------------------------------

    def _judge(self, findings: Sequence[Finding]) -> None:
        if findings:
            self._hear_of_deaths()
        for record, text in findings:
            if text != OWNER_DIED or record.owner not in self.dead:
                raise Failure(f"value {record.number}, owned by process {record.owner}: {text}")

    def _hear_of_deaths(self) -> None:
        """Workers that killed themselves have left a word."""
        self.dead |= {int(path.name.split("-")[1]) for path in Path(self.folder).glob("dead-*")}

    def _everywhere(self, method: str) -> dict[int, Any]:
        found = {seat: self._result(seat, self._begin(seat, method)) for seat in self.seats}
        return {0: self.here.run(method), **found}

    def _wait_until_idle(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            answers = self._everywhere("settled")
            for _, findings in answers.values():
                self._judge(findings)
            if not any(count for count, _ in answers.values()):
                return
            time.sleep(0.005)
        raise Failure(f"calls are still under way: {answers}")

    def _settle(self) -> None:
        """When nothing moves any more, the store holds exactly what somebody holds; and everything can be read."""
        self._wait_until_idle()
        self._collect_garbage()
        self._compare("before everything was read")
        for findings in self._everywhere("check").values():
            self._judge(findings)
        self._wait_until_idle()
        self._compare("after everything was read")

    def _collect_garbage(self) -> None:
        if 0 in self.cycles:
            gc.collect()
        for seat in self.cycles & set(self.seats):
            self._result(seat, self._begin(seat, "collect"))
        self.cycles.clear()

    def _compare(self, when: str) -> None:
        self._hear_of_deaths()
        holdings = [one for account in self._everywhere("account").values() for one in account]
        holdings += [one for seat in self.seats.values() if seat.kind == "restarts" for one in seat.box]
        surely, perhaps = needed(holdings, self.dead)
        least, most = 0 if self.spilling else sum(surely.values()), sum(perhaps.values())
        deadline = time.monotonic() + _SETTLED
        while not least <= (used := self._used()) <= most:
            if used < least:
                raise Failure(f"freed early, {when}: {used} bytes are taken, {least} are needed: {surely}")
            if time.monotonic() > deadline:
                raise Failure(f"kept, {when}: {used} bytes are taken, {most} are needed: {perhaps}")
            cool()
            time.sleep(0.02)

    def _used(self) -> int:
        total = rlray.cluster_resources()["object_store_memory"]
        return int(total - rlray.available_resources()["object_store_memory"])

    # -- the end -----------------------------------------------------------------------------------------------------

    def _end_all(self) -> None:
        """Drop everything: no memory is taken, and every table is empty."""
        self._wait_until_idle()
        self._everywhere("clear")
        self._collect_garbage()
        for number in [number for number, seat in self.seats.items() if seat.kind == "restarts" and seat.box]:
            del self.seats[number]  # what it would be constructed from again goes with it
        self._nothing_left("an actor", lambda: [*itertools.chain(*self._lefts())])
        self.seats.clear()
        self._nothing_left("the driver", left)
        self._nothing_left("a pool worker", lambda: left_in_workers(8))
        self._nothing_left("the store", lambda: [f"{used} bytes"] if (used := self._used()) else [])

    def _lefts(self) -> Iterator[list[str]]:
        for number, seat in self.seats.items():
            found = self._result(number, self._begin(number, "tables"))
            yield [f"{seat.kind}: {line}" for line in found]

    def _nothing_left(self, where: str, look: Callable[[], Collection[str]]) -> None:
        deadline = time.monotonic() + _SETTLED
        while found := look():
            if time.monotonic() > deadline:
                raise Failure(f"in the end {where} keeps {found}")
            cool()
            time.sleep(0.02)


def run(program: Sequence[Step], spilling: bool = False) -> Counter[str]:
    """Run a program in the runtime that is up; returns what was done. Raises Failure."""
    world = World(spilling)
    world.run(program)
    return world.counts
