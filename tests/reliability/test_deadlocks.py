"""Hunting deadlocks: whatever waits for whatever, on however few CPUs, all of it ends, and with the right values.

That calls which wait for each other in a circle are told so stands in ``tests/core/test_deadlocks.py``.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rlray

PATIENCE = 60  # seconds for what must not hang


@pytest.fixture(params=[1, 2], ids=["1 CPU", "2 CPUs"])
def cpus(request: pytest.FixtureRequest) -> Iterator[int]:
    rlray.init(num_cpus=request.param, object_store_memory=64 * 2**20)
    yield request.param
    rlray.shutdown()


@pytest.fixture
def one_cpu() -> Iterator[None]:
    rlray.init(num_cpus=1, object_store_memory=64 * 2**20)
    yield
    rlray.shutdown()


# -- random programs ---------------------------------------------------------------------------------------------------

Plan = tuple[Any, ...]
"""(kind, own number, plans that it needs). What it stands for is a sum, see `value`."""

WAYS = ("get", "one by one", "wait", "future", "asyncio", "thread", "generator", "argument", "actor", "map")


def plan(rng: random.Random, depth: int) -> Plan:
    parts = rng.randint(1, 3) if depth else 0
    return (rng.choice(WAYS), rng.randrange(1000), [plan(rng, depth - 1) for _ in range(parts)])


def value(of: Plan) -> int:
    """What a plan comes to, without any runtime."""
    _, number, parts = of
    return int(number) + sum(map(value, parts))


def size(of: Plan) -> int:
    return 1 + sum(map(size, of[2]))


@rlray.remote
def run(of: Plan) -> int:
    """Run a plan: each of its parts as a task of its own, waited for in the way that it says."""
    return play(of)


@rlray.remote
def add(number: int, *others: int) -> int:
    return number + sum(others)


@rlray.remote(num_returns="streaming", _generator_backpressure_num_objects=1)
def one_after_the_other(parts: list[Plan]) -> Iterator[int]:
    for part in parts:
        yield play(part)


@rlray.remote(num_cpus=1)
class Player:
    """An actor that holds a CPU, except while it waits."""

    def play(self, of: Plan) -> int:
        return play(of)


async def awaited(parts: list[Plan]) -> int:
    return sum(await asyncio.gather(*(run.remote(part) for part in parts)))


def play(of: Plan) -> int:
    way, number, parts = of
    if not parts:
        return int(number)
    if way == "get":
        return number + sum(rlray.get([run.remote(part) for part in parts]))
    if way == "one by one":
        return number + sum(rlray.get(run.remote(part)) for part in parts)
    if way == "wait":
        total, rest = number, [run.remote(part) for part in parts]
        while rest:
            ready, rest = rlray.wait(rest)
            total += sum(rlray.get(ready))
        return int(total)
    if way == "future":
        futures = [run.remote(part).future() for part in parts]
        return number + sum(future.result() for future in concurrent.futures.as_completed(futures))
    if way == "asyncio":
        return number + asyncio.run(awaited(parts))
    if way == "thread":
        found: list[int] = []
        threads = [threading.Thread(target=lambda p=part: found.append(rlray.get(run.remote(p)))) for part in parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return number + sum(found)
    if way == "generator":
        return number + sum(rlray.get(add.remote(0, ref)) for ref in one_after_the_other.remote(parts))
    if way == "argument":
        return int(rlray.get(add.remote(number, *(run.remote(part) for part in parts))))
    if way == "actor":
        player = Player.remote()
        return number + sum(rlray.get([player.play.remote(part) for part in parts]))
    return number + sum(rlray.get(list(run.map(parts))))


@pytest.mark.parametrize("seed", range(4))
def test_random_programs_end(cpus: int, seed: int) -> None:
    """Tasks in tasks, each waiting in a way of its own: far more of them than there are CPUs."""
    rng = random.Random(f"{seed} on {cpus}")
    program = next(one for one in iter(lambda: plan(rng, 4), None) if 15 < size(one) < 40)
    assert rlray.get(run.remote(program), timeout=PATIENCE) == value(program)


def test_a_long_row_of_tasks_in_tasks(one_cpu: None) -> None:
    program: Plan = ("get", 1, [])
    for i in range(30):
        program = (WAYS[i % 3], 1, [program])
    assert rlray.get(run.remote(program), timeout=PATIENCE) == 31


def test_a_thousand_calls_that_wait_for_one(one_cpu: None) -> None:
    """Each waits, in ``get``, for a call that begins after all of them."""

    @rlray.remote(num_cpus=0)
    class Gate:
        def __init__(self) -> None:
            self.opened = asyncio.Event()

        async def open(self) -> None:
            self.opened.set()

        async def passed(self, number: int) -> int:
            await self.opened.wait()
            return number

    @rlray.remote(num_cpus=0, max_concurrency=1000)
    class Crowd:
        def wait(self, gate: Any, number: int) -> int:
            return int(rlray.get(gate.passed.remote(number)))

    @rlray.remote
    def opens(gate: Any) -> None:
        rlray.get(gate.open.remote())

    gate, crowd = Gate.options(max_concurrency=2000).remote(), Crowd.remote()
    waiting = [crowd.wait.remote(gate, number) for number in range(1000)]
    rlray.get(opens.remote(gate), timeout=PATIENCE)
    assert rlray.get(waiting, timeout=PATIENCE) == list(range(1000))


# -- ways to wait without `get` ----------------------------------------------------------------------------------------


def test_a_generator_that_is_ahead_lends_its_cpu(one_cpu: None) -> None:
    @rlray.remote(num_returns="streaming", _generator_backpressure_num_objects=1)
    def numbers() -> Iterator[int]:
        yield from range(5)

    got = [rlray.get(add.remote(1, ref), timeout=PATIENCE) for ref in numbers.remote()]
    assert got == [1, 2, 3, 4, 5]


def test_a_task_that_waits_for_room_lends_its_cpu(one_cpu: None) -> None:
    """What would make room needs a CPU itself. Values that another process reads cannot be moved to disk."""

    @rlray.remote(num_cpus=0)
    class Reader:
        def read(self, *arrays: Any) -> None:
            self.arrays = arrays

        def let_go(self) -> None:
            self.arrays = ()

    @rlray.remote
    def needs_room(size: int, begun: Any) -> int:
        rlray.get(begun.let_go.remote())  # of nothing: tells that it has begun
        return len(rlray.get(rlray.put(np.ones(size, np.uint8))))

    @rlray.remote
    def makes_room(reader: Any) -> None:
        rlray.get(reader.let_go.remote())

    reader, other = Reader.remote(), Reader.remote()
    arrays = [rlray.put(np.zeros(10 * 2**20, np.uint8)) for _ in range(5)]
    rlray.get(reader.read.remote(*arrays), timeout=PATIENCE)
    del arrays
    result = needs_room.remote(30 * 2**20, other)
    rlray.get(other.let_go.remote(), timeout=PATIENCE)
    rlray.get(makes_room.remote(reader), timeout=PATIENCE)
    assert rlray.get(result, timeout=PATIENCE) == 30 * 2**20


def test_an_answer_does_not_wait_for_a_call_that_turns_out_long(one_cpu: None, tmp_path: Path) -> None:
    """Answers of short calls wait for company; what comes next may take far longer than it has so far."""

    @rlray.remote
    def short_but_once(until: Path | None) -> None:
        while until is not None and not until.exists():
            time.sleep(0.01)

    rlray.get([short_but_once.remote(None) for _ in range(500)], timeout=PATIENCE)
    for i in range(5):
        short = [short_but_once.remote(None) for _ in range(50)]
        long = short_but_once.remote(tmp_path / str(i))
        rlray.get(short, timeout=PATIENCE)
        (tmp_path / str(i)).touch()
        rlray.get(long, timeout=PATIENCE)
