"""What a worker adds to a client."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol

from rlray.core.local.wire import Message
from rlray.core.resources import Request

Concurrent = Literal["task", "serial", "threads", "coroutines"]
"""A task at a time, or an actor: one call at a time, calls on threads, or coroutines."""


class Hooks(Protocol):
    """What a worker adds to a client: the executing half."""

    def on_message(self, sender: int, message: Message) -> None:
        """Take a message that is for the executor."""

    def blocking(self) -> AbstractContextManager[Any]:
        """Entered by a thread that is about to wait for long."""

    def in_need(self, of_cpu: Callable[[], bool]) -> None:
        """Something that this process has started waits for resources, for as long as ``of_cpu()``.

        Called under the loop's lock.
        """

    def check_interrupt(self) -> None:
        """Raise KeyboardInterrupt if the task of this thread was cancelled while it waited."""

    def interrupted(self) -> bool:
        """Whether `check_interrupt` would raise."""

    def context(self) -> Mapping[str, Any]:
        """The fields of `Context` that the running task adds."""

    def running_request(self) -> Request | None:
        """What the running task or actor was given; None outside of both."""

    def under_way(self) -> list[dict[str, Any]]:
        """What this process runs at this moment: id, name, when it began, the thread, whether it is an actor's."""

    def concurrency(self) -> Concurrent:
        """How many calls this process runs at a time."""

    def coroutine_stacks(self) -> list[tuple[bytes, str]]:
        """What the coroutines of an actor do: task and stack of each."""

    def running_id(self) -> bytes | None:
        """The id of the task that the calling thread runs, or of the constructor of an actor."""
