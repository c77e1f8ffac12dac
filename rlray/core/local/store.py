"""The object store: one sparse, nameless file in memory, mapped by every process of the run.

Nothing lies in /dev/shm, and the kernel frees the memory when the last process ends, however it ends. The node hands
out extents of pages (`Extents`); whoever was handed one writes and reads through its own mapping (`Arena`).
"""

from __future__ import annotations

import bisect
import ctypes
import mmap
import os
from collections.abc import Sequence
from typing import Any

from rlray.core.local.spawn import nameless_file

INLINE_LIMIT = 100_000  # bytes: smaller values travel inside messages
PAGE = mmap.PAGESIZE
MIN_CAPACITY = 1 << 20  # bytes
_SPAN = 4  # addresses of the store for each byte that may be taken
_ALIGN = 64  # bytes: buffers start on cache lines
_LARGE = 1 << 16  # bytes: copies from here on let other threads run meanwhile

Part = bytes | tuple[int, int]
"""A piece of a stored value: the bytes themselves, or (offset, length) where they lie in a file."""

Buffer = bytes | memoryview


def set_capacity(fd: int, capacity: int) -> None:
    """Let an empty file be a store of ``capacity`` bytes; it takes none of them yet."""
    os.ftruncate(fd, capacity * _SPAN)


def create_file(capacity: int) -> int:
    """A nameless sparse file for a store of ``capacity`` bytes; returns its descriptor."""
    fd = nameless_file()
    set_capacity(fd, capacity)
    return fd


def default_capacity() -> int:
    """30 % of the machine's memory, as Ray takes."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(total * 0.3) // PAGE * PAGE


def lay_out(sizes: Sequence[int], offset: int = 0) -> tuple[list[tuple[int, int]], int]:
    """Where pieces of these sizes lie, one after the other from ``offset`` on, and where the last one ends."""
    spans = []
    for size in sizes:
        spans.append((offset, size))
        offset += -(-size // _ALIGN) * _ALIGN
    return spans, offset


def whole_pages(size: int) -> int:
    """The bytes that an extent for ``size`` bytes takes."""
    return max(PAGE, -(-size // PAGE) * PAGE)


class Arena:
    """This process's mapping of the store."""

    def __init__(self, fd: int, capacity: int) -> None:
        self._fd = fd
        self._map = mmap.mmap(fd, capacity * _SPAN)
        self._view = memoryview(self._map)
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(self._map))

    @property
    def mapping(self) -> mmap.mmap:
        """What an array holds that lies in the store, and that no view keeps alive."""
        return self._map

    def forget(self) -> None:
        """The run is over: the memory is the kernel's again as soon as no array of this process lies there."""
        del self._map, self._view

    def write(self, offset: int, piece: Buffer) -> None:
        """Copy a piece to ``offset``: the one copy of its life."""
        size = memoryview(piece).nbytes
        if size < _LARGE:
            self._view[offset : offset + size] = piece
        else:
            from rlray.core.views import copy  # numpy, which a small program never needs

            copy(self._view[offset : offset + size], piece)

    def bytes_at(self, offset: int, size: int) -> memoryview:
        """The bytes at ``offset``, for immediate use: nothing keeps them from being reused."""
        return self._view[offset : offset + size]

    def read(self, parts: Sequence[Part], keep: object) -> tuple[Buffer, list[Buffer]]:
        """The pickle and the read-only buffers of a value, without a copy.

        ``keep`` stays referenced as long as any view of the buffers lives, so that the extent is not reused under it.
        """
        from rlray.core.views import pinned

        head, *rest = parts
        data = head if isinstance(head, bytes) else self.bytes_at(*head)
        return data, [part if isinstance(part, bytes) else pinned(self._map, self._fd, *part, keep) for part in rest]

    def address_of(self, offset: int) -> int:
        """Where an offset lies in the memory of this process."""
        return self._start + offset

    def offset_of(self, buffer: memoryview) -> int | None:
        """Where a buffer lies in the store; None if it lies elsewhere."""
        from rlray.core.views import address

        offset = address(buffer) - self._start
        return offset if 0 <= offset < len(self._map) else None

    def give_back(self, offset: int, size: int) -> None:
        """Return free pages to the kernel; they read as zeros afterwards."""
        if hasattr(mmap, "MADV_REMOVE"):
            self._map.madvise(mmap.MADV_REMOVE, offset, size)


class Extents:
    """Which pages of the store are taken, and by whom: a first-fit allocator of at most ``capacity`` bytes.

    Addresses are many times as many as bytes may be taken, so that large extents find their place between small ones
    that stay. Low ones are used first, so that warm pages are used again. Pages are free again when the last of an
    extent's holders has freed it. An id is never used twice, and a process holds an extent once or not at all: freeing
    what is not held does nothing, in whatever order messages arrive.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity // PAGE * PAGE
        self.used = 0  # bytes taken
        self._free: list[tuple[int, int]] = [(0, self.capacity * _SPAN)]  # (offset, size), by offset, never adjacent
        self._taken: dict[int, tuple[int, int, set[int]]] = {}  # id -> (offset, size, holders)
        self._resident: list[tuple[int, int]] = []  # (start, end) of pages that may be the file's, by start, disjoint
        self._next = 1

    @property
    def resident(self) -> int:
        """Bytes of memory that the store may take now, those of free pages included."""
        return sum(end - start for start, end in self._resident)

    def alloc(self, size: int, holder: int) -> tuple[int, int] | None:
        """Take pages for ``size`` bytes; returns (id, offset), or None if there is no room."""
        size = whole_pages(size)
        if self.used + size > self.capacity:
            return None
        for i, (offset, room) in enumerate(self._free):
            if room >= size:
                if room == size:
                    del self._free[i]
                else:
                    self._free[i] = (offset + size, room - size)
                extent, self._next = self._next, self._next + 1
                self._taken[extent] = (offset, size, {holder})
                self.used += size
                self._touch(offset, offset + size)
                return extent, offset
        return None

    def _touch(self, start: int, end: int) -> None:
        """These pages belong to the file from here on."""
        first = bisect.bisect_left(self._resident, start, key=lambda span: span[1])  # all before end before `start`
        last = bisect.bisect_right(self._resident, end, key=lambda span: span[0])
        if first < last:
            start, end = min(start, self._resident[first][0]), max(end, self._resident[last - 1][1])
        self._resident[first:last] = [(start, end)]

    def hold(self, extent: int, holder: int) -> None:
        """One more process holds the extent."""
        if extent in self._taken:
            self._taken[extent][2].add(holder)

    def free(self, extent: int, holder: int) -> bool:
        """A process holds the extent no longer; True if its pages are free now."""
        offset, size, holders = self._taken.get(extent, (0, 0, set()))
        if holder not in holders:
            return False
        holders.discard(holder)
        if holders:
            return False
        del self._taken[extent]
        self.used -= size
        i = bisect.bisect(self._free, (offset,))
        if i < len(self._free) and self._free[i][0] == offset + size:
            size += self._free.pop(i)[1]
        if i and sum(self._free[i - 1]) == offset:
            offset, before = self._free[i - 1]
            self._free[i - 1] = (offset, before + size)
        else:
            self._free.insert(i, (offset, size))
        return True

    def held(self) -> dict[int, int]:
        """Bytes by holder."""
        found: dict[int, int] = {}
        for _, size, holders in self._taken.values():
            for holder in holders:
                found[holder] = found.get(holder, 0) + size
        return found

    def held_by(self, holder: int) -> list[int]:
        """Ids of the extents a process holds."""
        return [extent for extent, (_, _, holders) in self._taken.items() if holder in holders]

    def trim(self) -> list[tuple[int, int]]:
        """Free pages that may be given back to the kernel, as (offset, size): from here on they count as given back."""
        if self.resident == self.used:
            return []
        given, kept = [], []
        free = iter(self._free)
        offset, size = next(free, (self.capacity * _SPAN, 0))
        for start, end in self._resident:
            while start < end:
                if offset + size <= start:
                    offset, size = next(free, (self.capacity * _SPAN, 0))
                elif offset <= start:
                    stop = min(end, offset + size)
                    given.append((start, stop - start))
                    start = stop
                else:
                    stop = min(end, offset)
                    kept.append((start, stop))
                    start = stop
        self._resident = kept
        return given

    def validate(self) -> None:
        """Check every invariant; for tests."""
        spans = sorted([(o, s, 1) for o, s, _ in self._taken.values()] + [(o, s, 0) for o, s in self._free])
        at = 0
        last_free = False
        for offset, size, taken in spans:
            assert offset == at, "pages are lost or given out twice"
            assert size > 0
            assert not (last_free and not taken), "adjacent free runs were not merged"
            at, last_free = offset + size, not taken
        assert at == self.capacity * _SPAN
        assert self.used == sum(size for _, size, _ in self._taken.values()) <= self.capacity
        ends = [at for span in self._resident for at in span]
        assert ends == sorted(set(ends)), "spans of resident pages overlap or touch"
        assert all(holders for _, _, holders in self._taken.values()), "an extent without a holder"


def split(buffers: Sequence[Any]) -> list[bytes]:
    """Copies of buffers that travel inside a message."""
    return [bytes(buffer) for buffer in buffers]
