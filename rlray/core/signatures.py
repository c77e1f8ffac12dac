"""What a call may pass, checked in the caller: a wrong call fails where it was written, not in another process."""

from __future__ import annotations

import inspect
import pickle
import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import cloudpickle

from rlray.core.options import METHOD_OPTIONS, checked
from rlray.core.serialization import IMMUTABLE

_SMALL = 200  # bytes: a default that is shown in the message of a wrong call
METHOD_ATTRIBUTE = "__rlray_method__"
"""Where ``@method`` leaves its options."""


class Signature:
    """The parameters of a function, without ``self``. Calls that are plainly right pass in no time."""

    __slots__ = ("_full", "_most", "_required")

    def __init__(self, full: inspect.Signature | None) -> None:
        self._full = full
        self._required, self._most = _positional_range(full)

    @property
    def takes_nothing(self) -> bool:
        """Whether there are no parameters at all."""
        return self._full is not None and not self._full.parameters

    def check(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Raise TypeError if a call with these arguments can only fail."""
        if self._required <= len(args) <= self._most and not kwargs:
            return
        if self._full is not None:
            try:
                self._full.bind(*args, **kwargs)
            except TypeError as why:
                raise TypeError(f"{name}.remote(): {why}; its arguments are {name}{self._full}") from None

    def __reduce__(self) -> tuple[type[Signature], tuple[inspect.Signature | None]]:
        return Signature, (self._full,)


def _positional_range(signature: inspect.Signature | None) -> tuple[float, float]:
    """How many positional arguments alone make a right call: (at least, at most)."""
    if signature is None:
        return 0, float("inf")
    least, most = 0.0, 0.0
    for one in signature.parameters.values():
        if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD):
            most += 1
            least += one.default is one.empty
        elif one.kind is one.VAR_POSITIONAL:
            most = float("inf")
        elif one.kind is one.KEYWORD_ONLY and one.default is one.empty:
            return float("inf"), 0  # never right without keywords
    return least, most


def signature_of(target: Any) -> Signature:
    """The signature of a function or class; anything goes where Python does not tell."""
    try:
        return Signature(inspect.signature(target))
    except (TypeError, ValueError):  # some builtins have none
        return Signature(None)


class MethodTable:
    """The methods of an actor class: by name, their signature and the options given with ``@method``; and the names of
    its concurrency groups.

    It travels with every handle, so it is pickled once and loaded once per process.
    """

    __slots__ = ("_pickled", "groups", "methods")

    def __init__(
        self, methods: Mapping[str, tuple[Signature, Mapping[str, Any]]], groups: tuple[str, ...] = ()
    ) -> None:
        self.methods = methods
        self.groups = groups
        self._pickled: bytes | None = None

    def __reduce__(self) -> tuple[Any, tuple[bytes]]:
        if self._pickled is None:
            self._pickled = cloudpickle.dumps((self.methods, self.groups), protocol=5)
        return _table, (self._pickled,)


@lru_cache(maxsize=1024)
def _table(pickled: bytes) -> MethodTable:
    table = MethodTable(*pickle.loads(pickled))
    table._pickled = pickled
    return table


_NO_ARGUMENTS = Signature(inspect.Signature())
_EVERY_ACTOR: dict[str, tuple[Signature, Mapping[str, Any]]] = {
    "__ray_call__": (Signature(None), {}),
    "__ray_ready__": (_NO_ARGUMENTS, {}),
    "__ray_terminate__": (_NO_ARGUMENTS, {}),
}


def methods_of(cls: type) -> MethodTable:
    """The methods of a class, and those that every actor has."""
    found: dict[str, tuple[Signature, Mapping[str, Any]]] = dict(_EVERY_ACTOR)
    for name, member in inspect.getmembers(cls, callable):
        if not name.startswith("__") or name == "__call__":
            options = checked(getattr(member, METHOD_ATTRIBUTE, {}), METHOD_OPTIONS, f"the method {name!r}")
            if inspect.isgeneratorfunction(member) or inspect.isasyncgenfunction(member):
                options.setdefault("num_returns", "streaming")
            found[name] = _method_signature(cls, name, member), options
    return MethodTable(found)


class _Omitted:
    """Stands for a default that handles need not take along, and perhaps cannot."""

    def __repr__(self) -> str:
        return "..."


def _travelling(default: Any) -> Any:
    """A parameter's default as a handle takes it along: only that there is one matters to a call."""
    kept = default is inspect.Parameter.empty or (type(default) in IMMUTABLE and sys.getsizeof(default) < _SMALL)
    return default if kept else _Omitted()


def _method_signature(cls: type, name: str, member: Any) -> Signature:
    """The arguments that a call through a handle takes: without ``self``, annotations, and large defaults."""
    try:
        signature = inspect.signature(member)
    except (TypeError, ValueError):
        return Signature(None)
    parameters = list(signature.parameters.values())
    if not inspect.ismethod(member) and not isinstance(inspect.getattr_static(cls, name), staticmethod):
        del parameters[0]
    bare = [one.replace(annotation=one.empty, default=_travelling(one.default)) for one in parameters]
    return Signature(inspect.Signature(bare))
