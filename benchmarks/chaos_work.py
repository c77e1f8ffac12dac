"""What the driver of soak_chaos.py has computed while its workers are killed: every result is known beforehand.

A round is a function of a `Bench`: it starts tasks or calls, compares what comes with what must come, and drops it all.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import rlray

PATIENCE = 120.0  # seconds that a result may take before it counts as lost


# -- tasks: each result follows from the arguments, wherever and however often they run ----------------------------


@rlray.remote(max_retries=-1)
def mixed(number: int, seconds: float) -> int:
    """A number from a number; some take long enough to be killed in their midst."""
    if seconds:
        time.sleep(seconds)
    return number * 2_654_435_761 % 1_000_003


@rlray.remote(max_retries=-1)
def ramp(seed: int, size: int) -> np.ndarray[Any, Any]:
    """A large array."""
    return np.random.default_rng(seed).integers(0, 1 << 30, size)


@rlray.remote(max_retries=-1)
def made_ramp(seed: int, size: int) -> np.ndarray[Any, Any]:
    """The same, made where it will lie."""
    array = rlray.empty(size, np.int64)
    array[:] = np.random.default_rng(seed).integers(0, 1 << 30, size)
    return array


@rlray.remote(max_retries=-1)
def total(array: np.ndarray[Any, Any], weight: int) -> int:
    return int(array.sum()) * weight


@rlray.remote(max_retries=-1)
def tree(depth: int, width: int, number: int) -> int:
    """The sum of all nodes of a tree of tasks, each of which waits for its children."""
    if not depth:
        return number
    children = [tree.remote(depth - 1, width, number * width + i) for i in range(width)]
    return number + sum(rlray.get(children))


@rlray.remote(max_retries=-1)
def inner_sums(boxes: list[Any]) -> list[int]:
    """What lies behind references inside a value."""
    return [int(array.sum()) for array in rlray.get(boxes)]


@rlray.remote(max_retries=-1, num_returns="streaming")
def steps(seed: int, count: int, size: int, seconds: float) -> Iterator[Any]:
    """Small values and, every third, an array."""
    for i in range(count):
        if seconds:
            time.sleep(seconds)
        yield np.full(size, seed + i) if i % 3 == 2 else seed + i


@rlray.remote(max_retries=-1)
def cube(number: int) -> int:
    return number**3


@rlray.remote(max_retries=-1)
def block(number: int) -> np.ndarray[Any, Any]:
    return np.full(30_000, number)


class Books:
    """An actor whose answers follow from the arguments of its constructor and of the call: any life gives the same."""

    def __init__(self, factor: int, array: np.ndarray[Any, Any]) -> None:
        self.factor, self.array = factor, array
        self.calls = 0

    def times(self, number: int) -> int:
        self.calls += 1
        return self.factor * number

    def slow(self, number: int, seconds: float) -> int:
        time.sleep(seconds)
        return self.factor + number

    def cut(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        return self.array[start:stop] * self.factor

    def below(self, number: int) -> int:
        """A call that has a task of its own done."""
        return self.factor + rlray.get(cube.remote(number))

    def count(self, stop: int) -> Iterator[int]:
        yield from range(self.factor, self.factor + stop)


class AsyncBooks(Books):
    async def later(self, number: int, seconds: float) -> int:
        await asyncio.sleep(seconds)
        return self.factor - number


# -- rounds --------------------------------------------------------------------------------------------------------


class Bench:
    """What one thread of the driver works with: its random numbers, and where it counts."""

    def __init__(self, seed: str, counts: Counter[str], lock: threading.Lock, problems: list[str]) -> None:
        self.rng = random.Random(seed)
        self._counts, self._lock, self._problems = counts, lock, problems

    def count(self, **more: int) -> None:
        with self._lock:
            self._counts.update(more)

    def same(self, what: str, got: Any, expected: Any) -> None:
        """Compare one result."""
        equal = np.array_equal(got, expected) if isinstance(expected, np.ndarray) else got == expected
        if isinstance(expected, np.ndarray):
            self.count(bytes=expected.nbytes)
        if not equal:
            self.problem("wrong", f"{what}: got {got!r} instead of {expected!r}")

    def problem(self, kind: str, text: str) -> None:
        with self._lock:
            self._counts[kind] += 1
            self._problems.append(text)
        print(kind, text[:2000], flush=True)

    def work(self, rounds: Callable[[Bench], None], stop: threading.Event) -> None:
        """Do rounds until told to stop. A result that does not come is lost; any other error is unexpected."""
        while not stop.is_set():
            try:
                rounds(self)
            except rlray.exceptions.GetTimeoutError as late:
                self.problem("lost", f"{rounds.__name__}: {late}")
            except Exception as error:
                self.problem("unexpected", f"{rounds.__name__}: {type(error).__name__}: {error}")


def small_tasks(bench: Bench) -> None:
    rng = bench.rng
    slow = rng.choice([0.0, 0.01, 0.2])
    numbers = [rng.randrange(1_000_000) for _ in range(rng.choice([1, 50, 1_000]))]
    refs = [mixed.remote(number, slow if rng.random() < 0.02 else 0.0) for number in numbers]
    if rng.random() < 0.5:
        got = rlray.get(refs, timeout=PATIENCE)
    else:
        got, left = [None] * len(refs), {ref: i for i, ref in enumerate(refs)}
        while left:
            done, _ = rlray.wait(list(left), num_returns=min(len(left), 20), timeout=PATIENCE)
            if not done:
                raise rlray.exceptions.GetTimeoutError(f"{len(left)} of {len(refs)} never became ready")
            for ref in done:
                got[left.pop(ref)] = rlray.get(ref)
    bench.same("mixed", got, [number * 2_654_435_761 % 1_000_003 for number in numbers])
    bench.count(tasks=len(refs))


def arrays(bench: Bench) -> None:
    rng = bench.rng
    works = [(rng.randrange(1 << 20), rng.choice([1_000, 20_000, 200_000])) for _ in range(rng.randrange(1, 8))]
    refs = [rng.choice([ramp, made_ramp]).remote(*work) for work in works]
    sums = [total.remote(ref, 3) for ref in refs]
    inside = inner_sums.remote(refs)
    expected = [np.random.default_rng(seed).integers(0, 1 << 30, size) for seed, size in works]
    bench.same("total", rlray.get(sums, timeout=PATIENCE), [int(array.sum()) * 3 for array in expected])
    bench.same("inner_sums", rlray.get(inside, timeout=PATIENCE), [int(array.sum()) for array in expected])
    for got, array in zip(rlray.get(refs, timeout=PATIENCE), expected, strict=True):
        bench.same("ramp", got, array)
    own = rlray.put(expected[0])
    bench.same("put", rlray.get(total.remote(own, 1), timeout=PATIENCE), int(expected[0].sum()))
    bench.count(tasks=2 * len(refs) + 2)


def nested(bench: Bench) -> None:
    rng = bench.rng
    depth, width = rng.choice([(1, 10), (2, 3), (3, 2)])
    starts = [rng.randrange(100) for _ in range(3)]

    def expected(number: int, left: int) -> int:
        return number + sum(expected(number * width + i, left - 1) for i in range(width)) if left else number

    got = rlray.get([tree.remote(depth, width, start) for start in starts], timeout=PATIENCE)
    bench.same("tree", got, [expected(start, depth) for start in starts])
    bench.count(tasks=3 * sum(width**level for level in range(depth + 1)))


def streams(bench: Bench) -> None:
    """A few generators side by side, each read from its beginning to its end."""
    rng = bench.rng
    works = [
        (rng.randrange(1000), rng.randrange(1, 60), rng.choice([10, 30_000]), rng.choice([0, 0.005, 0.02]))
        for _ in range(3)
    ]
    ahead = rng.choice([-1, 2])
    sources = [steps.options(_generator_backpressure_num_objects=ahead).remote(*work) for work in works]
    for source, (seed, count, size, _) in zip(sources, works, strict=True):
        for i in range(count):
            expected = np.full(size, seed + i) if i % 3 == 2 else seed + i
            bench.same("steps", rlray.get(next(source), timeout=PATIENCE), expected)
        if next(source, None) is not None:
            bench.problem("wrong", f"steps gave more than {count} values")
        bench.count(tasks=1, values=count)


def maps(bench: Bench) -> None:
    rng = bench.rng
    count = rng.choice([10, 1_000, 50_000])
    seen = 0
    for seen, got in enumerate(cube.map(range(count)).results(), 1):
        if got != (seen - 1) ** 3:
            bench.problem("wrong", f"cube.map: got {got} for {seen - 1}")
    bench.same("items of a map", seen, count)
    blocks = list(block.map(range(20)).results())
    bench.same("blocks of a map", np.stack(blocks), np.repeat(np.arange(20), 30_000).reshape(20, -1))
    bench.count(items=count + 20)


def awaited(bench: Bench) -> None:
    numbers = [bench.rng.randrange(1000) for _ in range(30)]

    async def gather() -> list[int]:
        return await asyncio.wait_for(asyncio.gather(*map(cube.remote, numbers)), PATIENCE)

    bench.same("awaited", asyncio.run(gather()), [number**3 for number in numbers])
    bench.count(tasks=len(numbers))


def actors(bench: Bench) -> None:
    """A few actors of each kind, from their making to their end."""
    rng = bench.rng
    array = np.arange(rng.choice([100, 50_000]))
    lives = {"max_restarts": -1, "max_task_retries": -1}
    kinds = [(Books, {}), (Books, {"max_concurrency": 3}), (AsyncBooks, {})]
    calls = 0
    for cls, options in rng.sample(kinds, 2):
        factor = rng.randrange(2, 50)
        actor = rlray.remote(**lives, **options)(cls).remote(factor, rlray.put(array))
        for _ in range(rng.randrange(1, 6)):
            number = rng.randrange(1000)
            expect: list[tuple[Any, Any]] = [(actor.times.remote(number + i), factor * (number + i)) for i in range(30)]
            expect += [(actor.slow.remote(number, 0.02), factor + number), (actor.below.remote(9), factor + 729)]
            expect += [(actor.cut.remote(i, i + 40_000), array[i : i + 40_000] * factor) for i in range(3)]
            if cls is AsyncBooks:
                expect += [(actor.later.remote(number, 0.02), factor - number) for _ in range(20)]
            got = rlray.get([ref for ref, _ in expect], timeout=PATIENCE)
            for value, (_, expected) in zip(got, expect, strict=True):
                bench.same(cls.__name__, value, expected)
            stream = actor.count.options(num_returns="streaming").remote(20)
            bench.same("count", [rlray.get(ref, timeout=PATIENCE) for ref in stream], list(range(factor, factor + 20)))
            calls += len(expect) + 1
    bench.count(calls=calls, actors=2)


ROUNDS: tuple[Callable[[Bench], None], ...] = (
    small_tasks, arrays, nested, streams, streams, maps, awaited, actors, actors,
)  # fmt: skip
