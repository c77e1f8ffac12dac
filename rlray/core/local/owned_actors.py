"""The actors that one process has created: making them, and ending them with their last handle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cloudpickle

from rlray.core import exceptions as exc
from rlray.core.calls import Arguments
from rlray.core.engine import ActorInfo, Code
from rlray.core.local.records import Actor
from rlray.core.local.tasks import first_error
from rlray.core.refs import ObjectRef
from rlray.core.resources import Wish
from rlray.core.signatures import MethodTable

if TYPE_CHECKING:
    from rlray.core.local.client import Client


@dataclass(slots=True)
class _Owned:
    """An actor that this process has created, as long as it lives or has handles."""

    detached: bool
    restarts: bool  # it may be constructed more than once
    needs: list[ObjectRef]  # what its constructor does
    dead: bool = False  # for good


class OwnedActors:
    """Creates actors for a client and keeps what their constructors need."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._actors: dict[bytes, _Owned] = {}

    def create(
        self,
        code: Code,
        methods: MethodTable,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        asked: Wish,
        options: Mapping[str, Any],
    ) -> ObjectRef:
        """Start an actor; see `rlray.core.engine.Engine.create_actor`."""
        for ref in code.refs:
            self._client.references.entry(ref)  # of this run
        request = self._client.wishes.request(asked, exc.ActorUnschedulableError, f"actor {code.name!r}")
        namespace = options["namespace"] or self._client.settings.namespace
        name = (namespace, options["name"]) if options["name"] else None
        parts, arguments, refs = self._client.pack(f"{code.name}.__init__", args, kwargs)
        with self._client.loop.lock:
            life = self._client.references.own_put()
            life_id = life.binary()
            life.entry.released = lambda: self._released(life_id)
        spec = {
            "class_name": code.name,
            "info": cloudpickle.dumps(
                ActorInfo(life.binary(), code.name, methods, options["max_task_retries"])
            ),  # the node never looks inside
            "code": code.pickled,
            "arguments": arguments if arguments[0] != "stored" else None,  # the worker asks: they may be lost by then
            "refs": [ref.binary() for ref in (*refs, *code.refs)],
            "slots": parts.slots,
            "dependencies": [ref.binary() for ref in parts.dependencies],
            "namespace": namespace,
            "name": options["name"],
            "max_concurrency": options["max_concurrency"],
            "concurrency_groups": options["concurrency_groups"],
        }
        detached = options["lifetime"] == "detached"
        actor = Actor(
            life.binary(),
            self._client.process,
            request,
            spec,
            name,
            detached,
            options["max_restarts"],
            bool(parts.dependencies),
            class_name=code.name,
        )
        with self._client.loop.lock:
            self._actors[actor.id] = _Owned(
                detached, actor.restarts_left != 0, [*code.refs, *refs, *parts.dependencies]
            )
            self._client.actors.created(life)
        if name is None:  # nobody can object: no need to wait for an answer
            self._client.tell_node(("actor_create", 0, actor, False))
        else:
            with self._client.loop.lock:
                self._client.references.sweep()  # who had the name may have lost its last handle just now
            taken = self._client.ask("actor_create", actor, options["get_if_exists"])
            if taken is not None:
                with self._client.loop.lock:
                    del self._actors[actor.id]
                if isinstance(taken, str):
                    raise exc.ActorAlreadyExistsError(f"{taken}; choose another name, or pass get_if_exists=True")
                return self._client.claim(taken[0])
        if actor.waits:
            with self._client.loop.lock:
                self._client.references.when_all_ready(
                    parts.dependencies, lambda: self._arguments_ready(actor.id, parts)
                )
        return life

    def _arguments_ready(self, actor: bytes, parts: Arguments) -> None:
        error = first_error(parts.dependencies, self._client.references)
        self._client.tell_node(("actor_arguments", actor, None if error is None else error[1]))

    def constructed(self, actor: bytes) -> None:
        """The actor's constructor has returned."""
        owned = self._actors.get(actor)
        if owned is not None and not owned.restarts:
            owned.needs = []

    def died(self, actor: bytes) -> None:
        """The actor is dead: it will not be constructed again."""
        owned = self._actors.get(actor)
        if owned is not None:
            owned.dead, owned.needs = True, []
            entry = self._client.references.entries.get(actor)
            if entry is None:  # it outlived its last handle
                self._released(actor)
            else:  # of a detached one that has outlived others, too
                entry.released = lambda: self._released(actor)

    def _released(self, object_id: bytes) -> None:
        """No handle to an actor of this process is left anywhere."""
        owned = self._actors.get(object_id)
        if owned is not None and owned.detached and not owned.dead:
            return  # it may be constructed again
        self._client.actors.forget(object_id)
        if owned is not None:
            del self._actors[object_id]
            if not owned.dead:
                self._client.tell_node(("actor_kill", object_id, True, "all handles of the actor were dropped"))
