"""A task on the caller's side, and the form in which it travels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rlray.core.calls import Slot
from rlray.core.engine import CallSpec
from rlray.core.local.references import Entry, Payload, References
from rlray.core.refs import ObjectRef
from rlray.core.resources import Request

if TYPE_CHECKING:
    from rlray.core.local.chunks import LocalChunk
    from rlray.core.local.generators import Stream
    from rlray.core.local.submitter import Lane

WireTask = tuple[Any, ...]
"""A task as it travels: ``(id, args)`` if its arguments are the payload ``("args", args)``, which is for positional
immutable ones, else what `to_wire` makes."""

WireSpec = tuple[Any, ...]
"""What a worker must know of a `CallSpec`, sent with each batch of its calls; see `spec_to_wire`."""


class Task:
    """One call of a function or method, from submission until its results are there."""

    __slots__ = (
        "actor",  # the actor outlives the calls already made
        "arguments",
        "cancelled",
        "dependencies",  # what fills the slots
        "entries",  # its results'
        "id",
        "lane",  # of the submitter, once it waited there: where it goes if it runs again
        "parent",
        "ready",  # its dependencies are there
        "refs",  # inside the arguments; kept alive until the end
        "retries",  # left; -1: without end
        "sink",  # takes in what a generator or a chunk gives, instead of entries
        "slots",
        "spec",
        "worker",  # the process that it was sent to
    )

    def __init__(self, task_id: bytes, spec: CallSpec, arguments: Payload) -> None:
        self.id = task_id
        self.spec = spec
        self.arguments = arguments
        self.retries = spec.max_retries
        self.entries: Sequence[Entry] = ()
        self.refs: Sequence[ObjectRef] = ()
        self.slots: tuple[Slot, ...] = ()
        self.dependencies: Sequence[ObjectRef] = ()
        self.lane: Lane | None = None
        self.parent: bytes | None = None
        self.actor: ObjectRef | None = None
        self.sink: Stream | LocalChunk | None = None
        self.ready = False
        self.cancelled = False
        self.worker: int | None = None

    def let_go(self) -> None:
        """It will never run: keep nothing alive for it."""
        self.arguments = self.entries = self.refs = self.dependencies = ()
        self.actor = None


def spec_to_wire(spec: CallSpec, once: bool, request: Request) -> WireSpec:
    """What a worker must know to run calls of ``spec``; ``once``: they must not run twice."""
    return (
        spec.code.id if spec.code is not None else spec.method,
        spec.name,
        spec.num_returns,
        once,
        tuple(request),  # a class of its own would cost more than all the rest
        spec.retry_exceptions,
        spec.max_calls,
        spec.concurrency_group,
        spec.backpressure,
    )


def to_wire(task: Task, to: int, references: References) -> WireTask:
    """A task whose dependencies are there, ready to be sent to process ``to``.

    Dependencies travel as ``(id, payload, ids inside)``; every reference is booked for the receiver.
    """
    dependencies = []
    for ref in task.dependencies:
        entry = references.entry(ref)
        references.grant([ref], to)
        dependencies.append((entry.id, references.shared(entry), references.grant(entry.inner, to)))
    return (task.id, task.arguments, references.grant(task.refs, to), task.slots, dependencies)


def batch_to_wire(
    tasks: Sequence[Task], to: int, references: References, request: Request
) -> list[tuple[WireSpec, list[WireTask]]]:
    """Tasks of one scheduling class in order, those of one kind that follow each other together."""
    runs: list[tuple[WireSpec, list[WireTask]]] = []
    last: tuple[CallSpec, bool] | None = None
    run: list[WireTask] = []
    for task in tasks:
        once = task.retries == 0
        if last is None or last[0] is not task.spec or last[1] is not once:
            last, run = (task.spec, once), []
            runs.append((spec_to_wire(task.spec, once, request), run))
        arguments = task.arguments
        run.append((task.id, arguments[1]) if arguments[0] == "args" else to_wire(task, to, references))
    return runs


def first_error(dependencies: Sequence[ObjectRef], references: References) -> Payload | None:
    """The error that stands in place of a dependency, if one failed."""
    for ref in dependencies:
        payload = references.shared(references.entry(ref))
        if payload is not None and payload[0] == "error":
            return payload
    return None
