"""What a person sees of a simulation: a bar that stays in place on a terminal, a line now and then anywhere else."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import TextIO

import rich.console
from rich.progress import BarColumn, Progress, TextColumn

from rlray.train.simulation_worker import Played

RATE_SECONDS = 10.0
LINE_SECONDS = 5.0


class SimulationConsole:
    """Shows how far a simulation is. Use it as a context manager; without ``shown`` it does nothing."""

    def __init__(self, env: str, steps: int, shown: bool, out: TextIO | None = None) -> None:
        self._steps, self._shown = steps, shown
        self._out = sys.stderr if out is None else out
        self._began = self._told = time.monotonic()
        self._seen: deque[tuple[float, int]] = deque()  # (time, steps), oldest first
        self._bar: Progress | None = None
        terminal = rich.console.Console(file=self._out, highlight=False)
        if shown and self._out.isatty() and not terminal.is_dumb_terminal and terminal.encoding.startswith("utf"):
            columns = (TextColumn(env), BarColumn(None), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=terminal, transient=True, refresh_per_second=4, expand=True)
            self._task = self._bar.add_task("starting", total=steps)

    def __enter__(self) -> SimulationConsole:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, workers: Sequence[Sequence[Played]]) -> None:
        """Show what all lives of all processes have played."""
        if not self._shown:
            return
        now = time.monotonic()
        steps = sum(one.steps for lives in workers for one in lives)
        if steps and (not self._seen or now - self._seen[-1][0] >= 0.2):
            self._seen.append((now, steps))
            while len(self._seen) > 2 and self._seen[1][0] < now - RATE_SECONDS:
                self._seen.popleft()
        if self._bar is not None:
            self._bar.update(self._task, completed=steps, description=self._text(workers, steps))
        elif now - self._told >= LINE_SECONDS:
            self._told = now
            self._out.write(f"steps {steps:,} / {self._steps:,}  {self._text(workers, steps)}\n".replace("±", "+/-"))
            self._out.flush()

    def _text(self, workers: Sequence[Sequence[Played]], steps: int) -> str:
        if len(self._seen) < 2:
            return "starting"
        (start, before), (end, after) = self._seen[0], self._seen[-1]
        rate = (after - before) / (end - start)
        words = [f"{steps / 1e6:,.1f} M steps", f"{rate:,.0f}/s"]
        returns = [one.returns for lives in workers for one in lives if one.returns.count]
        if count := sum(one.count for one in returns):
            words.append(f"return {sum(one.mean * one.count for one in returns) / count:.2f} over {count:,} episodes")
        if rate > 0:
            minutes, seconds = divmod(round(max(0.0, (self._steps - steps) / rate)), 60)
            words.append(f"left {minutes}:{seconds:02}")
        return "  ".join(words)
