"""The picture of core.json: how many times better than its yardstick each case is, and where its goal lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def draw(data: dict[str, Any], path: Path) -> None:
    """Bars on a logarithmic scale, a mark at each goal. A case without a ratio keeps its line and says so."""
    rows = [row for row in data["rows"] if "goal_ratio" in row][::-1]
    figure, axis = plt.subplots(figsize=(10, 1.2 + 0.36 * len(rows)))
    for at, row in enumerate(rows):
        ratio = row["ratio"]
        if ratio:
            axis.barh(at, ratio, left=0, color="tab:green" if row["met"] else "tab:orange", height=0.62, alpha=0.85)
        text = f"{ratio:.3g} ×" if ratio else "failed" if "error" in row["rlray"] else "nothing to compare with"
        axis.annotate(text, (max(ratio or 1, row["goal_ratio"]), at), (7, 0), textcoords="offset points", va="center")
        axis.plot([row["goal_ratio"]] * 2, [at - 0.42, at + 0.42], color="black", linewidth=2)
    axis.set_xscale("log")
    known = [row["ratio"] for row in rows if row["ratio"]] + [row["goal_ratio"] for row in rows]
    axis.set_xlim(min([0.5, *(value * 0.8 for value in known)]), max(known) * 6)
    axis.set_yticks(range(len(rows)), [label(row) for row in rows])
    axis.axvline(1, color="grey", linewidth=1)
    version = data["versions"]["Ray"]
    axis.set_xlabel(f"times as good as Ray{'' if 'left out' in version else ' ' + version}   (black: the goal)")
    axis.set_title("rlray's runtime" + (" · tiny amounts of work, not a measurement" if data["quick"] else ""))
    axis.grid(axis="x", alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def label(row: dict[str, Any]) -> str:
    """The case, with its yardstick where that is not Ray."""
    return row["case"] + ("" if row["yardstick"] == "Ray" else f"\n(beside {row['yardstick']})")
