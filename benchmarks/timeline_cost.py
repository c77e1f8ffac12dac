"""What it costs to note every call for the timeline: the same work in windows with and without, by turns, in one run.

python benchmarks/timeline_cost.py [--out docs/results] [--quick] [--before FOLDER]

Recording is turned on and off from outside while the program runs, as ``rlray timeline --seconds`` does it. A pair is
two windows of the same processes, one after the other; the median over all pairs counts. With ``--before``, a checkout
of a commit before there was anything to look in with (c7c7406), also what all that costs while nobody looks: windows of
two runs, one of each checkout, by turns. CPU time is told beside throughput, which others on the machine disturb more.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import report
from sides import HERE, ours, parser
from timeline_work import UNITS, cases, window

import rlray
from rlray.core.local.visit import Visit, find_runs

GOAL = 0.97  # of the throughput without
WINDOW = 0.4  # seconds
PAIRS = 40
Windows = Callable[[bool, float], tuple[float, float]]
"""A window of the first kind or the second, of so many seconds: work per second, and CPU seconds for a piece of it."""


def measure(windows: Windows, pairs: int, seconds: float) -> dict[str, Any]:
    """Windows of the first kind (``without``) and of the second (``with``) by turns, neither always the first."""
    rates, costs = list[tuple[float, float]](), list[tuple[float, float]]()
    for second in (False, True):
        windows(second, seconds)
    for turn in range(pairs):
        order = (False, True) if turn % 2 else (True, False)
        found = {second: windows(second, seconds) for second in order}
        rates.append((found[False][0], found[True][0]))
        costs.append((found[False][1], found[True][1]))
    return {
        "without": statistics.median(one for one, _ in rates),
        "with": statistics.median(one for _, one in rates),
        **_ratios("", rates),
        "CPU without": statistics.median(one for one, _ in costs),
        "CPU with": statistics.median(one for _, one in costs),
        **_ratios("CPU ", costs),
        "pairs": pairs,
        "load": report.load(),
    }


def _ratios(of: str, pairs: list[tuple[float, float]]) -> dict[str, Any]:
    """Of the second of each pair to the first: the median, and where the middle half lies."""
    ratios = sorted(second / first for first, second in pairs)
    quarter = len(ratios) // 4
    return {f"{of}ratio": statistics.median(ratios), f"{of}quartiles": [ratios[quarter], ratios[-1 - quarter]]}


def recording(visit: Visit, work: Callable[[], int]) -> Windows:
    """Windows of this run while nothing is recorded, and while all is."""

    def one(recorded: bool, seconds: float) -> tuple[float, float]:
        if not recorded:
            time.sleep(seconds * 0.1)
            return window(work, seconds)
        recorder = threading.Thread(target=visit.record, args=(seconds * 1.2,))
        recorder.start()
        time.sleep(seconds * 0.1)
        found = window(work, seconds)
        recorder.join()
        time.sleep(0.05)
        return found

    return one


@contextmanager
def program(root: Path) -> Iterator[Callable[[str, float], tuple[float, float]]]:
    """A program on the rlray of a checkout: does a window of the named work."""
    command = [sys.executable, str(HERE / "timeline_work.py")]
    path = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=path) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def one(name: str, seconds: float) -> tuple[float, float]:
            print(name, seconds, file=process.stdin, flush=True)
            rate, cost = process.stdout.readline().split()  # type: ignore[union-attr]
            return float(rate), float(cost)

        yield one
        process.stdin.close()


def page(data: dict[str, Any]) -> str:
    text = report.head(
        "What the timeline costs",
        data,
        f"Throughput while every call is noted beside that of the same processes while none below a millisecond is; "
        f"medians of {data['pairs']} pairs of windows of {WINDOW} s. Goal: at least {GOAL} of the throughput.",
    )
    text += _table(data["rows"], "without", "with")
    if "before" in data:
        text += (
            "\n## While nobody looks\n"
            f"Beside commit {data['before']}, the last one without state API, timeline and inspection: two runs whose "
            "windows take turns. Whatever else has changed since then is in it.\n\n"
        ) + _table(data["rows before"], "before", "now")
    return text


def _table(rows: list[dict[str, Any]], first: str, second: str) -> str:
    columns = ["work", first, second, "ratio (middle half)", "CPU time, ratio (middle half)", "goal met"]
    return report.table(columns, [
        [
            row["case"], report.figure(row["without"], row["unit"]), report.figure(row["with"], row["unit"]),
            *(
                f"{row[f'{of}ratio']:.3f} ({row[f'{of}quartiles'][0]:.3f} to {row[f'{of}quartiles'][1]:.3f})"
                for of in ("", "CPU ")
            ),
            "yes" if row["ratio"] >= GOAL else "**no**",
        ]
        for row in rows
    ])  # fmt: skip


def _with_recording(pairs: int, seconds: float) -> Iterator[dict[str, Any]]:
    rlray.init(num_cpus=2)
    [run] = [run for run in find_runs() if run.driver_pid == os.getpid()]
    with Visit(run) as visit:
        for name, work in cases().items():
            yield {"case": name, "unit": UNITS[name], **measure(recording(visit, work), pairs, seconds)}
    rlray.shutdown()


def _with_before(before: Path, pairs: int, seconds: float) -> Iterator[dict[str, Any]]:
    with ExitStack() as stack:
        programs = [stack.enter_context(program(root)) for root in (before, HERE.parent)]
        for name, unit in UNITS.items():

            def one(now: bool, seconds: float, name: str = name) -> tuple[float, float]:
                return programs[now](name, seconds)

            yield {"case": name, "unit": unit, **measure(one, pairs, seconds)}


def main() -> int:
    """Measure each kind of work; what is done so far is always on disk."""
    options = parser(__doc__)
    options.add_argument("--before", type=Path, metavar="FOLDER", help="a checkout of an older commit to compare with")
    given = options.parse_args()
    pairs, seconds = (2, 0.1) if given.quick else (PAIRS, WINDOW)
    data = {**report.surroundings(None, "nothing to compare with", ours()), "pairs": pairs, "rows": []}
    parts = [("rows", _with_recording(pairs, seconds))]
    if given.before:
        data["before"], data["rows before"] = report.commit(given.before), []
        parts.append(("rows before", _with_before(given.before, pairs, seconds)))
    for part, rows in parts:
        for row in rows:
            data[part].append(row)
            print(f"{part}: {row['case']}: {row['ratio']:.3f} {row['quartiles']}", flush=True)
            report.save(given.out, "timeline_cost", data, page(data))
    return 0


if __name__ == "__main__":
    sys.exit(main())
