"""The work of core_scaling.py: tasks per second against their number, against workers, and from inside a worker."""

from __future__ import annotations

import os
import time
from typing import Any

from case import Cases, Run, seconds

cases = Cases()

AT_ONCE = 1_000_000  # more tasks than this are submitted in windows of this many, each got before the next


@cases.add("tasks", "/s")
def tasks(run: Run, count: int) -> list[float]:
    """``count`` tasks submitted, then all their results got."""
    nothing = _nothing(run)

    def once() -> None:
        for begin in range(0, count, AT_ONCE):
            run.ray.get([nothing.remote() for _ in range(begin, min(count, begin + AT_ONCE))])

    return _repeated(run, once, count)


@cases.add("map", "/s", only_rlray="Ray has no map that gives a reference per item")
def mapped(run: Run, count: int) -> list[float]:
    """A map over ``count`` numbers, and all its results."""
    same = run.ray.remote(lambda value: value)
    return _repeated(run, lambda: sum(1 for _ in same.map(range(count)).results()), count)


@cases.add("workers", "/s", init=None)
def workers(run: Run, count: int) -> list[float]:
    """Batches of 1,000 tasks on ``count`` workers that are all up."""
    run.ray.init(num_cpus=count)
    nothing = _nothing(run)

    @run.ray.remote
    def who(pause: float) -> int:
        time.sleep(pause)
        return os.getpid()

    seen: set[int] = set()
    deadline = time.monotonic() + 120
    while len(seen) < count and time.monotonic() < deadline:
        seen |= set(run.ray.get([who.remote(0.5) for _ in range(count)]))
    run.notes["workers"] = len(seen)
    return run.rate(lambda: run.ray.get([nothing.remote() for _ in range(1000)]), 1000)


@cases.add("nested", "/s")
def nested(run: Run, submitters: int) -> list[float]:
    """Batches of 1,000 tasks from inside so many workers at once, all together; 0: from the driver."""
    ray, nothing, window = run.ray, _nothing(run), run.window

    @ray.remote(num_cpus=0)
    def submit(begin: float) -> tuple[int, float, float]:
        """How many tasks from when to when; clocks of one machine agree."""
        ray.get(nothing.remote())
        time.sleep(max(0.0, begin - time.monotonic()))
        start, count = time.monotonic(), 0
        while time.monotonic() - start < window:
            ray.get([nothing.remote() for _ in range(1000)])
            count += 1000
        return count, start, time.monotonic()

    if not submitters:
        return run.rate(lambda: ray.get([nothing.remote() for _ in range(1000)]), 1000)
    samples = []
    for _ in range(run.windows + 1):  # the first one is a warm-up
        begin = time.monotonic() + 0.5
        counts, starts, ends = zip(*ray.get([submit.remote(begin) for _ in range(submitters)]), strict=True)
        samples.append(sum(counts) / (max(ends) - min(starts)))
    return samples[1:]


def _nothing(run: Run) -> Any:
    @run.ray.remote
    def nothing() -> bytes:
        return b"ok"

    return nothing


def _repeated(run: Run, once: Any, count: int) -> list[float]:
    """``count`` per second: for a second, at least once, after a warm-up that has the workers running."""
    run.ray.get([_nothing(run).remote() for _ in range(1000)])
    samples: list[float] = []
    while not samples or sum(count / rate for rate in samples) < run.window:
        samples.append(count / seconds(once))
    return samples
