"""The work that timeline_cost.py measures, and the process that does it for one side of a comparison.

python timeline_work.py: for each line "NAME SECONDS" of its input, does that work for so long and prints how much it
did in a second, and how much CPU time a piece took.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from processes import children, zygote_of

import rlray


@rlray.remote
def echo(x: int) -> int:
    return x


@rlray.remote
class Echo:
    def call(self, x: int) -> int:
        return x


UNITS = {
    "tasks, 1,000 at a time": "calls/s",
    "methods of an actor, 1,000 at a time": "calls/s",
    "tasks, one at a time": "calls/s",
    "map": "items/s",
}


def cases() -> dict[str, Callable[[], int]]:
    """By name: does some of the work and says how much it was."""
    actor = Echo.remote()

    def tasks() -> int:
        return len(rlray.get([echo.remote(i) for i in range(1_000)]))

    def methods() -> int:
        return len(rlray.get([actor.call.remote(i) for i in range(1_000)]))

    def one_by_one() -> int:
        return sum(rlray.get(echo.remote(1)) for _ in range(50))

    def mapped() -> int:
        return sum(1 for _ in echo.map(range(100_000)).results())

    return dict(zip(UNITS, (tasks, methods, one_by_one, mapped), strict=True))


def window(work: Callable[[], int], seconds: float) -> tuple[float, float]:
    """Work per second, and seconds of CPU time that a piece of it took in all processes of the run."""
    start, before = time.perf_counter(), _cpu_seconds()
    done = work()
    while (passed := time.perf_counter() - start) < seconds:
        done += work()
    return done / passed, (_cpu_seconds() - before) / done


def _cpu_seconds() -> float:
    """Used so far by this process and those of its run that live."""
    nanoseconds = 0
    for pid in [os.getpid(), *(child.pid for child in children(zygote_of(os.getpid())))]:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                nanoseconds += int((thread / "schedstat").read_text().split()[0])
    return nanoseconds / 1e9


def main() -> None:
    """Work as asked until the input ends."""
    rlray.init(num_cpus=2)
    every = cases()
    for line in sys.stdin:
        name, _, seconds = line.strip().rpartition(" ")
        print(*window(every[name], float(seconds)), flush=True)
    rlray.shutdown()


if __name__ == "__main__":
    main()
