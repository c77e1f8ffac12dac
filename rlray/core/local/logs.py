"""What workers print: a full file per worker and stream, and beside them the names of what was printing when.

``worker-3-pid4242.out`` and ``.err`` in the log directory hold, byte for byte, what process 3 and its children wrote to
the descriptors 1 and 2; of an actor they are called ``worker-3-pid4242-Class-name.out`` once it is known. Nothing else
stands in them: an empty ``.err`` is that of a worker without complaints. They grow without limit; being appended to,
they may be truncated from outside at any time. Which task wrote which part is said by a file in the run's own
directory, ``names/3-4242``: a line ``<size of out> <size of err> <name>`` whenever another function begins.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from dataclasses import dataclass

STREAMS = ("out", "err")
_LAST_LINES = 20  # of either stream, shown when a worker dies
_LAST_BYTES = 16_384
_POLLED_PER_SECOND = 20_000  # files, at most


@dataclass
class LogFile:
    """One of a worker's two files, wherever it is by now: it may be renamed once."""

    directory: str
    process: int
    pid: int
    stream: str
    _path: str = ""

    @property
    def path(self) -> str:
        """Where it was last seen, or is expected."""
        return self._path or f"{self._stem()}.{self.stream}"

    def _stem(self) -> str:
        return f"{self.directory}/worker-{self.process}-pid{self.pid}"

    def create(self) -> int:
        """Open it for its writer; returns the descriptor."""
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def open(self) -> int:
        """Open it for a reader. Raises FileNotFoundError if it is nowhere."""
        try:
            return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._find()
            return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)

    def size(self) -> int:
        """Its size in bytes, 0 if it is nowhere."""
        with suppress(OSError):
            return os.stat(self.path).st_size
        with suppress(OSError):
            self._find()
            return os.stat(self.path).st_size
        return 0

    def _find(self) -> None:
        start = os.path.basename(self._stem())
        with os.scandir(self.directory) as entries:
            for entry in entries:
                if entry.name.startswith((f"{start}.", f"{start}-")) and entry.name.endswith(f".{self.stream}"):
                    self._path = entry.path
                    return

    def rename(self, label: str) -> None:
        """Add ``label`` to its name, unless a file of that name is there, from an earlier run."""
        path = f"{self._stem()}-{label}.{self.stream}"
        with suppress(OSError):
            os.link(self.path, path)  # which, unlike rename, replaces nothing
            os.unlink(self.path)
            self._path = path


class WorkerOutput:
    """In a worker: where what it prints goes, and word of what prints."""

    def __init__(self, names_directory: str, log_directory: str, process: int) -> None:
        """Let file descriptors 1 and 2, and Python's streams on them, go to the worker's files."""
        pid = os.getpid()
        self._files = [LogFile(log_directory, process, pid, stream) for stream in STREAMS]
        self._fds = [file.create() for file in self._files]
        names = f"{names_directory}/{process}-{pid}"
        self._names = os.open(names, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._sizes: list[int] | None = None  # when the last name was announced
        self._last, self._length = 0, 0  # where that stands in the file of names
        self._announce("")
        for number, fd in zip((1, 2), self._fds, strict=True):
            os.dup2(fd, number)
        sys.stdout = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8", errors="replace")
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="replace")
        sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr  # type: ignore[misc]

    def task(self, name: str) -> None:
        """What is printed from here on comes from the task ``name``."""
        flush()
        self._announce(name if name.isprintable() else _one_line(name))

    def actor(self, class_name: str, name: str | None) -> None:
        """This worker is an actor from here on: its files are called after it."""
        flush()
        self._announce("\t".join(_one_line(part) for part in (class_name, name) if part))
        label = "-".join(_for_a_path(part) for part in (class_name, name) if part)
        for file in self._files:
            file.rename(label)

    def _announce(self, name: str) -> None:
        with suppress(OSError):  # the disk is full: names are not worth a task
            sizes = [os.lseek(fd, 0, os.SEEK_END) for fd in self._fds]
            if sizes != self._sizes:  # something was printed under the last name; otherwise this one takes its place
                self._sizes, self._last, self._length = sizes, self._last + self._length, 0
            line = f"{sizes[0]} {sizes[1]} {name}".encode(errors="replace").ljust(self._length - 1) + b"\n"
            self._length = os.pwrite(self._names, line, self._last)


def _one_line(name: str) -> str:
    return " ".join(name.split())


def _for_a_path(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name)[:60]


def flush() -> None:
    """In a worker: what has been printed is in the files, also a line that has no end yet."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # user code may have closed or replaced it
            stream.flush()


class LogWatch:
    """In the node: which workers have printed something, and what the dead ones printed last."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._seen: dict[int, tuple[int, list[LogFile], list[int]]] = {}  # pid, files, their sizes
        self._next = 0.0

    def add(self, process: int, pid: int) -> None:
        """Follow a new worker."""
        self._seen[process] = pid, [LogFile(self._directory, process, pid, stream) for stream in STREAMS], [0, 0]

    def printed(self, now: float) -> list[tuple[int, int]]:
        """(process, pid) of those that have printed since the last look; none if it was only just before ``now``."""
        if now < self._next:
            return []
        self._next = now + max(0.05, len(self._seen) * len(STREAMS) / _POLLED_PER_SECOND)
        found = []
        for process, (pid, files, sizes) in self._seen.items():
            fresh = [file.size() for file in files]
            if fresh != sizes:
                sizes[:] = fresh
                found.append((process, pid))
        return found

    def remove(self, process: int) -> list[str]:
        """Forget a dead worker; returns the last lines of what it wrote to stdout and to stderr."""
        if process not in self._seen:
            return []
        _, files, _ = self._seen.pop(process)
        return [line for file in files for line in _last_lines(file)]


def _last_lines(file: LogFile) -> list[str]:
    try:
        fd = file.open()
    except OSError:
        return []
    try:
        size = os.fstat(fd).st_size
        data = os.pread(fd, _LAST_BYTES, max(0, size - _LAST_BYTES))
    finally:
        os.close(fd)
    lines = data.decode("utf-8", "replace").split("\n")
    if not lines[-1]:
        lines.pop()
    if size > _LAST_BYTES:
        lines[0] = "…" + lines[0]
    return lines[-_LAST_LINES:]
