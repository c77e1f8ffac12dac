"""One table of options for ``@remote(...)`` and ``.options(...)`` of tasks and actors."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rlray.core import resources


@dataclass(frozen=True)
class Option:
    """One option: its default, and a check that returns what is expected when the value is wrong."""

    default: Any
    check: Callable[[Any], str | None]


def _number(value: Any) -> str | None:
    ok = value is None or (isinstance(value, int | float) and not isinstance(value, bool) and value >= 0)
    return None if ok else "a number >= 0"


def _count(low: int) -> Callable[[Any], str | None]:
    def check(value: Any) -> str | None:
        ok = isinstance(value, int) and not isinstance(value, bool) and value >= low
        return None if ok else f"an integer >= {low}"

    return check


def _one_of(*valid: Any) -> Callable[[Any], str | None]:
    return lambda value: None if value in valid else "one of " + ", ".join(map(repr, valid))


def _text(value: Any) -> str | None:
    return None if value is None or (isinstance(value, str) and value) else "a non-empty string"


def _flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else "True or False"


def _amounts(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        return "a dict of numbers by resource name"
    if {"CPU", "GPU"} & set(value):
        return "custom resources only; use num_cpus and num_gpus for CPU and GPU"
    return None


_COMMON = {
    "num_cpus": Option(None, _number),
    "num_gpus": Option(None, _number),
    "resources": Option(None, _amounts),
    "name": Option(None, _text),
}
TASK_OPTIONS: dict[str, Option] = {
    **_COMMON,
    "num_returns": Option(1, _count(0)),
    "max_retries": Option(3, _count(-1)),
}
ACTOR_OPTIONS: dict[str, Option] = {
    **_COMMON,
    "namespace": Option(None, _text),
    "get_if_exists": Option(False, _flag),
    "lifetime": Option(None, _one_of(None, "detached", "non_detached")),
    "max_restarts": Option(0, _count(-1)),
    "max_task_retries": Option(0, _count(-1)),
    "max_concurrency": Option(None, lambda v: None if v is None else _count(1)(v)),
}
METHOD_OPTIONS: dict[str, Option] = {
    "num_returns": Option(1, _count(0)),
    "name": Option(None, _text),
    "max_task_retries": Option(None, lambda v: None if v is None else _count(-1)(v)),
}


def checked(given: Mapping[str, Any], table: Mapping[str, Option], what: str) -> dict[str, Any]:
    """Return ``given`` unchanged if every option is in ``table`` and its value is right.

    Raises: ValueError for an unknown option, naming the nearest and all valid ones, or for a wrong value.
    """
    for name, value in given.items():
        if name not in table:
            near = difflib.get_close_matches(name, table, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"unknown option {name!r} for {what}{hint} Valid options: {', '.join(sorted(table))}")
        expected = table[name].check(value)
        if expected is not None:
            raise ValueError(f"option {name!r} of {what} must be {expected}, got {value!r}")
    return dict(given)


def with_defaults(given: Mapping[str, Any], table: Mapping[str, Option]) -> dict[str, Any]:
    """All options of ``table``: the given value or the default."""
    return {name: given.get(name, option.default) for name, option in table.items()}


def request(options: Mapping[str, Any], default_cpus: float) -> resources.Shape:
    """The resources that a task or actor with ``options`` asks for."""
    cpus = options.get("num_cpus")
    return resources.shape(
        {
            "CPU": default_cpus if cpus is None else cpus,
            "GPU": options.get("num_gpus"),
            **(options.get("resources") or {}),
        }
    )
