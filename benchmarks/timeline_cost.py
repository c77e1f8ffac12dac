"""What it costs to note every call for the timeline: the same work in windows with and without, by turns, in one run.

python benchmarks/timeline_cost.py [--out docs/results] [--quick]

Recording is turned on and off from outside while the program runs, as ``rlray timeline --seconds`` does it. A pair is
two windows of the same processes, one after the other; the median over all pairs counts.
"""

from __future__ import annotations

import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import report
from sides import ours, parser

import rlray
from rlray.core.local.visit import Visit, find_runs

GOAL = 0.97  # of the throughput without
WINDOW = 0.4  # seconds
PAIRS = 40


@rlray.remote
def echo(x: int) -> int:
    return x


@rlray.remote
class Echo:
    def call(self, x: int) -> int:
        return x


def cases() -> dict[str, tuple[str, Callable[[], int]]]:
    """By name: the unit, and what does some of the work and says how much it was."""
    actor = Echo.remote()

    def tasks() -> int:
        return len(rlray.get([echo.remote(i) for i in range(1_000)]))

    def methods() -> int:
        return len(rlray.get([actor.call.remote(i) for i in range(1_000)]))

    def one_by_one() -> int:
        return sum(rlray.get(echo.remote(1)) for _ in range(50))

    def mapped() -> int:
        return sum(1 for _ in echo.map(range(100_000)).results())

    return {
        "tasks, 1,000 at a time": ("calls/s", tasks),
        "methods of an actor, 1,000 at a time": ("calls/s", methods),
        "tasks, one at a time": ("calls/s", one_by_one),
        "map": ("items/s", mapped),
    }


def window(work: Callable[[], int], seconds: float) -> float:
    """Work per second."""
    done, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds:
        done += work()
    return done / passed


def pair(work: Callable[[], int], visit: Visit, first: bool, seconds: float) -> tuple[float, float]:
    """(without, with): two windows; ``first``: the one with recording comes first."""
    rates = {}
    for recording in (first, not first):
        if recording:
            recorder = threading.Thread(target=visit.record, args=(seconds * 1.2,))
            recorder.start()
            time.sleep(seconds * 0.1)
        rates[recording] = window(work, seconds)
        if recording:
            recorder.join()
            time.sleep(0.05)
    return rates[False], rates[True]


def measure(work: Callable[[], int], visit: Visit, pairs: int, seconds: float) -> dict[str, Any]:
    window(work, seconds)
    found = [pair(work, visit, turn % 2 == 0, seconds) for turn in range(pairs)]
    ratios = sorted(with_it / without for without, with_it in found)
    return {
        "without": statistics.median(one for one, _ in found),
        "with": statistics.median(one for _, one in found),
        "ratio": statistics.median(ratios),
        "quartiles": [ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]],
        "pairs": len(found),
    }


def page(data: dict[str, Any]) -> str:
    text = report.head(
        "What the timeline costs",
        data,
        f"Throughput while every call is noted beside that of the same processes while none below a millisecond is; "
        f"medians of {data['pairs']} pairs of windows of {WINDOW} s. Goal: at least {GOAL} of the throughput.",
    )
    columns = ["work", "without", "with", "ratio", "middle half of the ratios", "goal met"]
    rows = [
        [
            row["case"], report.figure(row["without"], row["unit"]), report.figure(row["with"], row["unit"]),
            f"{row['ratio']:.3f}", f"{row['quartiles'][0]:.3f} to {row['quartiles'][1]:.3f}",
            "yes" if row["ratio"] >= GOAL else "**no**",
        ]
        for row in data["rows"]
    ]  # fmt: skip
    return text + report.table(columns, rows)


def main() -> int:
    """Measure each kind of work; what is done so far is always on disk."""
    given = parser(__doc__).parse_args()
    pairs, seconds = (2, 0.1) if given.quick else (PAIRS, WINDOW)
    data = {**report.surroundings(None, "nothing to compare with", ours()), "pairs": pairs, "rows": []}
    rlray.init(num_cpus=2)
    [run] = [run for run in find_runs() if run.driver_pid == os.getpid()]
    with Visit(run) as visit:
        for name, (unit, work) in cases().items():
            row = {"case": name, "unit": unit, **measure(work, visit, pairs, seconds), "load": report.load()}
            data["rows"].append(row)
            print(f"{name}: {row['ratio']:.3f} {row['quartiles']}", flush=True)
            report.save(given.out, "timeline_cost", data, page(data))
    rlray.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
