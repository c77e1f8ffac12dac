"""One table of options for ``@remote(...)`` and ``.options(...)`` of tasks and actors."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rlray.core.placement_groups import PlacementGroup, check_room
from rlray.core.resources import MEMORY, Wish, shape
from rlray.core.runtime_env import RuntimeEnv, canonical
from rlray.core.scheduling_strategies import NAMES, NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy


@dataclass(frozen=True)
class Option:
    """One option: its default, the types its value may have, and what the value must be beyond that."""

    default: Any
    types: tuple[type, ...]
    valid: Callable[[Any], bool] = lambda value: True
    expected: str = ""  # says what ``valid`` wants
    convert: Callable[[Any], Any] | None = None  # checks a value further, and gives the one to keep


def _at_least(low: float) -> Callable[[Any], bool]:
    return lambda value: value is None or value >= low


def _custom_only(value: Any) -> bool:
    return value is None or not {"CPU", "GPU", MEMORY, "object_store_memory"} & set(value)


def _not_empty(value: Any) -> bool:
    return value is None or bool(value)


def _known_strategy(value: Any) -> bool:
    return not isinstance(value, str) or value in NAMES


def _group_or_default(value: Any) -> bool:
    return not isinstance(value, str) or value == "default"


def _environment(value: Any) -> Any:
    return None if value is None else RuntimeEnv(**value)


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
        None, (Mapping, _NONE), _custom_only, "custom resources only; use num_cpus, num_gpus and memory for those"
    ),
    "memory": _AMOUNT,
    "name": _NAME,
    "runtime_env": Option(None, (Mapping, _NONE), convert=_environment),
    "scheduling_strategy": Option(
        None,
        (str, PlacementGroupSchedulingStrategy, NodeAffinitySchedulingStrategy, _NONE),
        _known_strategy,
        f"{' or '.join(map(repr, NAMES))}, a PlacementGroupSchedulingStrategy or a NodeAffinitySchedulingStrategy",
    ),
    # The older spelling of PlacementGroupSchedulingStrategy, which Ray still takes.
    "placement_group": Option("default", (PlacementGroup, str, _NONE), _group_or_default, "a PlacementGroup"),
    "placement_group_bundle_index": Option(-1, (int,)),
    "placement_group_capture_child_tasks": Option(None, (bool, _NONE)),
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
    """Return ``given`` if every option is in ``table`` and its value is right.

    Raises: ValueError for an unknown option, naming the nearest and all valid ones, or for a wrong value; TypeError for
    a value of a wrong type.
    """
    kept = dict(given)
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
        if option.convert is not None:
            kept[name] = option.convert(value)
    return kept


def with_defaults(given: Mapping[str, Any], table: Mapping[str, Option]) -> dict[str, Any]:
    """All options of ``table``: the given value or the default."""
    return {name: given.get(name, option.default) for name, option in table.items()}


def wish(options: Mapping[str, Any], default_cpus: float, what: str) -> Wish:
    """What a task or actor with ``options`` asks for.

    Raises: ValueError if it fits no bundle of the placement group that it names.
    """
    cpus = options.get("num_cpus")
    asked = shape(
        {
            "CPU": default_cpus if cpus is None else cpus,
            "GPU": options.get("num_gpus"),
            MEMORY: options.get("memory"),
            **(options.get("resources") or {}),
        }
    )
    environment = canonical(options.get("runtime_env"))
    strategy = _strategy(options)
    if isinstance(strategy, PlacementGroupSchedulingStrategy):
        group, index = strategy.placement_group or PlacementGroup.empty(), strategy.placement_group_bundle_index
        bundles = tuple(shape(bundle) for bundle in group.bundle_specs)
        if not group.is_empty:
            check_room(asked, bundles, index, what)
        elif index != -1:
            raise ValueError(f"placement_group_bundle_index of {what} is {index!r}, but no placement_group is given")
        capture = strategy.placement_group_capture_child_tasks
        return Wish(asked, environment, group.id.binary(), index, bundles, capture)
    if isinstance(strategy, NodeAffinitySchedulingStrategy):
        if strategy.soft:
            return Wish(asked, environment, b"", rather=strategy.node_id)
        return Wish(asked, environment, b"", node=strategy.node_id)
    return Wish(asked, environment, None if strategy is None else b"", rather="SPREAD" if strategy == "SPREAD" else "")


def _strategy(options: Mapping[str, Any]) -> Any:
    """The scheduling strategy, also where it is given in the older spelling."""
    strategy, group = options.get("scheduling_strategy"), options.get("placement_group", "default")
    index = options.get("placement_group_bundle_index", -1)
    if strategy is not None:
        if group in ("default", None) and index == -1:
            return strategy
        raise ValueError("scheduling_strategy and placement_group are two spellings of the same; give the first only")
    if group == "default" and index == -1:
        return None
    capture = options.get("placement_group_capture_child_tasks")
    return PlacementGroupSchedulingStrategy(None if group == "default" else group, index, capture)
