"""The memory of several processes without sockets: values, extents, spilling, deaths, messages in any order.

Each process has the real `Values` over one real store; only the messages between them are played by the test, in any
order that real sockets allow. A value is an array full of its number: whoever reads another number reads memory that
was freed too early.
"""

from __future__ import annotations

import os
import random
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rlray.core.exceptions import ObjectStoreFullError, OwnerDiedError
from rlray.core.local import allocation, memory
from rlray.core.local.complaint import kept
from rlray.core.local.memory import Memory
from rlray.core.local.references import References
from rlray.core.local.spill import forget_all
from rlray.core.local.store import Arena, create_file
from rlray.core.local.values import Values
from rlray.core.local.wire import Message
from rlray.core.refs import ObjectRef
from rlray.core.serialization import dumps_error

NODE = 0
SIZE = 120_000  # bytes of the smallest value: more than travels inside messages


class StillLoop:
    """What `Values` needs of the loop; waiting lets other messages arrive."""

    def __init__(self, deliver: Callable[[], bool]) -> None:
        self.lock = threading.RLock()
        self._deliver = deliver

    def attend(self) -> None:
        """Everything is looked at after each step anyway."""

    def call_later(self, seconds: float, action: Callable[[], None]) -> None:
        """Nothing cools down in these tests unless memory is short."""

    def run_until(self, done: Callable[[], bool], timeout: float | None = None) -> bool:
        while not done():
            if not self._deliver():
                return False
        return True


class Process:
    """One process: what `Client` does with the messages about values, and what its user holds."""

    def __init__(self, world: World, me: int) -> None:
        self.world, self.me = world, me
        loop: Any = StillLoop(lambda: world.deliver(spare=me))
        self.references = References(me, self.post, self._free, lambda: None, self._no_future)
        self.values = Values(world.settings, self.references, self._ask, self.post, loop)
        write = self.values._spiller._write
        self.values._spiller._write = lambda *what: self._disturbed(write, *what)  # type: ignore[method-assign]
        self.held: dict[bytes, ObjectRef] = {}
        self.views: list[tuple[int, Any]] = []  # number and array

    def post(self, to: int, message: Message) -> None:
        if self.me not in self.world.alive:
            return
        if to != NODE and to not in self.world.alive:
            self.references.peer_gone(to)  # as `Client.post` does
            return
        self.world.links.setdefault((self.me, to), deque()).append(message)

    def _disturbed(self, write: Any, object_id: bytes, payload: Any) -> Any:
        """While a value is written to disk, the program goes on: it may read it, drop it or send it."""
        file = write(object_id, payload)
        ref, rng = self.held.get(object_id), self.world.rng
        if ref is not None and rng.random() < 0.4:
            action = rng.randrange(3)
            if action == 0:
                self.views.append((self.world.number_of[object_id], self.world.read(self, ref)))
            elif action == 1:
                self.world.send(self, ref, self.world.processes[rng.choice(sorted(self.world.alive - {self.me}))])
            elif action == 2:
                del self.held[object_id], ref
                self.settle_down()
        return file

    def _no_future(self, ref: ObjectRef) -> Any:
        raise AssertionError("not used here")

    def _free(self, payload: Any) -> None:
        self.values.free(payload)

    def _ask(self, kind: str, *arguments: Any) -> Any:
        self.world.deliver_all((self.me, NODE))  # what was written before the question arrives before it
        return getattr(self.world.memory, kind)(self.me, *arguments)

    def handle(self, sender: int, message: Message) -> None:
        references = self.references
        match message:
            case ("carry", ids):
                self.held.update({ref.binary(): ref for ref in references.receive(ids, sender)})
            case ("credit", *booked):
                references.credit(*booked)
            case ("fetch", object_id):
                ref = references.adopt(object_id)
                references.when_all_ready([ref], lambda: self.post(sender, ("value", object_id, ref.entry.payload)))
            case ("value" | "done", object_id, payload):
                if object_id in references.entries:
                    references.resolve(references.entries[object_id], payload)
            case ("free", extents):
                self.values.extents.returned(sender, extents)
            case ("short",):
                self.values.extents.give_up()
            case ("room",):
                self.values.extents.room()
            case ("spill", needed):
                moved = self.values._spiller.make_room(needed)
                self.post(NODE, ("spilled", moved, self.values.kept()))
            case ("gone", dead):
                self.world.deliver_all((dead, self.me))
                references.peer_gone(dead)
                references.stand_in(dead)
                self.values.peer_gone(dead)
            case ("settled", dead):
                for other in sorted(self.world.alive):
                    self.world.deliver_all((other, self.me))
                references.settled(dead)
        self.settle_down()

    def settle_down(self) -> None:
        self.references.sweep()
        self.values.extents.sweep()


class World:
    """Processes, the node's memory, and links that keep their own order but no other."""

    def __init__(self, count: int, capacity: int, directory: Path, rng: random.Random) -> None:
        self.rng, self.directory = rng, directory
        self.links: dict[tuple[int, int], deque[Message]] = {}
        self.alive = set(range(1, count + 1))
        self.settings: Any = SimpleNamespace(
            store_fd=create_file(capacity), store_capacity=capacity, spill_directory=str(directory)
        )
        self.memory = Memory(
            capacity,
            lambda: sorted(self.alive),
            self._from_node,
            str,
            self._settled,
            Arena(self.settings.store_fd, capacity).give_back,
        )
        self.processes = {me: Process(self, me) for me in sorted(self.alive)}
        self.number_of: dict[bytes, int] = {}
        self._busy: set[int] = set()

    def _settled(self, dead: int) -> None:
        forget_all(str(self.directory), dead)
        for me in self.alive:
            self._from_node(me, ("settled", dead))

    def _from_node(self, to: int, message: Message) -> None:
        self.links.setdefault((NODE, to), deque()).append(message)

    def deliver(self, spare: int = -1) -> bool:
        """One message of a random link."""
        ready = [link for link, queue in self.links.items() if queue and (link[1] == NODE or link[1] in self.alive)]
        if not ready:
            return False
        self._deliver(self.rng.choice(sorted(ready)))
        return True

    def deliver_all(self, link: tuple[int, int]) -> None:
        """Everything that was written on one link."""
        while self.links.get(link):
            self._deliver(link)

    def _deliver(self, link: tuple[int, int]) -> None:
        sender, to = link
        message = self.links[link].popleft()
        if to != NODE:
            self.processes[to].handle(sender, message)
        else:
            getattr(self.memory, message[0])(sender, *message[1:])
        self.memory.extents.validate()

    def kill(self, victim: int) -> None:
        process = self.processes.pop(victim)
        self.alive.discard(victim)
        self.deliver_all((victim, NODE))
        for me in self.alive:
            self._from_node(me, ("gone", victim))
        self.memory.died(victim)
        process.held.clear()
        process.views.clear()
        for link in [link for link in self.links if link[1] == victim]:
            del self.links[link]

    # -- what programs do ----------------------------------------------------------------------------------------

    def put(self, process: Process, number: int, made: bool) -> None:
        array = self._array(process, number, made)
        ref = process.values.put(array)
        self.number_of[ref.binary()] = number
        process.held[ref.binary()] = ref
        if made and self.rng.random() < 0.5:
            process.views.append((number, array))
            if self.rng.random() < 0.5:
                again = process.values.put([array])
                self.number_of[again.binary()] = number
                process.held[again.binary()] = again

    def result(self, owner: Process, worker: Process, number: int, made: bool) -> None:
        """A task of ``owner`` whose result ``worker`` makes."""
        ref = owner.references.own(owner.references.new_task_id() + b"\0\0")
        self.number_of[ref.binary()] = number
        owner.held[ref.binary()] = ref
        try:
            array = self._array(worker, number, made)
            payload, _ = worker.values.place(array)
        except ObjectStoreFullError as full:
            owner.references.resolve(ref.entry, ("error", dumps_error(full)))
            raise
        worker.values.lend(payload, owner.me)
        worker.post(owner.me, ("done", ref.binary(), payload))
        if made and self.rng.random() < 0.5:
            worker.views.append((number, array))

    def _array(self, process: Process, number: int, made: bool) -> np.ndarray[Any, Any]:
        size = SIZE * self.rng.choice([1, 1, 2, 5])
        array = process.values.empty(size, np.uint8, "C") if made else np.empty(size, np.uint8)
        array[:] = number % 251
        return array

    def send(self, sender: Process, ref: ObjectRef, to: Process) -> None:
        sender.post(to.me, ("carry", sender.references.grant([ref], to.me)))

    def read(self, process: Process, ref: ObjectRef) -> Any:
        """The array if the value is there; else it is asked for."""
        if not process.references.when_ready(process.references.entry(ref), lambda: None):
            return None
        try:
            value = process.values.load(ref)
        except (OwnerDiedError, ObjectStoreFullError):
            return None
        return value[0] if isinstance(value, list) else value

    def check(self) -> None:
        """Every view in every process shows its number, and so does every value that is there."""
        for process in self.processes.values():
            for number, array in process.views:
                assert array[0] == array[-1] == number % 251, "memory under a view was used again"
            for object_id, ref in process.held.items():
                entry = process.references.entries[object_id]
                if entry.payload is not None and entry.payload[0] in ("stored", "spilled"):
                    array = self.read(process, ref)
                    assert array[0] == array[-1] == self.number_of[object_id] % 251, "a value was overwritten"


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocation, "_PATIENCE", 0.0)
    monkeypatch.setattr(allocation.gc, "collect", lambda: 0)  # nothing hangs in cycles here, and it takes its time


@pytest.mark.parametrize("seed", range(24))
def test_no_value_is_overwritten_and_no_memory_is_lost(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    world = World(4, rng.choice([2_000_000, 4_000_000, 40_000_000]), tmp_path / "disk", rng)
    full = 0
    for number in range(250):
        action = rng.choices(
            ["put", "result", "send", "read", "unview", "drop", "deliver", "kill"], [4, 5, 4, 3, 4, 6, 12, 0.15]
        )[0]
        process = world.processes[rng.choice(sorted(world.alive))]
        ref = process.held[rng.choice(sorted(process.held))] if process.held else None
        try:
            if action == "put":
                world.put(process, number, made=rng.random() < 0.4)
            elif action == "result":
                worker = world.processes[rng.choice(sorted(world.alive))]
                world.result(process, worker, number, made=rng.random() < 0.4)
            elif action == "send" and ref is not None:
                world.send(process, ref, world.processes[rng.choice(sorted(world.alive - {process.me}))])
            elif action == "read" and ref is not None and (array := world.read(process, ref)) is not None:
                process.views.append((world.number_of[ref.binary()], array))
                del array
            elif action == "unview" and process.views:
                process.views.pop(rng.randrange(len(process.views)))
            elif action == "drop" and ref is not None:
                del process.held[ref.binary()]
            elif action == "kill" and len(world.alive) > 2:
                world.kill(process.me)
            elif action == "deliver":
                for _ in range(rng.randrange(12)):
                    world.deliver()
        except ObjectStoreFullError:
            full += 1
        del ref
        process.settle_down()
        world.check()
    _everything_comes_back(world)
    assert full < 120


def _everything_comes_back(world: World) -> None:
    for _ in range(5):
        for process in world.processes.values():  # references that were on the way have arrived meanwhile
            process.held.clear()
            process.views.clear()
            process.settle_down()
        while world.deliver():
            pass
    for process in world.processes.values():
        assert not process.references.entries
        process.values.extents.give_up()
        assert not process.values.extents._extents
    while world.deliver():
        pass
    assert world.memory.extents.used == 0, "memory was lost"
    assert not world.directory.exists() or not list(world.directory.iterdir()), "files were lost"
    os.close(world.settings.store_fd)


NOTHING = kept([], (0, 0), "")


class Asked:
    """A node's memory of one megabyte and three clients, and what is sent to them."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, Message]] = []
        self.memory = Memory(
            1_000_000,
            lambda: [1, 2, 3],
            lambda to, message: self.sent.append((to, message)),
            str,
            lambda dead: None,
            lambda offset, size: None,
        )

    def news(self) -> list[tuple[int, str]]:
        """(client, kind of message) sent since the last time, requests for unused extents left out."""
        news, self.sent = [(to, message[0]) for to, message in self.sent if message[0] != "short"], []
        return news


def test_one_client_after_the_other_is_asked_to_spill() -> None:
    node = Asked()
    [extent, _] = node.memory.alloc(2, 900_000)
    assert len(node.memory.alloc(1, 500_000)) == 1
    assert node.news() == [(2, "spill")]
    node.memory.alloc(1, 500_000)
    assert node.news() == [], "one at a time"
    node.memory.spilled(2, 0, kept([(900_000, "put at x.py:1", [(2, "arrays")])], (2, 0), ""))
    assert node.news() == [(3, "spill")]
    node.memory.spilled(3, 0, NOTHING)
    assert node.news() == []
    assert node.memory.alloc(1, 500_000) == (0,)
    assert "Largest holders: 2: 0.9 MB in arrays" in node.memory.why_full(1, 500_000, NOTHING)
    node.memory.free(2, [extent])
    assert (1, "room") in node.news()
    assert len(node.memory.alloc(1, 500_000)) == 2


def test_a_client_that_does_not_answer_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Asked()
    node.memory.alloc(2, 900_000)
    node.memory.alloc(1, 500_000)
    assert node.news() == [(2, "spill")]
    monkeypatch.setattr(memory, "_STUCK", -1.0)
    node.memory.alloc(1, 500_000)
    assert node.news() == [(3, "spill")]
    node.memory.died(3)
    node.memory.alloc(1, 500_000)
    assert node.news() == [(2, "spill")], "from the beginning"
