"""How the training loop grows: a discrete-event model of it, calibrated and checked here, and its predictions.

python benchmarks/scale_model.py calibrate [--peer-python PATH | none]   what everything costs here
python benchmarks/scale_model.py check [--only NAME ...]                 real runs on the local engine beside the model
python benchmarks/scale_model.py predict                                 clusters of 1 to 1,000 nodes, drawn

Each writes its part of scale_model.json, and from all parts scale_model.md. `predict` measures nothing. Runs on several
nodes are compared as soon as their figures lie in scale_nodes.json beside it (`scale_nodes.py` says what it holds).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import report
from scale_check import calibrate, check
from scale_workloads import WORKLOADS
from sides import end_on_sigterm, ours, parser, peer


def read(folder: Path) -> dict[str, Any]:
    """What was found so far."""
    path = folder / "scale_model.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def main() -> int:
    """One of the three."""
    options = parser(__doc__)
    options.add_argument("what", choices=("calibrate", "check", "predict"))
    options.add_argument("--seconds", type=float, default=6.0, help="of each run that is compared")
    given = options.parse_args()
    end_on_sigterm()
    found = read(given.out)
    theirs, why_not = peer(given.peer_python)
    about = report.surroundings(theirs, why_not, ours())
    if given.what == "calibrate":
        for part in calibrate(found.get("calibration", {}), theirs, given.only, given.quick):
            found["calibration"] = {**part, **about, "load": report.load()}
            report.save(given.out, "scale_model", found, "")
    elif given.what == "check":
        rows = {(row["workload"], row["simulators"]): row for row in found.get("check", {}).get("rows", [])}
        for workload in WORKLOADS:
            if given.only and workload.name not in given.only:
                continue
            for count in workload.counts if not given.quick else (1,):
                row = check(found["calibration"], workload, count, 0.5 if given.quick else given.seconds)
                rows[workload.name, count] = {**row, "load": report.load()}
        found["check"] = {**about, "rows": list(rows.values())}
    report.save(given.out, "scale_model", found, "")
    return 0


if __name__ == "__main__":
    sys.exit(main())
