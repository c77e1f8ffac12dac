"""Cases of soak.py that look for memory that does not come back: tasks, functions, actors, errors by the million."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from growth import Growth

import rlray
from rlray.exceptions import RayTaskError
from rlray.util.placement_group import placement_group, remove_placement_group
from rlray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

SAMPLES = 40
WINDOW = 5_000


@rlray.remote
def double(number: int) -> int:
    return 2 * number


@rlray.remote
def pair(number: int) -> list[int]:
    return [number, number]


class Clumsy(Exception):
    """Plain pickle cannot rebuild it."""

    def __init__(self, left: int, right: int) -> None:
        super().__init__(f"{left} and {right}")
        self.lock = threading.Lock()


@rlray.remote
def fail(number: int) -> Any:
    if number % 3 == 0:
        raise ValueError(f"number {number}")
    if number % 3 == 1:
        raise Clumsy(number, number)
    return threading.Lock()


@rlray.remote
def count_to(number: int) -> Iterator[int]:
    yield from range(number)


@rlray.remote
class Counter:
    def __init__(self) -> None:
        self.calls = 0

    def add(self, number: int) -> int:
        self.calls += 1
        return self.calls + number


def _in_steps(count: int, steps: int, growth: Growth, work: Callable[[range], None]) -> None:
    """Do ``count`` pieces of work, with a sample after each of so many steps."""
    edges = [count * i // steps for i in range(steps + 1)]
    for start, stop in pairwise(edges):
        work(range(start, stop))
        growth.sample(stop)


def tasks(scale: float) -> dict[str, Any]:
    """Small tasks by the million, one by one in windows and through map: no process grows with their number."""
    rlray.init(num_cpus=2)
    growth, wrong, singles = Growth("tasks", 1_000_000), 0, 0

    def work(numbers: range) -> None:
        nonlocal wrong, singles
        for start in range(numbers.start, numbers.stop, WINDOW):
            window = range(start, min(start + WINDOW, numbers.stop))
            function, expected = (pair, [[n, n] for n in window]) if start % 10 else (double, [2 * n for n in window])
            wrong += rlray.get([function.remote(n) for n in window]) != expected
            singles += len(window)
        wrong += sum(double.map(numbers).results()) != 2 * sum(numbers)

    count = round(5_000_000 * scale)
    _in_steps(count, SAMPLES, growth, work)
    return {"tasks, one by one": singles, "tasks, through map": count, "wrong": wrong, **growth.counts()}


def functions(scale: float) -> dict[str, Any]:
    """A new function for every call, each with something of its own captured: nobody keeps them."""
    rlray.init(num_cpus=2)
    growth, wrong = Growth("functions", 100_000), 0

    def work(numbers: range) -> None:
        nonlocal wrong
        for start in range(numbers.start, numbers.stop, 100):
            window = range(start, min(start + 100, numbers.stop))
            box = rlray.put([start])
            wrong += rlray.get([_adder(n, box).remote() for n in window]) != [n + start for n in window]

    count = round(100_000 * scale)
    _in_steps(count, SAMPLES, growth, work)
    return {"functions": count, "wrong": wrong, **growth.counts()}


def _adder(number: int, box: rlray.ObjectRef) -> Any:
    return rlray.remote(lambda: number + rlray.get(box)[0])


def actors(scale: float) -> dict[str, Any]:
    """Actors made, called and dropped, one in ten with a name, one in ten killed: nothing of them stays."""
    rlray.init(num_cpus=2)
    growth, wrong = Growth("actors", 10_000), 0

    def work(numbers: range) -> None:
        nonlocal wrong
        for number in numbers:
            actor = Counter.options(name=f"actor {number % 3}").remote() if number % 10 == 0 else Counter.remote()
            wrong += rlray.get([actor.add.remote(number), actor.add.remote(number)]) != [1 + number, 2 + number]
            if number % 10 == 1:
                rlray.kill(actor)

    count = round(10_000 * scale)
    _in_steps(count, SAMPLES, growth, work)
    return {"actors": count, "wrong": wrong, **growth.counts()}


def groups(scale: float) -> dict[str, Any]:
    """Placement groups made and removed, each with a task in it, also by an actor that lives on: nothing stays."""
    rlray.init(num_cpus=2)
    maker = GroupMaker.remote()
    growth, wrong = Growth("groups", 10_000), 0

    def work(numbers: range) -> None:
        nonlocal wrong
        for number in numbers:
            if number % 2:
                wrong += rlray.get(maker.work.remote(number)) != 2 * number
            else:
                wrong += _in_a_group(number) != 2 * number

    count = round(10_000 * scale)
    _in_steps(count, SAMPLES, growth, work)
    return {"groups": count, "wrong": wrong, **growth.counts()}


def _in_a_group(number: int) -> int:
    group = placement_group([{"CPU": 1}], name=f"group {number}" if number % 3 == 0 else "")
    strategy = PlacementGroupSchedulingStrategy(group)
    result = rlray.get(double.options(scheduling_strategy=strategy).remote(number))
    remove_placement_group(group)
    return int(result)


@rlray.remote
class GroupMaker:
    def work(self, number: int) -> int:
        return _in_a_group(number)


def generators(scale: float) -> dict[str, Any]:
    """Generators of ten values, one in ten of them left after the second: nothing of them stays."""
    rlray.init(num_cpus=2)
    growth, wrong, values = Growth("generators", 100_000), 0, 0

    def work(numbers: range) -> None:
        nonlocal wrong, values
        for number in numbers:
            generator = count_to.remote(10)
            read = 2 if number % 10 == 0 else 10
            wrong += rlray.get([next(generator) for _ in range(read)]) != list(range(read))
            values += read

    count = round(30_000 * scale)
    _in_steps(count, SAMPLES, growth, work)
    return {"generators": count, "values": values, "wrong": wrong, **growth.counts()}


def errors(scale: float) -> dict[str, Any]:
    """Tasks that fail: exceptions, some that cannot travel as they are, and results that cannot: none piles up."""
    rlray.init(num_cpus=2)
    growth, wrong = Growth("errors", 100_000), 0
    kinds = (ValueError, Clumsy, TypeError)

    def work(numbers: range) -> None:
        nonlocal wrong
        for start in range(numbers.start, numbers.stop, 100):
            refs = [fail.remote(n) for n in range(start, min(start + 100, numbers.stop))]
            for number, ref in enumerate(refs, start):
                wrong += not isinstance(_error(ref), kinds[number % 3])
        outcomes = fail.map(numbers).results(return_exceptions=True)
        wrong += sum(not isinstance(one, kinds[n % 3]) for n, one in zip(numbers, outcomes, strict=True))

    count = round(50_000 * scale)
    _in_steps(count, SAMPLES, growth, work)
    return {"errors": 2 * count, "wrong": wrong, **growth.counts()}


def _error(ref: rlray.ObjectRef) -> Exception | None:
    try:
        rlray.get(ref)
    except RayTaskError as error:
        return error
    return None


def threads(scale: float) -> dict[str, Any]:
    """Threads of the driver that come, work with the runtime, and go: nothing of them stays."""
    rlray.init(num_cpus=2)
    growth, results = Growth("threads", 10_000), list[bool]()
    counter = Counter.remote()

    def one(number: int) -> None:
        results.append(rlray.get(double.remote(number)) == 2 * number and rlray.get(counter.add.remote(0)) > 0)

    def work(numbers: range) -> None:
        for start in range(numbers.start, numbers.stop, 4):
            some = [threading.Thread(target=one, args=(n,)) for n in range(start, min(start + 4, numbers.stop))]
            for thread in some:
                thread.start()
            for thread in some:
                thread.join()

    count = round(10_000 * scale)
    _in_steps(count, SAMPLES, growth, work)
    return {"threads": count, "wrong": count - sum(results), **growth.counts()}


CASES: dict[str, Callable[[float], dict[str, Any]]] = {
    "tasks": tasks,
    "functions": functions,
    "actors": actors,
    "groups": groups,
    "generators": generators,
    "errors": errors,
    "threads": threads,
}
