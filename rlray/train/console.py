"""What a person sees of a run: a display that stays in place on a terminal, a line now and then anywhere else."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import TextIO

import rich.console
from rich.console import Group
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.text import Text

from rlray.config import RunConfig

RATE_SECONDS = 60.0
"""The time left follows from the speed over this long."""

_SHOWN = (  # (label, tag of `docs/metrics.md`)
    ("replay", "replay/fill"),
    ("loss", "learner/loss"),
    ("epsilon", "learner/epsilon"),
    ("lag", "time/policy_lag"),
)


class Console:
    """Shows the newest value of every metric that `update` was given. Use it as a context manager.

    On a terminal the display is drawn in place, and what others print meanwhile appears above it. When the context
    ends, by an exception such as KeyboardInterrupt too, the display is gone and the cursor is back. Where ``out`` is
    no terminal (a file, a pipe, ``TERM=dumb``) or cannot show UTF-8, a plain line is written every ``interval``
    seconds at most, and one at the end.

    Args:
        config: the run's.
        out: where to write; ``sys.stdout`` if not given.
        frame_skip: emulator frames per agent step; frames are shown where it is known.
        interval: seconds between plain lines.
    """

    def __init__(
        self, config: RunConfig, out: TextIO | None = None, *, frame_skip: int | None = None, interval: float = 5.0
    ) -> None:
        self._config = config
        self._out = sys.stdout if out is None else out
        self._frame_skip = frame_skip
        self._interval = interval
        self._began = time.monotonic()
        self._step = 0
        self._values: dict[str, float] = {}
        self._eval_step = 0
        self._seen: deque[tuple[float, int]] = deque()  # (time, step), oldest first
        self._line_at = -interval  # when the last plain line was written, in seconds since the start
        self._line_due = False
        self._live: Live | None = None
        self._terminal = terminal = rich.console.Console(file=self._out, highlight=False)
        if self._out.isatty() and not terminal.is_dumb_terminal and terminal.encoding.startswith("utf"):
            ours = self._out in (sys.stdout, sys.stderr)
            self._live = Live(
                console=terminal,
                get_renderable=self._display,
                transient=True,
                refresh_per_second=4,
                redirect_stdout=ours,
                redirect_stderr=ours,
            )

    def __enter__(self) -> Console:
        self._began = time.monotonic()
        if self._live is not None:
            self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        elif self._line_due:
            self._write_line()

    def update(self, metrics: Mapping[str, float], step: int) -> None:
        """Take in new values by tag, as they are after ``step`` agent steps. Older values of other tags stay."""
        if "eval/return_mean" in metrics:
            self._eval_step = step  # of an evaluation that may have begun a while ago
        self._step = max(self._step, step)
        self._values = {**self._values, **metrics}
        now = time.monotonic()
        self._seen.append((now, self._step))
        while len(self._seen) > 2 and self._seen[1][0] < now - RATE_SECONDS:
            self._seen.popleft()
        self._line_due = self._live is None
        if self._line_due and self._elapsed - self._line_at >= self._interval:
            self._write_line()

    def message(self, text: str) -> None:
        """Show ``text`` as it is, on lines of its own that stay."""
        if self._live is not None:
            self._terminal.print(Text(text))
        else:
            self._out.write(f"{text}\n")
            self._out.flush()

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _left(self) -> float | None:
        """Seconds until the run stops, as far as one can tell: by the limit that is nearer."""
        stop, limits = self._config.stop, []
        if stop.minutes is not None:
            limits.append(stop.minutes * 60 - self._elapsed)
        if len(self._seen) > 1:
            (start, before), (end, after) = self._seen[0], self._seen[-1]
            if after > before and end > start:
                limits.append((stop.steps - self._step) * (end - start) / (after - before) - (time.monotonic() - end))
        return max(0.0, min(limits)) if limits else None

    def _rows(self) -> list[list[str]]:
        """Everything that there is to show, in words; one list per line of the display."""
        values, stop = self._values, self._config.stop
        progress = [f"steps {self._step:,} / {stop.steps:,}"]
        if self._frame_skip is not None:
            progress.append(f"frames {self._step * self._frame_skip:,}")
        speeds = [(unit, values.get(f"time/{unit}_per_second")) for unit in ("steps", "updates")]
        progress += [f"{_number(speed)} {unit}/s" for unit, speed in speeds if speed is not None]
        results = []
        if "train/return_mean" in values:
            results.append(f"return {values['train/return_mean']:.2f} (mean of the last 100)")
        if "eval/return_mean" in values:
            std = f" ± {values['eval/return_std']:.2f}" if "eval/return_std" in values else ""
            results.append(f"eval {values['eval/return_mean']:.2f}{std} at {self._eval_step:,}")
        details = [
            f"{label} {values[tag]:.0%}" if label == "replay" else f"{label} {_number(values[tag])}"
            for label, tag in _SHOWN
            if tag in values
        ]
        return [row for row in (progress, results, self._sources(), details) if row]

    def _sources(self) -> list[str]:
        """Each source in a few words, where there are several."""
        if not self._config.has_sources:
            return []
        words = []
        for group in self._config.groups:
            speed = self._values.get(f"time/source/{group.name}/steps_per_second")
            hertz = self._values.get(f"time/source/{group.name}/hz")
            mean = self._values.get(f"source/{group.name}/return_mean")
            found = [] if speed is None else [f"{_number(speed)} steps/s"]
            found += [] if hertz is None else [f"{hertz:.1f} of {group.realtime_hz:g} Hz"]
            found += [] if mean is None else [f"return {mean:.2f}"]
            words += [f"{group.name}: {', '.join(found)}"] if found else []
        return words

    def _clock(self) -> str:
        left = self._left()
        return f"elapsed {_clock(self._elapsed)}" + ("" if left is None else f", left {_clock(left)}")

    def _display(self) -> Group:
        """Lines of the terminal's width, never more: a line that wraps would make the display jump."""
        config, stop, clock = self._config, self._config.stop, self._clock()
        done = self._step / stop.steps
        if stop.minutes is not None:
            done = max(done, self._elapsed / (stop.minutes * 60))
        head = Text(f"{config.name}: {config.algo} on {config.env}", "bold", no_wrap=True, overflow="ellipsis")
        head.truncate(max(1, self._terminal.width - len(clock) - 1), overflow="ellipsis", pad=True)
        head.append(f" {clock}", "not bold")
        rows = [Text("   ".join(row), no_wrap=True, overflow="ellipsis") for row in self._rows()]
        bar = Padding(ProgressBar(total=1.0, completed=min(1.0, done)), 0)  # the bar itself does not end its line
        return Group(head, bar, *rows)

    def _write_line(self) -> None:
        self._line_at, self._line_due = self._elapsed, False
        words = [word for row in self._rows() for word in row]
        line = "  ".join([*words, self._clock()]).replace("±", "+/-")
        self._out.write(f"{line}\n")
        self._out.flush()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
