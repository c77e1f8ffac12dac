"""The page of scale_model.json: what was calibrated, compared and predicted, as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import report
from scale_check import COLUMNS, engines, line
from scale_cluster import ASSUMED, CASES
from scale_costs import Costs
from scale_nodes import compare, node_runs
from scale_workloads import WORKLOADS


def page(found: Mapping[str, Any], folder: Path) -> str:
    """All parts that there are."""
    text = (
        "# How the training loop grows: figures of the model\n\n[Sizing](../sizing.md) says what follows from them.\n"
    )
    for name, part in (("calibration", calibration), ("check", checks), ("predictions", predictions)):
        if name in found:
            about = found[name]
            versions = ", ".join(f"{what} {version}" for what, version in about["versions"].items())
            text += f"\n## {name.capitalize()}\n`{about['command']}`\n\n"
            text += f"{about['date']} · {about['machine']} · {versions}.\n\n"
            text += "\n".join(part(found, folder))
    return text


def calibration(found: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """What calls, passes and actors cost. All of it is CPU time, so that a busy machine makes it little longer."""
    about = found["calibration"]
    yield f"CPU time, with a load of {about['load'][0]} from other work.\n"
    rows = []
    for name, engine in engines(about).items():
        driver = engine.driver
        cells = (
            driver.base,
            driver.per_event,
            driver.per_ref,
            driver.per_idle,
            engine.simulator.cpu,
            engine.learner.cpu,
        )
        rows.append([name, *(f"{1e6 * cell:.3g}" for cell in cells), f"{1e-9 / engine.copy:.3g}"])
    columns = [
        "engine", "a pass, µs", "an event in it, µs", "a reference, µs", "an idle simulator, µs",
        "a call in a simulator, µs", "in the learner, µs", "into the store, GB/s a core",
    ]  # fmt: skip
    yield report.table(columns, rows)
    columns = [
        "run", "what", "steps of a fragment", "to play, ms", "a step, µs", "of it acting", "fragment, kB", "a step, B",
        "weights, kB", "an update, ms", "zlib leaves",
    ]  # fmt: skip
    rows = []
    for workload in WORKLOADS:
        if workload.name not in about["workloads"]:
            continue
        costs = Costs.of(about["workloads"][workload.name])
        play, update = costs.play.cpu + costs.play.wait, costs.update.cpu + costs.update.wait
        rows.append([
            workload.name, workload.about, str(costs.steps), f"{1e3 * play:.3g}", f"{1e6 * play / costs.steps:.3g}",
            f"{100 * costs.acting:.0f} %", report.figure(costs.fragment_bytes / 1e3),
            report.figure(costs.fragment_bytes / costs.steps), report.figure(costs.weights_bytes / 1e3),
            f"{1e3 * update:.3g}" if update else "a GPU's", f"{100 * costs.compressed:.2g} %",
        ])  # fmt: skip
    yield report.table(columns, rows)


def checks(found: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """Real runs, and what the model says of them."""
    rows = list(found["check"]["rows"])
    about = found["calibration"]
    rows += [compare(run, about["workloads"], engines(about)) for run in node_runs(folder)]
    yield (
        "Other programs kept the cores busy. *Had a core*: the part of the time in which the run's processes wanted "
        "one and had it, as the kernel counts it. The model is told that, and nothing else of the run.\n"
    )
    yield report.table(COLUMNS, [line(row) for row in rows])


def predictions(found: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """Clusters."""
    yield "![clusters](scale_model.png)\n"
    columns = [
        "nodes",
        "learner's GPU",
        "simulators",
        "steps/s",
        "lag, updates",
        "weights/s",
        "MB/s",
        "saturated",
        "busy",
    ]
    rows = found["predictions"]["rows"]
    for case in CASES:
        mine = [row for row in rows if row["case"] == case.name]
        if not mine:
            continue
        yield f"\n### {case.title}\n"
        yield report.table(columns, [cluster(row) for row in mine if row["change"] == "as it is"])
        if changes := [row for row in mine if row["change"] != "as it is"]:
            yield f"\nWith {changes[0]['nodes']} nodes and the {changes[0]['gpu']} GPU, each by itself:\n"
            yield report.table(["change", *columns[2:]], [[row["change"], *cluster(row)[2:]] for row in changes])
    yield "\n### Assumed\n"
    yield report.table(
        ["what", "figure", "why"], [[name, report.figure(value), why] for name, (value, why) in ASSUMED.items()]
    )


def cluster(row: Mapping[str, Any]) -> list[str]:
    """A prediction as cells."""
    busy = sorted(row["busy"].items(), key=lambda part: -part[1])[:3]
    return [
        f"{row['nodes']:,}", row["gpu"], f"{row['simulators']:,}", report.figure(row["steps_per_second"]),
        report.figure(row["policy_lag"]), report.figure(row["weights_per_second"]),
        report.figure(row["bytes_per_second"] / 1e6), row["saturated"],
        ", ".join(f"{name} {100 * part:.0f} %" for name, part in busy),
    ]  # fmt: skip
