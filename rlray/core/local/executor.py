"""The executing half of a worker: runs tasks and actor methods, answers their callers."""

from __future__ import annotations

import atexit
import os
import pickle
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from functools import partial
from typing import Any

from rlray.core.calls import method_of, put_together, retries
from rlray.core.engine import CHUNK, STREAMING
from rlray.core.exceptions import ActorDiedError, ActorExit, TaskCancelledError, task_error
from rlray.core.local import logs
from rlray.core.local.acting import Acting, make
from rlray.core.local.client import Client
from rlray.core.local.codes import ReceivedCodes
from rlray.core.local.environments import set_up
from rlray.core.local.hooks import Concurrent
from rlray.core.local.interrupts import Interrupts
from rlray.core.local.jobs import Answer, Answers, Job, Odd, chunk_size, receive
from rlray.core.local.lending import Lending
from rlray.core.local.references import Payload
from rlray.core.local.returns import Returns
from rlray.core.local.wire import Message
from rlray.core.local.yielding import Yielding
from rlray.core.resources import Request, amounts
from rlray.core.serialization import deserialize, dumps_error, unpickled
from rlray.core.timeline import Kind

_SHORT = 0.0005  # seconds: calls shorter than this share a message with the next one's answer
_WEIGHT = 0.2  # of the latest call in the mean of how long calls take
_HOLD = 0.001  # seconds an answer is held back at most, ...
_OVERDUE = 0.010  # ... or, where a call that was taken for a short one turns out long
_CALL, _FAILED = Kind.CALL, Kind.FAILED  # finding them takes longer than noting a call
_UNNEEDED_AFTER = 0.050  # seconds between two looks whether somebody still needs a process that wants to end


def _item(what: str, pickled: tuple[bytes, Sequence[Any]]) -> Any:
    return unpickled(what, lambda: deserialize(*pickled))


running: ContextVar[Job | None] = ContextVar("rlray_running", default=None)
"""What a thread or coroutine other than the main thread runs."""


class Executor:
    """Runs what arrives. `run` is the main thread's loop; messages come from whoever polls, under the loop's lock."""

    def __init__(self, client: Client, gpus: tuple[str, ...], output: logs.WorkerOutput) -> None:
        self._client = client
        self._gpus = gpus
        self._output = output
        self._queue: deque[Job | Callable[[], None]] = deque()
        self._asked_to_cancel: dict[bytes, bool] = {}  # task -> with what it has started
        self._codes = ReceivedCodes()
        self._functions: dict[Any, Callable[..., Any]] = {}
        self._calls: dict[Any, int] = {}  # of functions with max_calls
        self._departure: bytes | None = None  # the actor ends for this reason, once its calls under way have ended
        self._leaving = False
        self._orphan = False  # its caller is dead, and the node does not know yet that it runs nothing any more
        self._actor: Acting | None = None
        self.answers = Answers(client)
        self.returns = Returns(client, self.answers)
        self.yielding = Yielding(client, self.returns)
        self._flush_due = False  # a timer will flush the answers
        self._announced = ""
        self._main = threading.main_thread().ident
        self._current: Job | None = None  # on the main thread
        self.beside: dict[bytes, Job] = {}  # on other threads, and as coroutines
        self._recorder = client.recorder
        self._lending = Lending(client.loop, lambda: self._current, self._lend)
        callers = (Executor.perform, Executor._run_chunk, Executor._send_all)
        self._interrupts = Interrupts(client.loop, self._on_main, [caller.__code__ for caller in callers])

    def run(self) -> None:
        """Take the next job and run it, for ever."""
        queue, run_until = self._queue, self._client.loop.run_until
        while True:
            if not queue:
                if self.answers.waiting():  # they waited for company that has been taken back
                    self.flush()
                run_until(lambda: bool(queue))
            try:
                job = queue.popleft()
            except IndexError:  # it was taken back
                continue
            if isinstance(job, Job):
                self._run_on_main(job)
            else:
                job()
            del job  # while this process waits, it keeps nothing of the last one alive

    # -- messages ----------------------------------------------------------------------------------------------------

    def on_message(self, sender: int, message: Message) -> None:
        """Take a message that is for this half."""
        match message:
            case ("tasks", runs, codes):
                for code_id, (pickled, captured) in codes.items():
                    self._codes.take(sender, code_id, pickled, self._client.references.receive(captured, sender))
                jobs = receive(sender, runs, self._client.references)
                if self._actor is not None and self._actor.concurrency is not None:
                    self._actor.concurrency.start(jobs)
                else:
                    self._queue.extend(jobs)
                if self._leaving:
                    self._give_back(sender, None, "leaving")
            case ("forget", codes):
                self._forget(self._codes.forget(sender, codes))
            case ("set_up", environment):
                self._set_up(environment)
            case ("become", actor_id, spec, request, restarts):
                if self._client.needed():
                    self._client.tell_node(("declined",))
                    self._end_when_unneeded()
                else:
                    self._queue.append(lambda: self._become(actor_id, spec, request, restarts))
            case ("take_back", ids):
                self._give_back(sender, set(ids), "asked")
            case ("cancel", task_id, recursive):
                if not self._asked_to_cancel:
                    self._client.loop.call_later(0, self._cancel)
                self._asked_to_cancel[task_id] = recursive
            case ("consumed", task_id, count):
                actor = self._actor
                if self.yielding.consumed(task_id, count) and actor is not None and actor.concurrency is not None:
                    actor.concurrency.consumed(task_id)
            case ("end",):
                self._end_when_unneeded()
            case ("gone", process):
                self._forget_reader(process)
                self._forget(self._codes.process_gone(process))
            case ("orphaned", client):
                self._orphaned(client)
            case ("node_lost",):
                os._exit(1)

    def _forget_reader(self, process: int) -> None:
        """A process died: generators of actors that wait for it to read on end."""
        if self._actor is not None and self._actor.concurrency is not None:
            for task_id in self.yielding.read_by(process):
                self._actor.concurrency.consumed(task_id)

    def _forget(self, codes: Iterable[bytes]) -> None:
        """Nobody will call these functions any more."""
        for code in codes:
            self._functions.pop(code, None)
            self._calls.pop(code, None)
            self.answers.forget(code)

    def _set_up(self, environment: str) -> None:
        """Take on a runtime environment: this worker has not run anything yet."""
        try:
            set_up(environment)
        except Exception as why:  # whatever it is, somebody waits for the answer
            self._client.tell_node(("set_up", str(why)))
        else:
            self._client.environment = environment
            self._client.tell_node(("set_up", None))

    def _give_back(self, caller: int, ids: set[bytes] | None, why: str) -> None:
        """Return jobs of a caller that have not been started: those asked for, or all."""
        back = self._withdraw(lambda job: job.caller == caller and (ids is None or job.id in ids))
        self._client.post(caller, ("taken", [job.id for job in back], why))

    def _withdraw(self, wanted: Callable[[Job], bool]) -> list[Job]:
        """Take jobs that have not been started out of the queue; in their order."""
        taken: list[Job] = []
        kept: list[Job | Callable[[], None]] = []
        while self._queue:
            try:
                job = self._queue.pop()  # from the end: the main thread takes from the front at the same time
            except IndexError:
                break
            if isinstance(job, Job) and wanted(job):
                taken.append(job)
            else:
                kept.append(job)
        self._queue.extend(reversed(kept))
        return taken[::-1]

    def _cancel(self) -> None:
        """Cancel what was asked for: all at once, so that a long queue is looked through once for many."""
        asked, self._asked_to_cancel = self._asked_to_cancel, {}
        queued = self._withdraw(lambda job: job.id in asked)
        for job in queued:
            del asked[job.id]
            self.answers.add(job.caller, self.cancelled(job))
        if queued:
            self.answers.flush()
        for task_id, recursive in asked.items():
            if recursive:
                self._client.cancel_children(task_id)
            if self._actor is not None:
                if self._actor.concurrency is not None:
                    self._actor.concurrency.cancel(task_id)
            elif self._current is not None and self._current.id == task_id:
                self._interrupts.ask(task_id)

    def _on_main(self) -> bytes | None:
        job = self._current
        return job.id if job is not None else None

    # -- running -----------------------------------------------------------------------------------------------------

    def _run_on_main(self, job: Job) -> None:
        if self._actor is None and job.spec.name != self._announced:
            self._output.task(job.spec.name)
            self._announced = job.spec.name
        self._current = job
        try:
            try:
                answer = self.perform(job)
            finally:
                self._current = None
                if self._interrupts.watched is not None:
                    self._interrupts.look_away()
                if self._lending.lent is not None:
                    self._lending.take_back()
        except KeyboardInterrupt:
            answer = self.cancelled(job)
        if job.spec.max_calls:
            self._count_call(job)
        answers = self.answers
        answers.add(job.caller, answer)
        queue = self._queue
        if not queue or job.spec.once or time.perf_counter() - answers.since > _HOLD or self._long(queue):
            self.flush()
        elif not self._flush_due:
            self.flush_soon(_OVERDUE)

    def _long(self, queue: deque[Job | Callable[[], None]]) -> bool:
        """Whether what comes next may take long, so that answers must not wait for it."""
        try:
            following = queue[0]
        except IndexError:
            return True
        if not isinstance(following, Job):
            return True
        if following.spec.once:  # if it kills this process, it must be seen to be the one that ran
            return True
        measure = following.spec.measure or self.answers.known(following.spec)
        return measure is None or measure.mean > _SHORT

    def flush(self) -> None:
        """Let go of what was printed, then of the answers."""
        logs.flush()
        self.answers.flush()
        self._recorder.look()

    def flush_soon(self, seconds: float = _HOLD) -> None:
        """Let go of the answers before they have waited long."""
        with self._client.loop.lock:
            if not self._flush_due:
                self._flush_due = True
                self._client.loop.call_later(seconds, self._due)

    def _due(self) -> None:
        self._flush_due = False
        self.flush()

    def _count_call(self, job: Job) -> None:
        """End this process once it has run the function as often as it may.

        The caller learns of that before it has the last answer: else it could give this worker back as if it were of
        use to others.
        """
        calls = self._calls[job.spec.target] = self._calls.get(job.spec.target, 0) + 1
        if calls >= job.spec.max_calls and not self._leaving:
            with self._client.loop.lock:
                self._leaving = True  # the caller sends no more, then has this process ended
                self._give_back(job.caller, None, "leaving")

    def _end_when_unneeded(self) -> None:
        """Nobody uses this process any more: end it once nobody needs a value or task that it owns."""
        if self._client.needed():
            if self._orphan and self._current is None:
                self._orphan = False
                self._client.tell_node(("rested",))
            self._client.loop.call_later(_UNNEEDED_AFTER, self._end_when_unneeded)
        else:
            self._client.submitter.return_unused(contended=False)  # else those workers would be orphans
            self._client.tell_node(("kill_worker", self._client.process))

    def _orphaned(self, caller: int) -> None:
        """The process whose tasks this one runs is dead, and with it the use of them; but not of what others need."""
        self._orphan = True
        self._withdraw(lambda job: job.caller == caller)
        if self._current is not None:
            self._client.cancel_children(self._current.id)
            if self._client.needed():
                self._interrupts.ask(self._current.id)
        self._end_when_unneeded()

    def perform(self, job: Job) -> Answer:
        """Run a job to its end; returns the answer."""
        job.began = time.perf_counter()
        try:
            if job.spec.num_returns == CHUNK:
                return self._run_chunk(job)
            function, args, kwargs = self.prepare(job)
            result = function(*args, **kwargs)
            if job.spec.num_returns == STREAMING:
                with self.yielding.stream(job, result, Iterator):
                    self._send_all(job, result)
                self.took(job)
                return (job.id, [], None, False)
            self.took(job)
            return self.returns.answer(job, result)
        except KeyboardInterrupt as error:
            if self._interrupts.asked == job.id:
                raise
            return self.raised(job, error)
        except BaseException as error:  # also SystemExit: the worker lives on
            return self.raised(job, error)

    def took(self, job: Job, calls: int = 1) -> float:
        """A call, or a chunk of them, has run to its end; returns the seconds that it took."""
        seconds, spec, recorder = time.perf_counter() - job.began, job.spec, self._recorder
        measure = spec.measure or self.answers.measure(spec, seconds)
        measure.mean += _WEIGHT * (seconds - measure.mean)
        measure.calls += calls
        measure.seconds += seconds
        self.answers.fresh[spec.target] = measure
        if seconds >= recorder.least:
            recorder.notes.extend((job.began, seconds, job.id, spec.name, _CALL))
        return seconds

    def raised(self, job: Job, error: BaseException) -> Answer:
        """A call has raised: what is to be told of it."""
        seconds = time.perf_counter() - job.began
        if seconds >= self._recorder.least:
            self._recorder.notes.extend((job.began, seconds, job.id, job.spec.name, _FAILED))
        return self.failed(job, error)

    def prepare(self, job: Job) -> tuple[Callable[..., Any], Sequence[Any], Mapping[str, Any]]:
        """What to call, and with what."""
        function = self.function(job.spec.target)
        if job.args is not None:
            return function, job.args, {}
        values = self._client.values
        resolved = [values.load(ref) for ref in job.dependencies]
        given = values.unpack(job.arguments, job.refs, f"an argument of {job.spec.name}")
        args, kwargs = put_together(given, job.slots, resolved)
        return function, args, kwargs

    def function(self, target: Any) -> Callable[..., Any]:
        """The function of that code, or the actor's method of that name."""
        function = self._functions.get(target)
        if function is None:
            function = self._functions[target] = self._load(target)
        return function

    def _load(self, target: Any) -> Callable[..., Any]:
        if self._actor is None:
            return unpickled("the function", lambda: self._codes.load(target))
        return method_of(self._actor.instance, target)

    def failed(self, job: Job, error: BaseException) -> Answer:
        """What a job has raised, ready to travel."""
        if isinstance(error, ActorExit) and self._actor is not None:
            return self._leave(job)
        actor = self._actor
        where = f"pid={os.getpid()}" + (f", actor {actor.class_name}" if actor is not None else "")
        failure = task_error(job.spec.name, error, where)
        retry = retries(job.spec.retry_exceptions, failure)
        return (job.id, [], ("error", dumps_error(failure)), retry)

    def _leave(self, job: Job) -> Answer:
        """The actor ends for good of its own accord: no call begins any more, and those under way end.

        What is not answered by then, this call too, fails when the node tells of the end.
        """
        actor = self._actor
        assert actor is not None
        terminated = job.spec.target == "__ray_terminate__"
        how = "was ended by __ray_terminate__" if terminated else "has ended by exit_actor()"
        self._departure = dumps_error(ActorDiedError(f"actor {actor.class_name} {how}"))
        if actor.concurrency is not None:
            actor.concurrency.close()
        else:
            self._queue.appendleft(self.depart)  # which does not return
        return (b"", [], None, False)  # nobody knows a task of this id

    def depart(self) -> None:
        """End this process, which is an actor's: what was registered with `atexit` runs, then the node ends it."""
        assert self._actor is not None
        self.flush()
        atexit._run_exitfuncs()
        logs.flush()
        self._client.tell_node(("actor_failed", self._actor.id, self._departure))
        self._client.loop.run_until(lambda: False)

    def cancelled(self, job: Job) -> Answer:
        """The answer of a job that was cancelled."""
        self._interrupts.over(job.id)
        return (job.id, [], ("error", dumps_error(TaskCancelledError(f"{job.spec.name} was cancelled"))), False)

    # -- chunks of map -----------------------------------------------------------------------------------------------

    def _run_chunk(self, job: Job) -> Answer:
        """Call a function for each item; an error concerns its own item."""
        function, items = self.function(job.spec.target), self.chunk_items(job)
        values: list[Any] = []
        odd: Odd = {}
        count = chunk_size(job)
        while len(values) < count:
            try:
                values.extend(map(function, items))  # keeps what it has if one raises
                if len(values) < count:
                    raise StopIteration  # by the function, which `map` takes for the end
            except ActorExit:
                raise
            except BaseException as error:
                odd[len(values)] = self.item_failed(job, error)
                values.append(None)
        return self.returns.chunk(job, values, odd, self.took(job, count), self.item_failed)

    def item_failed(self, job: Job, error: BaseException) -> tuple[Payload, list[bytes], bool]:
        """What an item of a chunk has raised, ready to travel. Raises it again if it is for the whole chunk."""
        if isinstance(error, KeyboardInterrupt) and self._interrupts.asked == job.id:
            raise error
        _, _, payload, retry = self.failed(job, error)
        return payload, [], retry

    def chunk_items(self, job: Job) -> Iterator[Any]:
        """The items of a chunk, see `rlray.core.local.chunks.packed`; ``next`` may raise for one, and go on after."""
        assert job.args is not None
        plain, pickles = job.args[0], job.args[-1]
        return iter(plain) if plain is not None else map(partial(_item, f"an argument of {job.spec.name}"), pickles)

    # -- generators --------------------------------------------------------------------------------------------------

    def _send_all(self, job: Job, values: Iterator[Any]) -> None:
        for index, value in enumerate(values):
            self.yielding.send(job, index, value)
            if self.yielding.is_ahead(job, index):
                with self.blocking():
                    self._client.loop.run_until(partial(self._may_go_on, job, index))
            self.check_interrupt()
            if self.yielding.is_unread(job):
                break

    def _may_go_on(self, job: Job, index: int) -> bool:
        return not self.yielding.is_ahead(job, index) or self.interrupted()

    # -- waiting -----------------------------------------------------------------------------------------------------

    def blocking(self) -> AbstractContextManager[Any]:
        """A thread is about to wait: the main thread of a worker lends its CPU to others meanwhile."""
        if threading.get_ident() != self._main or self._current is None:
            return nullcontext()
        self.flush()  # what was held back may be what this one waits for, by way of others
        return self._lending.while_waiting()

    def in_need(self, of_cpu: Callable[[], bool]) -> None:
        """Something that was started here waits for a CPU: it may be the one that the running call holds."""
        if self._current is not None:
            self._lending.look(of_cpu)

    def _lend(self, blocked: bool) -> None:
        """The running call lends its CPU, or takes it back; jobs behind it are returned, for it may wait for one."""
        self._client.tell_node(("blocked", blocked))
        job = self._current
        if blocked and self._actor is None and job is not None:
            self._give_back(job.caller, None, "blocked")

    def interrupted(self) -> bool:
        """Whether the waiting main thread must stop waiting."""
        return self._interrupts.due()

    def check_interrupt(self) -> None:
        """Raise KeyboardInterrupt if the task of this thread was cancelled while it waited."""
        self._interrupts.check()

    def _job_here(self) -> Job | None:
        if self._current is not None and threading.get_ident() == self._main:
            return self._current
        return running.get()

    def running_id(self) -> bytes | None:
        """The id of the task that the calling thread runs, or of the constructor of an actor."""
        job = self._job_here()
        if job is not None:
            return job.id
        constructing = self._actor.constructing if self._actor is not None else None
        return constructing[0] if constructing is not None and threading.get_ident() == self._main else None

    def under_way(self) -> list[dict[str, Any]]:
        """What this process runs at this moment."""
        actor = self._actor
        rows = [
            (job.id, job.spec.name, job.began, job.thread or (0 if job.id in self.beside else self._main))
            for job in [*filter(None, [self._current]), *self.beside.values()]
            if job.began
        ]
        if actor is not None and (constructing := actor.constructing) is not None:
            rows.append((constructing[0], f"{actor.class_name}.__init__", constructing[1], self._main))
        return [
            {"id": task_id, "name": name, "began": began, "thread": thread, "method": actor is not None}
            for task_id, name, began, thread in rows
        ]

    def concurrency(self) -> Concurrent:
        """How many calls this process runs at a time."""
        actor = self._actor
        if actor is None:
            return "task"
        return "serial" if actor.concurrency is None else actor.concurrency.kind

    def coroutine_stacks(self) -> list[tuple[bytes, str]]:
        """What the coroutines of an actor do: task and stack of each."""
        actor = self._actor
        return actor.concurrency.stacks() if actor is not None and actor.concurrency is not None else []

    def running_request(self) -> Request | None:
        """What the running task or actor was given; None outside of both."""
        if self._actor is not None:
            return self._actor.request
        job = self._job_here()
        return job.spec.request if job is not None else None

    def context(self) -> Mapping[str, Any]:
        """The fields of `rlray.core.engine.Context` that the running job adds."""
        fields: dict[str, Any] = {"gpu_ids": self._gpus}
        job, actor, request = self._job_here(), self._actor, self.running_request()
        if request is not None and request.group:
            fields |= {"placement_group_id": request.group.hex(), "captures": bool(request.capture)}
        if job is not None:
            resources = amounts(job.spec.request.resources)
            fields |= {"task_id": job.id.hex(), "task_name": job.spec.name, "resources": resources}
        if actor is not None:
            fields |= {
                "actor_id": actor.id.hex(),
                "actor_name": actor.name or "",
                "actor": actor.info,
                "resources": amounts(actor.request.resources),
                "was_restarted": actor.restarts > 0,
            }
        return fields

    # -- being an actor ----------------------------------------------------------------------------------------------

    def _become(self, actor_id: bytes, spec: Mapping[str, Any], request: Request, restarts: int) -> None:
        client, name = self._client, spec["class_name"]
        self._output.actor(name, spec["name"])
        self._recorder.become(f"{name} {spec['name']!r}" if spec["name"] else name, actor_id)
        self._functions.clear()  # from here on targets are methods
        self._codes.clear()
        try:
            info = unpickled(f"the method table of {name}", lambda: pickle.loads(spec["info"]))
            actor = self._actor = Acting(actor_id, name, info, spec["name"], request, restarts)
            concurrency, actor.instance = make(actor, spec, client, self)
        except BaseException as error:  # also SystemExit: the caller is told
            failure = task_error(f"{name}.__init__", error, f"pid={os.getpid()}, actor {name}")
            client.tell_node(("actor_failed", actor_id, dumps_error(failure)))
            return
        actor.concurrency = concurrency
        client.tell_node(("actor_ready", actor_id))
        if concurrency is not None:
            concurrency.run(client.loop)
