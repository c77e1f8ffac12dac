"""Values to bytes and back: pickle protocol 5 with buffers kept apart, references and handles noted on the way.

Guarantees: functions and classes of ``__main__`` travel by value (cloudpickle); the contents of numpy arrays are never
copied by `serialize` (the buffers are views), nor by `deserialize` (the arrays are views, read-only where the
buffers are).
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cloudpickle

if TYPE_CHECKING:
    from rlray.core.refs import ObjectRef

_SCALARS = (int, float, str, bytes, bool, type(None))


@dataclass(slots=True)
class Serialized:
    """A value ready to travel: the pickle, its out-of-band buffers, and the references found inside."""

    data: bytes
    buffers: list[memoryview]
    refs: list[ObjectRef]

    @property
    def nbytes(self) -> int:
        """Bytes in all."""
        return len(self.data) + sum(buffer.nbytes for buffer in self.buffers)


class _Collector(threading.local):
    """References met while this thread pickles; None outside `serialize`."""

    found: list[ObjectRef] | None = None


_collector = _Collector()


@contextmanager
def _collecting() -> Iterator[list[ObjectRef]]:
    before, _collector.found = _collector.found, []
    try:
        yield _collector.found
    finally:
        _collector.found = before


def note_reference(ref: ObjectRef) -> bool:
    """Called by a reference that is being pickled; False if nobody keeps count of it (a foreign pickler)."""
    if _collector.found is None:
        return False
    _collector.found.append(ref)
    return True


def serialize(value: Any) -> Serialized:
    """Turn ``value`` into bytes and buffers.

    Raises: TypeError or pickle.PicklingError if something inside cannot be pickled.
    """
    buffers: list[memoryview] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        buffers.append(buffer.raw())
        return False  # False: out of band

    if _is_plain(value, 3):
        return Serialized(pickle.dumps(value, 5, buffer_callback=keep), buffers, [])
    with _collecting() as refs:
        data = cloudpickle.dumps(value, protocol=5, buffer_callback=keep)
    return Serialized(data, buffers, refs)


def deserialize(data: bytes | memoryview, buffers: Sequence[Any]) -> Any:
    """The value back. Arrays are views of ``buffers`` and read-only where those are."""
    return pickle.loads(data, buffers=buffers)


def dumps_error(error: BaseException) -> bytes:
    """Pickle an exception so that it surely loads again elsewhere; what cannot travel is replaced by its text."""
    from rlray.core.exceptions import RayError, RayTaskError

    try:
        data: bytes = cloudpickle.dumps(error, protocol=5)
        pickle.loads(data)
    except Exception as why:  # whatever user-defined pickling raises
        if isinstance(error, RayTaskError):
            text = f"{type(error.cause).__name__}: {error.cause} (the exception itself cannot be pickled: {why})"
            stand_in = RayTaskError(error.function_name, error.traceback_str, RayError(text), error.where)
            return bytes(cloudpickle.dumps(stand_in, protocol=5))
        return bytes(cloudpickle.dumps(RayError(f"{type(error).__name__}: {error}"), protocol=5))
    return data


def _is_plain(value: Any, depth: int) -> bool:
    """Whether the C pickler alone does what cloudpickle would: scalars, arrays of numbers, small containers of them."""
    kind = type(value)
    if kind in _SCALARS:
        return True
    if kind.__module__ == "numpy":
        dtype = getattr(value, "dtype", None)
        return kind.__name__ == "ndarray" and dtype is not None and not dtype.hasobject
    if depth == 0:
        return False
    if kind is tuple or kind is list:
        return len(value) <= 64 and all(_is_plain(item, depth - 1) for item in value)
    if kind is dict:
        return len(value) <= 64 and all(type(k) is str and _is_plain(v, depth - 1) for k, v in value.items())
    return False
