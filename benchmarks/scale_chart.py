"""The pictures of scale_model.json: clusters by their size, and the comparison with real runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from scale_cluster import CASES

COLOURS = {
    "simulators": "tab:green",
    "learner": "tab:red",
    "driver": "tab:purple",
    "replay": "tab:orange",
    "learner's network, in": "tab:blue",
    "learner's network, out": "tab:cyan",
    "simulators' network": "tab:brown",
    "nothing": "tab:gray",
}


def draw(found: Mapping[str, Any], path: Path) -> None:
    """One field for each case, steps a second by nodes, coloured by what saturates; below, predicted by measured."""
    rows = [row for row in found["predictions"]["rows"] if row["change"] == "as it is"]
    figure, axes = plt.subplots(2, 3, figsize=(14, 8))
    for axis, case in zip(axes.flat, CASES, strict=False):
        for gpu, style in (("2018", "--"), ("fast", "-")):
            curve(axis, [row for row in rows if row["case"] == case.name and row["gpu"] == gpu], gpu, style)
        axis.set(title=case.title, xlabel="nodes of 16 cores", ylabel="agent steps/s")
        axis.grid(alpha=0.3)
        if any(row["case"] == case.name for row in rows):
            axis.set(xscale="log", yscale="log")
            axis.legend(fontsize=8, loc="lower right")
    compared(axes.flat[4], found.get("check", {}).get("rows", []))
    legend(axes.flat[5], {row["saturated"] for row in rows})
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def curve(axis: Any, rows: Sequence[Mapping[str, Any]], gpu: str, style: str) -> None:
    nodes, rates = [row["nodes"] for row in rows], [row["steps_per_second"] for row in rows]
    axis.plot(nodes, rates, style, color="black", linewidth=1, label=f"learner's GPU: {gpu}")
    axis.scatter(nodes, rates, c=[COLOURS[row["saturated"]] for row in rows], s=70, zorder=3)


def compared(axis: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Predicted steps a second by measured ones."""
    for name in dict.fromkeys(row["workload"] for row in rows):
        points = [row for row in rows if row["workload"] == name]
        axis.scatter(
            [row["measured"]["steps_per_second"] for row in points],
            [row["predicted"]["steps_per_second"] for row in points], label=name, s=40,
        )  # fmt: skip
    if rows:
        every = [row[side]["steps_per_second"] for row in rows for side in ("measured", "predicted")]
        axis.plot([min(every), max(every)], [min(every), max(every)], color="grey", linewidth=1)
        axis.set(xscale="log", yscale="log")
        axis.legend(fontsize=8)
    axis.set(title="real runs on the local engine", xlabel="measured steps/s", ylabel="predicted")
    axis.grid(alpha=0.3)


def legend(axis: Any, seen: set[str]) -> None:
    """What the colours mean."""
    axis.axis("off")
    for name, colour in COLOURS.items():
        if name in seen:
            axis.scatter([], [], c=colour, s=70, label=name)
    axis.legend(title="what saturates", loc="center", fontsize=11)
