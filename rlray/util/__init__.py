"""Tools on top of tasks and actors, under the names that Ray gives them: pools, queues, executors, joblib.

The modules are ``rlray.util.queue``, ``rlray.util.multiprocessing``, ``rlray.util.state``, ``rlray.util.metrics`` and
``rlray.util.joblib``. All is loaded when first used (but for placement groups), joblib only with its module.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Not lazily: `placement_group` is the function here, as in Ray, although a module of that name lies in this package.
# The import system would put the module in its place when that is imported later.
from rlray.util.placement_group import (
    get_current_placement_group,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

if TYPE_CHECKING:
    from rlray.core.api import list_named_actors as list_named_actors
    from rlray.core.inspecting import profile as profile
    from rlray.util.actor_pool import ActorPool as ActorPool
    from rlray.util.executor import Executor as Executor
    from rlray.util.serializability import inspect_serializability as inspect_serializability

_WHERE = {
    "ActorPool": "rlray.util.actor_pool",
    "Executor": "rlray.util.executor",
    "inspect_serializability": "rlray.util.serializability",
    "list_named_actors": "rlray.core.api",
    "profile": "rlray.core.inspecting",
}
_MODULES = ("joblib", "metrics", "multiprocessing", "queue", "scheduling_strategies", "state")

__all__ = [
    *sorted(_WHERE),
    "get_current_placement_group",
    "get_placement_group",
    "placement_group",
    "placement_group_table",
    "remove_placement_group",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        value = getattr(import_module(_WHERE[name]), name)
    elif name in _MODULES:
        value = import_module(f"rlray.util.{name}")
    else:
        raise AttributeError(f"module 'rlray.util' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
