"""What calls took: a ring of spans per process, in a file of the run's directory, so that it outlives the process.

Calls of a millisecond or more are always noted: to them it costs nothing that could be measured, and a look at where
the time went needs no preparation. With ``init(timeline=True)``, or while somebody records from the command line, all
are. Spans are written in batches, by the process itself, so that a full disk is an error and not a signal; a process
that is killed takes those of its last second with it. A short call may take no longer than noting it carelessly would:
what is noted is five fields at the end of a list, and all else is done for a batch at a time.
"""

from __future__ import annotations

import json
import logging
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
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
_NAME = 3  # its place among the fields
_KINDS = tuple(Kind)
_NEVER = float("inf")


class _Numbers(dict[str, int]):
    """Numbers of names; a new name gets the next one, and ``tell`` is told of it."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__()
        self._tell = tell

    def __missing__(self, name: str) -> int:
        if len(self) >= _MOST_NAMES:
            if _OTHERS in self:
                return self[_OTHERS]
            name = _OTHERS
        number = self[name] = len(self)
        self._tell(name)
        return number


class Recorder:
    """Notes the spans of one process, of any thread.

    `add` notes one. What is called by the million does it itself: ``notes.extend((began, seconds, task, name, kind))``
    if it took at least `least` seconds, and `look` when many such calls are over.
    """

    def __init__(self, directory: str, process: int, everything: bool) -> None:
        self.least = 0.0 if everything else NOTABLE  # seconds; shorter ones are not noted
        self.notes: list[Any] = []  # the fields of spans not written yet, one after the other; always this list
        self._everything = everything
        self._path = Path(directory) / str(process)
        self._lock = threading.Lock()
        self._due = 0.0  # when the notes are written at the latest
        self._count = 0  # spans written
        self._fd = -1
        self._names_fd = -1
        self._numbers = _Numbers(self._note_name)
        self._identity: dict[str, object] = {"pid": os.getpid(), "label": "", "actor": None, "since": None}

    def record(self, everything: bool) -> None:
        """Note all spans from now on, or, unless the run was started so, only notable ones again."""
        if self._notes():
            self.least = 0.0 if everything or self._everything else NOTABLE

    def become(self, label: str, actor: bytes) -> None:
        """The process is an actor from here on, called so for people."""
        with self._lock:
            self._identity |= {"label": label, "actor": actor.hex(), "since": time.perf_counter()}
            if self._names_fd >= 0:
                self._note(self._identity)

    def _notes(self) -> bool:
        """Whether anything is noted at all: not once the disk has refused, nor when closed."""
        return self.least <= NOTABLE

    def add(self, began: float, seconds: float, name: str, kind: Kind, task: bytes) -> None:
        """Note a span. Worth a call are those of at least `least` seconds."""
        self.notes.extend((began, seconds, task, name, kind))  # at once, whatever other threads do
        self.look()

    def look(self) -> None:
        """Write what is noted, if it is much or old."""
        notes = self.notes
        if notes and (len(notes) >= _BATCH * _FIELDS or notes[-_FIELDS] > self._due):
            self.flush()

    def flush(self) -> None:
        """Everything noted so far is in the file."""
        with self._lock:
            self._write()

    def close(self) -> None:
        """Note nothing any more."""
        with self._lock:
            self.least = _NEVER
            for fd in (self._fd, self._names_fd):
                if fd >= 0:
                    os.close(fd)
            self._fd = self._names_fd = -1

    def _note_name(self, name: str) -> None:
        if self._names_fd >= 0:
            self._note({"name": name})

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
        self._note(self._identity)
        for name in self._numbers:
            self._note({"name": name})

    def _write(self) -> None:
        self._due = time.perf_counter() + _DELAY
        while self.notes:
            fields = self.notes[: _BATCH * _FIELDS]
            del self.notes[: len(fields)]
            fields[_NAME::_FIELDS] = map(self._numbers.__getitem__, fields[_NAME::_FIELDS])
            count = len(fields) // _FIELDS
            data = (_SPANS if count == _BATCH else struct.Struct(f"<{_LAYOUT * count}")).pack(*fields)
            at = self._count % _MOST
            room = (_MOST - at) * _SPAN.size
            self._count += count
            if self._notes():
                try:
                    if self._fd < 0:
                        self._open()
                    os.pwrite(self._fd, data[:room], at * _SPAN.size)
                    if data[room:]:
                        os.pwrite(self._fd, data[room:], 0)
                except OSError as why:
                    self._give_up(why)

    def _give_up(self, why: OSError) -> None:
        if self._notes():
            logger.warning("the timeline of this process ends here: %s cannot be written: %s", self._path, why)
        self.least = _NEVER


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
        who = next((one for one in reversed(known) if "pid" in one), None)
        if who is None:  # it is about to say so
            continue
        since = who["since"] or _NEVER
        whole = memoryview(data)[: len(data) // _SPAN.size * _SPAN.size]
        spans = tuple(
            Span(began, seconds, task, names[name], _KINDS[kind], began >= since)
            for began, seconds, task, name, kind in _SPAN.iter_unpack(whole)
            if began and name < len(names)
        )
        full = len(whole) >= _MOST * _SPAN.size
        yield Track(int(path.stem), who["pid"], who["label"], spans, full, who["actor"])


def recorded(directory: str | Path, report: Report) -> list[Track]:
    """The tracks of a run whose processes have just reported: with what they run at this moment."""
    view = View(report)
    found = {track.process: track for track in read(directory)}
    for process, part in report["processes"].items():
        if part.get("running"):
            track = found.get(process) or Track(process, part["pid"], "", ())
            found[process] = replace(track, spans=[*track.spans, *_under_way(track, part)])
    return [
        replace(track, label=track.label or view.label(process))
        for process, track in sorted(found.items())
        if track.spans
    ]


def _under_way(track: Track, part: Mapping[str, Any]) -> Iterator[Span]:
    """What a process has reported to run, as spans up to that moment, or to the end of what else is known of it."""
    running = {one["id"]: one for one in part["running"]}
    until = dict.fromkeys(running, part["now"])
    for span in track.spans:
        if span.task in running:
            until[span.task] = max(until[span.task], span.began + span.seconds)
            if span.began == running[span.task]["began"]:  # it has ended since
                del running[span.task]
    for task, one in running.items():
        yield Span(one["began"], until[task] - one["began"], task, one["name"], Kind.RUNNING, one["method"])


def forget(directory: str | Path, process: int) -> None:
    """Remove the spans of a process that has ended."""
    for suffix in (".spans", ".names"):
        (Path(directory) / f"{process}{suffix}").unlink(missing_ok=True)
