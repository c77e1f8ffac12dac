"""From what options ask for to a request of this process: what it passes on to its children, and what can never be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlray.core.exceptions import RayError
from rlray.core.placement_groups import check_room
from rlray.core.resources import Request, Wish, describe, fits
from rlray.core.runtime_env import merged

if TYPE_CHECKING:
    from rlray.core.local.client import Client


class Wishes:
    """Makes the requests of one process."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._total = dict(client.settings.total)

    def capturing(self) -> Request | None:
        """The running request, if what is started here and now goes into its placement group."""
        hooks = self._client.hooks
        running = hooks.running_request() if hooks is not None else None
        return running if running is not None and running.capture else None

    def request(self, wish: Wish, error: type[RayError], what: str) -> Request:
        """What the task or actor asks of the scheduler. Raises ``error`` if this machine can never give it."""
        settings, parent = self._client.settings, self.capturing()
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
        group, bundles = wish.group or b"", wish.bundles
        if wish.group is None and parent is not None:
            group, bundles = parent.group, parent.capture
            check_room(wish.resources, bundles, -1, what)
        capture = parent is not None if wish.capture is None else wish.capture
        environment = merged(self._client.environment, wish.environment)
        return Request(wish.resources, environment, group, wish.bundle, bundles if capture else ())
