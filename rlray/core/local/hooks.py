"""What a worker adds to a client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from rlray.core.local.jobs import Job
from rlray.core.local.wire import Message
from rlray.core.resources import Request


class Hooks(Protocol):
    """What a worker adds to a client: the executing half."""

    def on_message(self, sender: int, message: Message) -> None:
        """Take a message that is for the executor."""

    def blocking(self) -> AbstractContextManager[Any]:
        """Entered by a thread that is about to wait for long."""

    def check_interrupt(self) -> None:
        """Raise KeyboardInterrupt if the task of this thread was cancelled while it waited."""

    def interrupted(self) -> bool:
        """Whether `check_interrupt` would raise."""

    def context(self) -> Mapping[str, Any]:
        """The fields of `Context` that the running task adds."""

    def running_request(self) -> Request | None:
        """What the running task or actor was given; None outside of both."""

    def under_way(self) -> Sequence[Job]:
        """What this process runs at this moment."""

    def is_serial(self) -> bool:
        """Whether this is an actor that runs one call at a time."""

    def coroutine_stacks(self) -> list[tuple[str, str]]:
        """What the coroutines of an actor do: name and stack of each."""

    def running_id(self) -> bytes | None:
        """The id of the task that the calling thread runs."""
