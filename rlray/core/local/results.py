"""Answers of workers on their way in: to the entries, generators and chunks that wait for them."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from rlray.core.local.generators import Stream
from rlray.core.local.jobs import Measures
from rlray.core.local.lineage import remember
from rlray.core.local.references import Payload
from rlray.core.local.tasks import Task

if TYPE_CHECKING:
    from rlray.core.local.client import Client

_NOTHING: OrderedDict[bytes, Task] = OrderedDict()


class Results:
    """Takes in what a client's tasks give. All methods are called under the loop's lock."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def done(self, sender: int, results: list[tuple[Any, ...]], measures: Measures) -> None:
        """Answers of a process: ``(task, value)``, or ``(task, [(payload, references inside)], error, retry)``."""
        running = self._client.sent.get(sender, _NOTHING)
        references = self._client.references
        task = None
        for result in results:
            task = running.pop(result[0], None)
            if task is None:  # it has been answered for otherwise
                self._discard(result, sender)
            elif len(result) == 2:
                entry = task.entries[0]
                entry.task = None
                references.resolve(entry, ("value", result[1]))
            else:
                self._take_in(sender, task, *result[1:])
        if task is not None and task.actor is not None:
            self._client.actors.answered(sender, task)
        else:
            self._client.submitter.answered(sender, measures)
        self._client.reports.took(measures)

    def _take_in(self, sender: int, task: Task, values: Any, error: Payload | None, retry: bool) -> None:
        if retry and task.retries != 0:
            (self._client.submitter if task.actor is None else self._client.actors).again(task)
            return
        if error is not None:
            self._client.finish(task, error)
            return
        if task.sink is not None:
            task.sink.answered(values, sender)
            return
        stored = False
        for entry, (payload, inner) in zip(task.entries, values, strict=True):
            entry.task, entry.maker = None, task.spec.name
            stored |= payload[0] == "stored"
            self._client.references.resolve(entry, payload, self._client.references.receive(inner, sender))
        if stored:
            remember(task)

    def _discard(self, result: tuple[Any, ...], sender: int) -> None:
        """An answer that nobody waits for: what it brings is not kept."""
        if len(result) > 2:
            values = result[1]
            for payload, inner, *_ in values[1].values() if isinstance(values, tuple) else values:
                self._client.references.receive(inner, sender)
                self._client.free(payload)

    def yielded(self, sender: int, task_id: bytes, index: int, payload: Payload, inner: list[bytes]) -> None:
        """A generator has given a value."""
        refs = self._client.references.receive(inner, sender)
        task = self._client.sent.get(sender, _NOTHING).get(task_id)
        if task is None or not isinstance(task.sink, Stream):
            self._client.free(payload)
        else:
            task.sink.take(index, payload, refs)
