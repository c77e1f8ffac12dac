"""Long runs that try to lose, leak or hang something: each case in a process of its own, with counts of what it did.

``python benchmarks/soak.py chaos memory …`` runs cases and writes docs/results/reliability.json and .md; what other
cases found earlier stays there.

A module ``soak_*.py`` beside this file has ``CASES``, a dict of names to functions. ``function(scale)`` does ``scale``
times the full amount of work and returns counts by name ({"tasks": 1_000_000, "lost": 0}); its docstring's first line
is what the page says of it. A count whose name starts with a word of `ZERO` must be 0.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import report
from sides import HERE, Child, end_on_sigterm

Counts = dict[str, Any]
WITHIN = 2.0  # seconds
ZERO = ("lost", "wrong", "left", "leaked", "hung", "unexpected")


def all_cases() -> dict[str, Callable[[float], Counts]]:
    """The cases of every ``soak_*.py`` beside this file."""
    found: dict[str, Callable[[float], Counts]] = {}
    for path in sorted(HERE.glob("soak_*.py")):
        found.update(importlib.import_module(path.stem).CASES)
    return found


def in_a_process(name: str, scale: float, timeout: float) -> dict[str, Any]:
    """Run one case in a fresh process: {"counts": …}, or {"error": …}; with what was left 2 s after its end."""
    shared = _shared_memory()
    with Child(sys.executable, str(Path(__file__).resolve()), name, "--here", "--scale", str(scale)) as child:
        begun = time.monotonic()
        ended = child.wait(timeout)
        seconds = time.monotonic() - begun
        if not ended:
            return {"error": f"did not end within {timeout:g} s", "output": child.output[-4000:]}
        result = child.folder / "counts.json"
        if not result.exists():
            words = child.output.strip().splitlines() or ["it printed nothing"]
            return {
                "error": f"exit code {child.process.returncode}: {report.short(words[-1])}",
                "output": child.output[-4000:],
            }
        counts = json.loads(result.read_text())
        result.unlink()
        left = {f"left at the end: {what}": count for what, count in left_over(child, shared).items()}
        return {"counts": {**counts, "seconds": round(seconds, 1), **left}}


def left_over(child: Child, shared: set[str], within: float = WITHIN) -> dict[str, int]:
    """What is there ``within`` seconds after a child's end: processes, files in its folder beside its output, shared
    memory."""
    deadline = time.monotonic() + within
    while True:
        found = [name for _, folders, files in os.walk(child.folder) for name in (*folders, *files)]
        found = [name for name in found if not name.startswith("torchinductor_")]  # torch's, empty, where it is loaded
        left = {
            "processes": len(child.left()),
            "files": len(found) - 1,
            "shared memory": len(_shared_memory() - shared),
        }
        if not any(left.values()) or time.monotonic() > deadline:
            return left
        time.sleep(0.02)


def here(name: str, scale: float) -> None:
    """Run a case in this process; leaves its counts in the temporary folder."""
    counts = all_cases()[name](scale)
    (Path(os.environ["TMPDIR"]) / "counts.json").write_text(json.dumps(counts))


def wrong(entry: Mapping[str, Any]) -> list[str]:
    """What must not be in a case's outcome."""
    counts = entry.get("counts", {})
    found = [f"{name} = {value}" for name, value in counts.items() if name.startswith(ZERO) and value]
    return [*([entry["error"]] if "error" in entry else []), *found]


def page(data: dict[str, Any]) -> str:
    """A section per case: what it does, when and where it ran, its counts."""
    text = (
        "# Reliability: long runs\n"
        "What `benchmarks/soak.py` did to the runtime, and what came of it. A count that must be 0 is in bold if it is "
        "not. The short versions run with the tests (`tests/reliability/`).\n\n"
    )
    for name, entry in data["cases"].items():
        text += f"## {name}\n{entry['what']}\n\n`{entry['command']}`\n\n"
        text += f"{entry['date']} · {entry['machine']} · rlray at {entry['commit']}.\n\n"
        if "error" in entry:
            text += f"**Failed: {entry['error']}**\n\n"
            continue
        bad = {name for name, value in entry["counts"].items() if name.startswith(ZERO) and value}
        rows = [
            [name, f"**{_figure(value)}**" if name in bad else _figure(value)]
            for name, value in entry["counts"].items()
        ]
        text += report.table(["what", "count"], rows) + "\n"
    return text


def _figure(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.1f}" if isinstance(value, float) else str(value)


def _shared_memory() -> set[str]:
    folder = Path("/dev/shm")
    return set(os.listdir(folder)) if folder.is_dir() else set()


def main() -> int:
    """Run the cases that were named; what is done so far is always on disk."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("cases", nargs="+", metavar="CASE", help="one of: " + ", ".join(all_cases()))
    options.add_argument("--scale", type=float, default=1.0, help="how much of the full work (default: 1, all of it)")
    options.add_argument("--timeout", type=float, default=7200, help="seconds that a case may take")
    options.add_argument("--out", type=Path, default=HERE.parent / "docs" / "results", help="folder of the results")
    options.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if unknown := [name for name in given.cases if name not in all_cases()]:
        options.error(f"no case {', '.join(unknown)}; there are: {', '.join(all_cases())}")
    if given.here:
        here(given.cases[0], given.scale)
        return 0
    end_on_sigterm()
    failed = False
    for name in given.cases:
        what = (all_cases()[name].__doc__ or "").strip().splitlines()[0]
        entry = {
            "what": what, "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), "machine": report.machine(),
            "commit": report.commit(), "command": f"python benchmarks/soak.py {name} --scale {given.scale:g}",
        }  # fmt: skip
        entry.update(in_a_process(name, given.scale, given.timeout))
        print(name, json.dumps(entry.get("counts", entry)), *wrong(entry), sep="\n  ", flush=True)
        failed = failed or bool(wrong(entry))
        known = given.out / "reliability.json"
        data = json.loads(known.read_text(encoding="utf-8")) if known.exists() else {"cases": {}}
        data["cases"] = dict(sorted({**data["cases"], name: entry}.items()))
        report.save(given.out, "reliability", data, page(data))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
