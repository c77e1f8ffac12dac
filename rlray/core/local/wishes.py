"""From what options ask for to a request of this process: what it passes on to its children, and what can never be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlray.core.exceptions import RayError
from rlray.core.placement_groups import check_room
from rlray.core.resources import Request, Shape, Wish, describe, fits
from rlray.core.runtime_env import merged

if TYPE_CHECKING:
    from rlray.core.local.client import Client


class Wishes:
    """Makes requests. Those that depend only on the process are remembered, so that most submissions cost a look-up."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._total = dict(client.settings.total)
        self._known: dict[Wish, Request] = {}
        self._captured: tuple[bytes, tuple[Shape, ...]] = (b"", ())  # the group of the running request, its bundles

    def request(self, wish: Wish, error: type[RayError], kind: str, name: str) -> Request:
        """What the task or actor asks of the scheduler. Raises ``error`` if this machine can never give it."""
        hooks = self._client.hooks
        running = hooks.running() if hooks is not None else None
        if running is not None and running.capture:
            return self._made(wish, running, error, f"{kind} {name!r}")
        known = self._known.get(wish)
        if known is None:
            known = self._made(wish, None, error, f"{kind} {name!r}")
            if not known.group:  # groups come and go
                self._known[wish] = known
        return known

    def _made(self, wish: Wish, parent: Request | None, error: type[RayError], what: str) -> Request:
        """``parent`` is the running request if that one's children go into its group."""
        settings = self._client.settings
        if not fits(wish.resources, self._total):
            raise error(
                f"{what} asks for {describe(wish.resources)}, but the cluster has {describe(settings.total)} in all; "
                "ask for less, or give init() more"
            )
        if wish.node and wish.node != settings.node_id:
            raise error(
                f"{what} wants to run on node {wish.node}, but the only node is {settings.node_id}; "
                "pass soft=True to run elsewhere then"
            )
        group = wish.group or b""
        if wish.group is None and parent is not None:
            group = parent.group
            if self._captured[0] != group:
                self._captured = group, self._client.groups.bundles(group)
            check_room(wish.resources, self._captured[1], -1, what)
        capture = parent is not None if wish.capture is None else wish.capture
        environment = merged(self._client.environment, wish.environment)
        return Request(wish.resources, environment, group, wish.bundle, bool(group) and capture)
