"""The object store: one sparse, nameless file in memory, mapped by every process of the run.

Nothing lies in /dev/shm, and the kernel frees the memory when the last process ends, however it ends. The node hands
out extents of pages (`Extents`); whoever was handed one writes and reads through its own mapping (`Arena`).
"""

from __future__ import annotations

import bisect
import mmap
import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

from rlray.core.serialization import Serialized

INLINE_LIMIT = 100_000  # bytes: smaller values travel inside messages
PAGE = mmap.PAGESIZE
MIN_CAPACITY = 1 << 20  # bytes
_ALIGN = 64  # bytes: buffers start on cache lines

Layout = tuple[int, ...]
"""Lengths in bytes of the pickle and of each buffer, as they lie in an extent."""


def create_file(capacity: int) -> int:
    """A nameless sparse file of ``capacity`` bytes; returns its descriptor."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("rlray", os.MFD_CLOEXEC)
    else:  # macOS
        fd, path = tempfile.mkstemp(prefix="rlray-")
        os.unlink(path)
    os.ftruncate(fd, capacity)
    return fd


def default_capacity() -> int:
    """30 % of the machine's memory, as Ray takes."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(total * 0.3) // PAGE * PAGE


def _aligned(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN


class Arena:
    """This process's mapping of the store."""

    def __init__(self, fd: int, capacity: int) -> None:
        self._map = mmap.mmap(fd, capacity)
        self._view = memoryview(self._map)

    @staticmethod
    def layout(value: Serialized) -> tuple[Layout, int]:
        """How a value will lie in an extent, and the bytes it needs."""
        lengths = (len(value.data), *(buffer.nbytes for buffer in value.buffers))
        return lengths, sum(map(_aligned, lengths))

    def write(self, offset: int, value: Serialized) -> None:
        """Copy a value to ``offset``: the one copy of its life."""
        for part in (memoryview(value.data), *value.buffers):
            self._view[offset : offset + part.nbytes] = part
            offset += _aligned(part.nbytes)

    def read(self, offset: int, layout: Layout, keep: object) -> tuple[memoryview, list[memoryview]]:
        """The pickle and the read-only buffers at ``offset``, without a copy.

        ``keep`` stays referenced as long as any view of the buffers lives, so that the extent is not reused under it.
        """
        from rlray.core.local.views import pinned  # numpy, which a small program never needs

        data = self._view[offset : offset + layout[0]]
        offset += _aligned(layout[0])
        buffers = []
        for size in layout[1:]:
            buffers.append(pinned(self._map, offset, size, keep))
            offset += _aligned(size)
        return data, buffers

    def give_back(self, offset: int, size: int) -> None:
        """Return free pages to the kernel; they read as zeros afterwards."""
        if hasattr(mmap, "MADV_REMOVE"):
            self._map.madvise(mmap.MADV_REMOVE, offset, size)


class Extents:
    """Which pages of the store are taken, and by whom: a first-fit allocator over ``capacity`` bytes.

    Low addresses are used first, so that warm pages are used again. An id is never used twice: freeing or
    transferring an extent that is gone already does nothing, in whatever order messages arrive.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity // PAGE * PAGE
        self._free: list[tuple[int, int]] = [(0, self.capacity)]  # (offset, size), by offset, never adjacent
        self._taken: dict[int, tuple[int, int, int]] = {}  # id -> (offset, size, holder)
        self._touched = 0  # no page from here on belongs to the file yet
        self._dirty = False  # something was freed since the last trim
        self._next = 1

    @property
    def used(self) -> int:
        """Bytes taken."""
        return self.capacity - sum(size for _, size in self._free)

    def alloc(self, size: int, holder: int) -> tuple[int, int] | None:
        """Take pages for ``size`` bytes; returns (id, offset), or None if no free run is long enough."""
        size = max(PAGE, -(-size // PAGE) * PAGE)
        for i, (offset, room) in enumerate(self._free):
            if room >= size:
                if room == size:
                    del self._free[i]
                else:
                    self._free[i] = (offset + size, room - size)
                extent, self._next = self._next, self._next + 1
                self._taken[extent] = (offset, size, holder)
                self._touched = max(self._touched, offset + size)
                return extent, offset
        return None

    def transfer(self, extent: int, holder: int) -> None:
        """Let another process hold the extent."""
        if extent in self._taken:
            offset, size, _ = self._taken[extent]
            self._taken[extent] = (offset, size, holder)

    def free(self, extent: int) -> None:
        """Give the pages back."""
        taken = self._taken.pop(extent, None)
        if taken is None:
            return
        offset, size, _ = taken
        self._dirty = True
        i = bisect.bisect(self._free, (offset,))
        if i < len(self._free) and self._free[i][0] == offset + size:
            size += self._free.pop(i)[1]
        if i and sum(self._free[i - 1]) == offset:
            offset, before = self._free[i - 1]
            self._free[i - 1] = (offset, before + size)
        else:
            self._free.insert(i, (offset, size))

    def held_by(self, holder: int) -> list[int]:
        """Ids of the extents a process holds."""
        return [extent for extent, (_, _, who) in self._taken.items() if who == holder]

    def largest(self, count: int) -> list[tuple[int, int]]:
        """The largest extents as (bytes, holder), largest first."""
        return sorted(((size, who) for _, size, who in self._taken.values()), reverse=True)[:count]

    def trim(self) -> Iterator[tuple[int, int]]:
        """Free runs whose pages may be given back to the kernel, as (offset, size); nothing if nothing was freed."""
        if not self._dirty:
            return
        for offset, size in self._free:
            if offset < self._touched:
                yield offset, min(size, self._touched - offset)
        if self._free and sum(self._free[-1]) == self.capacity:
            self._touched = min(self._touched, self._free[-1][0])
        self._dirty = False

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
        assert at == self.capacity


def split(buffers: Sequence[Any]) -> list[bytes]:
    """Copies of buffers that travel inside a message."""
    return [bytes(buffer) for buffer in buffers]
