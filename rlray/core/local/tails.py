"""Reading what a worker prints while it prints it: lines, each with the name of what printed it."""

from __future__ import annotations

import operator
import os
import re
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from rlray.core.local.logs import STREAMS, LogFile

CHUNK = 1 << 16  # bytes read at a time
_LONGEST = 1 << 20  # bytes of a line; a longer one is cut into such pieces
_BAR_EVERY = 10.0  # seconds between two looks at a line that is overwritten again and again
_MOVES = re.compile(r"\x1b\[[0-9;?]*[A-Za-ln-z]")  # of the cursor and the like; what ends in m is a colour


class Printed(NamedTuple):
    """Lines that one function or actor has printed, one after the other."""

    name: str  # of the function or class, empty if nothing runs yet
    actor: str  # the actor's own name, empty if it has none
    lines: list[str]


class _Mark(NamedTuple):
    """Where another name begins."""

    starts: tuple[int, int]  # in out and err
    name: str


@dataclass
class _Stream:
    file: LogFile
    at: int = 0  # read so far
    rest: bytearray = field(default_factory=bytearray)  # the beginning of a line
    rest_name: str = ""
    bar_at: float = 0.0  # when a line that is overwritten again and again is shown next; 0: there is none


class Tail:
    """The two files of one worker, read as far as they go.

    A line ends with a newline, where another task begins, and with the worker. What a carriage return overwrites is
    not given; a line that is overwritten again and again, as progress bars are, is given every ten seconds as it
    stands. Movements of the cursor are left out: here they would go over the lines of others.
    """

    def __init__(self, names_directory: str, log_directory: str, process: int, pid: int) -> None:
        self.process, self.pid = process, pid
        self._names_path = f"{names_directory}/{process}-{pid}"
        self._streams = {stream: _Stream(LogFile(log_directory, process, pid, stream)) for stream in STREAMS}
        self._marks: list[_Mark] = []  # the last may be replaced
        self._last_mark = 0  # where in the file of names that stands

    def path(self, stream: str) -> str:
        """Where the stream's file is."""
        return self._streams[stream].file.path

    def read(self, stream: str, now: float) -> tuple[list[Printed], bool]:
        """What has been printed since the last call, a chunk at most; whether there may be more."""
        source = self._streams[stream]
        try:
            fd = source.file.open()
        except OSError:  # nothing was printed, or somebody has removed it
            return [], False
        try:
            if not self._marks and not self._begin():
                return [], False
            data = os.pread(fd, CHUNK, source.at)
            if not data and os.fstat(fd).st_size < source.at:  # it was truncated
                source.at = 0
                data = os.pread(fd, CHUNK, 0)
            self._read_marks()  # after the data: what was announced before is there
            size = os.fstat(fd).st_size
        finally:
            os.close(fd)
        found: list[Printed] = []
        for name, part in self._parts(STREAMS.index(stream), source.at, data, size):
            if source.rest and name != source.rest_name:
                self._give(found, source.rest_name, source.rest)
                source.rest.clear()
            source.rest_name = name
            self._take(found, source, part, now)
        source.at += len(data)
        return found, len(data) == CHUNK

    def end(self, stream: str) -> list[Printed]:
        """The worker is dead, and everything was read: a last line that has no end."""
        source, found = self._streams[stream], list[Printed]()
        if source.rest:
            self._give(found, source.rest_name, source.rest)
            source.rest.clear()
        return found

    def unread(self, stream: str) -> int:
        """How many lines are there that were not read."""
        source = self._streams[stream]
        lines, at = 0, source.at
        with suppress(OSError):
            fd = source.file.open()
            try:
                while data := os.pread(fd, 1 << 20, at):
                    lines += data.count(b"\n")
                    at += len(data)
            finally:
                os.close(fd)
        return lines

    def _take(self, found: list[Printed], source: _Stream, part: bytes, now: float) -> None:
        """Add the whole lines of ``part``; keep the beginning of the last one."""
        end = part.rfind(b"\n") + 1
        if end:
            self._give(found, source.rest_name, source.rest + part[: end - 1])
            source.rest[:] = part[end:]
            source.bar_at = 0.0
        else:
            source.rest += part
        if b"\r" in source.rest:
            del source.rest[: max(0, source.rest.rfind(b"\r", 0, len(source.rest) - 1))]
            if not source.bar_at:
                source.bar_at = now + 1  # most are through before anybody could look
            elif now > source.bar_at:
                source.bar_at = now + _BAR_EVERY
                self._give(found, source.rest_name, source.rest)
        while len(source.rest) > _LONGEST:
            cut = _LONGEST
            while source.rest[cut] & 0xC0 == 0x80 and cut > _LONGEST - 4:  # inside a character
                cut -= 1
            self._give(found, source.rest_name, source.rest[:cut])
            del source.rest[:cut]

    @staticmethod
    def _give(found: list[Printed], name: str, data: bytes | bytearray) -> None:
        """Add the lines of ``data``, in which the last newline is left out."""
        text = data.decode("utf-8", "replace")
        if "\x1b" in text:
            text = _MOVES.sub("", text)
        lines = text.split("\n")
        if "\r" in text:
            lines = [line.rstrip("\r").rpartition("\r")[2] for line in lines]
        found.append(Printed(*_split_name(name), lines))

    # -- names -------------------------------------------------------------------------------------------------------

    def _begin(self) -> bool:
        """Begin where the files ended when the worker opened them: in a kept directory they may be older."""
        self._read_marks()
        if not self._marks:  # it has not done so yet
            return False
        for source, start in zip(self._streams.values(), self._marks[0].starts, strict=True):
            source.at = start
        return True

    def _read_marks(self) -> None:
        """Take in the names announced since, and once more the last one, which may have been replaced."""
        try:
            with open(self._names_path, "rb") as file:
                file.seek(self._last_mark)
                *lines, _ = file.read().split(b"\n")  # the last is empty, or not whole yet
        except OSError:
            return
        fresh = []
        for line in lines:
            with suppress(ValueError):  # cut short by a full disk
                out, err, name = line.decode(errors="replace").split(" ", 2)
                fresh.append(_Mark((int(out), int(err)), name.strip()))
        if fresh:
            self._marks[-1:] = fresh
            self._last_mark += sum(len(line) + 1 for line in lines[:-1])
            read = [source.at for source in self._streams.values()]
            while len(self._marks) > 1 and all(map(operator.le, self._marks[1].starts, read)):
                del self._marks[0]

    def _parts(self, side: int, start: int, data: bytes, size: int) -> list[tuple[str, bytes]]:
        """``data``, which begins at ``start`` of a file of ``size`` bytes, cut where another name begins."""
        parts: list[tuple[str, bytes]] = []
        begin, end, name = start, start + len(data), ""
        for mark in self._marks:
            at = mark.starts[side] if mark.starts[side] <= size else 0  # the file was truncated since
            if at >= end:
                break
            if at > begin:
                parts.append((name, data[begin - start : at - start]))
                begin = at
            name = mark.name
        if begin < end:
            parts.append((name, data[begin - start :]))
        return parts


def _split_name(announced: str) -> tuple[str, str]:
    name, _, actor = announced.partition("\t")
    return name, actor
