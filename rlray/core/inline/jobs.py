"""A task or a call of the inline engine, and how it runs: in whatever thread it is given to."""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from rlray.core.calls import Slot, put_together, results_of, retries
from rlray.core.engine import CallSpec, Code
from rlray.core.exceptions import ActorExit, DeadlockError, RayError, TaskCancelledError, task_error
from rlray.core.inline.ledger import Grant, lending
from rlray.core.inline.values import Entry, Payload, Values
from rlray.core.refs import ObjectRef
from rlray.core.resources import PLAIN, Request
from rlray.core.serialization import dumps_error, unpickled

if TYPE_CHECKING:
    from rlray.core.inline.actors import Actor
    from rlray.core.inline.streams import Stream

running: ContextVar[Job | None] = ContextVar("rlray_inline_running", default=None)
"""The job that this thread or coroutine runs."""


def running_request() -> Request | None:
    """What the task or actor that this thread runs was given; None outside of both."""
    job = running.get()
    if job is None:
        return None
    return job.actor.construct.request if job.actor is not None else job.request


class Job:
    """One call of a function or method, from submission until its results are there."""

    __slots__ = (
        "actor",
        "arguments",
        "began",  # on the clock of `time.perf_counter`; 0: not yet
        "caller",  # whose calls of one actor keep their order: the actor or task that made them, None: the driver
        "dependencies",  # what fills the slots
        "done",  # its results are there, or it is not wanted any more
        "entries",  # its results'
        "grant",  # of resources, while it runs; an actor's calls have the actor's
        "id",
        "lazy",  # a generator that runs as its reader asks
        "life",  # the actor outlives the calls already made
        "parent",  # the id of the job that submitted it
        "ready",  # its dependencies are there
        "refs",  # inside the arguments; kept alive until the end
        "request",  # what it asks for; nothing, if it is an actor's call
        "retries",  # left; -1: without end
        "slots",
        "spec",
        "stream",  # takes what a generator yields
        "thread",  # that runs it, once it has begun
    )

    def __init__(self, job_id: bytes, spec: CallSpec, arguments: Payload) -> None:
        self.id = job_id
        self.spec = spec
        self.arguments = arguments
        self.request = PLAIN
        self.retries = spec.max_retries
        self.slots: tuple[Slot, ...] = ()
        self.dependencies: Sequence[ObjectRef] = ()
        self.refs: Sequence[ObjectRef] = ()
        self.entries: Sequence[Entry] = ()
        self.stream: Stream | None = None
        self.actor: Actor | None = None
        self.life: ObjectRef | None = None
        self.grant: Grant | None = None
        self.parent: bytes | None = None
        self.caller: bytes | None = None
        self.thread: int | None = None
        self.began = 0.0
        self.ready = self.done = self.lazy = False

    def again(self) -> Job:
        """The same call, to be made once more after its actor's restart."""
        job = Job(self.id, self.spec, self.arguments)
        for name in ("slots", "dependencies", "refs", "entries", "stream", "actor", "life", "parent", "caller"):
            setattr(job, name, getattr(self, name))
        job.retries = self.retries - (self.retries > 0)
        job.ready = True
        for entry in self.entries:
            entry.job = job
        if job.stream is not None:
            job.stream.job = job
        return job


class Runner:
    """Runs jobs. User code gets a context of its own (contextvars) for each call, as in a process of its own."""

    def __init__(self, values: Values, take: Callable[[Request], Grant], over: Callable[[Job, bool], None]) -> None:
        self.values = values
        self.over = over  # told of each job that has ended, and whether with an error
        self.take = take  # resources; raises what a task gets for which there are none any more
        self.pending: dict[bytes, Job] = {}
        self._functions: WeakKeyDictionary[Code, Any] = WeakKeyDictionary()

    # -- running -----------------------------------------------------------------------------------------------------

    def run(self, job: Job) -> None:
        """Run a job in this thread to its end; a lazy generator up to where its reader takes over."""
        if not self.begin(job):
            return
        job.thread = threading.get_ident()
        try:
            job.grant = self.take(job.request) if job.actor is None else None
        except RayError as error:
            self.finish(job, ("error", dumps_error(error)))
            return
        grant = job.grant
        try:
            with lending(self.grant_here()):
                while Context().run(self._attempt, job):
                    pass
                if job.stream is not None and not job.stream.left_to_reader():
                    job.stream.run_ahead()
        finally:
            if grant is not None:
                grant.give_back()

    def begin(self, job: Job) -> bool:
        """Whether a job whose dependencies are there can run; it ends here if one of them is an error."""
        if job.done or self.values.closed is not None:
            return False
        for ref in job.dependencies:
            payload = self.values.entry(ref).payload
            assert payload is not None
            if payload[0] == "error":
                self.finish(job, payload)
                return False
        return True

    def _attempt(self, job: Job) -> bool:
        """Run it once; True if it must run again."""
        running.set(job)
        try:
            self.open(job)
        except BaseException as error:  # also SystemExit and Ctrl-C: what a task raises is its value
            return self.failed(job, error)
        return False

    def open(self, job: Job) -> None:
        """Call the function, and take its results, or the generator that it returns."""
        function, args, kwargs = self.prepare(job)
        result = function(*args, **kwargs)
        if job.stream is not None:
            job.stream.open(result)
        elif not job.done:
            self.succeed(job, result)

    def prepare(self, job: Job) -> tuple[Callable[..., Any], Sequence[Any], Mapping[str, Any]]:
        """What to call, and with what: with copies of its own each time."""
        job.began = time.perf_counter()
        if job.actor is not None:
            function = job.actor.method(job.spec.method)
        else:
            assert job.spec.code is not None
            function = self.load(job.spec.code)
        args, kwargs = self.arguments(job)
        return function, args, kwargs

    def arguments(self, job: Job) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """The arguments of a job whose dependencies are there."""
        if job.arguments[0] == "args":
            return job.arguments[1], {}
        entries = [self.values.entry(ref) for ref in job.dependencies]
        resolved = [self.values.unpack(entry.payload or (), entry) for entry in entries]
        given = self.values.unpack(job.arguments, f"an argument of {job.spec.name}")
        return put_together(given, job.slots, resolved)

    def load(self, code: Code) -> Any:
        """The function or class, loaded from its pickle once: with globals of its own if it travels by value."""
        found = self._functions.get(code)
        if found is None:
            loaded = unpickled(f"the code of {code.name}", lambda: pickle.loads(code.pickled))
            found = self._functions.setdefault(code, loaded)
        return found

    def grant_here(self) -> Grant | None:
        """What the calling thread has been given."""
        job = running.get()
        if job is None:
            return None
        return job.actor.grant if job.actor is not None else job.grant

    def check_hope(self, missing: Sequence[Entry], every: bool = False) -> None:
        """Raise DeadlockError if this thread would wait for itself for ever: for one of the values, or for all."""
        hopeless = [job for entry in missing if (job := entry.job) is not None and job.actor and job.actor.stuck()]
        if hopeless and (len(hopeless) == len(missing) or not every):
            job = hopeless[0]
            assert job.actor is not None
            raise DeadlockError(
                f"this would wait for ever: {job.spec.name} runs once actor {job.actor.class_name} has finished the "
                "call that waits for it here; return first, or make the class asynchronous"
            )

    # -- ending ------------------------------------------------------------------------------------------------------

    def succeed(self, job: Job, result: Any) -> None:
        """A job has returned. Raises what the caller should get instead if the results cannot be taken."""
        count = job.spec.num_returns
        placed = [self.place(job, value) for value in results_of(job.spec.name, count, result)]
        entries = job.entries
        if self.finish(job):
            for entry, (payload, inner) in zip(entries, placed, strict=True):
                self.values.resolve(entry, payload, inner)

    def place(self, job: Job, value: Any) -> tuple[Payload, Sequence[ObjectRef]]:
        """A result, packed."""
        return self.values.place(value, f"the result of {job.spec.name}")

    def failed(self, job: Job, error: BaseException) -> bool:
        """A job has raised; True if it may run again."""
        actor = job.actor
        if actor is not None and isinstance(error, ActorExit):
            actor.leave(job)
            return False
        failure = task_error(job.spec.name, error, where(actor))
        if retries(job.spec.retry_exceptions, failure) and job.retries != 0 and not job.done:
            job.retries -= job.retries > 0
            return True
        self.finish(job, ("error", dumps_error(failure)))
        return False

    def cancelled(self, job: Job) -> None:
        """A job was cancelled."""
        self.finish(job, ("error", dumps_error(TaskCancelledError(f"{job.spec.name} was cancelled"))))

    def finish(self, job: Job, error: Payload | None = None) -> bool:
        """A job is over, and lets go of what it needed; False if it was over before. All its results get ``error``."""
        with self.values.lock:
            if job.done:
                return False
            job.done = True
        self.pending.pop(job.id, None)
        self.over(job, error is not None)
        if job.actor is not None:
            job.actor.ended(job)
        if error is not None:
            for entry in job.entries:
                self.values.resolve(entry, error)
        if job.stream is not None:
            stream, job.stream = job.stream, None
            stream.end(error)
        job.arguments, job.refs, job.dependencies, job.entries, job.life = (), (), (), (), None
        return True


def where(actor: Actor | None) -> str:
    """Where this process ran something, for error messages."""
    return f"pid={os.getpid()}" + (f", actor {actor.class_name}" if actor is not None else "")
