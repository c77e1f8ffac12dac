"""What the tasks and actors that one process starts ask of the scheduler."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlray.core.exceptions import RayError
from rlray.core.resources import Request, Wish
from rlray.core.wishes import as_request, check_possible

if TYPE_CHECKING:
    from rlray.core.local.client import Client


class Wishes:
    """Makes the requests of one process."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def capturing(self) -> Request | None:
        """The running request, if what is started here and now goes into its placement group."""
        hooks = self._client.hooks
        running = hooks.running_request() if hooks is not None else None
        return running if running is not None and running.capture else None

    def request(self, wish: Wish, error: type[RayError], what: str) -> Request:
        """What the task or actor asks of the scheduler. Raises ``error`` if this machine can never give it."""
        settings = self._client.settings
        check_possible(wish, settings.total, settings.node_id, error, what)
        return as_request(wish, self.capturing(), self._client.environment, what)
