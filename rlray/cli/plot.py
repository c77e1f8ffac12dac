"""``rlray plot``: the curves of runs, as a picture or in the terminal."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlray.cli.curves import Axis, Band, Group

_TAGS = ("train/return_mean", "eval/return_mean")
_LINES = 15  # of a curve in the terminal
_WIDEST = 120
_LABELS = {"steps": "agent steps", "seconds": "seconds of training"}
_COLOURS = ("cyan", "yellow", "magenta", "green", "red", "blue")


def add(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run folder, or a folder of them")
    parser.add_argument(
        "--tag", action="append", metavar="TAG", help=f"what to show, several times; default: {' and '.join(_TAGS)}"
    )
    parser.add_argument(
        "--x", action="append", choices=("steps", "seconds"), help="against what, twice for both; default: steps"
    )
    parser.add_argument(
        "--interval",
        choices=("std", "range"),
        default="std",
        help="around the mean over seeds: the standard deviation (default), or from the least to the greatest",
    )
    parser.add_argument("--out", metavar="FILE", help="a picture (png, svg, pdf); default: draw in the terminal")
    parser.add_argument("--title", default="", metavar="TEXT")


def run(options: argparse.Namespace) -> int:
    """Read the runs, and draw them."""
    from rlray.cli.curves import band, grouped, read_runs, tags_of
    from rlray.config.errors import ConfigError, Problem

    runs = read_runs(options.runs)
    groups = grouped(runs)
    panels: list[tuple[str, Axis, list[tuple[Group, Band]]]] = []
    for tag in options.tag or _TAGS:
        for axis in options.x or ["steps"]:
            bands = [(group, band(group, tag, axis, options.interval)) for group in groups]
            shown = [(group, one) for group, one in bands if one is not None]
            if not shown and options.tag:
                raise ConfigError([Problem(f"no run has recorded {tag!r}; they have: {', '.join(tags_of(runs))}")])
            if shown:
                panels.append((tag, axis, shown))
    if options.out is None:
        for tag, axis, shown in panels:
            _in_terminal(tag, axis, shown)
    else:
        _as_picture(panels, len(options.x or ["steps"]), Path(options.out), options.title)
        print(options.out)
    return 0


def _as_picture(panels: Sequence[tuple[str, Axis, Any]], columns: int, out: Path, title: str) -> None:
    """Raises: ImportError without matplotlib; ValueError for a format it does not write."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            'pictures are drawn by matplotlib; install it with: pip install "rlray[plot]". Without --out the curves '
            "are drawn in the terminal"
        ) from error
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(6.5 * columns, 3.8 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey="row")
    for at, (tag, axis, shown) in zip(axes.flat, panels, strict=False):
        for group, one in shown:
            (line,) = at.plot(one.x, one.mean, marker="o" if one.x.size < 30 else "", ms=3, label=group.label)
            at.fill_between(one.x, one.low, one.high, color=line.get_color(), alpha=0.2, linewidth=0)
        at.set_xlabel(_LABELS[axis])
        at.set_ylabel(tag)
        at.grid(alpha=0.3)
        at.legend(fontsize="small")
    if title:
        figure.suptitle(title)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)


def _in_terminal(tag: str, axis: Axis, shown: Sequence[tuple[Group, Band]]) -> None:
    """One panel with all groups in their colours; where there are none, a panel for each group on the same scales."""
    import rich.console

    console = rich.console.Console(file=sys.stdout, highlight=False, soft_wrap=True)
    together = console.color_system is not None or len(shown) == 1
    for part in [list(shown)] if together else [[one] for one in shown]:
        _panel(console, tag, axis, part, shown)


def _panel(console: Any, tag: str, axis: Axis, part: Sequence[Any], scale: Sequence[Any]) -> None:
    import numpy as np
    from rich.text import Text

    from rlray.cli.braille import canvas

    x = np.concatenate([one.x for _, one in scale])
    y = np.concatenate([one.mean for _, one in scale])
    y = y[np.isfinite(y)]
    (left, right), (low, high) = (x.min(), x.max()), (y.min(), y.max()) if y.size else (0.0, 1.0)
    ticks = [f"{low + (high - low) * line / (_LINES - 1):.5g}" for line in reversed(range(_LINES))]
    margin = max(map(len, ticks))
    width = min(shutil.get_terminal_size().columns, _WIDEST) - margin - 2
    finite = [np.isfinite(one.mean) for _, one in part]
    curves = [(one.x[known], one.mean[known]) for (_, one), known in zip(part, finite, strict=True)]
    text, shows = canvas(curves, (left, right), (low, high), (max(10, width), _LINES))
    console.print(Text(tag, "bold"))
    for number, (group, one) in enumerate(part):
        last = f"{one.mean[-1]:.4g}"
        spread = one.high[-1] - one.mean[-1]
        last += f" ± {spread:.2g}" if spread > 0 else ""
        console.print(
            Text("━━ ", _COLOURS[number % len(_COLOURS)]).append(f"{group.label}: {last} at the end", "not bold")
        )
    for line, (row, who) in enumerate(zip(text, shows, strict=True)):
        label = ticks[line] if line % 7 == 0 else ""
        shown = Text(f"{label:>{margin}} ┤" if label else " " * margin + " │")
        for letter, number in zip(row, who, strict=True):
            shown.append(letter, _COLOURS[number % len(_COLOURS)] if number >= 0 else None)
        console.print(shown)
    begin, end = f"{left:,.0f}", f"{right:,.0f} {_LABELS[axis]}"
    console.print(Text(" " * (margin + 1) + "└" + begin + end.rjust(max(0, width - len(begin)))))
