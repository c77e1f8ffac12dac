"""``rlray compare``: what runs were told that is different, and what came of it."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rlray.cli.text import duration, table

if TYPE_CHECKING:
    from rlray.cli.curves import Group, Run


def add(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run folder, or a folder of them")
    parser.add_argument("--tag", default="eval/return_mean", metavar="TAG", help="default: eval/return_mean")
    parser.add_argument(
        "--reach",
        type=float,
        metavar="X",
        help="also show after how many steps and seconds the tag was first at least X",
    )
    parser.add_argument("--json", action="store_true", help="for programs")


def run(options: argparse.Namespace) -> int:
    """Read the runs, and show the table."""
    from rlray.cli.curves import grouped, read_runs, tags_of
    from rlray.config.errors import ConfigError, Problem

    runs = read_runs(options.runs)
    if not any(options.tag in run.series for run in runs):
        raise ConfigError([Problem(f"no run has recorded {options.tag!r}; they have: {', '.join(tags_of(runs))}")])
    groups = [_figures(group, options.tag, options.reach) for group in grouped(runs)]
    if options.json:
        print(json.dumps(groups, indent=1))
        return 0
    different = list(dict.fromkeys(key for group in groups for key in group["differing"]))
    head = ["runs", "n", "final", "best", "steps", "time"]
    if options.reach is not None:
        head += ["reached", "steps to it", "time to it"]
    rows = [[*head, *(_short(key, different) for key in different)]]
    for group in groups:
        row = [group["name"], str(len(group["runs"]))]
        row += [_spread(group[name], _number) for name in ("final", "best", "steps")]
        row.append(_spread(group["seconds"], duration))
        if options.reach is not None:
            reached = [value for value in group["steps_to_reach"] if value is not None]
            row += [f"{len(reached)}/{len(group['runs'])}"]
            row += [_spread(group["steps_to_reach"], _number), _spread(group["seconds_to_reach"], duration)]
        rows.append([*row, *(str(group["differing"].get(key, "–")) for key in different)])
    print(f"{options.tag}; mean ± std over the runs of a line, which differ in their seed only")
    print(*table(rows, right=range(1, len(head)), indent=""), sep="\n")
    return 0


def _figures(group: Group, tag: str, reach: float | None) -> dict[str, Any]:
    """What is shown of a group, run by run; None where a run has no such number."""
    found: dict[str, Any] = {
        "name": group.name,
        "differing": dict(group.differing),
        "runs": [str(run.path) for run in group.runs],
        "seeds": [run.config.get("seed") for run in group.runs],
        "final": [float(run.series[tag].values[-1]) if tag in run.series else None for run in group.runs],
        "best": [float(run.series[tag].values.max()) if tag in run.series else None for run in group.runs],
        "steps": [run.steps for run in group.runs],
        "seconds": [run.seconds for run in group.runs],
    }
    if reach is not None:
        first = [_first(run, tag, reach) for run in group.runs]
        found["steps_to_reach"] = [None if at is None else at[0] for at in first]
        found["seconds_to_reach"] = [None if at is None else at[1] for at in first]
    return found


def _first(run: Run, tag: str, reach: float) -> tuple[float, float] | None:
    """Steps and seconds at the first record of at least ``reach``; None if there is none."""
    series = run.series.get(tag)
    if series is None or not (good := series.values >= reach).any():
        return None
    at = int(good.argmax())
    return float(series.steps[at]), float(series.seconds[at])


def _spread(values: Sequence[float | None], shown: Callable[[float], str]) -> str:
    """Mean ± population standard deviation of those there are."""
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    mean = math.fsum(known) / len(known)
    if len(known) == 1:
        return shown(mean)
    return f"{shown(mean)} ± {shown(math.sqrt(math.fsum((value - mean) ** 2 for value in known) / len(known)))}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def _short(key: str, keys: Sequence[str]) -> str:
    """The last word of a dotted key, where that is enough to tell it from the others."""
    last = key.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in keys) == 1 else key
