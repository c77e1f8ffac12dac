"""The interface between the API and an engine, and the one engine of this process.

An engine runs tasks and actors and keeps their results. ``rlray.core.local`` is the embedded one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rlray.core.refs import ObjectRef
from rlray.core.resources import Wish

if TYPE_CHECKING:
    from rlray.core.placement_groups import GroupTable


@dataclass(frozen=True, slots=True)
class Code:
    """A function or class ready to travel: its pickle is sent to a worker once, later calls name its id."""

    id: bytes
    name: str
    pickled: bytes


@dataclass(frozen=True, slots=True)
class ActorInfo:
    """What a handle must know: the actor's id, its class's name, and by method the options given with ``@method``."""

    id: bytes
    class_name: str
    methods: Mapping[str, Mapping[str, Any]]
    max_task_retries: int


@dataclass(frozen=True, slots=True)
class Context:
    """Who is asking: ids as hex, None where they do not apply."""

    job_id: str
    node_id: str
    worker_id: str
    task_id: str | None = None
    task_name: str | None = None
    actor_id: str | None = None
    actor_name: str | None = None
    actor: ActorInfo | None = None
    namespace: str = ""
    resources: Mapping[str, float] = field(default_factory=dict)
    gpu_ids: Sequence[str] = ()
    was_restarted: bool = False
    placement_group_id: str | None = None
    captures: bool = False  # what is started here goes into the same placement group
    environment: str = ""


class Engine(ABC):
    """Runs tasks and actors. Every method may be called from any thread."""

    @property
    @abstractmethod
    def groups(self) -> GroupTable:
        """What the engine does for placement groups."""

    @abstractmethod
    def submit(
        self, code: Code, args: Sequence[Any], kwargs: Mapping[str, Any], asked: Wish, options: Mapping[str, Any]
    ) -> list[ObjectRef]:
        """Start a task; returns its references at once. Raises TaskUnschedulableError if it can never run."""

    @abstractmethod
    def create_actor(
        self,
        code: Code,
        methods: Mapping[str, Mapping[str, Any]],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        asked: Wish,
        options: Mapping[str, Any],
    ) -> ObjectRef:
        """Start an actor; the reference stands for its life: the actor ends when the last such reference is gone.

        Raises ActorUnschedulableError if it can never be placed, ValueError if the name is taken.
        """

    @abstractmethod
    def call(
        self, actor: ObjectRef, method: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]
    ) -> list[ObjectRef]:
        """Call a method; calls of one caller run in the order they were made."""

    @abstractmethod
    def find_actor(self, name: str, namespace: str | None) -> tuple[ObjectRef, ActorInfo]:
        """The living actor of that name. Raises ValueError if there is none."""

    @abstractmethod
    def get(self, refs: Sequence[ObjectRef], timeout: float | None) -> list[Any]:
        """The values in order; raises the first error among them, or GetTimeoutError."""

    @abstractmethod
    def put(self, value: Any) -> ObjectRef:
        """Store a value, copied once."""

    @abstractmethod
    def wait(
        self, refs: Sequence[ObjectRef], num_returns: int, timeout: float | None
    ) -> tuple[list[ObjectRef], list[ObjectRef]]:
        """Ready and unready references, each in the order given."""

    @abstractmethod
    def cancel(self, ref: ObjectRef, force: bool, recursive: bool) -> None:
        """Stop the task behind ``ref`` if it has not finished."""

    @abstractmethod
    def kill(self, actor: ObjectRef, no_restart: bool) -> None:
        """End an actor's process at once."""

    @abstractmethod
    def resources(self) -> tuple[dict[str, float], dict[str, float]]:
        """What the cluster has, and what of it is free."""

    @abstractmethod
    def context(self) -> Context:
        """Where the calling thread runs."""

    @abstractmethod
    def adopt(self, object_id: bytes) -> ObjectRef:
        """A reference of this process for an id that has just arrived."""

    @abstractmethod
    def claim(self, object_id: bytes) -> ObjectRef:
        """A reference of this process for an id that somebody surely keeps alive."""

    @abstractmethod
    def shutdown(self) -> None:
        """End every process of the engine and free all memory. Calling it twice is harmless."""


_current: Engine | None = None  # Ray's model: one runtime per process


def current() -> Engine:
    """The engine of this process. Raises RuntimeError if there is none."""
    if _current is None:
        raise RuntimeError("rlray is not running in this process; call rlray.init() first")
    return _current


def running() -> bool:
    """Whether this process has an engine."""
    return _current is not None


def set_current(engine: Engine | None) -> None:
    """Make ``engine`` the one of this process."""
    global _current
    _current = engine
