"""The whole loop beside others: simulators, DQN and PPO in steps a second, the replay's memory, the learner's idleness.

python benchmarks/rl.py [--peer-python PATH] [--rllib-python PATH] [--out docs/results] [--quick] [--only NAME ...]

Every case runs in fresh processes, rlray and its peers by turns. The median of all samples counts. A peer that is not
installed, fails or hangs is reported with the reason and stops nothing. Writes rl.json and rl.md; with --only the rows
of other cases stay as an earlier run left them. Putting into a replay and drawing from it: replay.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import report
import rl_peers
from case import Case
from core import goal_text
from rl_cases import cases
from sides import Side, ours, parser, run_case
from turns import begin, by_turns

PEERS = {"ale-py": "ale_py", "EnvPool": "envpool", "SB3": "stable_baselines3", "RLlib": "ray.rllib"}
DISTRIBUTIONS = {"ale-py": "ale-py", "EnvPool": "envpool", "SB3": "stable-baselines3", "RLlib": "ray"}


def find(name: str, python: str | None) -> tuple[Side | None, str]:
    """A peer as ``python`` has it, or None and why not."""
    if python in (None, "none"):
        return None, "not asked for"
    code = f"from importlib.metadata import version; import {PEERS[name]}; print(version({DISTRIBUTIONS[name]!r}))"
    try:
        answer = subprocess.run([str(python), "-c", code], capture_output=True, text=True, timeout=180, check=False)
    except (OSError, subprocess.TimeoutExpired) as why:
        return None, f"its Python does not run: {why}"
    if answer.returncode:
        return None, answer.stderr.strip().splitlines()[-1]
    return Side(name, PEERS[name], str(python), answer.stdout.split()[-1]), ""


def compare(case: Case, peers: list[Side], repeat: int, quick: bool, timeout: float) -> dict[str, Any]:
    """One row: rlray and the peers that have this case, by turns."""
    run = partial(run_case, quick=quick, timeout=timeout)
    sides: dict[str, Any] = {"rlray": partial(run, ours(), "rl_cases", case.name)}
    for side in peers:
        theirs = f"{case.name} · {side.name}"
        if theirs in rl_peers.cases:
            sides[side.name] = partial(run, side, "rl_peers", theirs)
    before = report.load()
    found = by_turns(sides, repeat)
    about = {"date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), "commit": report.commit(), "repeat": repeat}
    return {"case": case.name, "unit": case.unit, "sides": found, "load": [before, report.load()], **about}


def judge(row: dict[str, Any], case: Case) -> None:
    """Add the goal to a row, how many times better than each peer rlray is, and whether the goal is met."""
    mine = row["sides"]["rlray"]
    medians = {name: one["median"] for name, one in row["sides"].items() if name != "rlray" and "median" in one}
    if "median" not in mine or case.goal is None:
        return
    goal, value = case.goal, mine["median"]
    row["times"] = {name: value / theirs for name, theirs in medians.items()}
    of = {**mine["notes"], **medians, **({"the best peer": max(medians.values())} if medians else {})}
    row["goal"] = goal_text(goal, case)
    if goal.of in of:
        row["met"] = value / of[goal.of] >= goal.times
    elif not goal.of:
        row["met"] = value <= goal.times if case.smaller_is_better else value >= goal.times


def page(data: dict[str, Any]) -> str:
    """The table and what stands beside it, as Markdown."""
    text = report.head(
        "The whole loop, beside others",
        data,
        "Medians over fresh processes per side, by turns. Load: the machine's one-minute average before and after the "
        "case, its own work included. **The machine was shared**: ratios count, not rates."
        + ("\n\n**Tiny amounts of work (`--quick`): not a measurement.**" if data["quick"] else ""),
    )
    columns = ["case", "rlray", "peers", "times as good", "goal", "met", "load", "when"]
    text += report.table(columns, map(line, data["rows"]))
    return text + beside(data["rows"]) + "\nPutting into a replay, and drawing from it: [replay.md](replay.md).\n"


def line(row: dict[str, Any]) -> list[str]:
    """The cells of a row."""
    unit = row["unit"]

    def cell(found: dict[str, Any]) -> str:
        return report.figure(found["median"], unit) if "median" in found else "failed (below)"

    peers = [f"{name} {cell(one)}" for name, one in row["sides"].items() if name != "rlray"]
    times = [f"{report.figure(ratio)} × {name}" for name, ratio in row.get("times", {}).items()]
    met = {True: "yes", False: "**no**", None: "–"}[row.get("met")]
    load = " → ".join(f"{one:.1f}" for one, *_ in row["load"])
    mine = cell(row["sides"]["rlray"])
    when = f"{row['date'].split(' ')[1]}, {row['commit']}, {row['repeat']} rounds"
    return [row["case"], mine, "; ".join(peers) or "–", "; ".join(times) or "–", row.get("goal", "–"), met, load, when]


def beside(rows: list[dict[str, Any]]) -> str:
    """Further figures, and failures."""
    lines = []
    for row in rows:
        for side, found in row["sides"].items():
            notes = [f"{name} {report.figure(value)}" for name, value in found.get("notes", {}).items()]
            notes += [f"{key}: {report.short(found[key])}" for key in ("error", "left_out") if key in found]
            lines += [f"- {row['case']}, {side}: {'; '.join(notes)}"] if notes else []
    return "\n" + "\n".join(lines) + "\n" if lines else ""


def main() -> int:
    """Run the cases one after the other; what is done so far is always on disk."""
    options = parser(__doc__)
    options.add_argument("--rllib-python", metavar="PATH", help="a Python that has RLlib (default: the peers')")
    given, chosen = begin(options, cases, "all sides")
    pythons = dict.fromkeys(PEERS, given.peer_python) | {"RLlib": given.rllib_python or given.peer_python}
    found = {name: find(name, python) for name, python in pythons.items()}
    data = {**report.surroundings(None, "not compared here", ours()), "quick": given.quick}
    data["versions"] = {name: text for name, text in data["versions"].items() if name != "Ray"}
    data["versions"] |= {name: side.version if side else f"left out: {why}" for name, (side, why) in found.items()}
    peers = [side for side, _ in found.values() if side is not None]
    rows = earlier(given.out / "rl.json") if given.only else {}
    for case in chosen:
        row = compare(case, peers, 1 if given.quick else given.repeat, given.quick, given.timeout)
        judge(row, case)
        rows[case.name] = row
        data["rows"] = [rows[name] for name in cases if name in rows]
        print("  ".join(line(row)), flush=True)
        report.save(given.out, "rl", data, page(data))
    print(beside(data["rows"]))
    return int(any("error" in rows[case.name]["sides"]["rlray"] for case in chosen))


def earlier(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of an earlier run, by case."""
    return {row["case"]: row for row in json.loads(path.read_text())["rows"]} if path.exists() else {}


if __name__ == "__main__":
    sys.exit(main())
