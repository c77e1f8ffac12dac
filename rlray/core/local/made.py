"""Arrays that lie in the store from the beginning, so that putting or returning them copies nothing."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from rlray.core.local.allocation import Allocator, Extent
from rlray.core.local.store import INLINE_LIMIT, Arena

if TYPE_CHECKING:
    import numpy as np


class _Use:
    """The memory of an array; kept by every view of it, and tells when the last one goes.

    It is no buffer, so that numpy lets nobody make the array writable again once it is read-only.
    """

    def __init__(self, extent: Extent, nbytes: int, arena: Arena, dropped: Callable[[int], None]) -> None:
        self.extent, self.nbytes = extent.id, nbytes
        self.array: weakref.ref[np.ndarray[Any, Any]] | None = None
        self.__array_interface__ = {
            "data": (arena.address_of(extent.offset), False),
            "shape": (nbytes,),
            "typestr": "|u1",
            "version": 3,
        }
        self._mapping = arena.mapping  # it outlives the run as long as an array does
        self._dropped = dropped

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

        from rlray.core.views import layout

        lengths, kind, nbytes = layout(shape, dtype, order)
        if nbytes <= INLINE_LIMIT or min(lengths) < 0:  # numpy refuses a negative one
            return np.empty(lengths, kind, order)
        extent = self._extents.take(nbytes)
        use = _Use(extent, nbytes, self._arena, self._extents.dropped)
        array: np.ndarray[Any, Any] = np.asarray(use).view(kind).reshape(lengths, order=order)
        use.array = weakref.ref(array)
        self._made[extent.offset] = use
        return array

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(use.nbytes for use in list(self._made.values()))

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
        from rlray.core.views import freeze

        use = self._made[offset]
        freeze(buffer.obj)
        if use.array is not None:
            freeze(use.array())
        return use.extent
