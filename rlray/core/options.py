"""One table of options for ``@remote(...)`` and ``.options(...)`` of tasks and actors."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rlray.core import resources


@dataclass(frozen=True)
class Option:
    """One option: its default, the types its value may have, and what the value must be beyond that."""

    default: Any
    types: tuple[type, ...]
    valid: Callable[[Any], bool] = lambda value: True
    expected: str = ""  # says what ``valid`` wants


def _at_least(low: float) -> Callable[[Any], bool]:
    return lambda value: value is None or value >= low


def _custom_only(value: Any) -> bool:
    return value is None or not {"CPU", "GPU"} & set(value)


def _not_empty(value: Any) -> bool:
    return value is None or bool(value)


def _returns(value: Any) -> bool:
    return value == "streaming" if isinstance(value, str) else bool(value >= 0)


def _exceptions(value: Any) -> bool:
    return isinstance(value, bool) or all(isinstance(one, type) and issubclass(one, BaseException) for one in value)


def _group_sizes(value: Any) -> bool:
    return value is None or all(isinstance(size, int) and size >= 1 for size in value.values())


_NONE = type(None)
_AMOUNT = Option(None, (int, float, _NONE), _at_least(0), "at least 0")
_NAME = Option(None, (str, _NONE), _not_empty, "not empty")
_RETRIES = "at least -1 (-1: without end)"
_COMMON = {
    "num_cpus": _AMOUNT,
    "num_gpus": _AMOUNT,
    "resources": Option(
        None, (Mapping, _NONE), _custom_only, "custom resources only; use num_cpus and num_gpus for CPU and GPU"
    ),
    "name": _NAME,
}
_NUM_RETURNS = Option(1, (int, str), _returns, "at least 0, or 'streaming'")
_RETRY_EXCEPTIONS = Option(False, (bool, list, tuple), _exceptions, "True, False or a list of exception classes")
_BACKPRESSURE = Option(-1, (int,), lambda value: value == -1 or value > 0, "positive (-1: no limit)")
TASK_OPTIONS: dict[str, Option] = {
    **_COMMON,
    "num_returns": _NUM_RETURNS,
    "max_retries": Option(3, (int,), _at_least(-1), _RETRIES),
    "retry_exceptions": _RETRY_EXCEPTIONS,
    "max_calls": Option(0, (int,), _at_least(0), "at least 0 (0: never)"),
    "_generator_backpressure_num_objects": _BACKPRESSURE,
}
ACTOR_OPTIONS: dict[str, Option] = {
    **_COMMON,
    "namespace": _NAME,
    "get_if_exists": Option(False, (bool,)),
    "lifetime": Option(
        None, (str, _NONE), lambda value: value in (None, "detached", "non_detached"), "'detached' or 'non_detached'"
    ),
    "max_restarts": Option(0, (int,), _at_least(-1), _RETRIES),
    "max_task_retries": Option(0, (int,), _at_least(-1), _RETRIES),
    "max_concurrency": Option(None, (int, _NONE), _at_least(1), "at least 1"),
    "concurrency_groups": Option(None, (Mapping, _NONE), _group_sizes, "numbers of calls by name, each at least 1"),
}
METHOD_OPTIONS: dict[str, Option] = {
    "num_returns": _NUM_RETURNS,
    "name": _NAME,
    "max_task_retries": Option(0, (int,), _at_least(-1), _RETRIES),
    "retry_exceptions": _RETRY_EXCEPTIONS,
    "concurrency_group": _NAME,
    "_generator_backpressure_num_objects": _BACKPRESSURE,
}


def checked(given: Mapping[str, Any], table: Mapping[str, Option], what: str) -> dict[str, Any]:
    """Return ``given`` unchanged if every option is in ``table`` and its value is right.

    Raises: ValueError for an unknown option, naming the nearest and all valid ones, or for a wrong value; TypeError for
    a value of a wrong type.
    """
    for name, value in given.items():
        option = table.get(name)
        if option is None:
            near = difflib.get_close_matches(name, table, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise ValueError(f"unknown option {name!r} for {what}{hint} Valid options: {', '.join(sorted(table))}")
        if not isinstance(value, option.types) or (isinstance(value, bool) and bool not in option.types):
            names = " or ".join("None" if kind is _NONE else kind.__name__ for kind in option.types)
            raise TypeError(f"option {name!r} of {what} must be {names}, got {type(value).__name__} {value!r}")
        if not option.valid(value):
            raise ValueError(f"option {name!r} of {what} must be {option.expected}, got {value!r}")
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
