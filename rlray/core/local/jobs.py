"""A task on the worker's side: as it arrives, and the answers that leave."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlray.core.local.references import Payload, References
from rlray.core.local.tasks import Slot, WireSpec, WireTask
from rlray.core.refs import ObjectRef
from rlray.core.resources import Request

if TYPE_CHECKING:
    from rlray.core.local.client import Client

Answer = tuple[Any, ...]
"""``(task, value)``, or ``(task, [(payload, references inside)], error, retry)``."""


@dataclass(slots=True, eq=False)
class JobSpec:
    """What the calls of one batch have in common; the fields are those of `rlray.core.local.tasks.spec_to_wire`."""

    target: Any  # id of the code, or name of the method
    name: str
    num_returns: int
    once: bool  # it must not run twice: its answer leaves before anything else starts
    request: Request
    retry_exceptions: bool | bytes
    max_calls: int
    concurrency_group: str | None
    backpressure: int


class Job:
    """A task that has arrived."""

    __slots__ = ("args", "arguments", "caller", "dependencies", "id", "refs", "slots", "spec")

    def __init__(self, caller: int, spec: JobSpec, task_id: bytes, args: tuple[Any, ...] | None) -> None:
        self.caller = caller
        self.spec = spec
        self.id = task_id
        self.args = args  # the arguments, if they came as they are
        self.arguments: Payload = ()
        self.refs: Sequence[ObjectRef] = ()
        self.slots: Sequence[Slot] = ()
        self.dependencies: Sequence[ObjectRef] = ()


def receive(caller: int, runs: Sequence[tuple[WireSpec, Sequence[WireTask]]], references: References) -> list[Job]:
    """The jobs of a message, their references taken over. Call under the loop's lock."""
    jobs = []
    for wire_spec, tasks in runs:
        spec = JobSpec(*wire_spec)
        spec.request = Request(*spec.request)
        for task in tasks:
            if len(task) == 2:
                jobs.append(Job(caller, spec, task[0], task[1]))
                continue
            task_id, arguments, arg_ids, slots, dependencies = task
            job = Job(caller, spec, task_id, None)
            job.arguments, job.slots = arguments, slots
            job.refs = references.receive(arg_ids)
            if dependencies:
                job.dependencies = received = []
                for object_id, payload, inner_ids in dependencies:
                    [ref] = references.receive([object_id])
                    inner = references.receive(inner_ids)
                    if ref.entry.payload is None:
                        references.resolve(ref.entry, payload, inner)
                    received.append(ref)
            jobs.append(job)
    return jobs


class Answers:
    """Answers that wait for company, so that those of short calls share a message."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._waiting: dict[int, list[Answer]] = {}
        self._means: dict[bytes, float] = {}
        self.mean: dict[Any, float] = {}  # seconds that a call takes lately, by code or method
        self.since = 0.0  # when the oldest answer was added

    def measured(self, target: Any, seconds: float) -> None:
        """A call has run to its end."""
        mean = self.mean.get(target)
        self.mean[target] = self._means[target] = seconds if mean is None else mean + 0.2 * (seconds - mean)

    def add(self, caller: int, answer: Answer) -> None:
        """An answer is ready to leave. Call from any thread."""
        with self._client.loop.lock:
            waiting = self._waiting.get(caller)
            if waiting is None:
                if not self._waiting:
                    self.since = time.perf_counter()
                self._waiting[caller] = [answer]
            else:
                waiting.append(answer)

    def waiting(self) -> bool:
        """Whether there are answers that have not left."""
        return bool(self._waiting)

    def flush(self) -> None:
        """Send all. Call from any thread."""
        with self._client.loop.lock:
            if self._waiting:
                waiting, self._waiting = self._waiting, {}
                means, self._means = self._means, {}
                for caller, answers in waiting.items():
                    self._client.post(caller, ("done", answers, means))
