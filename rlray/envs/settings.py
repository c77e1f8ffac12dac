"""Settings of environments: strict about names, types and ranges, and helpful when they are wrong."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar, get_type_hints

T = TypeVar("T")


def setting(default: Any, *, low: float | None = None, high: float | None = None) -> Any:
    """A dataclass field with the range, both ends included, that `read_settings` holds its values to."""
    return field(default=default, metadata={"low": low, "high": high})


def read_settings(kind: type[T], given: Mapping[str, Any], env_id: str) -> T:
    """Make the dataclass ``kind`` from ``given``.

    Raises:
        ValueError: an unknown name, with the nearest known one, or a value out of range.
        TypeError: a value of another type. An int is welcome where a float is asked, a bool is never a number.
    """
    check_names(given, [each.name for each in fields(kind)], env_id)  # type: ignore[arg-type]
    hints = get_type_hints(kind)
    for each in fields(kind):  # type: ignore[arg-type]
        if each.name in given:
            _check_value(each.name, given[each.name], hints[each.name], each.metadata, env_id)
    return kind(**given)


@dataclass(frozen=True)
class Accepted:
    """Which keyword arguments a callable takes: ``names``, and any other, too, if ``any_name``."""

    names: frozenset[str]
    any_name: bool

    @classmethod
    def by(cls, factory: Callable[..., Any]) -> Accepted:
        """Of ``factory``; of one that does not say (some are written in C), any."""
        try:
            found = inspect.signature(factory).parameters.values()
        except (TypeError, ValueError):
            return cls(frozenset(), True)
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        open_ended = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in found)
        return cls(frozenset(each.name for each in found if each.kind in named), open_ended)


def check_names(given: Iterable[str], known: Collection[str], env_id: str) -> None:
    """Raise ValueError for the first name of ``given`` that is not in ``known``."""
    for name in given:
        if name not in known:
            takes = f"It takes: {', '.join(sorted(known))}." if known else "It takes none."
            raise ValueError(
                f"environment {env_id!r} has no setting {name!r}{did_you_mean(nearest(name, known))} {takes}"
            )


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Up to three names of ``known`` that look like ``name``, the nearest first."""
    return difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)


def did_you_mean(near: Collection[str]) -> str:
    """``"; did you mean 'x' or 'y'?"``, or a full stop where nothing comes near."""
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else "."


def _check_value(name: str, value: Any, kind: type, limits: Mapping[str, Any], env_id: str) -> None:
    accepted: tuple[type, ...] = (int, float) if kind is float else (kind,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        got = f"{value!r} ({type(value).__name__})"
        raise TypeError(f"setting {name!r} of environment {env_id!r} must be {kind.__name__}, got {got}")
    low, high = limits.get("low"), limits.get("high")
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        allowed = f"from {low} to {high}" if high is not None else f"at least {low}"
        raise ValueError(f"setting {name!r} of environment {env_id!r} must be {allowed}, got {value!r}")
