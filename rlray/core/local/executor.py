"""The executing half of a worker: runs tasks and actor methods, answers their callers."""

from __future__ import annotations

import asyncio
import inspect
import os
import pickle
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from rlray.core.engine import ActorInfo
from rlray.core.exceptions import TaskCancelledError, task_error
from rlray.core.local import logs
from rlray.core.local.client import Client
from rlray.core.local.environments import set_up
from rlray.core.local.references import Payload
from rlray.core.local.tasks import Slot, WireTask, put_together
from rlray.core.local.wire import Message
from rlray.core.refs import ObjectRef
from rlray.core.resources import Request, amounts
from rlray.core.serialization import dumps_error, serialize

_SHORT = 0.0005  # seconds: calls shorter than this share a message with the next one's answer
_HOLD = 0.001  # seconds an answer is held back at most
_BLOCKED_AFTER = 0.010  # seconds in `get` after which the CPU is lent to others
_ASYNC_CONCURRENCY = 1_000


@dataclass(slots=True, eq=False)
class Job:
    """A task that has arrived."""

    caller: int
    id: bytes
    target: Any  # id of the code, or name of the method
    name: str
    arguments: Payload
    refs: list[ObjectRef]
    slots: Sequence[Slot]
    dependencies: list[ObjectRef]
    num_returns: int
    once: bool  # it must not run twice: its answer leaves before anything else starts
    request: Request


@dataclass(slots=True)
class _ActorState:
    """What a worker that became an actor knows."""

    id: bytes
    class_name: str
    info: ActorInfo
    name: str | None
    namespace: str
    request: Request
    restarts: int
    instance: Any = None
    call: Callable[[Job], None] | None = None  # None: on the main thread


_running: ContextVar[Job | None] = ContextVar("rlray_running", default=None)


class Executor:
    """Runs what arrives. `run` is the main thread's loop; messages come from whoever polls, under the loop's lock."""

    def __init__(self, client: Client, gpus: tuple[str, ...]) -> None:
        self._client = client
        self._gpus = gpus
        self._queue: deque[Job | Callable[[], None]] = deque()
        self._codes: dict[bytes, tuple[str, bytes]] = {}
        self._functions: dict[bytes, Any] = {}
        self._actor: _ActorState | None = None
        self._answers: dict[int, list[Any]] = {}
        self._held_since = 0.0
        self._mean: dict[Any, float] = {}
        self._announced = ""
        self._main = threading.main_thread().ident
        self._current: Job | None = None  # on the main thread
        self._cancelling: bytes | None = None
        self._interrupt_later = False
        self._async_tasks: dict[bytes, asyncio.Task[None]] = {}
        signal.signal(signal.SIGINT, self._on_sigint)

    def run(self) -> None:
        """Take the next job and run it, for ever."""
        while True:
            self._client.loop.run_until(lambda: bool(self._queue))
            job = self._queue.popleft()
            if not isinstance(job, Job):
                job()
            elif self._actor is not None and self._actor.call is not None:
                self._actor.call(job)
            else:
                self._run_on_main(job)

    # -- messages ----------------------------------------------------------------------------------------------------

    def on_message(self, sender: int, message: Message) -> None:
        """Take a message that is for this half."""
        match message:
            case ("tasks", batch, codes):
                self._codes.update(codes)
                self._queue.extend([self._receive(sender, task) for task in batch])
            case ("set_up", environment):
                self._set_up(environment)
            case ("become", actor_id, spec, request, restarts):
                self._queue.append(lambda: self._become(actor_id, spec, request, restarts))
            case ("take_back", ids):
                self._give_back(sender, set(ids))
            case ("cancel", task_id, recursive):
                self._cancel(task_id, recursive)
            case ("node_lost",):
                os._exit(1)

    def _set_up(self, environment: str) -> None:
        """Take on a runtime environment: this worker has not run anything yet."""
        try:
            set_up(environment)
        except Exception as why:  # whatever it is, somebody waits for the answer
            self._client.tell_node(("set_up", str(why)))
        else:
            self._client.environment = environment
            self._client.tell_node(("set_up", None))

    def running(self) -> Request | None:
        """What the running task or actor was given; None outside of both."""
        if self._actor is not None:
            return self._actor.request
        job = _running.get()
        return job.request if job is not None else None

    def _receive(self, sender: int, task: WireTask) -> Job:
        task_id, target, name, arguments, arg_ids, slots, dependencies, num_returns, once, request = task
        references = self._client.references
        refs = references.receive(arg_ids)
        received = []
        for object_id, payload, inner_ids in dependencies:
            received += references.receive([object_id])
            references.resolve(object_id, payload, references.receive(inner_ids))
        return Job(sender, task_id, target, name, arguments, refs, slots, received, num_returns, once, request)

    def _give_back(self, caller: int, ids: set[bytes] | None) -> None:
        """Return jobs of a caller that have not been started: those asked for, or all."""
        back = [job for job in self._queue if isinstance(job, Job) and job.caller == caller]
        if ids is not None:
            back = [job for job in back if job.id in ids]
        for job in back:
            self._queue.remove(job)
        self._client.post(caller, ("taken", [job.id for job in back], ids is None))

    def _cancel(self, task_id: bytes, recursive: bool) -> None:
        if recursive:
            self._client.cancel_children(task_id)
        for job in self._queue:
            if isinstance(job, Job) and job.id == task_id:
                self._queue.remove(job)
                self._answer(job, [], self._cancelled(job), None)
                self._flush()
                return
        running = self._async_tasks.get(task_id)
        if running is not None:
            running.get_loop().call_soon_threadsafe(running.cancel)
        elif self._current is not None and self._current.id == task_id and self._actor is None:
            self._cancelling = task_id
            assert self._main is not None
            signal.pthread_kill(self._main, signal.SIGINT)  # also interrupts a sleeping system call

    def _on_sigint(self, number: int, frame: object) -> None:
        if self._current is None or self._current.id != self._cancelling:
            return  # the task ended meanwhile
        if self._client.loop.busy_here():
            self._interrupt_later = True  # not in the middle of the runtime's own work
        else:
            raise KeyboardInterrupt

    # -- running -----------------------------------------------------------------------------------------------------

    def _run_on_main(self, job: Job) -> None:
        if self._actor is None and job.name != self._announced:
            logs.announce(job.name)
            self._announced = job.name
        self._current = job
        values: list[Any] = []
        error: Payload | None = None
        seconds: float | None = None
        try:
            try:
                values, error, seconds = self._perform(job)
            finally:
                self._current = None
        except KeyboardInterrupt:
            error = self._cancelled(job)
        self._interrupt_later = False
        logs.flush()
        self._answer(job, values, error, seconds)
        if self._must_flush(job):
            self._flush()

    def _perform(self, job: Job) -> tuple[list[Any], Payload | None, float | None]:
        token = _running.set(job)
        began = time.perf_counter()
        try:
            function, args, kwargs = self._prepare(job)
            result = function(*args, **kwargs)
            seconds = time.perf_counter() - began
            return self._pack_results(job, result), None, seconds
        except KeyboardInterrupt as error:
            if self._cancelling == job.id:
                raise
            return [], self._failure(job, error), None
        except BaseException as error:  # also SystemExit: the worker lives on
            return [], self._failure(job, error), None
        finally:
            _running.reset(token)

    def _prepare(self, job: Job) -> tuple[Callable[..., Any], list[Any], dict[str, Any]]:
        if self._actor is not None:
            function = getattr(self._actor.instance, job.target)
        else:
            function = self._functions.get(job.target)
            if function is None:
                function = self._functions[job.target] = pickle.loads(self._codes[job.target][1])
        values = self._client.values.unpack(job.arguments, job.refs)
        resolved = [self._client.values.load(ref) for ref in job.dependencies]
        args, kwargs = put_together(values, job.slots, resolved)
        return function, args, kwargs

    def _pack_results(self, job: Job, result: Any) -> list[Any]:
        if job.num_returns == 1:
            results: Sequence[Any] = [result]
        elif job.num_returns == 0:
            results = []
        else:
            if not isinstance(result, tuple | list) or len(result) != job.num_returns:
                got = f"{len(result)} values" if isinstance(result, tuple | list) else type(result).__name__
                raise ValueError(
                    f"{job.name} has num_returns={job.num_returns} but returned {got}; "
                    f"return a tuple or list of {job.num_returns}"
                )
            results = result
        packed = []
        for value in results:
            try:
                whole = serialize(value)
            except Exception as why:  # user-defined pickling may raise anything
                raise TypeError(f"the result of {job.name} cannot be pickled: {why}") from why
            payload = self._client.values.place(whole)
            with self._client.loop.lock:
                if payload[0] == "stored":  # told before the answer leaves: the extent is the caller's from here on
                    self._client.tell_node(("transfer", payload[1], job.caller))
                packed.append((payload, self._client.references.grant(whole.refs, job.caller)))
        return packed

    def _failure(self, job: Job, error: BaseException) -> Payload:
        where = f"pid={os.getpid()}" + (f", actor {self._actor.class_name}" if self._actor is not None else "")
        name = f"{self._actor.class_name}.{job.name}" if self._actor is not None else job.name
        return ("error", dumps_error(task_error(name, error, where)))

    def _cancelled(self, job: Job) -> Payload:
        self._cancelling = None
        return ("error", dumps_error(TaskCancelledError(f"{job.name} was cancelled")))

    # -- answering ---------------------------------------------------------------------------------------------------

    def _answer(self, job: Job, values: list[Any], error: Payload | None, seconds: float | None) -> None:
        if seconds is not None:
            mean = self._mean.get(job.target, seconds)
            self._mean[job.target] = 0.8 * mean + 0.2 * seconds
        with self._client.loop.lock:
            if not self._answers:
                self._held_since = time.perf_counter()
            self._answers.setdefault(job.caller, []).append((job.id, values, error, seconds))
            job.refs, job.dependencies = [], []

    def _must_flush(self, job: Job) -> bool:
        if job.once or not self._queue or time.perf_counter() - self._held_since > _HOLD:
            return True
        following = self._queue[0]
        return not isinstance(following, Job) or self._mean.get(following.target, 1.0) > _SHORT

    def _flush(self) -> None:
        with self._client.loop.lock:
            answers, self._answers = self._answers, {}
            for caller, results in answers.items():
                self._client.post(caller, ("done", results))

    # -- waiting -----------------------------------------------------------------------------------------------------

    def blocking(self) -> AbstractContextManager[Any]:
        """A thread is about to wait: the main thread of a worker lends its CPU to others meanwhile."""
        if threading.get_ident() != self._main or self._current is None:
            return nullcontext()
        return self._lending()

    @contextmanager
    def _lending(self) -> Iterator[None]:
        """Answers held back leave now, and jobs behind this one are returned: one may be what this one waits for."""
        client, job = self._client, self._current
        self._flush()
        lent = False

        def lend() -> None:
            nonlocal lent
            if self._current is job and not over:
                lent = True
                client.tell_node(("blocked", True))
                if self._actor is None and job is not None:
                    self._give_back(job.caller, None)

        over = False
        with client.loop.lock:
            client.loop.call_later(_BLOCKED_AFTER, lend)
        try:
            yield
        finally:
            with client.loop.lock:
                over = True
                if lent:
                    client.tell_node(("blocked", False))

    def interrupted(self) -> bool:
        """Whether the waiting main thread must stop waiting."""
        return self._interrupt_later and threading.get_ident() == self._main

    def check_interrupt(self) -> None:
        """Raise KeyboardInterrupt if the task of this thread was cancelled while it waited."""
        if self.interrupted():
            self._interrupt_later = False
            raise KeyboardInterrupt

    def context(self) -> Mapping[str, Any]:
        """The fields of `rlray.core.engine.Context` that the running job adds."""
        fields: dict[str, Any] = {"gpu_ids": self._gpus}
        job, actor, request = _running.get(), self._actor, self.running()
        if request is not None and request.group:
            fields |= {"placement_group_id": request.group.hex(), "captures": request.capture}
        if job is not None:
            fields |= {"task_id": job.id.hex(), "task_name": job.name, "resources": amounts(job.request.resources)}
        if actor is not None:
            fields |= {
                "actor_id": actor.id.hex(),
                "actor_name": actor.name or "",
                "actor": actor.info,
                "namespace": actor.namespace,
                "resources": amounts(actor.request.resources),
                "was_restarted": actor.restarts > 0,
            }
        return fields

    # -- being an actor ----------------------------------------------------------------------------------------------

    def _become(self, actor_id: bytes, spec: Mapping[str, Any], request: Request, restarts: int) -> None:
        client = self._client
        info = pickle.loads(spec["info"])
        logs.announce(info.class_name)
        self._actor = _ActorState(actor_id, info.class_name, info, spec["name"], spec["namespace"], request, restarts)
        try:
            with client.loop.lock:
                refs = client.references.claim(spec["refs"])
                dependencies = client.references.claim(spec["dependencies"])
            client.values.wait_for(dependencies)
            cls = pickle.loads(spec["code"])
            values = client.values.unpack(spec["arguments"], refs)
            args, kwargs = put_together(values, spec["slots"], [client.values.load(ref) for ref in dependencies])
            self._actor.instance = cls(*args, **kwargs)
        except BaseException as error:  # also SystemExit: the caller is told
            failure = task_error(f"{info.class_name}.__init__", error, f"pid={os.getpid()}, actor {info.class_name}")
            client.tell_node(("actor_failed", actor_id, dumps_error(failure)))
            return
        self._actor.call = self._concurrency(cls, spec["max_concurrency"])
        client.tell_node(("actor_ready", actor_id))

    def _concurrency(self, cls: type, limit: int | None) -> Callable[[Job], None] | None:
        """How calls run: coroutines on an event loop, on threads if more than one may run, else on the main thread."""
        if any(inspect.iscoroutinefunction(member) for _, member in inspect.getmembers(cls)):
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="rlray-asyncio", daemon=True).start()
            gate = asyncio.Semaphore(limit or _ASYNC_CONCURRENCY)

            def start(job: Job) -> None:
                loop.call_soon_threadsafe(self._start_async, job, gate)

            return start
        if limit is not None and limit > 1:
            pool = ThreadPoolExecutor(limit, thread_name_prefix="rlray-call")

            def hand_over(job: Job) -> None:
                pool.submit(self._run_beside, job)

            return hand_over
        return None

    def _run_beside(self, job: Job) -> None:
        values, error, seconds = self._perform(job)
        logs.flush()
        self._answer(job, values, error, seconds)
        self._flush()

    def _start_async(self, job: Job, gate: asyncio.Semaphore) -> None:
        self._async_tasks[job.id] = asyncio.ensure_future(self._run_async(job, gate))

    async def _run_async(self, job: Job, gate: asyncio.Semaphore) -> None:
        values: list[Any] = []
        failure: Payload | None = None
        began = time.perf_counter()
        try:
            async with gate:
                _running.set(job)  # of this asyncio task only
                function, args, kwargs = self._prepare(job)
                result = function(*args, **kwargs)
                if inspect.isawaitable(result):
                    result = await result
                values = self._pack_results(job, result)
        except asyncio.CancelledError:
            failure = self._cancelled(job)
        except BaseException as error:  # as for other jobs
            failure = self._failure(job, error)
        self._async_tasks.pop(job.id, None)
        logs.flush()
        self._answer(job, values, failure, time.perf_counter() - began)
        self._flush()
