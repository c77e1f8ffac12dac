"""Where the time went: spans of every process, as a trace that Perfetto and Chrome open."""

from __future__ import annotations

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
_COLOURS = {Kind.FAILED: "terrible", Kind.WAITING: "grey", Kind.RUNNING: "thread_state_runnable"}


@dataclass(frozen=True, slots=True)
class Span:
    """One span. Times are seconds on the clock of `time.perf_counter`, which all processes share."""

    began: float
    seconds: float
    task: bytes  # what ran in the meantime; zeros outside of tasks
    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Track:
    """What is known of one process."""

    process: int
    pid: int
    label: str
    spans: Sequence[Span]  # in no order
    full: bool = False  # older ones were overwritten


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
        for row, span in _rows(track.spans):
            events.append(_event(track.process, row, span, start))
            rows = max(rows, row + 1)
        events += [
            _meta("thread_name", track.process, row, {"name": f"calls {row}" if row else "calls"})
            for row in range(rows)
        ]
    return events


def _rows(spans: Sequence[Span]) -> Iterator[tuple[int, Span]]:
    """Each span with its row: what happens within a call in the row of the call, calls side by side in rows apart."""
    ends: list[float] = []  # of the rows
    row_of: dict[bytes, int] = {}
    for span in sorted(spans, key=lambda one: (one.began, -one.seconds)):
        row = row_of.get(span.task) if span.task != NO_TASK else None
        if row is None or span.kind in (Kind.CALL, Kind.FAILED, Kind.RUNNING):
            free = (i for i, end in enumerate(ends) if end <= span.began)
            row = next(free, len(ends))
            if row == len(ends):
                ends.append(0.0)
            row_of[span.task] = row
        ends[row] = max(ends[row], span.began + span.seconds)
        yield row, span


def _event(process: int, row: int, span: Span, start: float) -> dict[str, Any]:
    event: dict[str, Any] = {
        "ph": "X",
        "name": span.name,
        "cat": _CATEGORIES[span.kind],
        "pid": process,
        "tid": row,
        "ts": round((span.began - start) * 1e6, 3),
        "dur": round(span.seconds * 1e6, 3),
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
