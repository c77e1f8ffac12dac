"""Draw the learning curve of a run: training and evaluation return against steps and wall-clock.

python benchmarks/plot_run.py RUN_FOLDER OUT.png [--title TEXT]
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def column(rows: list[dict[str, str]], name: str) -> list[tuple[float, float, float]]:
    """(step, minutes, value) of the rows that have a value."""
    start = float(rows[0]["time"]) - float(rows[0].get("time/seconds") or 0.0)
    return [(float(row["step"]), (float(row["time"]) - start) / 60, float(row[name])) for row in rows if row.get(name)]


def main() -> None:
    """Read metrics.csv, write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--title", default="")
    options = parser.parse_args()
    with open(options.run / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    train, evaluated = column(rows, "train/return_mean"), column(rows, "eval/return_mean")
    spread = [value for *_, value in column(rows, "eval/return_std")]
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), sharey=True)
    for axis, at, label in ((axes[0], 0, "agent steps (1 step = 4 frames)"), (axes[1], 1, "minutes of wall-clock")):
        axis.plot([point[at] for point in train], [point[2] for point in train], label="training, mean of 100 episodes")
        axis.errorbar(
            [point[at] for point in evaluated], [point[2] for point in evaluated], spread, fmt="o-", capsize=3,
            label="greedy evaluation, mean ± std",
        )  # fmt: skip
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("raw return of an episode")
    axes[0].legend(loc="upper left")
    figure.suptitle(options.title or options.run.name)
    figure.tight_layout()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=110)


if __name__ == "__main__":
    main()
