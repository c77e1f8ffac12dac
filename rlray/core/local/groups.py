"""Placement groups as one process sees them: asked of the node, which tells how they stand."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlray.core.exceptions import RaySystemError, TaskPlacementGroupRemoved
from rlray.core.local.references import LocalRef
from rlray.core.local.reports import Waiting
from rlray.core.placement_groups import PlacementGroup
from rlray.core.pools import Pool, take_together
from rlray.core.refs import ObjectRef
from rlray.core.resources import UNIT, Shape, amounts, describe
from rlray.core.serialization import dumps_error

if TYPE_CHECKING:
    from rlray.core.local.client import Client
    from rlray.core.local.instructions import GroupState


@dataclass(slots=True)
class _Known:
    """A group of which the node tells this process."""

    state: GroupState = "pending"
    ready: LocalRef | None = None  # gets the handle
    handle: bytes = b""  # pickled


class Groups:
    """Making a group takes one message without an answer; the node tells unasked when it is placed."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[bytes, _Known] = {}
        self._prefix = client.process.to_bytes(4, "big")  # as of every id: who has made it

    def create(self, bundles: tuple[Shape, ...], strategy: str, name: str, detached: bool) -> bytes:
        """Ask for a group; its id. Raises ValueError if this machine can never hold it."""
        client = self._client
        client.check_alive()
        settings = client.settings
        total = Pool(settings.total, dict.fromkeys(settings.gpus, UNIT))
        if take_together(total, bundles) is None:
            raise ValueError(
                f"the bundles {', '.join(map(describe, bundles))} can never be placed together: the cluster has "
                f"{describe(settings.total)} in all; ask for less, or give init() more"
            )
        group = self._prefix + os.urandom(12)
        with client.loop.lock:
            self._known[group] = _Known()
        if not name:
            client.tell_node(("group_create", 0, group, bundles, strategy, None, detached))
            return group
        taken = client.ask("group_create", group, bundles, strategy, (settings.namespace, name), detached)
        if taken is not None:
            with client.loop.lock:
                del self._known[group]
            raise RaySystemError(f"{taken}; choose another name, or remove that group first")
        return group

    def remove(self, group: bytes) -> None:
        """Give the resources back and end what runs with them."""
        self._client.check_alive()
        self._client.tell_node(("group_remove", group))
        with self._client.loop.lock:
            self.changed(group, "removed")

    def wait(self, group: bytes, timeout: float | None) -> bool:
        """Wait until the group is placed; False if time ran out. Raises ValueError if it was removed."""
        self._client.check_alive()
        with self._client.loop.lock:
            known = self._watched(group)
        in_time = self._client.wait_until(
            lambda: known.state != "pending", timeout, Waiting("placement group", [], 0, timeout is None)
        )
        if known.state == "removed":
            raise ValueError(f"placement group {group.hex()} does not exist: it has been removed")
        return in_time

    def ready(self, handle: PlacementGroup) -> ObjectRef:
        """A reference that gets ``handle`` once its group is placed."""
        client = self._client
        client.check_alive()
        with client.loop.lock:
            known = self._watched(handle.id.binary())
            if known.ready is None:
                known.ready, known.handle = client.references.own_put(), pickle.dumps(handle, 5)
                self._resolve(known)
            return known.ready

    def _watched(self, group: bytes) -> _Known:
        known = self._known.get(group)
        if known is None:
            known = self._known[group] = _Known()
            self._client.tell_node(("group_watch", group))
        return known

    def changed(self, group: bytes, state: GroupState) -> None:
        """The node tells how a group stands. Called under the loop's lock."""
        known = self._known.get(group)
        if known is not None:
            known.state = state
            self._resolve(known)
            if state == "removed":
                del self._known[group]

    def _resolve(self, known: _Known) -> None:
        if known.ready is None or known.state == "pending":
            return
        if known.state == "removed":
            error = ("error", dumps_error(TaskPlacementGroupRemoved("the placement group has been removed")))
            self._client.references.resolve(known.ready.entry, error)
        else:
            self._client.references.resolve(known.ready.entry, ("inline", known.handle, []))

    def find(self, name: str) -> bytes:
        """The living group of that name. Raises ValueError if there is none."""
        namespace = self._client.settings.namespace
        found: bytes | None = self._client.ask("group_find", namespace, name)
        if found is None:
            raise ValueError(f"there is no placement group named {name!r} in namespace {namespace!r}")
        return found

    def table(self, group: bytes | None) -> dict[str, dict[str, Any]]:
        """How the group stands, or all groups, by id."""
        node_id = self._client.settings.node_id
        return {
            number.hex(): {
                "placement_group_id": number.hex(),
                "name": name,
                "bundles": {index: amounts(bundle) for index, bundle in enumerate(bundles)},
                "bundles_to_node_id": {index: "" if state == "pending" else node_id for index in range(len(bundles))},
                "strategy": strategy,
                "state": state.upper(),
            }
            for number, name, bundles, strategy, state in self._client.ask("group_table", group)
        }

    def bundles(self, group: bytes) -> tuple[Shape, ...]:
        """What the group was asked to set aside. Raises ValueError if nothing is known of it."""
        for _, _, bundles, _, _ in self._client.ask("group_table", group):
            return tuple(bundles)
        raise ValueError(f"placement group {group.hex()} does not exist: it has been removed")

    def current(self) -> bytes:
        """The group that the calling task or actor runs in; empty if none."""
        running = self._client.hooks.running_request() if self._client.hooks is not None else None
        return running.group if running is not None else b""
