"""A worker that is an actor: what it knows of itself, and how the actor is made."""

from __future__ import annotations

import pickle
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlray.core.calls import put_together
from rlray.core.engine import ActorInfo
from rlray.core.local.references import task_of
from rlray.core.resources import Request
from rlray.core.serialization import unpickled
from rlray.core.timeline import Kind

if TYPE_CHECKING:
    from rlray.core.local.client import Client
    from rlray.core.local.concurrency import Concurrency
    from rlray.core.local.executor import Executor


@dataclass(slots=True)
class Acting:
    """What a worker that became an actor knows."""

    id: bytes
    class_name: str
    info: ActorInfo
    name: str | None
    request: Request
    restarts: int
    instance: Any = None
    concurrency: Concurrency | None = None  # None: calls run on the main thread, one after the other
    constructing: tuple[bytes, float] | None = None  # while its constructor runs: that call's task, and when it began


def make(actor: Acting, spec: Mapping[str, Any], client: Client, executor: Executor) -> tuple[Concurrency | None, Any]:
    """How the actor's calls run, and the actor. What its constructor was given lives no longer than this call.

    Raises what the constructor, or an argument of it, raises.
    """
    name = actor.class_name
    with client.loop.lock:
        refs = client.references.claim(spec["refs"])
        dependencies = client.references.claim(spec["dependencies"])
    client.wait_for(dependencies)
    cls = unpickled(f"the class {name}", lambda: pickle.loads(spec["code"]))
    arguments = spec["arguments"]
    if arguments is None:
        client.wait_for(refs[:1])
        values = client.values.load(refs[0])
    else:
        values = client.values.unpack(arguments, refs, f"an argument of {name}.__init__")
    args, kwargs = put_together(values, spec["slots"], [client.values.load(ref) for ref in dependencies])
    from rlray.core.local.concurrency import concurrency_of  # asyncio, which few programs need

    concurrency = concurrency_of(cls, spec["max_concurrency"], spec["concurrency_groups"] or {}, executor)
    return concurrency, _construct(actor, cls, args, kwargs, client)


def _construct(actor: Acting, cls: type, args: Sequence[Any], kwargs: Mapping[str, Any], client: Client) -> Any:
    """The instance. Whoever looks in sees the constructor as a call of the actor."""
    began, task, kind = time.perf_counter(), task_of(actor.id), Kind.FAILED
    actor.constructing = (task, began)
    try:
        instance = cls(*args, **kwargs)
        kind = Kind.CALL
    finally:
        actor.constructing = None
        seconds = time.perf_counter() - began
        if seconds >= client.recorder.least:
            client.recorder.add(began, seconds, f"{actor.class_name}.__init__", kind, task)
    return instance
