"""What runs have recorded, read from their folders, and runs that differ in nothing but their seed taken together."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rlray.config.yaml_text import Parsed
from rlray.train.metrics import flat
from rlray.train.run_folder import RunFolder, RunFolderError

Floats = NDArray[np.float64]
Axis = Literal["steps", "seconds"]
Interval = Literal["std", "range"]

NO_MATTER = ("seed", "name", "run_dir")
"""Keys in which the runs of one group may differ."""
POINTS = 400
"""Points of a curve at most, where runs have recorded at different steps."""

LONGEST = 70
"""Characters of a label at most."""


@dataclass(frozen=True)
class Series:
    """One tag of one run: where it was recorded, and what."""

    steps: Floats
    seconds: Floats  # of training, without the time between an end and a resume
    values: Floats

    def at(self, axis: Axis) -> Floats:
        """Where on an axis."""
        return self.steps if axis == "steps" else self.seconds


@dataclass(frozen=True)
class Run:
    """What a run folder tells."""

    path: Path
    config: Mapping[str, Any]  # dotted keys
    series: Mapping[str, Series]  # by tag

    @property
    def steps(self) -> float:
        """How far it is."""
        return max((float(one.steps[-1]) for one in self.series.values()), default=0.0)

    @property
    def seconds(self) -> float:
        """How long it took."""
        return max((float(one.seconds[-1]) for one in self.series.values()), default=0.0)


@dataclass(frozen=True)
class Group:
    """Runs with the same configuration apart from the seed."""

    name: str  # theirs
    runs: Sequence[Run]
    differing: Mapping[str, Any]  # what sets the group apart from the others
    label: str  # name, number of runs and, where others are called the same, what is different


@dataclass(frozen=True)
class Band:
    """The mean of a group's curves, and how far they lie apart."""

    x: Floats
    mean: Floats
    low: Floats
    high: Floats


def read_runs(paths: Iterable[str | os.PathLike[str]]) -> list[Run]:
    """The runs in ``paths``: run folders, or folders of them. Those that have recorded nothing yet are left out.

    Raises: RunFolderError for a path without runs.
    """
    found = []
    for path in map(Path, paths):
        inside = sorted(file.parent for file in path.glob("*/config.yaml")) if path.is_dir() else []
        folders = [path] if (path / "config.yaml").is_file() or not inside else inside
        for folder in folders:
            whole = (folder / "config.yaml").is_file()  # what else a run has is not needed to read its records
            run = _read(RunFolder(folder) if whole else RunFolder.open(folder))
            if run.series:
                found.append(run)
    if not found:
        raise RunFolderError("none of the runs has recorded anything yet")
    return found


def grouped(runs: Sequence[Run]) -> list[Group]:
    """The runs by configuration, in the order in which each first appears."""
    groups: dict[tuple[tuple[str, str], ...], list[Run]] = {}
    for run in runs:
        key = tuple(sorted((name, str(value)) for name, value in run.config.items() if name not in NO_MATTER))
        groups.setdefault(key, []).append(run)
    firsts = [members[0].config for members in groups.values()]
    names = dict.fromkeys(name for config in firsts for name in config if name not in NO_MATTER)
    differing = [name for name in names if len({str(config.get(name)) for config in firsts}) > 1]
    called = [
        "/".join(dict.fromkeys(str(run.config.get("name", run.path.name)) for run in runs)) for runs in groups.values()
    ]
    found = []
    for name, members in zip(called, groups.values(), strict=True):
        own = {key: members[0].config[key] for key in differing if key in members[0].config}
        words = [name, *(f"{_last(key)}={value}" for key, value in own.items() if called.count(name) > 1)]
        label = " ".join(words)
        label = label if len(label) <= LONGEST else f"{label[: LONGEST - 1]}…"
        found.append(Group(name, members, own, label + (f" ({len(members)} runs)" if len(members) > 1 else "")))
    return found


def band(group: Group, tag: str, axis: Axis, interval: Interval = "std") -> Band | None:
    """The group's curve of ``tag``; None where no run has it.

    Between two records of a run its value is taken to lie on the line; before its first and after its last it takes no
    part. ``std`` is the standard deviation over the runs; with one run only that is the one recorded beside the mean
    (``eval/return_std`` with ``eval/return_mean``), or nothing.
    """
    series = [run.series[tag] for run in group.runs if tag in run.series]
    if not series:
        return None
    if len(series) == 1:
        return _alone(series[0], group.runs, tag, axis)
    x = np.unique(np.concatenate([one.at(axis) for one in series]))
    if x.size > POINTS:
        x = np.linspace(x[0], x[-1], POINTS)
    lines = np.stack([np.interp(x, one.at(axis), one.values, np.nan, np.nan) for one in series])
    known = np.isfinite(lines).any(axis=0)
    x, lines = x[known], lines[:, known]
    mean, std = np.nanmean(lines, axis=0), np.nanstd(lines, axis=0)
    if interval == "std":
        return Band(x, mean, mean - std, mean + std)
    return Band(x, mean, np.nanmin(lines, axis=0), np.nanmax(lines, axis=0))


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def tags_of(runs: Iterable[Run]) -> list[str]:
    """Every tag that some run has."""
    return sorted({tag for run in runs for tag in run.series})


def _alone(one: Series, runs: Sequence[Run], tag: str, axis: Axis) -> Band:
    beside = next(
        (run.series[name] for run in runs if (name := tag.removesuffix("_mean") + "_std") in run.series), None
    )
    spread: Any = 0.0
    if beside is not None and tag.endswith("_mean") and np.array_equal(beside.steps, one.steps):
        spread = beside.values
    return Band(one.at(axis), one.values, one.values - spread, one.values + spread)


def _read(folder: RunFolder) -> Run:
    parsed = Parsed(folder.config_file.read_text(encoding="utf-8"), str(folder.config_file))
    config = dict(flat(parsed.value)) if isinstance(parsed.value, dict) else {}
    text = folder.metrics_file.read_text(encoding="utf-8") if folder.metrics_file.exists() else ""
    rows = list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))  # a kill may have cut the last one short
    series: dict[str, list[tuple[float, float, float]]] = {}
    for row, seconds in zip(rows, _seconds(rows), strict=True):
        for tag, value in row.items():
            if value and tag not in ("step", "time"):
                series.setdefault(tag, []).append((float(row["step"]), seconds, float(value)))
    return Run(folder.path, config, {tag: _series(points) for tag, points in series.items()})


def _seconds(rows: Sequence[Mapping[str, str]]) -> list[float]:
    """Seconds of training at each row: as recorded, and by the clock from the record before it, or the first."""
    known = [float(row["time"]) - float(row["time/seconds"]) for row in rows if row.get("time/seconds")]
    begun = known[0] if known else float(rows[0]["time"]) if rows else 0.0
    found = []
    for row in rows:
        if row.get("time/seconds"):
            begun = float(row["time"]) - float(row["time/seconds"])
        found.append(max(0.0, float(row["time"]) - begun))
    return found


def _series(points: list[tuple[float, float, float]]) -> Series:
    """In the order of steps: an evaluation may be recorded late."""
    steps, seconds, values = np.array(sorted(points, key=lambda point: point[0])).T
    return Series(steps, np.maximum.accumulate(seconds), values)
