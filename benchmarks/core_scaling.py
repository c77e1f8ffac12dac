"""How the cost of tasks grows: tasks/s against their number, against workers, and from inside workers. With Ray beside.

python benchmarks/core_scaling.py [--peer-python PATH | none] [--out docs/results] [--quick] [--only NAME ...]

Every point is measured in fresh processes, rlray and Ray by turns. A point that fails or hangs is reported with its
error; one that would take longer than --budget seconds at the rate of the point before is left out and says so. Writes
core_scaling.json, core_scaling.md, core_scaling.png.
"""

from __future__ import annotations

import os
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import report
from scaling_cases import cases
from sides import Side, end_on_sigterm, ours, parser, peer, run_case

matplotlib.use("Agg")
from matplotlib import pyplot as plt


@dataclass(frozen=True)
class Sweep:
    """One curve: a case, what its points are called, the argument that changes and its values."""

    case: str
    title: str
    argument: str
    values: tuple[int, ...]
    quick: tuple[int, ...]
    grows: bool = False  # whether the value is the number of tasks, so that the time can be foreseen


POWERS = tuple(10**power for power in range(2, 8))
SWEEPS = (
    Sweep("tasks", "number of tasks, or of items of one map", "count", POWERS, (100, 1000), grows=True),
    Sweep("map", "number of items of one map", "count", POWERS, (100, 1000), grows=True),
    Sweep("workers", "number of workers", "count", (1, 2, 4, 8, 16, 32, 64), (1, 2)),
    Sweep("nested", "number of workers that submit (0: the driver)", "submitters", (0, 1, 2, 4), (0, 1)),
)


def measure(sweep: Sweep, sides: list[Side], given: Any) -> list[dict[str, Any]]:
    """All points of a curve, for every side."""
    points: list[dict[str, Any]] = []
    for turn, value in enumerate(sweep.quick if given.quick else sweep.values):
        for side in sides if turn % 2 == 0 else reversed(sides):
            before = report.load()
            answer = left_out(sweep, side, value, points, given.budget) or run_case(
                side, "scaling_cases", sweep.case, quick=given.quick, timeout=given.timeout, **{sweep.argument: value}
            )
            if "samples" in answer:
                answer["rate"] = statistics.median(answer["samples"])
            point = {"curve": sweep.case, "side": side.name, "at": value, **answer, "load": [before, report.load()]}
            print("  ".join(line(point)), flush=True)
            points.append(point)
    return points


def left_out(sweep: Sweep, side: Side, value: int, points: list[dict[str, Any]], budget: float) -> dict[str, Any]:
    """Why a point is not measured, or nothing."""
    if side.module == "ray" and cases[sweep.case].only_rlray:
        return {"left_out": cases[sweep.case].only_rlray}
    before = [point for point in points if point["side"] == side.name]
    if before and sweep.grows and "rate" not in before[-1]:
        return {"left_out": "there is no figure for fewer"}
    if before and sweep.grows and value / before[-1]["rate"] > budget:
        return {"left_out": f"would take about {value / before[-1]['rate']:,.0f} s"}
    return {}


def line(point: dict[str, Any]) -> list[str]:
    """A point as the cells of a table."""
    result = report.figure(point.get("rate"), "/s")
    result = f"failed: {report.short(point['error'])}" if "error" in point else result
    result = f"left out: {point['left_out']}" if "left_out" in point else result
    if "workers" in point.get("notes", {}):
        result += f" ({point['notes']['workers']:.0f} workers seen)"
    return [point["curve"], f"{point['at']:,}", point["side"], result, f"{point['load'][0][0]}"]


def page(data: dict[str, Any]) -> str:
    """All points, as Markdown."""
    quick = ["**Tiny amounts of work (`--quick`): not a measurement.**"] if data["quick"] else []
    meaning = "; ".join(f"{sweep.case}: against {sweep.title}" for sweep in SWEEPS)
    text = report.head(
        "How the cost of tasks grows", data, f"Tasks a second. {meaning}. Load: before the point.", *quick
    )
    columns = ["curve", "at", "side", "tasks/s", "load"]
    return text + report.table(columns, map(line, data["points"])) + "\n![curves](core_scaling.png)\n"


def draw(data: dict[str, Any], path: Path) -> None:
    """Three pictures: number of tasks (single and mapped), workers, nested submission."""
    figure, axes = plt.subplots(1, 3, figsize=(14, 4.2), sharey=True)
    for axis, curves in zip(axes, (("tasks", "map"), ("workers",), ("nested",)), strict=True):
        for curve in curves:
            for side in ("rlray", "Ray"):
                curve_of(axis, [one for one in data["points"] if one["curve"] == curve and one["side"] == side])
        axis.set(xlabel=next(sweep.title for sweep in SWEEPS if sweep.case == curves[0]), yscale="log")
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[0]:
            axis.legend()
        at = sorted({point["at"] for point in data["points"] if point["curve"] in curves})
        if curves != ("nested",):
            axis.set_xscale("log")
        axis.set_xticks(at, [f"{value:,}" if value < 10_000 else f"{value:.0e}".replace("e+0", "e") for value in at])
        axis.minorticks_off()
    axes[0].set_ylabel("tasks/s")
    axes[0].set_ylim(bottom=100)
    figure.suptitle("tiny amounts of work, not a measurement" if data["quick"] else f"tasks/s · {data['machine']}")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def curve_of(axis: Any, points: list[dict[str, Any]]) -> None:
    measured = [(point["at"], point["rate"]) for point in points if "rate" in point]
    if measured:
        name = points[0]["side"] + (", map" if points[0]["curve"] == "map" else "")
        style = "s--" if points[0]["curve"] == "map" else "o-"
        color = "tab:blue" if points[0]["side"] == "rlray" else "tab:red"
        axis.plot(*zip(*measured, strict=True), style, color=color, label=name)


def main() -> int:
    """Run the sweeps one after the other; what is done so far is always on disk."""
    options = parser(__doc__)
    options.add_argument("--timeout", type=float, default=900, help="seconds that a point may take")
    options.add_argument("--budget", type=float, default=300, help="seconds that a point may be foreseen to take")
    given = options.parse_args()
    chosen = [sweep for sweep in SWEEPS if not given.only or any(word in sweep.case for word in given.only)]
    if not chosen:
        options.error(f"--only {' '.join(given.only)}: no such curve; there are: {', '.join(cases)}")
    end_on_sigterm()
    theirs, why_not = peer(given.peer_python)
    data = {**report.surroundings(theirs, why_not, ours()), "quick": given.quick, "cpus": os.cpu_count(), "points": []}
    for sweep in chosen:
        data["points"] += measure(sweep, [ours(), *([theirs] if theirs else [])], given)
        report.save(given.out, "core_scaling", data, page(data))
    draw(data, given.out / "core_scaling.png")
    return int(any("error" in point and point["side"] == "rlray" for point in data["points"]))


if __name__ == "__main__":
    sys.exit(main())
