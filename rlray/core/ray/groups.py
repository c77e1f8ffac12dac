"""Placement groups, by Ray's."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import ray
from ray.util.placement_group import PlacementGroup as TheirGroup
from ray.util.placement_group import get_current_placement_group, get_placement_group, placement_group_table
from ray.util.placement_group import placement_group as make_group
from ray.util.placement_group import remove_placement_group as remove_group

from rlray.core.exceptions import RaySystemError, TaskPlacementGroupRemoved
from rlray.core.placement_groups import PlacementGroup
from rlray.core.pools import Pool, take_together
from rlray.core.ray.asking import total_of
from rlray.core.ray.refs import Ref
from rlray.core.refs import ObjectRef
from rlray.core.resources import UNIT, Shape, amounts, describe, shape

if TYPE_CHECKING:
    from rlray.core.ray.engine import RayEngine


_PLACING = 0.2  # seconds: what is free is given to a group in less


class Groups:
    """The groups of the cluster."""

    def __init__(self, engine: RayEngine) -> None:
        self._engine = engine

    def create(self, bundles: tuple[Shape, ...], strategy: str, name: str, detached: bool) -> bytes:
        """Ask for a group; its id."""
        if not self._engine.grows:
            self._check_possible(bundles)
        if name and self._named(name):
            raise RaySystemError(
                f"a placement group named {name!r} already exists; choose another name, or remove that group first"
            )
        group = make_group(list(map(amounts, bundles)), strategy, name=name, lifetime="detached" if detached else None)
        return group.id.binary()  # type: ignore[no-any-return]

    def remove(self, group: bytes) -> None:
        """Give the resources back and end what runs with them."""
        if self._state(group) == "PENDING":  # one removed while it is being placed would keep its resources in Ray
            with suppress(ValueError):
                self.wait(group, _PLACING)
        remove_group(self._handle(group))

    def wait(self, group: bytes, timeout: float | None) -> bool:
        """Wait until the group is placed; False if time ran out. Raises ValueError if it was removed."""
        if self._state(group) in ("REMOVED", None):
            raise ValueError(f"placement group {group.hex()} does not exist: it has been removed")
        try:
            return bool(self._handle(group).wait(10**6 if timeout is None else timeout))
        except Exception as why:  # Ray has no class of its own for it
            if "does not exist" not in str(why):
                raise
            raise ValueError(f"placement group {group.hex()} does not exist: it has been removed") from why

    def ready(self, handle: PlacementGroup) -> ObjectRef:
        """A reference that gets ``handle`` once its group is placed."""
        group = handle.id.binary()
        if self._state(group) in ("REMOVED", None):
            return self._engine.failed(TaskPlacementGroupRemoved("the placement group has been removed"))
        placed = ray.remote(num_cpus=0, name="placement_group.ready", max_retries=-1)(_second)
        return Ref(placed.remote(self._handle(group).ready(), handle))

    def find(self, name: str) -> bytes:
        """The living group of that name. Raises ValueError if there is none."""
        found = self._named(name)
        if not found:
            raise ValueError(f"there is no placement group named {name!r}")
        return found

    def table(self, group: bytes | None) -> dict[str, dict[str, Any]]:
        """How the group stands, or all groups, by id."""
        if group is None:
            return {number: _row(found) for number, found in placement_group_table().items()}
        found = placement_group_table(self._handle(group))
        return {group.hex(): _row(found)} if found else {}

    def bundles(self, group: bytes) -> tuple[Shape, ...]:
        """What the group was asked to set aside."""
        found = placement_group_table(self._handle(group)).get("bundles")
        if not found:
            raise ValueError(f"placement group {group.hex()} does not exist: it has been removed")
        return tuple(shape(found[index]) for index in sorted(found))

    def current(self) -> bytes:
        """The group that the calling task or actor runs in; empty if none."""
        group = get_current_placement_group()
        return b"" if group is None else group.id.binary()

    def _check_possible(self, bundles: tuple[Shape, ...]) -> None:
        """Raise ValueError if the one node of the cluster can never hold the bundles."""
        total = total_of(ray.nodes()[0])
        gpus = {str(number): UNIT for number in range(dict(total).get("GPU", 0) // UNIT)}
        if take_together(Pool(total, gpus), bundles) is None:
            raise ValueError(
                f"the bundles {', '.join(map(describe, bundles))} can never be placed together: the cluster has "
                f"{describe(total)} in all; ask for less, or give init() more"
            )

    def _handle(self, group: bytes) -> Any:
        return TheirGroup(ray.PlacementGroupID(group))

    def _state(self, group: bytes) -> str | None:
        return placement_group_table(self._handle(group)).get("state")  # type: ignore[no-any-return]

    def _named(self, name: str) -> bytes:
        try:
            return get_placement_group(name).id.binary()  # type: ignore[no-any-return]
        except ValueError:
            return b""


def _second(placed: Any, handle: PlacementGroup) -> PlacementGroup:
    return handle


def _row(theirs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in theirs.items() if name != "stats"}
