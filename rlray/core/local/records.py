"""What the scheduler keeps of an actor and of a placement group."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rlray.core.pools import Pool
from rlray.core.resources import Request, Shape

if TYPE_CHECKING:
    from rlray.core.local.instructions import ActorState, GroupState


@dataclass(slots=True)
class Actor:
    """An actor. ``spec`` is what its worker needs to construct it; the scheduler never looks inside."""

    id: bytes
    creator: int
    request: Request
    spec: Any
    name: tuple[str, str] | None  # (namespace, name)
    detached: bool
    restarts_left: int  # -1: without end
    waits: bool = False  # for the arguments of its constructor
    state: ActorState = "pending"
    worker: int | None = None
    cause: bytes | None = None
    restarts: int = 0
    watchers: set[int] = field(default_factory=set)
    groups: set[bytes] = field(default_factory=set)  # placement groups that end with it
    class_name: str = ""


@dataclass(slots=True)
class Group:
    """A placement group."""

    id: bytes
    bundles: tuple[Shape, ...]
    strategy: str
    name: tuple[str, str] | None  # (namespace, name)
    state: GroupState = "pending"
    pools: list[Pool] = field(default_factory=list)  # one per bundle
    maker: bytes | None = None  # the actor that it ends with
    workers: set[int] = field(default_factory=set)  # that run what names the group
    watchers: set[int] = field(default_factory=set)
