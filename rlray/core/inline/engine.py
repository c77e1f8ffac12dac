"""The engine interface in one process: tasks run where they are called, with copies of everything, as if elsewhere."""

from __future__ import annotations

import logging
import secrets
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from rlray.core import exceptions as exc
from rlray.core.calls import immutable_arguments, take_apart
from rlray.core.engine import STREAMING, ActorInfo, CallSpec, Code, Context, Engine
from rlray.core.inline.actors import Actor, LifeRef, Serial, kind_of
from rlray.core.inline.groups import Groups
from rlray.core.inline.jobs import Job, Runner, running, running_request
from rlray.core.inline.ledger import Ledger, lending
from rlray.core.inline.looking import Looking
from rlray.core.inline.streams import Stream
from rlray.core.inline.values import Entry, Values
from rlray.core.refs import ObjectRef, ObjectRefGenerator
from rlray.core.resources import Request, Shape, Wish, amounts, describe, node_resources
from rlray.core.runtime_env import canonical
from rlray.core.serialization import dumps_error
from rlray.core.signatures import MethodTable
from rlray.core.state import Report
from rlray.core.timeline import NO_TASK, Kind, Track
from rlray.core.wishes import as_request, check_possible

logger = logging.getLogger(__name__)

_ONE_PROCESS = (
    "with engine='inline' all tasks and actors share the process, and so its environment; use init(engine='local'), or "
    "leave runtime_env out"
)
_SLOW = 30.0  # seconds after which a waiting `get` says what it waits for


class _OnLoop(threading.local):
    """Whether this thread runs the event loop of an actor, which nothing else may hold up."""

    here = False


class Inline(Engine):
    """Everything in this process. See `rlray.init` for what is different from workers."""

    def __init__(self, total: Shape, gpus: tuple[str, ...], namespace: str | None, timeline: bool) -> None:
        self._namespace = namespace or uuid.uuid4().hex
        self._job_id, self._node_id = secrets.token_hex(4), uuid.uuid4().hex
        self.values = Values()
        self._ledger = Ledger(total, gpus, self.values.lock)
        self._groups = Groups(self.values, self._ledger, gpus, self._node_id, self._evict)
        self._looking = Looking(self, timeline)
        self.runner = Runner(self.values, self._groups.take, self._looking.ended)
        self.on_loop = _OnLoop()
        self._actors: dict[bytes, Actor] = {}
        self._names: dict[tuple[str, str], Actor] = {}

    # -- the Engine interface: tasks and actors ----------------------------------------------------------------------

    def submit(self, spec: CallSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._begin_call()
        request = self._request(spec.wish, exc.TaskUnschedulableError, f"task {spec.name!r}")
        job = self._job(spec, args, kwargs)
        job.request = request
        result = self._results(job)
        job.lazy = job.stream is not None
        self._when_ready(job, lambda apart: self.go(partial(self.runner.run, job), apart))
        return _handed_over(job, result)

    def call(self, actor: ObjectRef, spec: CallSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._begin_call()
        callee = self._actor_of(actor)
        job = self._job(spec, args, kwargs)
        job.actor, job.life = callee, actor
        result = self._results(job)
        job.lazy = job.stream is not None and isinstance(callee, Serial)
        callee.enter(job)
        self._when_ready(job, lambda apart: callee.arrived(job, apart))
        return _handed_over(job, result)

    def create_actor(
        self,
        code: Code,
        methods: MethodTable,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        asked: Wish,
        options: Mapping[str, Any],
    ) -> ObjectRef:
        self._begin_call()
        request = self._request(asked, exc.ActorUnschedulableError, f"actor {code.name!r}")
        full = {**options, "namespace": options["namespace"] or self._namespace}
        name = (full["namespace"], full["name"]) if full["name"] else None
        construct = self._job(CallSpec(f"{code.name}.__init__", code), args, kwargs)
        construct.request = request
        failure: bytes | None = None
        try:
            cls = self.runner.load(code)
            kind, limit = kind_of(cls, full)
        except BaseException as error:  # whatever unpickling raises
            cls, kind, limit = object, Serial, 1
            failure = dumps_error(exc.task_error(construct.spec.name, error, "inline"))
        info = ActorInfo(construct.id, code.name, methods, full["max_task_retries"])
        actor = kind(self, cls, construct, info, full, limit)
        try:
            actor.grant = self._groups.take(request)
        except exc.TaskPlacementGroupRemoved:
            failure = dumps_error(exc.ActorPlacementGroupRemoved())
        with self.values.lock:
            taken = self._names.get(name) if name is not None else None
            if taken is None:
                self._actors[actor.id] = actor
                if name is not None:
                    self._names[name] = actor
        if taken is not None:
            if actor.grant is not None:
                actor.grant.give_back()
            if full["get_if_exists"]:
                return taken.life()
            raise exc.ActorAlreadyExistsError(
                f"an actor named {full['name']!r} already lives in namespace {full['namespace']!r}; "
                "choose another name, or pass get_if_exists=True"
            )
        life = actor.life()
        if failure is not None:
            actor.end(failure)
        else:
            self._when_ready(construct, actor.begin)
        return life

    def find_actor(self, name: str, namespace: str | None) -> tuple[ObjectRef, ActorInfo]:
        self._begin_call()
        where = namespace or self._namespace
        actor = self._names.get((where, name))
        if actor is None:
            raise ValueError(f"there is no living actor named {name!r} in namespace {where!r}")
        return actor.life(), actor.info

    def named_actors(self) -> list[tuple[str, str]]:
        self._begin_call()
        with self.values.lock:
            return list(self._names)

    def kill(self, actor: ObjectRef, no_restart: bool) -> None:
        self._begin_call()
        self._actor_of(actor).kill(no_restart)

    def cancel(self, ref: ObjectRef, force: bool, recursive: bool) -> None:
        self._begin_call()
        job = self.values.entry(ref).job
        if job is None:
            return
        if job.actor is not None and force:
            raise ValueError("force=True cannot cancel an actor's method; use kill(actor) to end the actor")
        self._cancel(job, recursive)

    def _cancel(self, job: Job, recursive: bool) -> None:
        if job.thread is None and not (job.actor is not None and job.actor.cancel(job)):
            self.runner.cancelled(job)
            if job.actor is not None:
                job.actor.pump()  # calls behind it may have waited for its arguments
        elif job.lazy and job.stream is not None:
            job.stream.close(cancelled=True)
        if recursive:
            for child in [other for other in list(self.runner.pending.values()) if other.parent == job.id]:
                self._cancel(child, recursive)

    # -- the Engine interface: objects -------------------------------------------------------------------------------

    def failed(self, error: Exception) -> ObjectRef:
        ref = self.values.own()
        self.values.resolve(ref.entry, ("error", dumps_error(error)))
        return ref

    def put(self, value: Any) -> ObjectRef:
        self._begin_call()
        payload, inner = self.values.place(value, "a value given to put()")
        ref = self.values.own()
        self.values.resolve(ref.entry, payload, inner)
        return ref

    def empty(self, shape: Any, dtype: Any, order: Literal["C", "F"]) -> Any:
        self._begin_call()
        return self.values.empty(shape, dtype, order)

    def get(self, refs: Sequence[ObjectRef], timeout: float | None) -> list[Any]:
        values = self.values
        values.catch_up()
        entries = [values.entry(ref) for ref in refs]
        if any(entry.payload is None or entry.payload[0] == "error" for entry in entries):
            self._await(entries, timeout)
        return [values.unpack(entry.payload or (), entry) for entry in entries]

    def _await(self, entries: Sequence[Entry], timeout: float | None) -> None:
        """Wait for all, or for an error among them, which is raised at once."""

        def failed() -> Entry | None:
            return next((entry for entry in entries if entry.payload is not None and entry.payload[0] == "error"), None)

        slow = _SLOW
        while failed() is None and any(entry.payload is None for entry in entries):
            self.values.ask(entries)
            missing = [entry for entry in entries if entry.payload is None]
            if timeout is None:
                self.runner.check_hope(missing)
            with lending(self.runner.grant_here()):
                in_time = self.values.block(
                    lambda: failed() is not None or all(entry.payload is not None for entry in entries),
                    slow if timeout is None else timeout,
                )
            if not in_time:
                missing = [entry for entry in entries if entry.payload is None]
                text = f"still missing {len(missing)} of {len(entries)} values: {_names(missing)}"
                if timeout is not None:
                    raise exc.GetTimeoutError(f"get timed out after {timeout:g} s; {text}")
                logger.warning("get has waited for %g s: %s", slow, text)
                slow *= 2
        if (entry := failed()) is not None:
            self.values.unpack(entry.payload or (), entry)

    def wait(
        self, refs: Sequence[ObjectRef], num_returns: int, timeout: float | None, fetch_local: bool = True
    ) -> tuple[list[ObjectRef], list[ObjectRef]]:
        self._begin_call()
        entries = [self.values.entry(ref) for ref in refs]

        def enough() -> bool:
            return sum(entry.payload is not None for entry in entries) >= num_returns

        for entry in [entry for entry in entries if entry.ask is not None]:
            if enough():
                break
            self.values.ask([entry])
        if not enough():
            if timeout is None:
                self.runner.check_hope([entry for entry in entries if entry.payload is None], every=True)
            with lending(self.runner.grant_here()):
                self.values.block(enough, timeout)
        ready = [ref for ref, entry in zip(refs, entries, strict=True) if entry.payload is not None][:num_returns]
        chosen = set(ready)
        return ready, [ref for ref in refs if ref not in chosen]

    def resources(self) -> tuple[dict[str, float], dict[str, float]]:
        self._begin_call()
        return self._ledger.amounts()

    @property
    def groups(self) -> Groups:
        return self._groups

    def context(self) -> Context:
        job = running.get()
        fields: dict[str, Any] = {"worker_id": f"{0:08x}", "namespace": self._namespace}
        if job is not None:
            request = running_request() or job.request
            grant = job.actor.grant if job.actor is not None else job.grant
            fields |= {"worker_id": "ffffffff", "task_id": job.id.hex(), "task_name": job.spec.name}
            if (actor := job.actor) is not None:
                fields |= {
                    "worker_id": actor.worker_id,
                    "actor_id": actor.id.hex(),
                    "actor_name": actor.name or "",
                    "actor": actor.info,
                    "namespace": actor.namespace,
                    "was_restarted": actor.restarts > 0,
                }
                if job is actor.construct:
                    fields |= {"task_id": None, "task_name": None}
            fields |= {
                "resources": amounts(request.resources),
                "gpu_ids": tuple(grant.gpus) if grant is not None else (),
            }
            if request.group:
                fields |= {"placement_group_id": request.group.hex(), "captures": bool(request.capture)}
        return Context(job_id=self._job_id, node_id=self._node_id, **fields)

    def inspect(self, kind: str, **options: Any) -> Report:
        self._begin_call()
        return self._looking.report(kind, **options)

    def tracks(self) -> list[Track]:
        self._begin_call()
        return self._looking.tracks()

    def note(self, began: float, seconds: float, name: str) -> None:
        job = running.get()
        self._looking.note(began, seconds, name, Kind.PROFILE, job.id if job is not None else NO_TASK)

    def actors(self) -> list[Actor]:
        """Every living actor."""
        return list(self._actors.values())

    def adopt(self, object_id: bytes) -> ObjectRef:
        ref = self.values.find(object_id)
        if ref is None:
            actor = self._actors.get(object_id)
            ref = actor.life() if actor is not None else self.values.lost(object_id)
        return ref

    def claim(self, object_id: bytes) -> ObjectRef:
        return self.adopt(object_id)

    def shutdown(self) -> None:
        self.values.close("rlray was shut down")
        actors = list(self._actors.values())
        cause = dumps_error(exc.ActorDiedError("rlray was shut down"))
        for actor in actors:
            actor.end(cause)
        for actor in actors:
            actor.join()

    # -- for actors and jobs -----------------------------------------------------------------------------------------

    def go(self, call: Callable[[], None], apart: bool = False) -> None:
        """Call it in this thread, or in a new one if this thread has something else to do."""
        if apart or self.on_loop.here:
            threading.Thread(target=call, name="rlray-call", daemon=True).start()
        else:
            call()

    def constructed(self, actor: Actor, began: float, failed: bool) -> None:
        """The constructor of an actor has ended."""
        self._looking.constructed(actor, began, failed)

    def gone(self, actor: Actor) -> None:
        """An actor has died: its name and its resources are free again."""
        self._looking.died(actor)
        with self.values.lock:
            self._actors.pop(actor.id, None)
            if actor.name is not None and self._names.get((actor.namespace, actor.name)) is actor:
                del self._names[actor.namespace, actor.name]
        if actor.grant is not None:
            actor.grant.give_back()
        self._groups.actor_gone(actor.id)

    def _evict(self, group: bytes) -> None:
        """A placement group was removed: what is in it fails."""
        for actor in [actor for actor in list(self._actors.values()) if actor.construct.request.group == group]:
            gone = exc.ActorDiedError("the actor is dead: its placement group was removed")
            actor.end(dumps_error(gone if actor.state == "alive" else exc.ActorPlacementGroupRemoved()))
        error = ("error", dumps_error(exc.TaskPlacementGroupRemoved()))
        for job in [job for job in list(self.runner.pending.values()) if job.request.group == group]:
            self.runner.finish(job, error)

    # -- making calls ------------------------------------------------------------------------------------------------

    def _begin_call(self) -> None:
        self.values.check_open()
        self.values.catch_up()

    def _actor_of(self, life: ObjectRef) -> Actor:
        self.values.entry(life)  # a handle of this run
        assert isinstance(life, LifeRef)
        return life.actor

    def _request(self, wish: Wish, error: type[exc.RayError], what: str) -> Request:
        """What a task or actor asks for. Raises ``error`` if this machine can never give it."""
        if wish.environment:
            raise ValueError(f"{what} has a runtime_env; {_ONE_PROCESS}")
        check_possible(wish, self._ledger.total, self._node_id, error, what)
        return as_request(wish, running_request(), "", what)

    def _job(self, spec: CallSpec, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Job:
        """A call with its arguments packed. Raises TypeError if they cannot be."""
        for ref in spec.code.refs if spec.code is not None else ():
            self.values.entry(ref)  # of this run
        if not kwargs and isinstance(args, tuple) and immutable_arguments(args):
            job = Job(self.values.new_id(), spec, ("args", args))
        else:
            parts = take_apart(args, kwargs)
            payload, refs = self.values.place(parts.values, f"an argument of {spec.name}")
            job = Job(self.values.new_id(), spec, payload)
            job.refs, job.slots, job.dependencies = refs, parts.slots, parts.dependencies
        parent = running.get()
        if parent is not None:
            job.parent = parent.id
            job.caller = parent.actor.id if parent.actor is not None else parent.id
        return job

    def _results(self, job: Job) -> Any:
        """The references of a call's results, as its caller gets them."""
        self.runner.pending[job.id] = job
        count = job.spec.num_returns
        if count == STREAMING:
            job.stream = Stream(self.runner, job)
            return ObjectRefGenerator(job.stream)
        refs = [self.values.own(job) for _ in range(count)]
        job.entries = [ref.entry for ref in refs]
        return refs[0] if count == 1 else refs or None

    def _when_ready(self, job: Job, go: Callable[[bool], None]) -> None:
        """Go on once the dependencies are there: now, or apart from the thread that brings the last one."""
        entries = [self.values.entry(ref) for ref in job.dependencies]
        self.values.ask(entries)
        if all(entry.payload is not None for entry in entries):
            go(False)
        else:
            self.values.when_all_ready(entries, lambda: go(True))


def start(
    *,
    num_cpus: float | None,
    num_gpus: float | None,
    resources: Mapping[str, float] | None,
    memory: float | None,
    runtime_env: Mapping[str, Any] | None,
    namespace: str | None,
    timeline: bool,
) -> Inline:
    """Start a run; there is nothing to start but its tables. Raises ValueError for a ``runtime_env``."""
    if canonical(runtime_env):
        raise ValueError(f"init() has a runtime_env; {_ONE_PROCESS}")
    total, gpus = node_resources(num_cpus, num_gpus, memory, resources)
    return Inline(total, gpus, namespace, timeline)


def _handed_over(job: Job, result: Any) -> Any:
    """What the caller gets, as the call returns to it."""
    if job.stream is not None:
        job.stream.settle_who_runs()
    return result


def _names(missing: Sequence[Entry]) -> str:
    """What makes the values that are missing, in words."""
    notes = [_where(entry.job) for entry in missing[:3]]
    return ", ".join(notes) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")


def _where(job: Job | None) -> str:
    if job is None:
        return "a value"
    if job.thread is not None:
        where = "running"
    elif job.actor is not None:
        where = f"with the actor, which is {job.actor.state}" if job.ready else "waiting for its arguments"
    else:
        where = "waiting for its arguments"
    asks = f", which asks for {describe(job.request.resources)}" if job.request.resources else ""
    return f"{job.spec.name} ({where}{asks})"
