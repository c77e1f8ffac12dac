"""A task on the worker's side: as it arrives, and the answers that leave."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlray.core.calls import Slot
from rlray.core.local.references import Payload, References
from rlray.core.local.tasks import WireSpec, WireTask
from rlray.core.refs import ObjectRef
from rlray.core.resources import Request

if TYPE_CHECKING:
    from rlray.core.local.client import Client

Answer = tuple[Any, ...]
"""``(task, value)``, or ``(task, [(payload, references inside)], error, retry)``."""


Measures = dict[Any, tuple[str, float, int, float]]
"""By code or method: name, seconds that a call takes lately, calls since the last message, and the seconds of those."""


Odd = dict[int, tuple[Payload, list[bytes], bool]]
"""Results of a chunk's items that are not immutable values, by index: the payload, the references inside, whether to
try again."""


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
    measure: Measure | None = None  # of such calls, once one has ended


class Measure:
    """How long the calls of one function or method take."""

    __slots__ = ("calls", "mean", "name", "seconds")

    def __init__(self, name: str, seconds: float) -> None:
        self.name = name
        self.mean = seconds  # lately
        self.calls, self.seconds = 0, 0.0  # since the caller was last told


class Job:
    """A task that has arrived."""

    __slots__ = ("args", "arguments", "began", "caller", "dependencies", "id", "refs", "slots", "spec", "thread")

    def __init__(self, caller: int, spec: JobSpec, task_id: bytes, args: tuple[Any, ...] | None) -> None:
        self.caller = caller
        self.spec = spec
        self.id = task_id
        self.args = args  # the arguments, if they came as they are
        self.began = 0.0  # on the clock of `time.perf_counter`; 0: not yet
        self.thread = 0  # that runs it; 0: the main thread, or none, since it is a coroutine
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
            job.refs = references.receive(arg_ids, caller)
            if arguments[0] == "stored" and job.refs[0].entry.payload is None:  # `Values.payload` has put them
                references.resolve(job.refs[0].entry, arguments)  # so that they stay here if the caller dies
            if dependencies:
                job.dependencies = received = []
                for object_id, payload, inner_ids in dependencies:
                    [ref] = references.receive([object_id], caller)
                    inner = references.receive(inner_ids, caller)
                    if ref.entry.payload is None:
                        references.resolve(ref.entry, payload, inner)
                    received.append(ref)
            jobs.append(job)
    return jobs


def chunk_size(job: Job) -> int:
    """The number of items of a chunk, see `rlray.core.local.chunks.packed`."""
    assert job.args is not None
    return len(job.args[0] if job.args[0] is not None else job.args[1])


class Answers:
    """Answers that wait for company, so that those of short calls share a message."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._waiting: dict[int, list[Answer]] = {}
        self.fresh: dict[Any, Measure] = {}  # of calls that have ended since the callers were last told
        self._measures: dict[Any, Measure] = {}  # by code or method
        self._kept: dict[bytes, list[ObjectRef]] = {}  # by task: references in its answer
        self.since = 0.0  # when the oldest answer was added

    def measure(self, spec: JobSpec, seconds: float) -> Measure:
        """Where to note how long such a call took; ``seconds``: the mean, if this is the first."""
        measure = self.known(spec)
        if measure is None:
            measure = spec.measure = self._measures[spec.target] = Measure(spec.name, seconds)
        return measure

    def forget(self, target: Any) -> None:
        """Nobody calls it any more."""
        self._measures.pop(target, None)

    def known(self, spec: JobSpec) -> Measure | None:
        """How long such a call takes, if that is known."""
        spec.measure = self._measures.get(spec.target)
        return spec.measure

    def keep(self, task_id: bytes, refs: Sequence[ObjectRef]) -> None:
        """An answer of the task names these references, which live until it has left.

        For the caller may own them, and would free them if it heard first that this process holds them no more.
        """
        if refs:
            self._kept.setdefault(task_id, []).extend(refs)

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
                fresh, self.fresh = self.fresh, {}
                measures: Measures = {}
                for target, one in fresh.items():
                    measures[target] = (one.name, one.mean, one.calls, one.seconds)
                    one.calls, one.seconds = 0, 0.0
                for caller, answers in waiting.items():
                    self._client.post(caller, ("done", answers, measures))
                    measures = {target: (one.name, one.mean, 0, 0.0) for target, one in fresh.items()}  # counted once
                    if self._kept:
                        for answer in answers:
                            self._kept.pop(answer[0], None)
