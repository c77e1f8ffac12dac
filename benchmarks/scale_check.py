"""Measuring for the scaling model on this machine: what everything costs, and real runs beside what it predicts."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from scale_costs import Costs, costs_of
from scale_driver import pass_seconds
from scale_loop import Loop
from scale_measure import measure
from scale_workloads import WORKLOADS, Engine, Workload, fit_flow, local
from sides import Side, ours, run_case

WAITS = (10, 1_000, 100)
FLOW = ((10, 0), (100, 0), (1_000, 0), (4_000, 0), (100, 50), (1_000, 500), (1_000, 900), (4_000, 3_900))


def engine_figures(side: Side, quick: bool) -> dict[str, Any]:
    """`scale_cases` on an engine: medians in seconds."""

    def case(name: str, count: int) -> dict[str, Any]:
        answer = run_case(side, "scale_cases", name, quick=quick, timeout=120, count=count)
        if "samples" not in answer:
            raise RuntimeError(f"{name} with {count} on {side.name}: {answer}")
        print(f"{side.name}: {name} {count}: {statistics.median(answer['samples']):.3g} s", flush=True)
        return answer

    waits = {str(count): statistics.median(case("wait", count)["samples"]) for count in WAITS[: 2 if quick else None]}
    fragments = {}
    for count in (1, 4):
        answer = case("fragment", count)
        fragments[str(count)] = {
            "driver": statistics.median(answer["samples"]),
            "simulator": answer["notes"]["simulator"],
            "learner": answer["notes"]["learner"],
        }
    size = 10_000_000
    return {"wait": waits, "fragment": fragments, "copy": statistics.median(case("copy", size)["samples"]) / size}


def flow_figures(quick: bool) -> list[dict[str, float]]:
    """The driver's bookkeeping by how many simulators there are and wait."""
    sizes = [(count, idle) for count, idle in FLOW if count < 4_000 or not quick]
    return [{"count": count, "idle": idle, "seconds": pass_seconds(count, idle)} for count, idle in sizes]


def workload_figures(workload: Workload) -> Costs:
    """What a workload's actors cost."""
    of, asleep = workload, (workload.play, workload.learn)
    return costs_of(of.config(1), of.fragments, of.rounds, of.updates, asleep, of.learns)


def rest_of_a_pass(engine: Engine, seconds: float) -> float:
    """What a pass takes besides what `engine` has in it, from a run in which nothing is played and learned."""
    nothing = next(one for one in WORKLOADS if one.name == "nothing")
    run = measure(nothing.config(1), seconds, 1.0)
    events = 2 * run.fragments_per_second / run.passes_per_second
    return max(0.0, run.driver_cpu / run.passes_per_second - engine.driver.of(round(events), 1, 0))


def engines(calibration: Mapping[str, Any]) -> dict[str, Engine]:
    """The engines that were measured."""
    flow = fit_flow(calibration["flow"])
    return {name: Engine.of(figures, flow, calibration["rest"]) for name, figures in calibration["engines"].items()}


def calibrate(
    before: Mapping[str, Any], peer: Side | None, only: Sequence[str], quick: bool
) -> Iterator[dict[str, Any]]:
    """All that is measured without a comparison: what was found ``before``, and more of it after each part.

    Args:
        only: parts to measure anew: "local", "ray", "flow", "rest", names of workloads; all where it is empty.
    """
    made: dict[str, Any] = {"engines": {}, "flow": [], "rest": 0.0, "workloads": {}, **before}

    def wanted(part: str) -> bool:
        return not only or part in only

    for name, side in (("local", ours()), ("ray", peer)):
        if side is not None and wanted(name):
            made["engines"][name] = engine_figures(side, quick)
            yield made
    if wanted("flow"):
        made["flow"] = flow_figures(quick)
        yield made
    for workload in WORKLOADS if not quick else WORKLOADS[:2]:
        if wanted(workload.name):
            begin = time.monotonic()
            made["workloads"][workload.name] = workload_figures(workload).plain()
            print(f"costs of {workload.name}: {time.monotonic() - begin:.1f} s", flush=True)
            yield made
    if wanted("rest"):
        made["rest"] = 0.0
        made["rest"] = rest_of_a_pass(engines(made)["local"], 0.5 if quick else 5.0)
        yield made


def check(calibration: Mapping[str, Any], workload: Workload, count: int, seconds: float) -> dict[str, Any]:
    """A real run on the local engine, and what the model predicts for it on a machine with as much other work."""
    real = measure(workload.config(count), seconds, min(2.0, seconds))
    costs = Costs.of(calibration["workloads"][workload.name])
    cores = float(os.cpu_count() or 1)
    setting = local(costs, count, engines(calibration)["local"], cores, real.others(cores))
    model = Loop(setting).run(2_000, 500)
    row = {
        "workload": workload.name,
        "simulators": count,
        "measured": asdict(real),
        "predicted": {
            "steps_per_second": model.steps_per_second,
            "policy_lag": model.policy_lag,
            "learner_busy": model.learner_busy,
            "driver_busy": model.busy["driver"],
            "saturated": model.saturated,
        },
    }
    print("  ".join(line(row)), flush=True)
    return row


def error(measured: float, predicted: float) -> str:
    """By how much a prediction is off, relative to what was measured."""
    return f"{100 * (predicted / measured - 1):+.0f} %" if measured else "–"


def line(row: Mapping[str, Any]) -> list[str]:
    """A comparison as cells of a table."""
    real, model = row["measured"], row["predicted"]
    return [
        row["workload"],
        str(row["simulators"]),
        f"{100 * real['had']:.0f} %",
        f"{real['steps_per_second']:,.0f}",
        f"{model['steps_per_second']:,.0f}",
        error(real["steps_per_second"], model["steps_per_second"]),
        f"{real['policy_lag']:.1f}",
        f"{model['policy_lag']:.1f}",
        f"{real['learner_busy']:.2f}",
        f"{model['learner_busy']:.2f}",
    ]


COLUMNS = (
    "run", "simulators", "had a core", "steps/s", "predicted", "error", "lag, updates", "predicted", "learner busy",
    "predicted",
)  # fmt: skip
