"""Runs on several nodes, measured elsewhere, beside the scaling model: what their file holds, and the comparison.

``scale_nodes.json`` is a list of runs, each with what was run and what came out::

    {"workload": "ppo",            a name of `scale_workloads.WORKLOADS`, which says the configuration
     "engine": "ray",              whose calls are calibrated
     "nodes": [[0], [1, 1]],       for each node, a number for each simulator on it; the driver is on the first
     "cores": 2, "others": 0.0,    of each node, and jobs of other programs on it
     "bytes_per_second": 1.25e9, "latency": 2e-4,
     "measured": {"steps_per_second": ..., "policy_lag": ..., "learner_busy": ..., "had": 1.0}}

Nodes that are namespaces or processes of one machine share its cores: write its cores as those of each node, and what
the other nodes do as ``others``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from scale_costs import Costs
from scale_loop import Loop
from scale_setting import Node
from scale_workloads import Engine, local


def node_runs(folder: Path) -> list[dict[str, Any]]:
    """What was measured, where there is such a file."""
    path = folder / "scale_nodes.json"
    return list(json.loads(path.read_text())) if path.exists() else []


def compare(run: Mapping[str, Any], workloads: Mapping[str, Any], engines: Mapping[str, Engine]) -> dict[str, Any]:
    """A row as `scale_check.check` makes them."""
    where = tuple(node for node, simulators in enumerate(run["nodes"]) for _ in simulators)
    of = local(Costs.of(workloads[run["workload"]]), len(where), engines[run["engine"]], run["cores"], run["others"])
    node = Node(run["cores"], run["bytes_per_second"], run["others"])
    of = replace(of, nodes=(node,) * len(run["nodes"]), simulators=replace(of.simulators, nodes=where),
                 latency=run["latency"])  # fmt: skip
    model = Loop(of).run(2_000, 500)
    return {
        "workload": f"{run['workload']}, {run['engine']}, {len(run['nodes'])} nodes",
        "simulators": len(where),
        "measured": {"had": 1.0, **run["measured"]},
        "predicted": {
            "steps_per_second": model.steps_per_second, "policy_lag": model.policy_lag,
            "learner_busy": model.learner_busy, "driver_busy": model.busy["driver"], "saturated": model.saturated,
        },
    }  # fmt: skip
