"""What the scheduler tells the node to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rlray.core.exceptions import RayError
from rlray.core.resources import Request

ActorState = Literal["pending", "alive", "restarting", "dead"]
GroupState = Literal["pending", "created", "removed"]


@dataclass(frozen=True, slots=True)
class StartWorker:
    """Fork a worker that computes with ``threads`` threads and sees ``gpus``."""

    worker: int
    threads: int
    gpus: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SetUp:
    """Tell ``worker``, which has not run anything yet, to set itself up with a runtime environment."""

    worker: int
    environment: str


@dataclass(frozen=True, slots=True)
class KillWorker:
    """End a worker's process."""

    worker: int


@dataclass(frozen=True, slots=True)
class Dismiss:
    """Tell a worker that nobody will use again to end, as soon as nobody needs a value or task that it owns."""

    worker: int


@dataclass(frozen=True, slots=True)
class Orphan:
    """Tell a worker that ``client``, whose tasks it runs, is dead: it ends, but not before `Dismiss` would have it."""

    worker: int
    client: int


@dataclass(frozen=True, slots=True)
class Grant:
    """Tell ``client`` that it may send tasks of its class ``request`` straight to ``worker``."""

    client: int
    request: Request
    worker: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """Tell ``client`` that there will be no worker for its tasks of class ``request``: they fail with ``error``."""

    client: int
    request: Request
    error: RayError


@dataclass(frozen=True, slots=True)
class Reclaim:
    """Ask ``client`` to return leases that it does not use at this moment."""

    client: int


@dataclass(frozen=True, slots=True)
class Become:
    """Tell ``worker`` to construct the actor."""

    worker: int
    actor: bytes


@dataclass(frozen=True, slots=True)
class ActorChanged:
    """Tell ``client`` how the actor stands; ``cause`` is a pickled error if it is dead, None otherwise."""

    client: int
    actor: bytes
    state: ActorState
    worker: int | None
    cause: bytes | None


@dataclass(frozen=True, slots=True)
class GroupChanged:
    """Tell ``client`` how the placement group stands."""

    client: int
    group: bytes
    state: GroupState


Instruction = (
    StartWorker
    | SetUp
    | KillWorker
    | Dismiss
    | Orphan
    | Grant
    | Refuse
    | Reclaim
    | Become
    | ActorChanged
    | GroupChanged
)
