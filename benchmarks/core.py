"""The runtime beside Ray: the same work on both in one run, a table with ratios and goals, and its picture.

python benchmarks/core.py [--peer-python PATH | none] [--out docs/results] [--quick] [--only NAME ...]

Every case runs in fresh processes, rlray and Ray by turns, so that both see the same machine. The median of all samples
counts. A case that fails or hangs is reported with its error and stops nothing. Writes core.json, core.md, core.png.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import Any

import core_chart
import report
from case import Case, Goal
from core_cases import cases
from sides import Side, ours, parser, peer, run_case
from turns import begin, by_turns


def compare(case: Case, sides: list[Side], repeat: int, quick: bool, timeout: float) -> dict[str, Any]:
    """One row: both sides by turns."""

    def run(side: Side) -> dict[str, Any]:
        if side.module == "ray" and case.only_rlray:
            return {"left_out": case.only_rlray}
        name = case.on_ray if side.module == "ray" and case.on_ray else case.name
        return run_case(side, "core_cases", name, quick=quick, timeout=timeout)

    before, start = report.load(), time.monotonic()
    repeat *= 1 if quick else case.processes
    row = by_turns({side.name: partial(run, side) for side in sides}, repeat)
    seconds = round(time.monotonic() - start, 1)
    return {"case": case.name, "unit": case.unit, **row, "load": [before, report.load()], "seconds": seconds}


def judge(row: dict[str, Any], case: Case) -> None:
    """Add to a row how it stands to Ray and to the goal: the ratio to the goal's yardstick, and whether it is met."""
    goal, mine, theirs = case.goal, row["rlray"].get("median"), row.get("Ray", {}).get("median")

    def times(value: float, yardstick: float) -> float:
        return yardstick / value if case.smaller_is_better else value / yardstick

    row["times_ray"] = times(mine, theirs) if mine and theirs else None
    if goal is None:
        return
    yardstick = {"": goal.times, "Ray": theirs}.get(goal.of, row["rlray"].get("notes", {}).get(goal.of))
    row["goal"] = goal_text(goal, case)
    row["yardstick"] = goal.of or "the goal"
    row["goal_ratio"] = goal.times if goal.of else 1.0
    row["ratio"] = times(mine, yardstick) if mine and yardstick else None
    row["met"] = row["ratio"] >= row["goal_ratio"] if row["ratio"] is not None else None


def goal_text(goal: Goal, case: Case) -> str:
    if not goal.of:
        return f"{'≤' if case.smaller_is_better else '≥'} {report.figure(goal.times, case.unit)}"
    return f"≤ {goal.of} / {goal.times:g}" if case.smaller_is_better else f"≥ {goal.times:g} × {goal.of}"


def page(data: dict[str, Any]) -> str:
    """The table and what stands beside it, as Markdown."""
    text = report.head(
        "rlray's runtime and Ray",
        data,
        f"Medians of {data['repeat']} × fresh processes per side, by turns; ratio: how many times better than Ray. "
        "Load: the machine's one-minute load average before and after the case, its own work included."
        + ("\n\n**Tiny amounts of work (`--quick`): not a measurement.**" if data["quick"] else ""),
    )
    columns = ["case", "rlray", "Ray", "ratio", "goal", "met", "load"]
    text += report.table(columns, map(line, data["rows"]))
    return text + "\n![ratios and goals](core.png)\n" + beside(data["rows"])


def line(row: dict[str, Any]) -> list[str]:
    ratio = row["times_ray"]
    met = {True: "yes", False: "**no**", None: "–"}[row.get("met")]
    if row["yardstick"] not in ("Ray", "the goal") and row["ratio"] is not None:
        met += f" ({row['ratio']:.2f} × {row['yardstick']})"
    load = " → ".join(f"{one:.1f}" for one, *_ in row["load"])
    ours, theirs = (cell(row.get(side), row["unit"]) for side in ("rlray", "Ray"))
    return [row["case"], ours, theirs, f"{report.figure(ratio)} ×" if ratio else "–", row["goal"], met, load]


def cell(found: dict[str, Any] | None, unit: str) -> str:
    if found is None:
        return "–"
    if "error" in found:
        return "failed (below)"
    return report.figure(found["median"], unit) if "median" in found else "left out (below)"


def beside(rows: list[dict[str, Any]]) -> str:
    """Further figures, failures, and reasons for what was left out."""
    lines = []
    for row in rows:
        for side in ("rlray", "Ray"):
            found = row.get(side, {})
            notes = [f"{name} {report.figure(value)}" for name, value in found.get("notes", {}).items()]
            notes += [f"failed: {report.short(found['error'])}"] if "error" in found else []
            notes += [f"left out: {found['left_out']}"] if "left_out" in found else []
            lines += [f"- {row['case']}, {side}: {'; '.join(notes)}"] if notes else []
    return "\n" + "\n".join(lines) + "\n" if lines else ""


def main() -> int:
    """Run the cases one after the other; what is done so far is always on disk."""
    given, chosen = begin(parser(__doc__), cases, "both sides")
    theirs, why_not = peer(given.peer_python)
    repeat = 1 if given.quick else given.repeat
    data = {**report.surroundings(theirs, why_not, ours()), "quick": given.quick, "repeat": repeat, "rows": []}
    for case in chosen:
        row = compare(case, [ours(), *([theirs] if theirs else [])], repeat, given.quick, given.timeout)
        judge(row, case)
        data["rows"].append(row)
        print("  ".join(line(row)), flush=True)
        report.save(given.out, "core", data, page(data))
    core_chart.draw(data, given.out / "core.png")
    print(beside(data["rows"]))
    return int(any("error" in row["rlray"] for row in data["rows"]))


if __name__ == "__main__":
    sys.exit(main())
