"""Finding what keeps a value from being sent to another process: ``inspect_serializability``."""

from __future__ import annotations

import dis
import inspect
import io
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import CodeType
from typing import Any, TextIO

import cloudpickle

import rlray


@dataclass(frozen=True, eq=False)
class FailureTuple:
    """Something that cannot be pickled: the object, what it is called, what refers to it, and the way to it."""

    obj: Any
    name: str
    parent: Any
    path: tuple[str, ...]

    def __repr__(self) -> str:
        return f"FailureTuple({' -> '.join(self.path)}, obj={self.obj!r}, parent={self.parent!r})"


def inspect_serializability(
    base_obj: Any, name: str | None = None, depth: int = 3, print_file: TextIO | None = None
) -> tuple[bool, set[FailureTuple]]:
    """Whether ``base_obj`` can be sent to another process, and if not, what inside it is the reason.

    Looks into closures, global variables that functions use, attributes, classes, and containers. References and actor
    handles count as serializable. The runtime need not be up.

    Args:
        base_obj: What to look at.
        name: What to call it.
        depth: How many steps inward to go.
        print_file: Where the report goes; standard output by default.

    Returns (serializable, failures): the innermost objects that fail, as far as ``depth`` reaches, each with ``obj``,
    ``name``, ``parent`` and ``path``.
    """
    out = sys.stdout if print_file is None else print_file
    name = name if name is not None else getattr(base_obj, "__name__", type(base_obj).__name__)
    out.write(f"Checking whether {name} = {base_obj!r} can be serialized\n")
    inspection = _Inspection(out)
    inspection.visit(base_obj, None, (name,), depth)
    if not inspection.failures:
        out.write("It can.\n")
    else:
        listed = "".join(f"    {failure!r}\n" for failure in inspection.failures)
        out.write(f"It cannot, because of\n{listed}Create these inside the function or class, or leave them out.\n")
    return not inspection.failures, set(inspection.failures)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    def persistent_id(self, obj: Any) -> str | None:
        return "reference" if isinstance(obj, rlray.ObjectRef) else None


class _Inspection:
    """One walk through an object."""

    def __init__(self, out: TextIO) -> None:
        self.failures: list[FailureTuple] = []
        self._out = out
        self._seen: dict[int, Any] = {}  # the objects are kept: an id must not be used twice

    def visit(self, obj: Any, parent: Any, path: tuple[str, ...], depth: int) -> bool:
        """Whether ``obj`` can be pickled; if not, the reason is among the failures."""
        error = _why_not(obj)
        if error is None:
            return True
        if id(obj) in self._seen:
            return False
        self._seen[id(obj)] = obj
        self._out.write(f"{'  ' * len(path)}{path[-1]}: {type(error).__name__}: {error}\n")
        if depth > 0:
            parts = [self.visit(part, obj, (*path, name), depth - 1) for name, part in _parts(obj)]
            if not all(parts):
                return False
        self.failures.append(FailureTuple(obj, path[-1], parent, path))
        return False


def _why_not(obj: Any) -> Exception | None:
    try:
        _Pickler(io.BytesIO(), protocol=5).dump(obj)
    except Exception as error:  # user-defined pickling may raise anything
        return error
    return None


def _parts(obj: Any) -> Iterator[tuple[str, Any]]:
    """What ``obj`` takes along when it is pickled, with names."""
    if inspect.isclass(obj):
        yield from ((name, part) for name, part in vars(obj).items() if not _stays_behind(name, part))
        return
    if inspect.isfunction(obj):
        yield from _variables(obj)
    elif inspect.ismethod(obj):
        yield from (("__self__", obj.__self__), (obj.__func__.__name__, obj.__func__))
    elif isinstance(obj, staticmethod | classmethod):
        yield obj.__func__.__name__, obj.__func__
    elif isinstance(obj, property):
        yield from (("getter", obj.fget), ("setter", obj.fset), ("deleter", obj.fdel))
    elif isinstance(obj, partial):
        yield from (("func", obj.func), ("args", obj.args), ("keywords", obj.keywords))
    elif isinstance(obj, Mapping):
        yield from ((repr(key), value) for key, value in obj.items())
    elif isinstance(obj, list | tuple | set | frozenset | deque):
        yield from ((f"[{index}]", value) for index, value in enumerate(obj))
    yield from getattr(obj, "__dict__", {}).items()
    yield "__class__", type(obj)


def _stays_behind(name: str, member: Any) -> bool:
    """Whether pickling a class leaves this member out."""
    made_by_python = inspect.isgetsetdescriptor(member) or inspect.ismemberdescriptor(member)
    return made_by_python or name == "_abc_impl"


def _variables(function: Any) -> Iterator[tuple[str, Any]]:
    """Variables from outside that a function, or one defined in it, uses; and its defaults."""
    for name in sorted(_global_names(function.__code__)):
        if name in function.__globals__:
            yield name, function.__globals__[name]
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # not assigned yet
            yield name, cell.cell_contents
    for index, default in enumerate(function.__defaults__ or ()):
        yield f"default {index}", default
    yield from (function.__kwdefaults__ or {}).items()


def _global_names(code: CodeType) -> set[str]:
    names = {step.argval for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL"}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _global_names(constant)
    return names
