"""What other processes tell this one: each message goes to the part of the client that it is for."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rlray.core.exceptions import ObjectLostError
from rlray.core.local.jobs import Measures
from rlray.core.local.lineage import make_again
from rlray.core.local.references import Payload
from rlray.core.local.settings import NODE
from rlray.core.local.wire import Connection, Message
from rlray.core.resources import Request
from rlray.core.serialization import dumps_error

if TYPE_CHECKING:
    from rlray.core.local.client import Client

logger = logging.getLogger(__name__)


class Inbox:
    """Takes messages for a client: ``(kind, …)`` is taken by the method ``_on_kind``, all under the loop's lock."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def handle(self, connection: Connection, message: Message) -> None:
        """Take a message; one of a kind that not every process knows is the client's own affair."""
        sender = connection.peer
        self._client.peers.add(connection)
        handler = getattr(self, f"_on_{message[0]}", None)
        if handler is not None:
            handler(sender, *message[1:])
        else:
            self._client.on_other(sender, message)

    # -- from whoever runs what was called here ------------------------------------------------------------------------

    def _on_done(self, sender: int, results: list[tuple[Any, ...]], measures: Measures) -> None:
        self._client.results.done(sender, results, measures)

    def _on_yielded(self, sender: int, task_id: bytes, index: int, payload: Payload, inner: list[bytes]) -> None:
        self._client.results.yielded(sender, task_id, index, payload, inner)

    def _on_taken(self, sender: int, ids: list[bytes], why: str) -> None:
        self._client.submitter.taken_back(sender, ids, why)

    # -- about values that are owned here or elsewhere -----------------------------------------------------------------

    def _on_fetch(self, sender: int, object_id: bytes) -> None:
        ref = self._client.references.adopt(object_id)

        def answer() -> None:
            inner = self._client.references.grant(ref.entry.inner, sender)
            self._client.post(sender, ("value", object_id, ref.entry.payload, inner))

        if self._client.references.when_ready(ref.entry, answer):
            answer()

    def _on_value(self, sender: int, object_id: bytes, payload: Payload, inner: list[bytes]) -> None:
        refs = self._client.references.receive(inner, sender)
        entry = self._client.references.entries.get(object_id)
        if entry is not None:
            self._client.references.resolve(entry, payload, refs)

    def _on_credit(self, sender: int, object_id: bytes, holder: int, change: int, booker: int | None = None) -> None:
        self._client.references.credit(object_id, holder, change, booker)

    def _on_recover(self, sender: int, object_id: bytes) -> None:
        entry = self._client.references.entries.get(object_id)
        if entry is not None and entry.payload is not None and not make_again(self._client, entry):
            file = entry.payload[1] if entry.payload[0] == "spilled" else "with the value"
            text = f"the file {file} is gone, and the value of {object_id.hex()} cannot be made again"
            entry.payload = ("error", dumps_error(ObjectLostError(text)))
        self._on_fetch(sender, object_id)

    def _on_free(self, sender: int, extents: tuple[int, ...]) -> None:
        self._client.values.extents.returned(sender, extents)

    def _on_cancel_for(self, sender: int, object_id: bytes, force: bool, recursive: bool) -> None:
        entry = self._client.references.entries.get(object_id)
        if entry is not None and entry.task is not None:
            self._client.cancel_here(entry.task, force and entry.task.actor is None, recursive)

    # -- from the node: workers, actors, groups ------------------------------------------------------------------------

    def _on_welcome(self, node: int) -> None:
        self._client.welcome = True

    def _on_grant(self, node: int, request: Request, worker: int) -> None:
        self._client.submitter.granted(request, worker)

    def _on_refuse(self, node: int, request: Request, error: bytes) -> None:
        self._client.submitter.refused(request, error)

    def _on_reclaim(self, node: int) -> None:
        self._client.submitter.return_unused(contended=True)

    def _on_group(self, node: int, group: bytes, state: Any) -> None:
        self._client.groups.changed(group, state)

    def _on_actor(self, node: int, actor: bytes, state: Any, worker: int | None, cause: bytes | None) -> None:
        client = self._client
        if state in ("dead", "restarting"):
            home = client.actors.home(actor)
            if home is not None:
                client.loop.read_now(home)
        client.actors.changed(actor, state, worker, cause)
        if state == "alive":
            if worker is not None:
                client.loop.read_now(worker)  # it has booked what it keeps of what its constructor was given
            client.owned_actors.constructed(actor)
        elif state == "dead":
            client.owned_actors.died(actor)

    def _on_gone(self, node: int, process: int, reason: str) -> None:
        client = self._client
        client.loop.drain(process)  # what it had finished before it died is not lost
        client.peers.remove(process)
        client.submitter.worker_gone(process, reason)
        client.sent.pop(process, None)
        client.references.peer_gone(process)
        client.references.stand_in(process)
        client.values.peer_gone(process)
        if client.hooks is not None:
            client.hooks.on_message(NODE, ("gone", process))
        client.loop.changed()

    def _on_settled(self, node: int, process: int) -> None:
        """Every process has acted on the death of one."""
        client = self._client
        if client.references.has_booked(process):
            client.loop.read_others(NODE)  # what they had to say about it was written before the node heard of it
        client.references.settled(process)

    # -- from the node: answers, questions, memory ---------------------------------------------------------------------

    def _on_reply(self, node: int, ticket: int, answer: Any) -> None:
        if ticket:
            self._client.replies[ticket] = answer

    def _on_report(self, node: int, ticket: int, kind: str, options: Mapping[str, Any]) -> None:
        client = self._client
        client.tell_node(("reporting", ticket))  # with a million values it may take longer than one waits for the stuck
        try:
            answer = client.reports.make(kind, options)
        except Exception as why:  # whoever looks in is told, and the run goes on
            logger.exception("no report of %s", kind)
            answer = {"pid": os.getpid(), "failure": f"{type(why).__name__}: {why}"}
        client.tell_node(("reported", ticket, answer))

    def _on_record(self, node: int, everything: bool) -> None:
        self._client.recorder.record(everything)

    def _on_short(self, node: int) -> None:
        self._client.values.extents.give_up()

    def _on_room(self, node: int) -> None:
        self._client.values.extents.room()

    def _on_spill(self, node: int, needed: int) -> None:
        self._client.values.make_room(needed, lambda moved, kept: self._client.tell_node(("spilled", moved, kept)))
