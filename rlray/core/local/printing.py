"""In the driver: a thread that prints what workers print, as far as the driver's own output takes it.

It reads the workers' files no faster than it prints, so that nothing piles up in memory, however much they print and
however slow the terminal or the reader of a pipe is: what was not printed yet lies in the files.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TextIO

from rlray.core.local.folding import Blocks, Folder
from rlray.core.local.logs import STREAMS
from rlray.core.local.settings import RunSettings
from rlray.core.local.tails import Printed, Tail

_QUIET, _UNFINISHED = 0.05, 1.0  # seconds after which a block of lines counts as complete; half a traceback
_PIECE = 4096  # bytes that a pipe takes without blocking, once it is ready for any
_LOOK = 0.1  # seconds between two looks whether to give up
_PATIENCE = 10.0  # seconds that printing may go on for when the program ends


class Outlet:
    """The driver's stdout or stderr, whatever that is at the moment: a file, a terminal, a notebook's, or nothing."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._broken: object = None  # a stream that takes nothing any more

    def write(self, text: str, give_up: Callable[[], bool]) -> int:
        """Print lines; returns how many were left out because ``give_up`` said so while the reader took none."""
        stream: Any = getattr(sys, self._name)
        if stream is None or stream is self._broken:
            return 0
        encoding = getattr(stream, "encoding", None) or "utf-8"
        try:
            data = text.encode(encoding, "backslashreplace")
            if stream is getattr(sys, f"__{self._name}__"):
                return self._write_pieces(stream, data, give_up)
            stream.write(data.decode(encoding))
            stream.flush()
        except Exception:  # its reader has gone, it was closed, or is none at all: then nobody wants the rest
            self._broken = stream
        return 0

    @staticmethod
    def _write_pieces(stream: TextIO, data: bytes, give_up: Callable[[], bool]) -> int:
        """Never block for long, so that the program can end whatever the reader does."""
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
        with suppress(BlockingIOError):
            stream.flush()

        def ready() -> bool:
            while not poll.poll(_LOOK * 1000):
                if give_up():
                    return False
            return True

        start = 0
        while start < len(data):
            if not ready():
                return data.count(b"\n", start)
            end = data.rfind(b"\n", start, start + _PIECE) + 1 or start + _PIECE
            stream.buffer.write(data[start:end])
            start = end
            while True:
                try:
                    stream.buffer.flush()
                    break
                except BlockingIOError:  # somebody made it non-blocking, and the rest is in its buffer
                    if not ready():
                        return data.count(b"\n", start)
        return 0


@dataclass(eq=False)
class _Source:
    """One stream of one worker."""

    tail: Tail
    stream: str
    blocks: Blocks = field(default_factory=Blocks)
    name: str = ""  # what printed last
    actor: str = ""

    @property
    def prefix(self) -> str:
        name = f"{self.name}:{self.actor} " if self.actor else f"{self.name} " if self.name else ""
        return f"({name}pid={self.tail.pid}) "


class LogPrinter:
    """Prints the lines of the workers that it is told to look at, until it is told that all end.

    Args:
        settings: The run's.
        done: Called when all has been printed, or as much as can be, after every worker has ended.
    """

    def __init__(self, settings: RunSettings, done: Callable[[], None]) -> None:
        self._settings, self._done = settings, done
        self._outlets = {"out": Outlet("stdout"), "err": Outlet("stderr")}
        self._folders = {stream: Folder() for stream in STREAMS} if settings.fold_logs else {}
        self._sources: dict[tuple[int, int], list[_Source]] = {}
        self._waiting: dict[_Source, float] = {}  # for the rest of a block, until then
        self._changed = threading.Condition()
        self._fresh: set[tuple[int, int]] = set()  # workers, (process, pid), that have printed something
        self._dead: set[tuple[int, int]] = set()
        self._closing = False
        self._deadline: float | None = None
        self._left_out = 0  # lines
        self._thread: threading.Thread | None = None

    # -- from other threads ------------------------------------------------------------------------------------------

    def look(self, workers: Iterable[tuple[int, int]], dead: bool = False) -> None:
        """These workers, each (process, pid), have printed something, or are dead."""
        with self._changed:
            self._fresh.update(workers)
            if dead:
                self._dead.update(workers)
            self._changed.notify()
        self._start()

    def finish(self) -> None:
        """Every worker has ended: print what they have left, and say that it is done."""
        self._close()
        self._start()

    def close(self) -> None:
        """As `finish`, and wait for it. What cannot be printed in some seconds is left out, which is said."""
        self._deadline = time.monotonic() + _PATIENCE
        self._close()
        if self._thread is None:  # no thread can be started while Python ends
            self._finish()
            return
        try:
            self._thread.join(_PATIENCE + 1)
        finally:
            self._deadline = 0.0  # also if the user lost patience
            self._thread.join(1)

    def _close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="rlray-logs", daemon=True)
            self._thread.start()

    # -- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing:
            with self._changed:
                if not self._fresh and not self._closing:
                    self._changed.wait(self._seconds_left())
                workers, self._fresh = self._fresh, set()
            unfinished = {worker for worker in workers if self._read(worker, worker in self._dead)}
            with self._changed:
                self._fresh |= unfinished
            self._settle()
        self._finish()

    def _seconds_left(self) -> float | None:
        """Until there is something to do, if nobody prints."""
        due = [folder.due() for folder in self._folders.values()]
        soon = min([*self._waiting.values(), *(end for end in due if end is not None)], default=None)
        return None if soon is None else max(0.0, soon - time.monotonic())

    def _read(self, worker: tuple[int, int], dead: bool) -> bool:
        """Print some of what a worker has printed; whether there may be more."""
        unfinished = False
        for source in self._sources_of(worker):
            printed, more = source.tail.read(source.stream, time.monotonic())
            unfinished |= more
            if dead and not more:
                printed += source.tail.end(source.stream)
            self._show(source, printed)
            if dead and not more:
                self._end_block(source)
        if dead and not unfinished:
            del self._sources[worker]
            self._dead.discard(worker)
            with suppress(OSError):
                os.unlink(self._names_file(worker))  # so that it is not read again at the end
        return unfinished

    def _sources_of(self, worker: tuple[int, int]) -> list[_Source]:
        if worker not in self._sources:
            tail = Tail(self._settings.names_directory, self._settings.log_directory, *worker)
            self._sources[worker] = [_Source(tail, stream) for stream in STREAMS]
        return self._sources[worker]

    def _names_file(self, worker: tuple[int, int]) -> str:
        return f"{self._settings.names_directory}/{worker[0]}-{worker[1]}"

    def _show(self, source: _Source, printed: Iterable[Printed]) -> None:
        shown: list[str] = []
        folder = self._folders.get(source.stream)
        for name, actor, lines in printed:
            if (name, actor) != (source.name, source.actor):
                if folder is not None:
                    shown += self._fold(folder, source, source.blocks.rest())
                source.name, source.actor = name, actor
            if folder is not None:
                shown += self._fold(folder, source, source.blocks.add(lines))
                wait = _UNFINISHED if source.blocks.expects_more() else _QUIET
                self._waiting[source] = time.monotonic() + wait
            else:
                shown += map(source.prefix.__add__, lines)
        self._write(source.stream, shown)

    @staticmethod
    def _fold(folder: Folder, source: _Source, blocks: list[str]) -> list[str]:
        return folder.take(source.tail.process, source.name, source.prefix, blocks, time.monotonic())

    def _end_block(self, source: _Source) -> None:
        self._waiting.pop(source, None)
        folder = self._folders.get(source.stream)
        if folder is not None:
            self._write(source.stream, self._fold(folder, source, source.blocks.rest()))

    def _settle(self) -> None:
        """Show what has waited long enough: for the rest of a block, or for others who print the same."""
        now = time.monotonic()
        for source in [source for source, until in self._waiting.items() if until <= now]:
            self._end_block(source)
        for stream, folder in self._folders.items():
            self._write(stream, folder.expire(now))

    def _write(self, stream: str, lines: list[str]) -> None:
        if lines:
            self._left_out += self._outlets[stream].write("\n".join(lines) + "\n", self._given_up)

    # -- the end -----------------------------------------------------------------------------------------------------

    def _given_up(self) -> bool:
        return self._deadline is not None and time.monotonic() > self._deadline

    def _finish(self) -> None:
        """Print all that is left, if that is possible."""
        workers = {*self._sources, *self._all_workers()}
        while workers and not self._given_up():
            workers = {worker for worker in workers if self._read(worker, dead=True)}
        for source in list(self._waiting):  # there are some only if it was given up
            self._end_block(source)
        for stream, folder in self._folders.items():
            self._write(stream, folder.expire(float("inf")))
        if workers or self._left_out:
            self._say_what_is_left(workers)
        self._done()

    def _all_workers(self) -> list[tuple[int, int]]:
        """All that have not been read to their end."""
        with suppress(OSError):
            names = os.listdir(self._settings.names_directory)
            return [(int(process), int(pid)) for process, _, pid in (name.partition("-") for name in names)]
        return []

    def _say_what_is_left(self, workers: Iterable[tuple[int, int]]) -> None:
        lines, paths = self._left_out, set[str]()
        for source in [source for worker in workers for source in self._sources_of(worker)]:
            unread = source.tail.unread(source.stream)
            if unread:
                lines += unread
                paths.add(source.tail.path(source.stream))
        kept = not self._settings.log_directory.startswith(f"{self._settings.directory}/")
        where = paths.pop() if len(paths) == 1 else self._settings.log_directory
        text = f"they are in {where}" if kept else "init(log_dir=...) would have kept them"
        self._deadline = time.monotonic() + 2 * _LOOK
        self._outlets["err"].write(f"rlray: {lines:,} lines of workers were not printed here: {text}\n", self._given_up)
