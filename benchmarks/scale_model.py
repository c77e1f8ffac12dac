"""How the training loop grows: a discrete-event model of it, calibrated and checked here, and its predictions.

python benchmarks/scale_model.py calibrate [--peer-python PATH | none]   what everything costs here
python benchmarks/scale_model.py check                                   real runs on the local engine beside the model
python benchmarks/scale_model.py predict                                 clusters of 1 to 1,000 nodes, drawn

Each writes its part of scale_model.json, and from all parts scale_model.md and scale_model.png; `--only NAME ...` does
some of its parts anew. `predict` measures nothing. Runs on several nodes are compared as soon as their figures lie in
scale_nodes.json beside it (`scale_nodes.py` says what it holds).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

import report
from scale_chart import draw
from scale_check import calibrate, check, engines
from scale_cluster import CASES, CHANGES, SIZES, fits, predict
from scale_page import page
from scale_workloads import WORKLOADS
from sides import Side, end_on_sigterm, ours, parser, peer


def calibrated(found: dict[str, Any], given: argparse.Namespace, theirs: Side | None) -> Iterator[dict[str, Any]]:
    """What everything costs, part by part."""
    yield from calibrate(found.get("calibration", {}), theirs, given.only, given.quick)


def checked(found: dict[str, Any], given: argparse.Namespace, theirs: Side | None) -> Iterator[dict[str, Any]]:
    """Real runs beside the model, run by run."""
    rows = {(row["workload"], row["simulators"]): row for row in found.get("check", {}).get("rows", [])}
    for workload in WORKLOADS[:1] if given.quick else WORKLOADS:
        for count in workload.counts if not given.quick else (1,):
            if not given.only or workload.name in given.only:
                row = check(found["calibration"], workload, count, 0.5 if given.quick else given.seconds)
                rows[workload.name, count] = {**row, "load": report.load()}
                yield {"rows": list(rows.values())}


def predicted(found: dict[str, Any], given: argparse.Namespace, theirs: Side | None) -> Iterator[dict[str, Any]]:
    """Clusters, case by case: all sizes as they are, one size with each change."""
    every = engines(found["calibration"])
    engine, figures = every.get("ray", every["local"]), found["calibration"]["workloads"]
    rows = [row for row in found.get("predictions", {}).get("rows", []) if given.only and row["case"] not in given.only]
    for case in CASES[:1] if given.quick else CASES:
        if given.only and case.name not in given.only:
            continue
        for gpu in ("2018", "fast"):
            for nodes in SIZES[:2] if given.quick else SIZES if gpu == "fast" else SIZES[:3]:
                rows.append(predict(case, figures, engine, nodes, gpu))
                print("  ".join(map(str, list(rows[-1].values())[:6])), rows[-1]["saturated"], flush=True)
        changes = () if given.quick else CHANGES
        most = 1_000 if case.seconds else 100
        rows += [predict(case, figures, engine, most, "fast", change) for change in changes if fits(case, change)]
        yield {"rows": rows}


def main() -> int:
    """One of the three; what is done so far is always on disk."""
    options = parser(__doc__)
    steps = {
        "calibrate": ("calibration", calibrated),
        "check": ("check", checked),
        "predict": ("predictions", predicted),
    }
    options.add_argument("what", choices=steps)
    options.add_argument("--seconds", type=float, default=6.0, help="of each run that is compared")
    given = options.parse_args()
    end_on_sigterm()
    path = given.out / "scale_model.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    name, step = steps[given.what]
    if given.what != "calibrate" and "calibration" not in found:
        options.error(f"there is no calibration in {path}: run `calibrate` first")
    theirs, why_not = peer(given.peer_python) if given.what == "calibrate" else (None, "not asked for")
    about = report.surroundings(theirs, why_not, ours())
    for part in step(found, given, theirs):
        found[name] = {**part, **about, "quick": given.quick, "load": report.load()}
        report.save(given.out, "scale_model", found, page(found, given.out))
    if "predictions" in found:
        draw(found, given.out / "scale_model.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
