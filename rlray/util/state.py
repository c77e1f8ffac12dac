"""What the run does: tasks, actors, objects, workers, under the names that Ray gives them (``ray.util.state``).

``filters`` are (field, "=" or "!=", value) triples, ``limit`` the most rows that are returned, of which each process
tells 100,000 at most; ``detail`` is Ray's, and changes nothing: every field is always there. Every function asks each
process of the run, waits a second for one that is stuck, and raises RuntimeError if the runtime is not up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from rlray.core.inspecting import look
from rlray.core.state import ActorState, Filter, GroupState, ObjectState, TaskState, WorkerState, select

Filters = Sequence[Filter] | None

_Row = TypeVar("_Row")

_LIMIT = 100

__all__ = [
    "ActorState",
    "GroupState",
    "ObjectState",
    "TaskState",
    "WorkerState",
    "get_actor",
    "get_objects",
    "get_placement_group",
    "get_task",
    "get_worker",
    "list_actors",
    "list_objects",
    "list_placement_groups",
    "list_tasks",
    "list_workers",
    "summarize_actors",
    "summarize_objects",
    "summarize_tasks",
]


def list_tasks(*, filters: Filters = None, limit: int = _LIMIT, detail: bool = False) -> list[TaskState]:
    """Calls that run, then those that wait, then those that have ended and took a millisecond or more."""
    return select(look("tasks", ended=True, limit=limit, filters=filters or ()).tasks(), filters or (), limit)


def list_actors(*, filters: Filters = None, limit: int = _LIMIT, detail: bool = False) -> list[ActorState]:
    """Actors, living ones first; the last thousand that have died, too."""
    return select(look("tasks", limit=1).actors(), filters or (), limit)


def list_objects(*, filters: Filters = None, limit: int = _LIMIT, detail: bool = False) -> list[ObjectState]:
    """Values and who holds them, the largest first."""
    return select(look("objects", limit=limit, filters=filters or ()).objects(), filters or (), limit)


def list_workers(*, filters: Filters = None, limit: int = _LIMIT, detail: bool = False) -> list[WorkerState]:
    """The driver, every worker process and what it runs, and the last that have ended and how."""
    return select(look("tasks", limit=1).workers(), filters or (), limit)


def list_placement_groups(*, filters: Filters = None, limit: int = _LIMIT, detail: bool = False) -> list[GroupState]:
    """Placement groups."""
    return select(look("tasks", limit=1).groups(), filters or (), limit)


def get_task(id: str) -> TaskState | None:
    """The call of that id, as hex; None if it is not known (any more)."""
    return _one(list_tasks(filters=[("task_id", "=", id)]))


def get_actor(id: str) -> ActorState | None:
    """The actor of that id, as hex."""
    return _one(list_actors(filters=[("actor_id", "=", id)]))


def get_worker(id: str) -> WorkerState | None:
    """The process of that id, as `rlray.get_runtime_context` tells it."""
    return _one(list_workers(filters=[("worker_id", "=", id)]))


def get_placement_group(id: str) -> GroupState | None:
    """The placement group of that id, as hex."""
    return _one(list_placement_groups(filters=[("placement_group_id", "=", id)]))


def get_objects(id: str) -> list[ObjectState]:
    """The value of that id, as hex: a list of one, or of none."""
    return list_objects(filters=[("object_id", "=", id)])


def summarize_tasks() -> dict[str, Any]:
    """Calls by name: how many are in which state. Those that have ended are counted from the start, exactly."""
    counts = look("tasks", limit=1).task_counts()
    summary = {name: {"func_or_class_name": name, "state_counts": states} for name, states in counts.items()}
    return {"summary": summary, "total_tasks": sum(sum(states.values()) for states in counts.values())}


def summarize_actors() -> dict[str, Any]:
    """Actors by class: how many are in which state."""
    summary: dict[str, dict[str, Any]] = {}
    actors = look("tasks", limit=1).actors()
    for actor in actors:
        states = summary.setdefault(actor.class_name, {"class_name": actor.class_name, "state_counts": {}})
        states["state_counts"][actor.state] = states["state_counts"].get(actor.state, 0) + 1
    return {"summary": summary, "total_actors": len(actors)}


def summarize_objects() -> dict[str, Any]:
    """Values by what made them: how many, their bytes, and where they are."""
    summary: dict[str, dict[str, Any]] = {}
    for maker, where, count, size in look("objects", limit=0).made():
        row = summary.setdefault(maker, {"total_objects": 0, "total_bytes": 0, "where_counts": {}})
        row["total_objects"] += count
        row["total_bytes"] += size
        row["where_counts"][where] = row["where_counts"].get(where, 0) + count
    return {
        "summary": summary,
        "total_objects": sum(row["total_objects"] for row in summary.values()),
        "total_size_mb": sum(row["total_bytes"] for row in summary.values()) / 1e6,
    }


def _one(rows: Sequence[_Row]) -> _Row | None:
    return rows[0] if rows else None
