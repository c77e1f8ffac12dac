"""Arrays that lie in the store from the beginning, so that putting or returning them copies nothing."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from rlray.core.local.allocation import Allocator
from rlray.core.local.store import INLINE_LIMIT, Arena

if TYPE_CHECKING:
    import numpy as np


class _Use:
    """Kept by every view of an array: tells when the last one goes."""

    __slots__ = ("__weakref__", "_dropped", "array", "extent", "nbytes")

    def __init__(self, extent: int, nbytes: int, dropped: Callable[[int], None]) -> None:
        self.extent, self.nbytes, self._dropped = extent, nbytes, dropped
        self.array: weakref.ref[np.ndarray[Any, Any]] | None = None

    def __del__(self) -> None:
        self._dropped(self.extent)


class MadeArrays:
    """The arrays that `empty` has made in this process, as long as a view of them lives."""

    def __init__(self, arena: Arena, extents: Allocator) -> None:
        self._arena, self._extents = arena, extents
        self._made: weakref.WeakValueDictionary[int, _Use] = weakref.WeakValueDictionary()  # by offset

    def empty(self, shape: Any, dtype: Any, order: Literal["C", "F"]) -> np.ndarray[Any, Any]:
        """As `rlray.empty`."""
        import numpy as np

        kind = np.dtype(dtype)
        if kind.hasobject:
            raise TypeError(f"empty() makes arrays of numbers, got dtype {kind}; use numpy.empty for Python objects")
        if order not in ("C", "F"):
            raise ValueError(f"order of empty() must be 'C' or 'F', got {order!r}")
        shape = tuple(shape) if hasattr(shape, "__len__") else (shape,)
        nbytes = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        if nbytes <= INLINE_LIMIT:
            return np.empty(shape, kind, order)
        extent = self._extents.take(nbytes)
        use = _Use(extent.id, nbytes, self._extents.dropped)
        flat = np.frombuffer(self._arena.writable(extent.offset, nbytes, use), kind)
        array: np.ndarray[Any, Any] = flat.reshape(shape, order=order)
        use.array = weakref.ref(array)
        self._made[extent.offset] = use
        return array

    def part(self, buffer: memoryview) -> tuple[int, int] | None:
        """Where a buffer lies in the store, if it is the whole of an array made here, by whatever view."""
        if not self._made or buffer.nbytes <= INLINE_LIMIT:
            return None
        offset = self._arena.offset_of(buffer)
        use = None if offset is None else self._made.get(offset)
        return (offset, use.nbytes) if offset is not None and use is not None and use.nbytes == buffer.nbytes else None

    def freeze(self, buffer: memoryview, offset: int) -> int:
        """The array there becomes part of a value: it is read-only from here on. Returns its extent.

        The view that was pickled, what it is a view of, and the array itself are made read-only. Other views that the
        user has made before cannot be found.
        """
        import numpy as np

        use = self._made[offset]
        for view in (buffer.obj, use.array() if use.array is not None else None):
            base: object = view
            while isinstance(base, np.ndarray):
                base.flags.writeable = False
                base = base.base
        return use.extent
