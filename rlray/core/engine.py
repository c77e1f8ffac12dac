"""The interface between the API and an engine, and the one engine of this process.

An engine runs tasks and actors and keeps their results. ``rlray.core.local`` is the embedded one with
worker processes, ``rlray.core.inline`` runs everything in the calling process, ``rlray.core.ray`` on a Ray cluster.
"""

from __future__ import annotations

import hashlib
import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from rlray.core.exceptions import ObjectStoreFullError
from rlray.core.mapping import Chunk, SingleCalls
from rlray.core.resources import Wish
from rlray.core.signatures import MethodTable
from rlray.core.state import Report
from rlray.core.timeline import Track

if TYPE_CHECKING:
    from rlray.core.placement_groups import GroupTable
    from rlray.core.refs import ObjectRef


@dataclass(frozen=True)  # no slots: whoever keeps something for it wants to know when it goes
class Code:
    """A function or class ready to travel: its pickle is sent to a worker once, later calls name its id.

    The references that it captures live as long as it does, there too.
    """

    id: bytes
    name: str
    pickled: bytes
    refs: tuple[ObjectRef, ...] = ()


STREAMING = -1
"""``CallSpec.num_returns`` of a generator: one reference per value that it yields."""


CHUNK = -2
"""``CallSpec.num_returns`` of a chunk of `rlray.core.mapping.Map`: one result per item."""


@dataclass(slots=True, eq=False)
class CallSpec:
    """What stays the same from call to call of a function or method with the same options; made once for many calls."""

    name: str
    code: Code | None  # None: an actor's method
    method: str = ""
    num_returns: int = 1
    max_retries: int = 0  # -1: without end
    retry_exceptions: bool | bytes = False  # errors of user code that are retried: a pickled tuple of classes, or all
    wish: Wish = field(default_factory=Wish)
    max_calls: int = 0  # a worker ends after so many calls of the function; 0: never
    concurrency_group: str | None = None
    backpressure: int = 0  # values that a generator may be ahead of its reader; 0: any number
    chunk: CallSpec | None = None  # what `chunked` has made of it
    home: tuple[Any, Any] | None = None  # the engine's: where its calls go, found at the first one


def chunked(spec: CallSpec) -> CallSpec:
    """The specification of many calls of ``spec`` in one."""
    if spec.chunk is None:
        code = spec.code
        if code is not None:  # measured on its own: a chunk takes longer than a call
            code = replace(code, id=hashlib.sha1(b"chunk" + code.id, usedforsecurity=False).digest())
        spec.chunk = replace(spec, code=code, num_returns=CHUNK)
    return spec.chunk


@dataclass(frozen=True, slots=True)
class ActorInfo:
    """What a handle must know: the actor's id, its class's name, its methods, and how often their calls are retried."""

    id: bytes
    class_name: str
    methods: MethodTable
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

    one_machine = True
    """Whether there is one node, now and later."""

    @property
    @abstractmethod
    def groups(self) -> GroupTable:
        """What the engine does for placement groups."""

    @abstractmethod
    def submit(self, spec: CallSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Start a task; returns at once with its reference, a list of references for several results, None for none,
        or an ObjectRefGenerator. Raises TaskUnschedulableError if it can never run."""

    @abstractmethod
    def create_actor(
        self,
        code: Code,
        methods: MethodTable,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        asked: Wish,
        options: Mapping[str, Any],
    ) -> ObjectRef:
        """Start an actor; the reference stands for its life: the actor ends when the last such reference is gone.

        Raises ActorUnschedulableError if it can never be placed, ValueError if the name is taken.
        """

    @abstractmethod
    def call(self, actor: ObjectRef, spec: CallSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a method; returns as `submit` does. Calls of one caller run in the order they were made."""

    def chunk(self, spec: CallSpec, actor: ObjectRef | None, items: tuple[Any, ...]) -> Chunk:
        """Start a call for each item, of a function or of an actor's method; an engine may send them together.

        An item that cannot be sent is an error in its result's place.
        """
        return SingleCalls(self, [self._call_for(spec, actor, item) for item in items])

    def _call_for(self, spec: CallSpec, actor: ObjectRef | None, item: Any) -> ObjectRef:
        try:
            ref = self.submit(spec, (item,), {}) if actor is None else self.call(actor, spec, (item,), {})
        except (TypeError, ObjectStoreFullError) as why:
            ref = self.failed(why)
        return ref  # type: ignore[no-any-return]

    @abstractmethod
    def find_actor(self, name: str, namespace: str | None) -> tuple[ObjectRef, ActorInfo]:
        """The living actor of that name. Raises ValueError if there is none."""

    @abstractmethod
    def named_actors(self) -> list[tuple[str, str]]:
        """(namespace, name) of every living actor that has a name."""

    @abstractmethod
    def get(self, refs: Sequence[ObjectRef], timeout: float | None) -> list[Any]:
        """The values in order; raises the first error among them, or GetTimeoutError."""

    @abstractmethod
    def put(self, value: Any) -> ObjectRef:
        """Store a value, copied once."""

    @abstractmethod
    def failed(self, error: Exception) -> ObjectRef:
        """A reference to a value that there is not: `get` raises the error."""

    @abstractmethod
    def empty(self, shape: Any, dtype: Any, order: Literal["C", "F"]) -> Any:
        """An array that lies where `put` would copy it to."""

    @abstractmethod
    def wait(
        self, refs: Sequence[ObjectRef], num_returns: int, timeout: float | None, fetch_local: bool = True
    ) -> tuple[list[ObjectRef], list[ObjectRef]]:
        """Ready and unready references, each in the order given.

        With ``fetch_local`` the values that are ready have also come to this machine.
        """

    def first_ready(self, refs: Sequence[ObjectRef]) -> int | None:
        """The index of the first that has a value, if that is quickly found and they are told apart quickly.

        They may not all be references.
        """
        return None

    @abstractmethod
    def cancel(self, ref: ObjectRef, force: bool, recursive: bool) -> None:
        """Stop the task behind ``ref`` if it has not finished."""

    @abstractmethod
    def kill(self, actor: ObjectRef, no_restart: bool) -> None:
        """End an actor's process at once."""

    @abstractmethod
    def resources(self) -> tuple[dict[str, float], dict[str, float]]:
        """What the cluster has, and what of it is free."""

    def nodes(self) -> list[dict[str, Any]]:
        """The machines, as Ray describes them. Most engines have one."""
        name = socket.gethostname()
        return [
            {
                "NodeID": self.context().node_id,
                "Alive": True,
                "NodeManagerAddress": "127.0.0.1",
                "NodeManagerHostname": name,
                "NodeName": name,
                "Resources": self.resources()[0],
                "Labels": {},
            }
        ]

    @abstractmethod
    def context(self) -> Context:
        """Where the calling thread runs."""

    @abstractmethod
    def inspect(self, kind: str, **options: Any) -> Report:
        """What every process says of itself: "tasks" or "objects" (with ``limit=``), "stacks", "timeline" or "metrics".

        Nobody waits for a process that is stuck: after a second the report says that it is silent.
        """

    @abstractmethod
    def tracks(self) -> list[Track]:
        """What was noted of the calls of every process, and what they run now."""

    @abstractmethod
    def note(self, began: float, seconds: float, name: str) -> None:
        """Note a span of the calling thread, on the clock of `time.perf_counter`."""

    @abstractmethod
    def adopt(self, object_id: bytes) -> ObjectRef:
        """A reference of this process for an id that has just arrived."""

    @abstractmethod
    def claim(self, object_id: bytes) -> ObjectRef:
        """A reference of this process for an id that somebody surely keeps alive."""

    @abstractmethod
    def shutdown(self) -> None:
        """End every process of the engine and free all memory. Calling it twice is harmless."""

    def forked(self) -> Engine | None:
        """In a process that was just forked from the engine's: the engine that goes on there, if one does."""
        return self


_current: Engine | None = None  # Ray's model: one runtime per process


def current() -> Engine:
    """The engine of this process. Raises RuntimeError if there is none."""
    if _current is None:
        raise RuntimeError("rlray is not running in this process; call rlray.init() first")
    return _current


def peek() -> Engine | None:
    """The engine of this process, if there is one."""
    return _current


def running() -> bool:
    """Whether this process has an engine."""
    return _current is not None


def set_current(engine: Engine | None) -> None:
    """Make ``engine`` the one of this process."""
    global _current
    _current = engine


def _forked() -> None:
    if _current is not None:
        set_current(_current.forked())


os.register_at_fork(after_in_child=_forked)
