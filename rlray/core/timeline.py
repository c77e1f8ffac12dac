"""Where the time went: spans of every process, as a trace that Perfetto and Chrome open."""

from __future__ import annotations

import heapq
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

NOTABLE = 0.001  # seconds: what takes at least that is always noted
NO_TASK = bytes(10)


class Kind(IntEnum):
    """What a span is."""

    CALL = 0  # of a task or method
    FAILED = 1  # the same, and it raised
    WAITING = 2  # a thread waits, in `get` or `wait`
    PROFILE = 3  # of the user's own, see `rlray.util.profile`
    RUNNING = 4  # a call that is not over yet


_CATEGORIES = {
    Kind.CALL: "task",
    Kind.FAILED: "task,failed",
    Kind.WAITING: "waiting",
    Kind.PROFILE: "profile",
    Kind.RUNNING: "task,running",
}
_CALLS = (Kind.CALL, Kind.FAILED, Kind.RUNNING)
_ROUNDING = 2  # nanoseconds that a span may seem to outlast the one that it lies in
_COLOURS = {Kind.FAILED: "terrible", Kind.WAITING: "grey", Kind.RUNNING: "thread_state_runnable"}


@dataclass(frozen=True, slots=True)
class Span:
    """One span. Times are seconds on the clock of `time.perf_counter`, which all processes share."""

    began: float
    seconds: float
    task: bytes  # what ran in the meantime; zeros outside of tasks
    name: str
    kind: Kind
    method: bool = False  # it is a call of an actor's method


@dataclass(frozen=True, slots=True)
class Track:
    """What is known of one process."""

    process: int
    pid: int
    label: str
    spans: Sequence[Span]  # in no order
    full: bool = False  # older ones were overwritten
    actor: str | None = None  # the id of the actor that it is, or was


def trace(tracks: Iterable[Track]) -> list[dict[str, Any]]:
    """The events of a trace: a process each, in rows such that what ran at the same time lies in different ones.

    The format is Chrome's ``Trace Event Format``; times in it are microseconds since the first span.
    """
    tracks = list(tracks)
    start = min((span.began for track in tracks for span in track.spans), default=0.0)
    events: list[dict[str, Any]] = []
    for track in tracks:
        label = f"{track.label} pid={track.pid}" + (" (older calls were overwritten)" if track.full else "")
        events.append(_meta("process_name", track.process, 0, {"name": label}))
        events.append(_meta("process_sort_index", track.process, 0, {"sort_index": track.process}))
        rows = 0
        for placed in _rows(track.spans, start):
            events.append(_event(track.process, placed))
            rows = max(rows, placed.row + 1)
        events += [
            _meta("thread_name", track.process, row, {"name": f"calls {row}" if row else "calls"})
            for row in range(rows)
        ]
    return events


@dataclass(slots=True)
class _Placed:
    """A span with its place in the trace; times are nanoseconds since the trace's start."""

    span: Span
    began: int
    ended: int
    row: int = 0

    def holds(self, other: _Placed) -> bool:
        """Whether the other, which does not begin earlier, happens within this one."""
        one, two = self.span, other.span
        inside = one.task == two.task and one.kind != Kind.WAITING and two.kind not in _CALLS
        return inside and other.ended <= self.ended + _ROUNDING


def _rows(spans: Sequence[Span], start: float) -> Iterator[_Placed]:
    """Each span with its row: what happens within a call in the row of the call, calls side by side in rows apart.

    Spans of a row either hold one another or do not touch.
    """
    rows: list[list[_Placed]] = []  # of each, what goes on, the innermost last
    row_of: dict[bytes, int] = {}  # by task
    busy: list[tuple[int, int]] = []  # (end, row), a heap
    free: list[int] = []  # rows, a heap
    for span in sorted(spans, key=lambda one: (one.began, -one.seconds, one.kind not in _CALLS)):
        began = round((span.began - start) * 1e9)
        placed = _Placed(span, began, max(began, round((span.began + span.seconds - start) * 1e9)))
        while busy and busy[0][0] <= began:
            heapq.heappush(free, heapq.heappop(busy)[1])
        open_here = rows[row_of[span.task]] if span.task in row_of else []
        while open_here and open_here[-1].ended <= began:
            open_here.pop()
        if open_here and open_here[-1].holds(placed):
            placed.row, placed.ended = open_here[-1].row, min(placed.ended, open_here[-1].ended)
            open_here.append(placed)
        else:
            placed.row = heapq.heappop(free) if free else len(rows)
            rows[placed.row : placed.row + 1] = [[placed]]
            row_of[span.task] = placed.row
            heapq.heappush(busy, (placed.ended, placed.row))
        yield placed


def _event(process: int, placed: _Placed) -> dict[str, Any]:
    span = placed.span
    event: dict[str, Any] = {
        "ph": "X",
        "name": span.name,
        "cat": _CATEGORIES[span.kind],
        "pid": process,
        "tid": placed.row,
        "ts": placed.began / 1e3,
        "dur": (placed.ended - placed.began) / 1e3,
    }
    if span.task != NO_TASK:
        event["args"] = {"task_id": span.task.hex()}
    if span.kind in _COLOURS:
        event["cname"] = _COLOURS[span.kind]
    return event


def _meta(name: str, process: int, row: int, args: Mapping[str, Any]) -> dict[str, Any]:
    return {"ph": "M", "name": name, "pid": process, "tid": row, "args": dict(args)}


def write(events: Sequence[Mapping[str, Any]], filename: str | os.PathLike[str]) -> None:
    """Write a trace to a file, whole or not at all."""
    temporary = f"{os.fspath(filename)}.{os.getpid()}.tmp"
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump({"traceEvents": events, "displayTimeUnit": "ms"}, file)
    os.replace(temporary, filename)
