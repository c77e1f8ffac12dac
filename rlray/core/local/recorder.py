"""What calls took: a ring of spans per process, in a file of the run's directory, so that it outlives the process.

Calls of a millisecond or more are always noted: to them it costs nothing that could be measured, and a look at where
the time went needs no preparation. With ``init(timeline=True)``, or while somebody records from the command line, all
are. Spans are written in batches, by the process itself, so that a full disk is an error and not a signal; a process
that is killed takes those of its last second with it.
"""

from __future__ import annotations

import json
import logging
import os
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlray.core.state import Report, View
from rlray.core.timeline import NOTABLE, Kind, Span, Track

logger = logging.getLogger(__name__)

_LAYOUT = "dd10sIBx"  # began, seconds, task, name, kind
_FIELDS = 5
_SPAN = struct.Struct(f"<{_LAYOUT}")
_BATCH = 128  # spans written at once
_SPANS = struct.Struct(f"<{_LAYOUT * _BATCH}")
_DELAY = 1.0  # seconds after which a span is written at the latest, when the next one comes
_MOST = 1 << 18  # spans kept of a process: 8 MB
_MOST_NAMES = 1 << 12
_OTHERS = "(other names)"


class Recorder:
    """Notes the spans of one process. `add` may be called from any thread."""

    def __init__(self, directory: str, process: int, everything: bool) -> None:
        self.least = 0.0 if everything else NOTABLE  # seconds; shorter ones are not worth a call of `add`
        self._everything = everything
        self._path = Path(directory) / str(process)
        self._lock = threading.Lock()
        self._batch: list[Any] = []  # the fields of spans, one after the other
        self._due = 0.0  # when the batch is written at the latest
        self._count = 0  # spans written
        self._fd = -1
        self._names_fd = -1
        self._names: dict[str, int] = {}
        self._label = ""

    def record(self, everything: bool) -> None:
        """Note all spans from now on, or, unless the run was started so, only notable ones again."""
        if self.least <= NOTABLE:  # else the disk has refused
            self.least = 0.0 if everything or self._everything else NOTABLE

    def label(self, text: str) -> None:
        """What the process is, for people."""
        with self._lock:
            self._label = text
            if self._names_fd >= 0:
                self._note({"label": text})

    def add(self, began: float, seconds: float, name: str, kind: Kind, task: bytes) -> None:
        """Note a span of at least `least` seconds."""
        number = self._names.get(name)
        if number is None:
            with self._lock:
                number = self._new_name(name)
        batch = self._batch
        batch += (began, seconds, task, number, kind)  # at once, whatever other threads do
        if len(batch) >= _BATCH * _FIELDS or began > self._due:
            self.flush()

    def flush(self) -> None:
        """Everything noted so far is in the file."""
        with self._lock:
            self._write()

    def close(self) -> None:
        """Note nothing any more."""
        with self._lock:
            self.least = float("inf")
            for fd in (self._fd, self._names_fd):
                if fd >= 0:
                    os.close(fd)
            self._fd = self._names_fd = -1

    def _new_name(self, name: str) -> int:
        if len(self._names) >= _MOST_NAMES:
            name = _OTHERS
        number = self._names.get(name)
        if number is None:
            number = self._names[name] = len(self._names)
            if self._fd >= 0:
                self._note({"name": name})
        return number

    def _note(self, line: dict[str, object]) -> None:
        try:
            os.write(self._names_fd, json.dumps(line).encode() + b"\n")
        except OSError as why:
            self._give_up(why)

    def _open(self) -> None:
        self._path.parent.mkdir(mode=0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        self._fd = os.open(f"{self._path}.spans", flags, 0o600)
        self._names_fd = os.open(f"{self._path}.names", flags | os.O_APPEND, 0o600)
        self._note({"pid": os.getpid(), "label": self._label})
        for name in list(self._names):
            self._note({"name": name})

    def _write(self) -> None:
        self._due = time.perf_counter() + _DELAY
        while self._batch:
            fields = self._batch[: _BATCH * _FIELDS]
            del self._batch[: len(fields)]
            count = len(fields) // _FIELDS
            data = (_SPANS if count == _BATCH else struct.Struct(f"<{_LAYOUT * count}")).pack(*fields)
            at = self._count % _MOST
            room = (_MOST - at) * _SPAN.size
            self._count += count
            if self.least <= NOTABLE:
                try:
                    if self._fd < 0:
                        self._open()
                    os.pwrite(self._fd, data[:room], at * _SPAN.size)
                    os.pwrite(self._fd, data[room:], 0)
                except OSError as why:
                    self._give_up(why)

    def _give_up(self, why: OSError) -> None:
        if self.least <= NOTABLE:
            logger.warning("the timeline of this process ends here: %s cannot be written: %s", self._path, why)
        self.least = float("inf")


def read(directory: str | Path) -> Iterator[Track]:
    """The spans of every process of a run, also of those that have ended."""
    for path in sorted(Path(directory).glob("*.spans"), key=lambda path: int(path.stem)):
        try:
            lines = path.with_suffix(".names").read_text().splitlines()
            data = path.read_bytes()
        except OSError:  # it goes away at this moment
            continue
        known = [json.loads(line) for line in lines if line.endswith("}")]
        names = [one["name"] for one in known if "name" in one]
        label = [one["label"] for one in known if "label" in one]
        pid = [one["pid"] for one in known if "pid" in one]
        whole = memoryview(data)[: len(data) // _SPAN.size * _SPAN.size]
        spans = tuple(
            Span(began, seconds, task, names[name], Kind(kind))
            for began, seconds, task, name, kind in _SPAN.iter_unpack(whole)
            if began and name < len(names)
        )
        yield Track(int(path.stem), pid[0] if pid else 0, label[-1] if label else "", spans, len(spans) >= _MOST)


def recorded(directory: str | Path, report: Report) -> list[Track]:
    """The tracks of a run whose processes have just reported: with what they run at this moment."""
    view = View(report)
    found = {track.process: track for track in read(directory)}
    for process, part in report["processes"].items():
        running = part.get("running", ())
        if process not in found:
            found[process] = Track(process, part["pid"], "", ())
        spans = [Span(part["now"] - seconds, seconds, task, name, Kind.RUNNING) for task, name, seconds in running]
        track = found[process]
        found[process] = replace(track, label=track.label or view.label(process), spans=[*track.spans, *spans])
    return [track for _, track in sorted(found.items()) if track.spans]


def forget(directory: str | Path, process: int) -> None:
    """Remove the spans of a process."""
    for suffix in (".spans", ".names"):
        (Path(directory) / f"{process}{suffix}").unlink(missing_ok=True)
