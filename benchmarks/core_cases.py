"""The work that core.py runs on rlray and on Ray: one function per row of its table, the same for both."""

from __future__ import annotations

import importlib
import os
import time
from collections import deque
from typing import Any

import memory
from case import Cases, Goal, Run, seconds

cases = Cases()

ROLLOUT = (450, 1000)  # float64: 3.6 MB
MEGABYTE = 1_000_000


# Tasks


@cases.add("init + first task", "s", Goal(20, "Ray"), init=None, processes=3)
def first_task(run: Run) -> list[float]:
    """From the call of init to the first result, in a fresh process. The import is beside it: rlray's comes in init."""

    def both() -> None:
        run.ray.init()
        run.ray.get(_nothing(run).remote())

    spent = seconds(both)
    run.notes["with the import, s"] = run.import_seconds + spent
    return [spent]


@cases.add("tasks sync", "/s", Goal(10, "Ray"))
def tasks_sync(run: Run) -> list[float]:
    nothing = _nothing(run)
    return run.rate(lambda: run.ray.get(nothing.remote()))


@cases.add("tasks async", "/s", Goal(50, "Ray"))
def tasks_async(run: Run) -> list[float]:
    nothing = _nothing(run)
    return run.rate(lambda: run.ray.get([nothing.remote() for _ in range(1000)]), 1000)


@cases.add("map over 10 M items", "/s", Goal(2_000_000), only_rlray="Ray has no map that gives a reference per item")
def map_items(run: Run) -> list[float]:
    count = run.size(10_000_000, 20_000)

    @run.ray.remote
    def same(value: int) -> int:
        return value

    def once(number: int = count) -> None:
        last = deque(same.map(range(number)).results(), maxlen=1)
        assert list(last) == [number - 1]

    once(count // 100)
    return run.passes(once, count)


@cases.add("wait on 1,000 refs", "batches/s", Goal(30, "Ray"))
def wait_refs(run: Run) -> list[float]:
    """A batch: 1,000 tasks, then 1,000 times the first of those that are left."""
    nothing = _nothing(run)

    def once() -> None:
        left = [nothing.remote() for _ in range(1000)]
        while left:
            _, left = run.ray.wait(left)

    return run.rate(once)


@cases.add("1 M tasks queued: memory", "GB", Goal(1.5), only_rlray="at 2,000 tasks/s it would take Ray ten minutes")
def queued_tasks(run: Run) -> list[float]:
    """Peak of the proportional set sizes of all processes, references and results included."""
    nothing, count = _nothing(run), run.size(1_000_000, 5_000)

    def once() -> None:
        assert len(run.ray.get([nothing.remote() for _ in range(count)])) == count

    with memory.peak_of_family() as peaks:
        run.notes["seconds"] = seconds(once)
    run.notes["sum of resident set sizes, GB"] = peaks["Rss"] / 1e9
    return [peaks["Pss"] / 1e9]


def _nothing(run: Run) -> Any:
    @run.ray.remote
    def nothing() -> bytes:
        return b"ok"

    return nothing


# Actors


@cases.add("actor calls sync", "/s", Goal(5, "Ray"))
def actor_sync(run: Run) -> list[float]:
    return _calls_sync(run, _actor_class(run).remote())


@cases.add("actor calls async", "/s", Goal(20, "Ray"))
def actor_async(run: Run) -> list[float]:
    return _calls_async(run, _actor_class(run).remote())


@cases.add("n:n actor calls async", "/s", Goal(10, "Ray"))
def actors_many_to_many(run: Run) -> list[float]:
    """Four tasks, 5,000 calls each, to one actor for every second CPU."""
    ray, callers, calls = run.ray, 4, run.size(5000, 100)
    actors = [_actor_class(run).remote() for _ in range(max(1, (os.cpu_count() or 1) // 2))]

    @ray.remote
    def work(actors: list[Any]) -> None:
        ray.get([actors[i % len(actors)].value.remote() for i in range(calls)])

    return run.rate(lambda: ray.get([work.remote(actors) for _ in range(callers)]), callers * calls)


@cases.add("async actor calls sync", "/s", Goal(5, "Ray"))
def async_actor_sync(run: Run) -> list[float]:
    return _calls_sync(run, _async_actor_class(run).remote())


@cases.add("async actor calls async", "/s", Goal(20, "Ray"))
def async_actor_async(run: Run) -> list[float]:
    return _calls_async(run, _async_actor_class(run).remote())


def _actor_class(run: Run) -> Any:
    @run.ray.remote(num_cpus=0)
    class Actor:
        def value(self) -> bytes:
            return b"ok"

    return Actor


def _async_actor_class(run: Run) -> Any:
    @run.ray.remote(num_cpus=0)
    class AsyncActor:
        async def value(self) -> bytes:
            return b"ok"

    return AsyncActor


def _calls_sync(run: Run, actor: Any) -> list[float]:
    return run.rate(lambda: run.ray.get(actor.value.remote()))


def _calls_async(run: Run, actor: Any) -> list[float]:
    return run.rate(lambda: run.ray.get([actor.value.remote() for _ in range(1000)]), 1000)


# Objects


@cases.add("get of an object that holds 10,000 references", "/s", Goal(5, "Ray"))
def get_references(run: Run) -> list[float]:
    ray, count = run.ray, run.size(10_000, 500)

    @ray.remote
    def references() -> list[Any]:
        return [ray.put(1) for _ in range(count)]

    holder = references.remote()
    assert len(ray.get(holder)) == count
    return run.rate(lambda: ray.get(holder))


@cases.add("put of 100 MB", "GB/s", Goal(0.9, "numpy copy"))
def put_large(run: Run) -> list[float]:
    """Put after put, each freed before the next; a numpy copy into warm memory after each."""
    import numpy as np

    source = np.ones(100 * MEGABYTE, np.uint8)
    warm = source.copy()
    puts, copies = [], []
    for _ in range(run.size(60, 3)):
        puts.append(0.1 / seconds(lambda: run.ray.put(source)))
        copies.append(0.1 / seconds(lambda: np.copyto(warm, source)))
    run.notes["numpy copy"] = sorted(copies)[len(copies) // 2]
    run.notes["the first put, GB/s"] = puts[0]
    return puts[1:]


@cases.add("put of small objects", "/s", Goal(50, "Ray"))
def put_small(run: Run) -> list[float]:
    return run.rate(lambda: run.ray.put(0))


@cases.add("get of small objects", "/s", Goal(50, "Ray"))
def get_small(run: Run) -> list[float]:
    ref = run.ray.put(0)
    return run.rate(lambda: run.ray.get(ref))


@cases.add("actor returns 3.6 MB it holds", "/s", Goal(4, "Ray"))
def rollout_held(run: Run) -> list[float]:
    @run.ray.remote(num_cpus=0)
    class Simulator:
        def __init__(self) -> None:
            import numpy as np

            self.rollout = np.ones(ROLLOUT)

        def take(self) -> Any:
            return self.rollout

    simulator = Simulator.remote()
    return run.rate(lambda: run.ray.get(simulator.take.remote()))


@cases.add("actor returns 3.6 MB built in place", "/s", Goal(10, "Ray"), on_ray="actor returns 3.6 MB it holds")
def rollout_in_place(run: Run) -> list[float]:
    """Arrays of rlray.empty, filled before the clock starts, as held ones are; beside it with the filling."""
    ray, count = run.ray, run.size(50, 5)

    @ray.remote(num_cpus=0)
    class Simulator:
        def build(self) -> Any:
            rollout = ray.empty(ROLLOUT, "float64")
            rollout[:] = 1.0
            return rollout

        def prepare(self) -> None:
            self.rollouts = [self.build() for _ in range(count)]

        def take(self) -> Any:
            return self.rollouts.pop()

    simulator = Simulator.remote()
    run.notes["with the filling, /s"] = sorted(run.rate(lambda: ray.get(simulator.build.remote())))[run.windows // 2]
    samples = []
    for _ in range(run.windows):
        ray.get(simulator.prepare.remote())
        samples.append(count / seconds(lambda: [ray.get(simulator.take.remote()) for _ in range(count)]))
    return samples


@cases.add("a 10 MB reference as argument", "/s", Goal(10, "Ray"))
def large_argument(run: Run) -> list[float]:
    import numpy as np

    @run.ray.remote
    def size(array: Any) -> int:
        return int(array.nbytes)

    ref = run.ray.put(np.ones(10 * MEGABYTE, np.uint8))
    assert run.ray.get(size.remote(ref)) == 10 * MEGABYTE
    return run.rate(lambda: run.ray.get(size.remote(ref)))


# The rest


@cases.add("placement group create + remove", "/s", Goal(10, "Ray"), init={"resources": {"custom": 100}})
def placement_groups(run: Run) -> list[float]:
    groups, count = importlib.import_module(f"{run.ray.__name__}.util.placement_group"), run.size(100, 10)

    def once() -> None:
        made = [groups.placement_group(bundles=[{"custom": 0.001}]) for _ in range(count)]
        assert all(group.wait(timeout_seconds=30) for group in made)
        for group in made:
            groups.remove_placement_group(group)

    return run.rate(once, count)


@cases.add("memory per idle worker", "MB", Goal(3, "Ray"), init={"num_cpus": 4})
def idle_workers(run: Run) -> list[float]:
    """Proportional set size of four workers that have run a task each."""
    workers: set[int] = set()

    @run.ray.remote
    def who(pause: float) -> int:
        time.sleep(pause)
        return os.getpid()

    deadline = time.monotonic() + 60
    while len(workers) < 4 and time.monotonic() < deadline:
        workers = set(run.ray.get([who.remote(0.5) for _ in range(4)]))
    time.sleep(run.size(2, 0))
    run.notes["workers"] = len(workers)
    return [memory.rollup(pid)["Pss"] / MEGABYTE for pid in workers]
