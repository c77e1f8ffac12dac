"""A task on the caller's side, and the form in which it travels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlray.core.engine import Code
from rlray.core.local.references import Payload, References
from rlray.core.refs import ObjectRef
from rlray.core.resources import PLAIN, Request

Slot = int | str
"""Where a resolved reference goes: the index of a positional argument, or the name of a keyword argument."""

WireTask = tuple[Any, ...]
"""What `to_wire` makes and a worker takes apart."""


@dataclass(slots=True, eq=False)
class Task:
    """One call of a function or method, from submission until its results are there."""

    id: bytes
    name: str
    code: Code | None  # None: an actor's method
    method: str
    arguments: Payload
    refs: list[ObjectRef]  # inside the arguments; kept alive until the end
    slots: tuple[Slot, ...]
    dependencies: list[ObjectRef]  # what fills the slots
    num_returns: int
    retries: int  # left; -1: without end
    request: Request = PLAIN
    parent: bytes | None = None
    actor: ObjectRef | None = None  # the actor outlives the calls already made
    ready: bool = False  # its dependencies are there
    cancelled: bool = False
    where: str = "waiting for its arguments"


@dataclass(slots=True)
class Arguments:
    """What a call was given, taken apart for travelling."""

    values: tuple[Sequence[Any], Mapping[str, Any]]  # references at top level replaced by None
    slots: tuple[Slot, ...] = ()
    dependencies: list[ObjectRef] = field(default_factory=list)


def take_apart(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Arguments:
    """Find the references at top level: they arrive as values, others inside containers as references."""
    slots: list[Slot] = [i for i, value in enumerate(args) if isinstance(value, ObjectRef)]
    slots += [name for name, value in kwargs.items() if isinstance(value, ObjectRef)]
    if not slots:
        return Arguments((tuple(args), dict(kwargs)))
    dependencies = [args[slot] if isinstance(slot, int) else kwargs[slot] for slot in slots]
    plain_args = tuple(None if isinstance(value, ObjectRef) else value for value in args)
    plain_kwargs = {name: None if isinstance(value, ObjectRef) else value for name, value in kwargs.items()}
    return Arguments((plain_args, plain_kwargs), tuple(slots), dependencies)


def put_together(
    values: tuple[Sequence[Any], Mapping[str, Any]], slots: Sequence[Slot], resolved: Sequence[Any]
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments as the function gets them."""
    args, kwargs = list(values[0]), dict(values[1])
    for slot, value in zip(slots, resolved, strict=True):
        if isinstance(slot, int):
            args[slot] = value
        else:
            kwargs[slot] = value
    return args, kwargs


def to_wire(task: Task, to: int, references: References) -> WireTask:
    """A task whose dependencies are there, ready to be sent to process ``to``.

    Dependencies travel as ``(id, payload, ids inside)``; every reference is booked for the receiver.
    """
    dependencies = []
    for ref in task.dependencies:
        entry = references.entries[ref.binary()]
        references.grant([ref], to)
        dependencies.append((ref.binary(), entry.payload, references.grant(entry.inner, to)))
    return (
        task.id,
        task.code.id if task.code is not None else task.method,
        task.name,
        task.arguments,
        references.grant(task.refs, to),
        task.slots,
        dependencies,
        task.num_returns,
        task.retries == 0,
        task.request,
    )


def first_error(dependencies: Sequence[ObjectRef], references: References) -> Payload | None:
    """The error that stands in place of a dependency, if one failed."""
    for ref in dependencies:
        payload = references.entries[ref.binary()].payload
        if payload is not None and payload[0] == "error":
            return payload
    return None
