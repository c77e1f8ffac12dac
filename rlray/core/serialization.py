"""Values to bytes and back: pickle protocol 5 with buffers kept apart, references and handles noted on the way.

Guarantees: functions and classes of ``__main__`` travel by value (cloudpickle); the contents of numpy arrays and torch
tensors on the CPU are never copied by `serialize` (the buffers are views), nor those of arrays by `deserialize` (they
are views, read-only where the buffers are; of tensors see `rlray.core.tensors`).
"""

from __future__ import annotations

import io
import os
import pickle
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import cloudpickle

from rlray.core import tensors
from rlray.core.exceptions import RayError, RaySystemError, say

if TYPE_CHECKING:
    from rlray.core.refs import ObjectRef

T = TypeVar("T")

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


def serialize(value: Any, what: str = "a value") -> Serialized:
    """Turn ``value`` into bytes and buffers.

    Raises: TypeError if something inside cannot be pickled, whatever that has raised; it names ``what`` that was.
    """
    try:
        return _serialize(value)
    except Exception as why:
        raise unpicklable(what, why) from why


def _serialize(value: Any) -> Serialized:
    buffers: list[memoryview] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        buffers.append(buffer.raw())
        return False  # False: out of band

    if is_plain(value):
        return Serialized(pickle.dumps(value, 5, buffer_callback=keep), buffers, [])
    with collecting() as refs:
        data = tensors.dumps(value, keep)
    return Serialized(data, buffers, refs)


def deserialize(data: bytes | memoryview, buffers: Sequence[Any]) -> Any:
    """The value back. Arrays are views of ``buffers`` and read-only where those are."""
    return pickle.loads(data, buffers=buffers)


def unpicklable(what: str, why: BaseException) -> TypeError:
    """The error for something that cannot be pickled."""
    return TypeError(
        f"{what} cannot be pickled: {say(why)}. Look inside it for what cannot leave its process (locks, open files, "
        "sockets, ...); rlray.util.inspect_serializability(value) finds it"
    )


def not_loaded(what: str, why: BaseException) -> RaySystemError:
    """The error for something that arrived, and cannot be unpickled in this process."""
    return RaySystemError(
        f"{what} cannot be unpickled in process {os.getpid()}: {say(why)}. It was pickled without an error, so look at "
        "what its class does to be rebuilt (__reduce__, __setstate__, the arguments of its constructor), and whether "
        "every module that it needs can be imported here"
    )


def unpickled(what: object, load: Callable[[], T]) -> T:
    """What ``load`` unpickles. Raises RaySystemError if that raises, even SystemExit; it names ``what`` that was.

    A KeyboardInterrupt passes: it may be a person's.
    """
    try:
        return load()
    except KeyboardInterrupt:
        raise
    except BaseException as why:  # user-defined unpickling raises what it likes
        raise not_loaded(str(what), why) from why


def dumps_error(error: BaseException) -> bytes:
    """Pickle an exception so that it surely loads again, if not elsewhere then here.

    Exceptions whose constructor wants other arguments than ``args`` are rebuilt without calling it; what is inside one
    and cannot travel is left out, with a note that says so; one that cannot travel at all is replaced by its text.
    """
    why = ""
    for pickler in (cloudpickle.Pickler, *_picklers()):
        try:
            stream = io.BytesIO()
            pickler(stream, protocol=5).dump(error)
            pickle.loads(stream.getvalue())
            return stream.getvalue()
        except BaseException as failed:  # user-defined pickling raises what it likes
            why = say(failed)
    text = f"{say(error)} (the exception itself cannot be pickled: {why})"
    return bytes(cloudpickle.dumps(RayError(text), protocol=5))


_DEEPEST = 5  # exceptions inside exceptions, if something must be left out: the work doubles with each


@cache
def _picklers() -> tuple[Any, Any]:
    """Picklers of exceptions: one that calls no constructor, and one that also leaves out what cannot travel."""

    class Rebuilding(cloudpickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, BaseException) and not isinstance(obj, RayError):
                return _rebuild_error, self.parts(obj)
            return super().reducer_override(obj)

        def parts(self, error: BaseException) -> tuple[type, tuple[Any, ...], dict[str, Any]]:
            return type(error), error.args, error.__dict__

    class LeavingOut(Rebuilding):
        around: tuple[BaseException, ...] = ()  # the exceptions that this one is part of

        def parts(self, error: BaseException) -> tuple[type, tuple[Any, ...], dict[str, Any]]:
            args, attributes, missing = list(error.args), dict(error.__dict__), []
            for i, value in enumerate(args):
                if not self.travels(value, error):
                    args[i] = f"<{type(value).__name__}>"
                    missing.append(f"args[{i}]")
            for name in [name for name, value in attributes.items() if not self.travels(value, error)]:
                del attributes[name]
                missing.append(name)
            if missing:
                note = f"note: left out of this exception, since it cannot be pickled: {', '.join(missing)}"
                attributes["__notes__"] = [*attributes.get("__notes__", ()), note]
            return type(error), tuple(args), attributes

        def travels(self, value: Any, error: BaseException) -> bool:
            stream = io.BytesIO()
            pickler = LeavingOut(stream, protocol=5)
            pickler.around = (*self.around, error)
            if len(pickler.around) > _DEEPEST or any(value is one for one in pickler.around):
                return False
            try:
                pickler.dump(value)
                pickle.loads(stream.getvalue())
            except BaseException:  # as above
                return False
            return True

    return Rebuilding, LeavingOut


def _rebuild_error(cls: type[BaseException], args: tuple[Any, ...], attributes: dict[str, Any]) -> BaseException:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


def is_plain(value: Any, depth: int = 3) -> bool:
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
        return len(value) <= 64 and all(is_plain(item, depth - 1) for item in value)
    if kind is dict:
        return len(value) <= 64 and all(type(k) is str and is_plain(v, depth - 1) for k, v in value.items())
    return False
