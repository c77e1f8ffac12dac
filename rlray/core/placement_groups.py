"""Placement groups: resources set aside together, in bundles, for tasks and actors that name the group.

On one machine every strategy places all bundles on the one node; STRICT_SPREAD therefore allows a single bundle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from rlray.core.resources import Shape, amounts, describe, fits, shape

if TYPE_CHECKING:
    from rlray.core.engine import Engine
    from rlray.core.refs import ObjectRef

STRATEGIES = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")


class GroupTable(Protocol):
    """What an engine does for placement groups."""

    def create(self, bundles: tuple[Shape, ...], strategy: str, name: str, detached: bool) -> bytes:
        """Ask for a group; its id. Raises ValueError if this machine can never hold it."""

    def remove(self, group: bytes) -> None:
        """Give the resources back and end what runs with them."""

    def wait(self, group: bytes, timeout: float | None) -> bool:
        """Wait until the group is placed; False if time ran out. Raises ValueError if it was removed."""

    def ready(self, handle: PlacementGroup) -> ObjectRef:
        """A reference that gets ``handle`` once its group is placed."""

    def find(self, name: str) -> bytes:
        """The living group of that name. Raises ValueError if there is none."""

    def table(self, group: bytes | None) -> dict[str, dict[str, Any]]:
        """How the group stands, or all groups, by id."""

    def bundles(self, group: bytes) -> tuple[Shape, ...]:
        """What the group was asked to set aside."""

    def current(self) -> bytes:
        """The group that the calling task or actor runs in; empty if none."""


class PlacementGroupID:
    """The id of a placement group."""

    __slots__ = ("_id",)

    def __init__(self, binary: bytes) -> None:
        self._id = binary

    @classmethod
    def nil(cls) -> PlacementGroupID:
        """The id that stands for no group."""
        return cls(b"")

    def binary(self) -> bytes:
        """The id as bytes."""
        return self._id

    def hex(self) -> str:
        """The id as text."""
        return self._id.hex()

    def is_nil(self) -> bool:
        """Whether it stands for no group."""
        return not self._id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlacementGroupID) and other._id == self._id

    def __hash__(self) -> int:
        return hash(self._id)

    def __repr__(self) -> str:
        return f"PlacementGroupID({self.hex()})"


class PlacementGroup:
    """A handle to a placement group; it may be passed to tasks and actors. Handles to the same group are equal."""

    def __init__(self, id: PlacementGroupID, bundle_cache: list[dict[str, float]] | None = None) -> None:
        self.id = id
        self.bundle_cache = bundle_cache

    @staticmethod
    def empty() -> PlacementGroup:
        """The handle that stands for no group."""
        return PlacementGroup(PlacementGroupID.nil(), [])

    @property
    def is_empty(self) -> bool:
        """Whether it stands for no group."""
        return self.id.is_nil()

    def ready(self) -> ObjectRef:
        """A reference that gets this handle once the group is placed, or TaskPlacementGroupRemoved if it is removed."""
        engine = _engine()
        return engine.put(self) if self.is_empty else engine.groups.ready(self)

    def wait(self, timeout_seconds: float = 30) -> bool:
        """Wait until the group is placed; False if that took longer. Raises ValueError if the group was removed."""
        return self.is_empty or _engine().groups.wait(self.id.binary(), timeout_seconds)

    @property
    def bundle_specs(self) -> list[dict[str, float]]:
        """The bundles: amounts by name."""
        if self.bundle_cache is None:
            self.bundle_cache = [amounts(bundle) for bundle in _engine().groups.bundles(self.id.binary())]
        return self.bundle_cache

    @property
    def bundle_count(self) -> int:
        """How many bundles it has."""
        return len(self.bundle_specs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlacementGroup) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"PlacementGroup({self.id.hex()})"


def _engine() -> Engine:
    from rlray.core.api import ensure_running

    return ensure_running()


def placement_group(
    bundles: list[dict[str, float]], strategy: str = "PACK", name: str = "", lifetime: str | None = None
) -> PlacementGroup:
    """Set resources aside, as soon as they are free; returns at once.

    Guarantees: all bundles are placed together or not at all, waiting groups of the same bundles in the order they
    were made. Without ``lifetime="detached"`` a group ends with the actor that made it; groups made by the driver and
    by tasks end with the run.

    Raises: ValueError for wrong arguments and for bundles that this machine can never hold together; RaySystemError if
    a living group has that name.
    """
    engine = _engine()
    shapes = _checked(bundles, strategy, lifetime, engine.one_machine)
    group = engine.groups.create(shapes, strategy or "PACK", name or "", lifetime == "detached")
    return PlacementGroup(PlacementGroupID(group), [{k: float(v) for k, v in bundle.items()} for bundle in bundles])


def _checked(bundles: Any, strategy: Any, lifetime: Any, one_machine: bool) -> tuple[Shape, ...]:
    example = 'for example [{"CPU": 1}, {"GPU": 1}]'
    if not isinstance(bundles, list) or not bundles:
        raise ValueError(f"bundles must be a list of dicts of resources that is not empty, {example}; got {bundles!r}")
    for bundle in bundles:
        if not isinstance(bundle, Mapping) or not all(
            isinstance(key, str) and isinstance(value, int | float) for key, value in bundle.items()
        ):
            raise ValueError(f"a bundle must be a dict of amounts by resource, {example}; got {bundle!r}")
    shapes = tuple(map(shape, bundles))
    if not all(shapes):
        raise ValueError(f"a bundle must ask for something, {example}; got {bundles!r}")
    if strategy is not None and strategy not in STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, got {strategy!r}")
    if strategy == "STRICT_SPREAD" and len(shapes) > 1 and one_machine:
        raise ValueError(
            f"strategy 'STRICT_SPREAD' wants {len(shapes)} nodes for {len(shapes)} bundles, and the runtime is one "
            "machine; use 'SPREAD'"
        )
    if lifetime not in (None, "detached"):
        raise ValueError(f"lifetime must be None or 'detached', got {lifetime!r}")
    return shapes


def remove_placement_group(placement_group: PlacementGroup) -> None:
    """Give a group's resources back and kill the tasks and actors in it. Removing it again is harmless."""
    if not isinstance(placement_group, PlacementGroup):
        raise TypeError(f"remove_placement_group() takes a PlacementGroup, got {placement_group!r}")
    if not placement_group.is_empty:
        _engine().groups.remove(placement_group.id.binary())


def get_placement_group(placement_group_name: str) -> PlacementGroup:
    """A handle to the living group of that name in this namespace. Raises ValueError if there is none."""
    if not placement_group_name:
        raise ValueError(f"get_placement_group() takes the name of a group, got {placement_group_name!r}")
    return PlacementGroup(PlacementGroupID(_engine().groups.find(placement_group_name)))


def placement_group_table(placement_group: PlacementGroup | None = None) -> dict[str, Any]:
    """How a group stands: its name, bundles, strategy and state; without argument all groups by their ids.

    The state is PENDING, CREATED or REMOVED. Of removed groups the last thousand are kept.
    """
    groups = _engine().groups
    if placement_group is None:
        return groups.table(None)
    return groups.table(placement_group.id.binary()).get(placement_group.id.hex(), {})


def get_current_placement_group() -> PlacementGroup | None:
    """The group that the calling task or actor runs in; None outside of groups and in the driver."""
    group = _engine().groups.current()
    return PlacementGroup(PlacementGroupID(group)) if group else None


def check_room(resources: Shape, bundles: Sequence[Shape], index: int, what: str) -> None:
    """Raise ValueError if a request fits no bundle of its group, or not the one that it names."""
    if not -1 <= index < len(bundles):
        raise ValueError(
            f"placement_group_bundle_index of {what} must be -1 (any bundle) or 0 to {len(bundles) - 1}, got {index!r}"
        )
    candidates = bundles if index < 0 else bundles[index : index + 1]
    if not any(fits(resources, dict(bundle)) for bundle in candidates):
        raise ValueError(
            f"{what} asks for {describe(resources)}, which fits no bundle of its placement group: "
            f"{', '.join(map(describe, candidates))}; ask for less, or make the bundles larger"
        )
