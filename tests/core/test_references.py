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


class World:
    """Processes that exchange messages over links; each link keeps its order, different links do not."""

    def __init__(self, count: int) -> None:
        self.links: dict[tuple[int, int], deque[Message]] = {}
        self.freed: list[Payload] = []
        self.alive = set(range(1, count + 1))
        self.processes = {me: self._process(me) for me in self.alive}
        self.held: dict[int, list[ObjectRef]] = {me: [] for me in self.alive}
        self.travelling: dict[bytes, int] = {}

    def _process(self, me: int) -> References:
        def post(to: int, message: Message) -> None:
            self.links.setdefault((me, to), deque()).append(message)

        def no_future(ref: ObjectRef) -> Future[Any]:
            raise AssertionError("not used here")

        return References(me, post, self.freed.append, lambda: None, no_future)

    def send(self, sender: int, ref: ObjectRef, to: int) -> None:
        """Send a reference inside some message."""
        ids = self.processes[sender].grant([ref], to)
        self.links.setdefault((sender, to), deque()).append(("carry", ids))
        self.travelling[ref.binary()] = self.travelling.get(ref.binary(), 0) + 1

    def deliver(self, rng: random.Random) -> bool:
        """Deliver one message of a random link."""
        busy = [link for link, queue in self.links.items() if queue and link[1] in self.alive]
        if not busy:
            return False
        sender, to = rng.choice(busy)
        message = self.links[sender, to].popleft()
        references = self.processes[to]
        if message[0] == "carry":
            refs = references.receive(message[1])
            self.held[to] += refs
            self.travelling[message[1][0]] -= 1
        elif message[0] == "credit":
            references.credit(*message[1:])
        references.sweep()
        return True

    def kill(self, victim: int) -> None:
        """What the victim has written still arrives; then everybody hears of its death."""
        self.alive.discard(victim)
        self.held[victim].clear()
        for (sender, to), queue in self.links.items():
            while sender == victim and to in self.alive and queue:
                message = queue.popleft()
                if message[0] == "carry":
                    self.held[to] += self.processes[to].receive(message[1])
                    self.travelling[message[1][0]] -= 1
                elif message[0] == "credit":
                    self.processes[to].credit(*message[1:])
            if to == victim:
                for message in queue:
                    if message[0] == "carry":
                        self.travelling[message[1][0]] -= 1
                queue.clear()
        for me in self.alive:
            self.processes[me].peer_gone(victim)

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
    again = references.receive(references.grant([ref], 1))
    del ref, again
    references.sweep()
    assert not references.entries
    assert len(world.freed) == 1


@pytest.mark.parametrize("deaths", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_nothing_is_freed_early_and_nothing_is_kept(seed: int, deaths: bool) -> None:
    rng = random.Random(seed)
    world = World(5)
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
        elif deaths and choice < 0.655 and len(world.alive) > 2:
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
