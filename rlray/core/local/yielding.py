"""What generators yield, on its way to their readers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rlray.core.calls import check_generator
from rlray.core.local import logs
from rlray.core.local.jobs import Job
from rlray.core.local.references import owner_of
from rlray.core.local.returns import Returns

if TYPE_CHECKING:
    from rlray.core.local.client import Client


class Yielding:
    """Of one worker: sends values, and knows how far the readers are."""

    def __init__(self, client: Client, returns: Returns) -> None:
        self._client, self._returns = client, returns
        self._consumed: dict[bytes, int] = {}  # by generator task: values that its reader has taken

    @contextmanager
    def stream(self, job: Job, values: Any, kind: type) -> Iterator[None]:
        """Around the time in which a job sends what it yields. Raises TypeError if it is no generator."""
        check_generator(job.spec.name, values, kind)
        self._consumed[job.id] = 0
        try:
            yield
        finally:
            del self._consumed[job.id]

    def send(self, job: Job, index: int, value: Any) -> None:
        """Value number ``index`` leaves at once."""
        payload, inner, refs = self._returns.yielded(job, value)
        logs.flush()
        self._client.post(job.caller, ("yielded", job.id, index, payload, inner))
        del refs  # not before it has left

    def is_ahead(self, job: Job, index: int) -> bool:
        """Whether a generator that has yielded value ``index`` is as far ahead of its reader as it may be."""
        limit = job.spec.backpressure
        return limit > 0 and index + 1 - self._consumed[job.id] >= limit and not self.is_unread(job)

    def is_unread(self, job: Job) -> bool:
        """Whether the process that asked for a generator is dead: it is closed then, nobody will see what it yields."""
        return self._client.references.is_gone(job.caller)

    def consumed(self, task_id: bytes, count: int) -> bool:
        """The reader has taken ``count`` values; False if there is no such generator."""
        if task_id not in self._consumed:
            return False
        self._consumed[task_id] = count
        return True

    def read_by(self, process: int) -> list[bytes]:
        """The generators that a process reads."""
        return [one for one in self._consumed if owner_of(one) == process]
