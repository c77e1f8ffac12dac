"""Values on disk: when the store is full, the owner of idle values writes them to files, and whoever reads maps those.

What may move: a value that this process owns, that no other process holds a credit for, of which no view is alive
here, and whose payload stands nowhere but in its entry. Then nobody can be reading it, and nobody can begin to without
asking the entry, under the loop's lock. The file is written without the lock, from memory that does not change; only
then, under the lock, the entry is looked at again: if it is still idle, its payload names the file from there on and
the extent is released; if not, the file is thrown away. So no reader ever waits for the disk, and none reads what has
moved.

A value stays on disk once it is there. It is read in place, through a mapping of its file, so that reading needs no
room in the store; what is read often stays in the kernel's page cache. Somebody who deletes a file loses the value,
with an error that names the file; somebody who cut one short while it is read would kill the reader, which is why only
this user may write there.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from rlray.core.exceptions import ObjectLostError
from rlray.core.local.complaint import Kept, Way, kept
from rlray.core.local.loop import Loop
from rlray.core.local.references import Entry, Payload, References
from rlray.core.local.store import Arena, Buffer, Part, lay_out

_CHUNK = 1 << 24  # bytes written at once
_BATCH = 16  # at least this part of the store is made free at once: a sixteenth


class Spiller:
    """Moves values of this process to disk. `make_room` may be called from any thread, without the loop's lock."""

    def __init__(
        self,
        directory: str,
        arena: Arena,
        capacity: int,
        references: References,
        loop: Loop,
        being_read: Callable[[bytes], bool],
        moves: Callable[[Payload], bool],
        free: Callable[[Payload], None],
    ) -> None:
        self._directory, self._arena, self._batch = Path(directory), arena, capacity // _BATCH
        self._references, self._loop = references, loop
        self._being_read = being_read  # whether a view of the value is alive here
        self._moves = moves  # whether memory gets free when the value goes
        self._free = free
        self._one = threading.Lock()  # one thread writes at a time
        self._failure = ""
        self._over = False

    def close(self) -> None:
        """Move nothing any more; when this returns nobody reads the store or writes. Not with the loop's lock."""
        self._over = True
        with self._one:
            """Whoever was at it has stopped."""

    def make_room(self, needed: int) -> int:
        """Move idle values to disk, oldest first, until ``needed`` bytes or more are free; returns the bytes moved.

        If the disk takes no more, what has not been moved stays in memory, and `kept` says so.
        """
        moved, enough = 0, max(needed, self._batch)
        with self._one:
            with self._loop.lock:
                idle = [(object_id, entry, entry.payload) for object_id, entry in self._idle()]
            for object_id, entry, payload in idle:
                if moved >= enough or self._over:
                    break
                assert payload is not None
                try:
                    file = self._write(object_id, payload)
                except OSError as why:
                    self._failure = f"spilling to {self._directory} failed: {why.strerror or why}"
                    break
                self._failure = ""
                with self._loop.lock:
                    still = self._references.entries.get(object_id) is entry and entry.payload is payload
                    if still and self._is_idle(object_id, entry):
                        entry.payload = file
                        self._free(payload)
                        moved += _size(payload)
                        continue
                forget(file)
        return moved

    def kept(self, empty: int) -> Kept:
        """What keeps the values of this process in memory, beside ``empty`` bytes of arrays that are no values yet."""
        me = self._references.me
        with self._loop.lock:
            owned = [(entry, self._keepers(object_id, entry)) for object_id, entry in self._owned()]
            values = [(_size(entry.payload), entry.maker, keepers) for entry, keepers in owned if keepers]
        return kept(values, (me, empty), self._failure)

    def _keepers(self, object_id: bytes, entry: Entry) -> list[tuple[int, Way]]:
        """Who keeps the value in memory, and how; nobody if it may move. See `_is_idle`."""
        me = self._references.me
        found: list[tuple[int, Way]] = [(holder, "references") for holder in entry.held_by()]
        if self._being_read(object_id):
            found.append((me, "arrays"))
        if not entry.movable:
            found.append((me, "calls"))
        if not found and self._failure and self._is_idle(object_id, entry):
            found.append((me, "disk"))
        return found  # an array of `empty` that is part of it counts as such

    def _owned(self) -> Iterator[tuple[bytes, Entry]]:
        for object_id, entry in self._references.entries.items():
            if entry.owned and entry.payload is not None and entry.payload[0] == "stored":
                yield object_id, entry

    def _idle(self) -> Iterator[tuple[bytes, Entry]]:
        return ((object_id, entry) for object_id, entry in self._owned() if self._is_idle(object_id, entry))

    def _is_idle(self, object_id: bytes, entry: Entry) -> bool:
        assert entry.payload is not None
        return entry.movable and not entry.holders and not self._being_read(object_id) and self._moves(entry.payload)

    def _write(self, object_id: bytes, payload: Payload) -> Payload:
        """Write a value to a file of its own; returns the payload that names it. Nothing is left if it fails."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(object_id)
        with suppress(FileNotFoundError):
            os.unlink(path)  # of a value that was made again; whoever still reads the old file goes on doing so
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            inside = [part for part in payload[3] if not isinstance(part, bytes)]
            spans, end = lay_out([size for _, size in inside])
            os.truncate(fd, end)
            for (offset, size), (at, _) in zip(inside, spans, strict=True):
                for start in range(0, size, _CHUNK):
                    if self._over:
                        raise OSError("the run is over")
                    _write_all(fd, self._arena.bytes_at(offset + start, min(_CHUNK, size - start)), at + start)
        except BaseException:
            os.unlink(path)
            raise
        finally:
            os.close(fd)
        new = iter(spans)
        return ("spilled", path, tuple(part if isinstance(part, bytes) else next(new) for part in payload[3]))

    def _path(self, object_id: bytes) -> str:
        return str(self._directory / f"{_prefix(self._references.me)}{object_id.hex()}")

    def inherit(self, object_id: bytes, payload: Payload) -> Payload:
        """The owner of a value on disk died: a payload that names the file in this process's name.

        Where the file system cannot do that, the value goes with its owner.
        """
        path = self._path(object_id)
        with suppress(OSError):
            os.link(payload[1], path)
        return ("spilled", path, payload[2])


def _prefix(process: int) -> str:
    """What the names of a process's files begin with."""
    return f"{process:08x}-"


def forget_all(directory: str, process: int) -> None:
    """Remove the files of a dead process, once all others have had the time to `Spiller.inherit`."""
    for path in Path(directory).glob(f"{_prefix(process)}*"):
        path.unlink(missing_ok=True)


def _write_all(fd: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(fd, data, offset)
        data, offset = data[written:], offset + written


def _size(payload: Payload | None) -> int:
    assert payload is not None
    return sum(part[1] for part in payload[3] if not isinstance(part, bytes))


def read(payload: Payload) -> tuple[Buffer, list[Buffer]]:
    """The pickle and the buffers of a value on disk; its file may go while they live.

    Raises: ObjectLostError if the file is not there, or not whole; OSError if it cannot be read just now.
    """
    from rlray.core.views import private

    _, path, parts = payload
    _, size = lay_out([part[1] for part in parts if not isinstance(part, bytes)])
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ObjectLostError(f"the value had been moved to {path}, which somebody has removed") from None
    try:
        if os.fstat(fd).st_size != size:
            raise ObjectLostError(f"the value had been moved to {path}, which somebody has changed")
        pieces: list[Buffer] = [_piece(part, fd, private) for part in parts]
    finally:
        os.close(fd)
    return pieces[0], pieces[1:]


def _piece(part: Part, fd: int, private: Callable[[int, int, int], memoryview]) -> Buffer:
    return part if isinstance(part, bytes) else private(fd, *part).toreadonly()


def forget(payload: Payload) -> None:
    """Remove the file of a value that nobody needs any more."""
    with suppress(OSError):  # somebody was faster; else it goes with the run's directory
        os.unlink(payload[1])
