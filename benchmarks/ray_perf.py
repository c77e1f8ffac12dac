"""Ray's own microbenchmark (``ray/_private/ray_perf.py`` of its wheel, unchanged) on rlray and on Ray, in one run.

python benchmarks/ray_perf.py --peer-python PATH [--out docs/results] [--quick] [--only NAME ...]

Ray's file and its timing helper are read where Ray is installed. Its pauses of 10 s before each row are cut to --pause
on both sides, and the rows of Ray's remote client, which rlray has not, are left out on both. A row that fails or hangs
is reported with its error; the rows after it run. Writes ray_perf.json and ray_perf.md.

With --engine ray rlray's side runs on Ray, in the peer's Python, which must have rlray's dependencies: what it costs to
go through rlray. Writes ray_engine.json and ray_engine.md.
"""

from __future__ import annotations

import ast
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import report
from sides import HERE, Child, Side, end_on_sigterm, ours, parser, peer

GOALS = {"local": 5.0, "ray": 0.95}  # times Ray, all rows but those in GB/s on the local engine
ROW = re.compile(r"^(.*) per second ([\d.e+]+) \+- ([\d.e+]+)$")
FAILED = re.compile(r"^failed (.*?): (\w+: .*)$")
POLL = 0.2


def package_of(python: str) -> Path:
    """The folder of the package ``ray`` as that Python has it, found without importing it."""
    find = "import importlib.util; print(importlib.util.find_spec('ray').submodule_search_locations[0])"
    return Path(subprocess.run([python, "-c", find], capture_output=True, text=True, check=True).stdout.strip())


def row_names(package: Path) -> list[str]:
    """The rows in the order of the table: the first arguments of all calls of timeit."""
    tree = ast.parse((package / "_private" / "ray_perf.py").read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "timeit"]
    calls.sort(key=lambda call: call.lineno)
    return [first.value for first in (call.args[0] for call in calls) if isinstance(first, ast.Constant)]


class Table:
    """The rows of one side, from what the benchmark prints."""

    def __init__(self) -> None:
        self.rates: dict[str, float] = {}
        self.errors: dict[str, str] = {}
        self.running: str | None = None
        self.ended = False

    def read(self, line: str) -> None:
        """Take in one line of output."""
        if found := ROW.match(line):
            self.rates[found[1]], self.running = float(found[2]), None
        elif found := FAILED.match(line):
            self.errors[found[1]], self.running = found[2], None
        elif line.startswith("starting "):
            self.running = line.removeprefix("starting ")
        elif line == "ended":
            self.ended = True


def run_side(side: Side, package: Path, given: Any) -> Table:
    """The whole benchmark on one side. After a row that hangs or kills the process, a new one goes on behind it."""
    table = Table()
    while not table.ended:
        done = [*table.rates, *table.errors]
        options = {"quick": given.quick, "pause": given.pause, "only": given.only, "done": done}
        arguments = [str(HERE / "ray_perf_child.py"), side.module, str(package), json.dumps(options)]
        with Child(side.python, *arguments) as child:
            follow(child, table, given.timeout)
            last = (child.output.strip().splitlines() or ["nothing"])[-1]
        if table.running is None and not table.ended:  # between two rows: it would end there again
            table.errors[""] = f"not reached: it stopped between two rows, its last words: {last}"
            break
        if table.running is not None:
            table.errors.setdefault(table.running, f"the process ended there, its last words: {last}")
            table.running = None
    return table


def follow(child: Child, table: Table, timeout: float) -> None:
    """Read what the child prints until it ends, or does nothing for ``timeout`` seconds."""
    seen, moved = 0, time.monotonic()
    while True:
        ended = child.wait(POLL)
        lines = child.output.split("\n")[:-1]
        for line in lines[seen:]:
            table.read(line)
        moved, seen = (time.monotonic(), len(lines)) if len(lines) > seen else (moved, seen)
        if ended:
            return
        if time.monotonic() - moved > timeout:
            if table.running is not None:
                table.errors[table.running] = f"did not end within {timeout:g} s"
            return


def rows_of(names: list[str], tables: dict[str, list[Table]], engine: str) -> list[dict[str, Any]]:
    """A row per name: each side's median over its rounds or its error, the ratio, whether it meets the goal."""
    rows = []
    for name in names:
        row: dict[str, Any] = {"row": name}
        for side, rounds in tables.items():
            rates = [table.rates[name] for table in rounds if name in table.rates]
            errors = [error for table in rounds if (error := table.errors.get(name) or table.errors.get(""))]
            failed = len(rates) < len(rounds) or not rounds
            row[side] = (
                {"error": (errors or ["not reached"])[0]}
                if failed
                else {"median": statistics.median(rates), "rounds": rates}
            )
        mine, theirs = row["rlray"].get("median"), row.get("Ray", {}).get("median")
        row["ratio"] = mine / theirs if mine and theirs else None
        row["exempt"] = "gigabytes" in name and engine == "local"
        row["met"] = None if row["exempt"] or row["ratio"] is None else row["ratio"] >= GOALS[engine]
        rows.append(row)
    return rows


def page(data: dict[str, Any]) -> str:
    """The table, as Markdown."""
    goal, on_ray = GOALS[data["engine"]], data["engine"] == "ray"
    text = report.head(
        "Ray's own microbenchmark" + (" through rlray, on Ray" if on_ray else ""),
        data,
        "Ray's files run unchanged: on Ray, and on rlray in its place"
        f"{' (the Ray engine)' if on_ray else ''}. Cut in the same way on both sides: Ray's pauses "
        f"of 10 s before each row last {data['pause']:g} s, and the rows of Ray's remote client, which rlray has not, "
        "are left out.",
        f"Per second; medians over {data['repeat']} × both sides by turns. The goal is {goal:g} × Ray"
        f"{'' if on_ray else ', rows in GB/s exempt'}. Load averages before and after: {data['load'][0][0]} → "
        f"{data['load'][-1][0]}.",
        *(["**One call per row (`--quick`): not a measurement.**"] if data["quick"] else []),
    )
    return text + report.table(
        ["row", "Ray", "rlray", "ratio", "goal", "met"], [line(row, goal) for row in data["rows"]]
    )


def line(row: dict[str, Any], goal_of_all: float) -> list[str]:
    """A row as the cells of the table."""
    sides = [cell(row.get(side)) for side in ("Ray", "rlray")]
    goal, met = (
        ("–", "exempt")
        if row["exempt"]
        else (f"≥ {goal_of_all:g} ×", {True: "yes", False: "**no**", None: "–"}[row["met"]])
    )
    return [row["row"], *sides, f"{report.figure(row['ratio'])} ×" if row["ratio"] else "–", goal, met]


def cell(found: dict[str, Any] | None) -> str:
    if found is None:
        return "–"
    return f"failed: {report.short(found['error'])}" if "error" in found else report.figure(found["median"])


def main() -> int:
    """Both sides by turns; what is done so far is always on disk."""
    options = parser(__doc__)
    options.add_argument("--ray-package", type=Path, help="folder of the package ray, if not the peer's")
    options.add_argument("--repeat", type=int, default=1, help="rounds of both sides (default 1)")
    options.add_argument("--pause", type=float, default=0.5, help="seconds before each row, Ray's own are 10")
    options.add_argument("--engine", choices=list(GOALS), default="local", help="what rlray runs on (default local)")
    options.add_argument("--timeout", type=float, default=120, help="seconds that a row may take")
    given = options.parse_args()
    end_on_sigterm()
    theirs, why_not = peer(given.peer_python)
    if theirs is None and given.ray_package is None:
        options.error(f"Ray's files are needed: {why_not}")
    package = given.ray_package or package_of(theirs.python)
    mine = ours()
    if given.engine == "ray":
        if theirs is None:
            options.error(f"the Ray engine needs Ray: {why_not}")
        mine = Side(mine.name, "rlray-on-ray", theirs.python, mine.version)
    sides = [mine, *([theirs] if theirs else [])]
    names = [name for name in row_names(package) if not given.only or any(word in name for word in given.only)]
    tables: dict[str, list[Table]] = {side.name: [] for side in sides}
    data = {
        **report.surroundings(theirs, why_not, ours()),
        "quick": given.quick,
        "engine": given.engine,
        "pause": given.pause,
        "repeat": given.repeat,
    }
    data["load"] = [report.load()]
    for turn in range(given.repeat):
        for side in sides if turn % 2 == 0 else reversed(sides):
            tables[side.name].append(run_side(side, package, given))
            data["load"].append(report.load())
            data["rows"] = rows_of(names, tables, given.engine)
            report.save(given.out, {"local": "ray_perf", "ray": "ray_engine"}[given.engine], data, page(data))
    print(page(data))
    return int(any("error" in row["rlray"] for row in data["rows"]))


if __name__ == "__main__":
    sys.exit(main())
