"""Values to bytes and back: pickle protocol 5 with buffers kept apart, references and handles noted on the way.

Guarantees: functions and classes of ``__main__`` travel by value (cloudpickle); the contents of numpy arrays and torch
tensors on the CPU are never copied by `serialize` (the buffers are views), nor those of arrays by `deserialize` (they
are views, read-only where the buffers are; of tensors see `rlray.core.tensors`).
"""

from __future__ import annotations

import io
import pickle
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cloudpickle

from rlray.core import tensors

if TYPE_CHECKING:
    from rlray.core.refs import ObjectRef

IMMUTABLE = frozenset({int, float, complex, str, bytes, bool, type(None)})
"""Types whose values travel inside messages as they are, and need no copy."""


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
def collecting() -> Iterator[list[ObjectRef]]:
    """What this thread pickles inside may hold references; they end up in the list."""
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
    with collecting() as refs:
        data = tensors.dumps(value, keep)
    return Serialized(data, buffers, refs)


def deserialize(data: bytes | memoryview, buffers: Sequence[Any]) -> Any:
    """The value back. Arrays are views of ``buffers`` and read-only where those are."""
    return pickle.loads(data, buffers=buffers)


def dumps_error(error: BaseException) -> bytes:
    """Pickle an exception so that it surely loads again elsewhere.

    Exceptions whose constructor wants other arguments than ``args`` are rebuilt without calling it; one that cannot
    travel at all is replaced by its text.
    """
    for attempt in (_dumps_as_is, _dumps_rebuilt):
        try:
            data = attempt(error)
            pickle.loads(data)
            return data
        except Exception as failed:  # whatever user-defined pickling raises
            why = failed
    return _dumps_as_is(_stand_in(error, why))


def _dumps_as_is(error: BaseException) -> bytes:
    return bytes(cloudpickle.dumps(error, protocol=5))


def _dumps_rebuilt(error: BaseException) -> bytes:
    from rlray.core.exceptions import RayError

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, BaseException) and not isinstance(obj, RayError):
                return _rebuild_error, (type(obj), obj.args, obj.__dict__)
            return super().reducer_override(obj)

    stream = io.BytesIO()
    Pickler(stream, protocol=5).dump(error)
    return stream.getvalue()


def _rebuild_error(cls: type[BaseException], args: tuple[Any, ...], attributes: dict[str, Any]) -> BaseException:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


def _stand_in(error: BaseException, why: Exception) -> BaseException:
    """An exception that can travel in place of one that cannot."""
    from rlray.core.exceptions import RayError, RayTaskError

    if not isinstance(error, RayTaskError):
        return RayError(f"{type(error).__name__}: {error} (the exception itself cannot be pickled: {why})")
    text = f"{type(error.cause).__name__}: {error.cause} (the exception itself cannot be pickled: {why})"
    return RayTaskError(error.function_name, error.traceback_str, RayError(text), error.where)


def _is_plain(value: Any, depth: int) -> bool:
    """Whether the C pickler alone does what cloudpickle would: scalars, arrays of numbers, small containers of them."""
    kind = type(value)
    if kind in IMMUTABLE:
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
