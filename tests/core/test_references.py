"""Reference counts of several processes against an oracle that sees everything, messages arriving in any order."""

from __future__ import annotations

import random
from collections import deque
from concurrent.futures import Future
from typing import Any

import pytest

from rlray.core.local.references import Numbers, Payload, References
from rlray.core.local.wire import Message
from rlray.core.refs import ObjectRef

NODE = 0


class World:
    """Processes that exchange messages over links; each link keeps its order, different links do not."""

    def __init__(self, count: int) -> None:
        self.links: dict[tuple[int, int], deque[Message]] = {}
        self.freed: list[Payload] = []
        self.alive = set(range(1, count + 1))
        self.processes = {me: self._process(me) for me in self.alive}
        self.held: dict[int, list[ObjectRef]] = {me: [] for me in self.alive}
        self.travelling: dict[bytes, int] = {}
        self.unsettled: dict[int, set[int]] = {}  # at the node: who has not acted on a death

    def _process(self, me: int) -> References:
        def no_future(ref: ObjectRef) -> Future[Any]:
            raise AssertionError("not used here")

        return References(
            me, lambda to, message: self.post(me, to, message), self.freed.append, lambda: None, no_future
        )

    def post(self, sender: int, to: int, message: Message) -> None:
        if to == NODE or to in self.alive:
            self.links.setdefault((sender, to), deque()).append(message)

    def send(self, sender: int, ref: ObjectRef, to: int) -> None:
        """Send a reference inside some message."""
        ids = self.processes[sender].grant([ref], to)
        self.post(sender, to, ("carry", ids))
        self.travelling[ref.binary()] = self.travelling.get(ref.binary(), 0) + 1

    def deliver(self, rng: random.Random) -> bool:
        """Deliver one message of a random link."""
        busy = sorted(link for link, queue in self.links.items() if queue)
        if not busy:
            return False
        self._deliver(rng.choice(busy))
        return True

    def _deliver(self, link: tuple[int, int]) -> None:
        sender, to = link
        message = self.links[link].popleft()
        if to == NODE:
            self._settle(message[1], sender)
            return
        references = self.processes[to]
        match message:
            case ("carry", ids):
                self.held[to] += references.receive(ids, sender)
                self.travelling[ids[0]] -= 1
            case ("credit", *booked):
                references.credit(*booked)
            case ("gone", dead):
                self._deliver_all((dead, to))  # what it had written still arrives
                references.peer_gone(dead)
                references.stand_in(dead)
                self.post(to, NODE, ("settled", dead))
            case ("settled", dead):
                for other in sorted(self.alive):
                    self._deliver_all((other, to))
                references.settled(dead)
        references.sweep()

    def _deliver_all(self, link: tuple[int, int]) -> None:
        while self.links.get(link):
            self._deliver(link)

    def kill(self, victim: int) -> None:
        """What the victim has written still arrives; then everybody hears of its death, one after the other."""
        self.alive.discard(victim)
        self.held[victim].clear()
        for link in [link for link in self.links if link[1] == victim]:
            for message in self.links.pop(link):
                if message[0] == "carry":
                    self.travelling[message[1][0]] -= 1
        self.unsettled[victim] = set(self.alive)
        for me in self.alive:
            self.post(NODE, me, ("gone", victim))
        for other in list(self.unsettled):
            self._settle(other, victim)

    def _settle(self, dead: int, process: int) -> None:
        waiting_for = self.unsettled.get(dead, set())
        waiting_for.discard(process)
        if not waiting_for and self.unsettled.pop(dead, None) is not None:
            for me in self.alive:
                self.post(NODE, me, ("settled", dead))

    def reachable(self) -> set[bytes]:
        """What must not be freed: held somewhere, or on its way."""
        held = {ref.binary() for me in self.alive for ref in self.held[me]}
        return held | {object_id for object_id, count in self.travelling.items() if count}

    def check(self, freed: set[bytes], expect_all: set[bytes] | None = None) -> None:
        for references in (self.processes[me] for me in self.alive):
            references.sweep()
        freed |= {payload[1] for payload in self.freed}
        owned_by_living = {one for one in self.reachable() if int.from_bytes(one[:4], "big") in self.alive}
        assert not freed & owned_by_living, "freed although somebody holds it"
        if expect_all is not None:
            assert freed >= expect_all - owned_by_living, "kept although nobody holds it"


def test_the_numbers_of_the_dead_take_a_bit_each() -> None:
    rng = random.Random(0)
    dead, expected = Numbers(), set[int]()
    for _ in range(2_000):
        number = rng.choice([rng.randrange(100), rng.randrange(20_000)])
        assert (number in dead) == (number in expected)
        dead.add(number)
        expected.add(number)
    assert all((number in dead) == (number in expected) for number in range(30_000))
    assert len(dead._bits) <= 20_000 / 8


def test_what_a_process_sends_to_itself_is_freed_as_well() -> None:
    world = World(1)
    references = world.processes[1]
    ref = references.own_put()
    references.resolve(ref.entry, ("stored", ref.binary(), 0, ()))
    again = references.receive(references.grant([ref], 1), 1)
    del ref, again
    references.sweep()
    assert not references.entries
    assert len(world.freed) == 1


def test_nothing_is_booked_for_the_dead() -> None:
    """Somebody asked for a value, died, and is answered when the value comes at last."""
    world = World(3)
    owner = world.processes[1]
    ref = owner.own_put()
    owner.resolve(ref.entry, ("stored", ref.binary(), 0, ()))
    world.kill(3)
    while world.deliver(random.Random(0)):
        pass
    owner.grant([ref], 3)
    owner.credit(ref.binary(), 2, -1, 3)  # this one had given it back before
    del ref
    owner.sweep()
    assert len(world.freed) == 1


def test_references_that_two_threads_drop_at_once_are_noticed() -> None:
    woken: list[int] = []

    class Interrupted(deque[Any]):
        """While one thread takes note of a drop, another one does."""

        def append(self, entry: Any) -> None:
            super().append(entry)
            others.clear()

    world = World(1)
    references = world.processes[1]
    references.wake = lambda: woken.append(len(references.dropped))
    first, others = references.own_put(), [references.own_put()]
    references.dropped = Interrupted()
    del first
    assert woken, "nobody looks at what was dropped"
    references.sweep()
    references.sweep()
    others.append(references.own_put())
    others.clear()
    assert len(woken) == 2, "a later drop must be told again"


@pytest.mark.parametrize("deaths", [0.0, 0.02])
@pytest.mark.parametrize("seed", range(15))
def test_nothing_is_freed_early_and_nothing_is_kept(seed: int, deaths: float) -> None:
    rng = random.Random(seed)
    world = World(12 if deaths else 5)
    made: set[bytes] = set()
    freed: set[bytes] = set()
    for _ in range(800):
        me = rng.choice(sorted(world.alive))
        choice = rng.random()
        if choice < 0.15:
            ref = world.processes[me].own_put()
            made.add(ref.binary())
            world.processes[me].resolve(ref.entry, ("stored", ref.binary(), 0, ()))
            world.held[me].append(ref)
            del ref
        elif choice < 0.45 and world.held[me] and len(world.alive) > 1:
            to = rng.choice(sorted(world.alive - {me}))
            world.send(me, rng.choice(world.held[me]), to)
        elif choice < 0.65 and world.held[me]:
            world.held[me].pop(rng.randrange(len(world.held[me])))
        elif 0.65 <= choice < 0.65 + deaths and len(world.alive) > 2:
            if world.held[me] and rng.random() < 0.5:  # in the middle of sending: the credits are booked already
                refs = rng.sample(world.held[me], min(len(world.held[me]), 3))
                world.processes[me].grant(refs, rng.choice(sorted(world.alive - {me})))
                del refs
            world.kill(me)
        else:
            world.deliver(rng)
        world.check(freed)
    while world.deliver(rng):
        world.check(freed)
    living = {one for one in made if int.from_bytes(one[:4], "big") in world.alive}
    world.check(freed, expect_all=living)
    for me in world.alive:
        world.held[me].clear()
        world.processes[me].sweep()
    while world.deliver(rng):
        pass
    world.check(freed, expect_all=living)
    assert all(not world.processes[me].entries for me in world.alive), "a table still has entries"
