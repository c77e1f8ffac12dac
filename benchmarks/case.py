"""What a benchmark's case is: its name, unit and goal, and what its function is given to measure with."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

SMALLER_IS_BETTER = ("s", "MB", "GB", "%")


@dataclass(frozen=True)
class Goal:
    """At least ``times`` as good as ``of``: "Ray", or a figure that the case notes beside its own ("numpy copy").

    Without ``of``, ``times`` is the figure itself, in the case's unit.
    """

    times: float
    of: str = ""


@dataclass(frozen=True)
class Case:
    """One row of a table. ``function(run, **arguments)`` returns samples in ``unit``; their median counts."""

    name: str
    unit: str
    function: Callable[..., list[float]]
    goal: Goal | None = None
    init: Mapping[str, Any] | None = field(default_factory=dict)  # keywords of init(); None: the case calls it itself
    processes: int = 1  # this many times as many fresh processes as other cases get
    only_rlray: str = ""  # why it cannot run on Ray
    on_ray: str = ""  # the case that Ray runs in its place

    @property
    def smaller_is_better(self) -> bool:
        return self.unit in SMALLER_IS_BETTER


class Cases(dict[str, Case]):
    """Cases by name, in the order of the table."""

    def add(self, name: str, unit: str, goal: Goal | None = None, **rest: Any) -> Callable[[Any], Any]:
        """Decorate the function of a case."""

        def keep(function: Callable[..., list[float]]) -> Callable[..., list[float]]:
            self[name] = Case(name, unit, function, goal, **rest)
            return function

        return keep


class Run:
    """What a case's function is given: the module (``rlray`` or ``ray``), and ways to measure."""

    def __init__(self, ray: Any, quick: bool, import_seconds: float) -> None:
        self.ray = ray
        self.quick = quick
        self.import_seconds = import_seconds
        self.notes: dict[str, float] = {}  # further figures of the case, by name
        self.window = 0.1 if quick else 1.0
        self.windows = 2 if quick else 5

    def size(self, full: int, quick: int) -> int:
        """How much work: ``full``, or ``quick`` where the benchmark itself is what is tested."""
        return quick if self.quick else full

    def rate(self, once: Callable[[], Any], units: float = 1.0) -> list[float]:
        """``units`` per second of calling ``once`` over and over: a sample per window, after one of warm-up.

        The clock is read some fifty times a window, so that it weighs nothing beside calls of a microsecond.
        """
        calls, _ = self._window(once, 1)
        measured = [self._window(once, calls // 50 + 1) for _ in range(self.windows)]
        return [units * count / passed for count, passed in measured]

    def passes(self, once: Callable[[], Any], units: float) -> list[float]:
        """``units`` per second of long calls: one sample per call, three of them."""
        return [units / seconds(once) for _ in range(1 if self.quick else 3)]

    def _window(self, once: Callable[[], Any], step: int) -> tuple[int, float]:
        """(calls, seconds): ``step`` calls at a time until the window is over."""
        start, count, passed = time.perf_counter(), 0, 0.0
        while passed < self.window:
            for _ in range(step):
                once()
            count += step
            passed = time.perf_counter() - start
        return count, passed


def seconds(once: Callable[[], Any]) -> float:
    """How long ``once`` takes."""
    start = time.perf_counter()
    once()
    return time.perf_counter() - start
