"""Where a task or an actor shall run: the values of the option ``scheduling_strategy``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlray.core.placement_groups import PlacementGroup

NAMES = ("DEFAULT", "SPREAD")
"""Strategies that are plain strings. On one machine they mean the same; both take no placement group over."""


class PlacementGroupSchedulingStrategy:
    """Run with the resources of a placement group.

    ``placement_group_bundle_index=-1`` takes any bundle. With ``placement_group_capture_child_tasks`` what the task or
    actor starts goes into the same group, unless it names a strategy of its own; None passes on what holds for the
    caller.
    """

    def __init__(
        self,
        placement_group: PlacementGroup | None,
        placement_group_bundle_index: int = -1,
        placement_group_capture_child_tasks: bool | None = None,
    ) -> None:
        self.placement_group = placement_group
        self.placement_group_bundle_index = placement_group_bundle_index
        self.placement_group_capture_child_tasks = placement_group_capture_child_tasks


class NodeAffinitySchedulingStrategy:
    """Run on the node of that id (hexadecimal). With ``soft`` anywhere, if there is no such node.

    Raises: ValueError for an id that is not hexadecimal.
    """

    def __init__(self, node_id: str, soft: bool) -> None:
        try:
            value = int(node_id, 16)
        except (TypeError, ValueError):
            value = 0
        if not value:
            raise ValueError(
                f"node_id must be the hexadecimal id of a node, got {node_id!r}; "
                "get_runtime_context().get_node_id() gives the one of this machine"
            )
        self.node_id = node_id
        self.soft = soft


class NodeLabelSchedulingStrategy:
    """Ray's choice among nodes by their labels. One machine offers no choice: making one raises ValueError."""

    def __init__(self, hard: Any, *, soft: Any = None) -> None:
        raise ValueError(
            "NodeLabelSchedulingStrategy is not supported: the runtime is one machine, which has no labels. "
            "Leave scheduling_strategy out, or use custom resources to tell tasks apart"
        )


Strategy = str | PlacementGroupSchedulingStrategy | NodeAffinitySchedulingStrategy | None
