"""The engine as one process sees it: submits, owns, gets. The driver has one, and every worker has one."""

from __future__ import annotations

import logging
import pickle
import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import cloudpickle

from rlray.core import exceptions as exc
from rlray.core.engine import ActorInfo, Code, Context, Engine
from rlray.core.local.actor_calls import ActorCalls
from rlray.core.local.groups import Groups
from rlray.core.local.loop import Loop
from rlray.core.local.records import Actor
from rlray.core.local.references import Payload, References, owner_of, task_of
from rlray.core.local.submitter import Submitter
from rlray.core.local.tasks import Arguments, Task, first_error, take_apart
from rlray.core.local.values import Values
from rlray.core.local.wire import Connection, Message
from rlray.core.local.wishes import Wishes
from rlray.core.local.zygote import NODE, RunSettings
from rlray.core.refs import ObjectRef
from rlray.core.resources import Request, Wish, amounts, describe
from rlray.core.serialization import dumps_error, serialize

logger = logging.getLogger(__name__)

_SLOW = 30.0  # seconds after which a waiting `get` says what it waits for


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

    def running(self) -> Request | None:
        """What the running task or actor was given; None outside of both."""


class Client(Engine):
    """One process's half of the embedded engine."""

    def __init__(self, settings: RunSettings, process: int, node: socket.socket | None = None) -> None:
        self.settings = settings
        self.process = process
        self.hooks: Hooks | None = None
        self.environment = settings.environment  # what tasks and actors started here inherit
        self.loop = Loop(settings.secret, self._handle, self._lost, self._idle)
        self.references = References(process, self.post, self._free, self._released, self.loop.attend, self._future)
        self.values = Values(settings, self.references, self.ask, self.loop)
        self.submitter = Submitter(self, settings.total)
        self.actors = ActorCalls(self)
        self._groups = Groups(self)
        self._wishes = Wishes(self)
        self.tasks: dict[bytes, Task] = {}
        self.log_key: bytes | None = None  # the node's, once it has said welcome
        self._peers: dict[int, Connection] = {}
        self._replies: dict[int, Any] = {}
        self._tickets = 0
        self._own_actors: dict[bytes, tuple[bool, list[ObjectRef]]] = {}  # (detached, what its constructor needs)
        self._broken: BaseException | None = None
        self._futures: ThreadPoolExecutor | None = None
        self.loop.listen(settings.socket_path(process))
        if node is not None:
            self._peers[NODE] = self.loop.adopt(node, NODE)
        else:
            self._peers[NODE] = self.loop.connect(settings.socket_path(NODE), process, NODE)

    # -- the Engine interface: tasks and actors ----------------------------------------------------------------------

    def submit(
        self, code: Code, args: Sequence[Any], kwargs: Mapping[str, Any], asked: Wish, options: Mapping[str, Any]
    ) -> list[ObjectRef]:
        self.check_alive()
        request = self._wishes.request(asked, exc.TaskUnschedulableError, "task", code.name)
        task = self._make_task(options["name"] or code.name, args, kwargs, options["num_returns"])
        task.code, task.request, task.retries = code, request, options["max_retries"]
        with self.loop.lock:
            results = self._begin(task)
            self._when_ready(task, lambda: self.submitter.enqueue(task))
        return results

    def create_actor(
        self,
        code: Code,
        methods: Mapping[str, Mapping[str, Any]],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        asked: Wish,
        options: Mapping[str, Any],
    ) -> ObjectRef:
        self.check_alive()
        request = self._wishes.request(asked, exc.ActorUnschedulableError, "actor", code.name)
        namespace = options["namespace"] or self.settings.namespace
        name = (namespace, options["name"]) if options["name"] else None
        parts, arguments, refs = self._pack(f"{code.name}.__init__", args, kwargs)
        with self.loop.lock:
            life = self.references.own_put()
        spec = {
            "class_name": code.name,
            "info": cloudpickle.dumps(
                ActorInfo(life.binary(), code.name, methods, options["max_task_retries"])
            ),  # the node never looks inside
            "code": code.pickled,
            "arguments": arguments,
            "refs": [ref.binary() for ref in refs],
            "slots": parts.slots,
            "dependencies": [ref.binary() for ref in parts.dependencies],
            "namespace": namespace,
            "name": options["name"],
            "max_concurrency": options["max_concurrency"],
        }
        detached = options["lifetime"] == "detached"
        actor = Actor(
            life.binary(),
            self.process,
            request,
            spec,
            name,
            detached,
            options["max_restarts"],
            bool(parts.dependencies),
        )
        with self.loop.lock:
            self._own_actors[actor.id] = (detached, [*refs, *parts.dependencies])
            self.actors.created(actor.id)
        if name is None:  # nobody can object: no need to wait for an answer
            self.tell_node(("actor_create", 0, actor, False))
        elif (taken := self.ask("actor_create", actor, options["get_if_exists"])) is not None:
            with self.loop.lock:
                del self._own_actors[actor.id]
            if isinstance(taken, str):
                raise ValueError(f"{taken}; choose another name, or pass get_if_exists=True")
            return self.claim(taken[0])
        if actor.waits:
            with self.loop.lock:
                self.references.when_all_ready(parts.dependencies, lambda: self._arguments_ready(actor.id, parts))
        return life

    def _arguments_ready(self, actor: bytes, parts: Arguments) -> None:
        error = first_error(parts.dependencies, self.references)
        self.tell_node(("actor_arguments", actor, None if error is None else error[1]))

    def call(
        self, actor: ObjectRef, method: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]
    ) -> list[ObjectRef]:
        self.check_alive()
        task = self._make_task(options["name"] or method, args, kwargs, options["num_returns"])
        task.method, task.retries, task.actor = method, options["max_task_retries"], actor
        with self.loop.lock:
            results = self._begin(task)
            self.actors.enqueue(actor.binary(), task)
            self._when_ready(task, lambda: self.actors.pump_task(task))
        return results

    def find_actor(self, name: str, namespace: str | None) -> tuple[ObjectRef, ActorInfo]:
        where = namespace or self.settings.namespace
        found = self.ask("actor_find", where, name)
        if found is None:
            raise ValueError(f"there is no living actor named {name!r} in namespace {where!r}")
        return self.claim(found[0]), pickle.loads(found[1])

    def claim(self, object_id: bytes) -> ObjectRef:
        with self.loop.lock:
            return self.references.claim([object_id])[0]

    def kill(self, actor: ObjectRef, no_restart: bool) -> None:
        self.check_alive()
        with self.loop.lock:
            self.actors.killed(actor.binary(), no_restart)
        self.tell_node(("actor_kill", actor.binary(), no_restart, "the actor was killed by kill()"))

    def cancel(self, ref: ObjectRef, force: bool, recursive: bool) -> None:
        owner = owner_of(ref.binary())
        if owner != self.process:
            self.post(owner, ("cancel_for", ref.binary(), force, recursive))
            return
        with self.loop.lock:
            task = self.tasks.get(task_of(ref.binary()))
            if task is None:
                return
            if task.code is None and force:
                raise ValueError("force=True cannot cancel an actor's method; use kill(actor) to end the actor")
            self._cancel(task, force, recursive)

    def _cancel(self, task: Task, force: bool, recursive: bool) -> None:
        if task.code is None:
            self.actors.cancel(task, recursive)
        else:
            self.submitter.cancel(task, force, recursive)
        if recursive and task.id not in self.tasks:
            self.cancel_children(task.id)

    def cancel_children(self, parent: bytes) -> None:
        """Cancel what a task of this process has submitted."""
        with self.loop.lock:
            for task in [task for task in self.tasks.values() if task.parent == parent]:
                self._cancel(task, force=False, recursive=True)

    # -- the Engine interface: objects -------------------------------------------------------------------------------

    def put(self, value: Any) -> ObjectRef:
        self.check_alive()
        return self.values.put(serialize(value))

    def get(self, refs: Sequence[ObjectRef], timeout: float | None) -> list[Any]:
        slow = _SLOW
        while not self._await(refs, len(refs), slow if timeout is None else timeout, or_error=True):
            if timeout is not None:
                raise exc.GetTimeoutError(f"get timed out after {timeout:g} s; {self._missing(refs)}")
            logger.warning("get has waited for %g s: %s", slow, self._missing(refs))
            slow *= 2
        for ref in refs:  # an error is raised at once, whatever else is still missing
            if self.values.is_error(ref):
                self.values.load(ref)
        return [self.values.load(ref) for ref in refs]

    def wait(
        self, refs: Sequence[ObjectRef], num_returns: int, timeout: float | None
    ) -> tuple[list[ObjectRef], list[ObjectRef]]:
        self._await(refs, num_returns, timeout)
        with self.loop.lock:
            there = [self.references.entries[ref.binary()].payload is not None for ref in refs]
        ready: list[ObjectRef] = []
        rest: list[ObjectRef] = []
        for ref, is_there in zip(refs, there, strict=True):
            (ready if is_there and len(ready) < num_returns else rest).append(ref)
        return ready, rest

    def _await(self, refs: Sequence[ObjectRef], count: int, timeout: float | None, or_error: bool = False) -> bool:
        """Wait until ``count`` of the values, or an error, are there; False if time ran out."""
        self.check_alive()
        with self.values.awaiting(refs, count, or_error) as enough:
            return self.wait_until(enough, timeout)

    def wait_until(self, enough: Callable[[], bool], timeout: float | None) -> bool:
        """Wait as `get` does, lending the CPU meanwhile; False if time ran out."""
        hooks = self.hooks
        if enough():
            return True
        if hooks is None:
            done: Callable[[], bool] = lambda: enough() or self._broken is not None  # noqa: E731
        else:
            done = lambda: enough() or self._broken is not None or hooks.interrupted()  # noqa: E731
        with hooks.blocking() if hooks is not None else nullcontext():
            in_time = self.loop.run_until(done, timeout)
        if hooks is not None:
            hooks.check_interrupt()
        if not enough():
            self.check_alive()
        return in_time

    def _missing(self, refs: Sequence[ObjectRef]) -> str:
        """What a `get` waits for, in words."""
        with self.loop.lock:
            missing = [ref for ref in refs if self.references.entries[ref.binary()].payload is None]
            notes = []
            for ref in missing[:3]:
                task = self.tasks.get(task_of(ref.binary()))
                if task is None:
                    notes.append(f"a value of process {owner_of(ref.binary())}")
                else:
                    wanted = task.request.resources
                    asks = f", which asks for {describe(wanted)}" if wanted else ""
                    notes.append(f"{task.name} ({task.where}{asks})")
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        return f"still missing {len(missing)} of {len(refs)} values: {', '.join(notes)}{more}"

    def _future(self, ref: ObjectRef) -> Future[Any]:
        if self._futures is None:
            self._futures = ThreadPoolExecutor(1, thread_name_prefix="rlray-futures")
        pool, future = self._futures, Future[Any]()
        future.set_running_or_notify_cancel()

        def settle() -> None:
            try:
                future.set_result(self.values.load(ref))
            except BaseException as error:  # whatever the task raised
                future.set_exception(error)

        def there() -> None:
            pool.submit(settle)

        with self.loop.lock:
            self.references.when_all_ready([ref], there)
        return future

    def resources(self) -> tuple[dict[str, float], dict[str, float]]:
        self.check_alive()
        with self.loop.lock:
            self.submitter.return_unused(contended=False)
        total = {**amounts(self.settings.total), "object_store_memory": float(self.settings.store_capacity)}
        return total, self.ask("resources")

    @property
    def groups(self) -> Groups:
        return self._groups

    def context(self) -> Context:
        settings = self.settings
        return Context(
            job_id=settings.job_id,
            node_id=settings.node_id,
            worker_id=f"{self.process:08x}",
            environment=self.environment,
            **{"namespace": settings.namespace, **(self.hooks.context() if self.hooks is not None else {})},
        )

    def adopt(self, object_id: bytes) -> ObjectRef:
        with self.loop.lock:
            return self.references.adopt(object_id)

    def shutdown(self) -> None:
        """Close this process's half; `rlray.core.local.launch` ends the processes."""
        self._broken = self._broken or RuntimeError("rlray was shut down")
        if self._futures is not None:
            self._futures.shutdown(wait=False)
        self.loop.close()

    # -- making calls ------------------------------------------------------------------------------------------------

    def check_alive(self) -> None:
        """Raise the error that ended the runtime, if it has ended."""
        if self._broken is not None:
            raise self._broken

    def _pack(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Arguments, Payload, list[ObjectRef]]:
        parts = take_apart(args, kwargs)
        try:
            value = serialize(parts.values)
        except Exception as why:  # user-defined pickling may raise anything
            raise TypeError(f"an argument of {name} cannot be pickled: {why}") from why
        payload, refs = self.values.payload(value)
        return parts, payload, refs

    def _make_task(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], num_returns: int) -> Task:
        parts, arguments, refs = self._pack(name, args, kwargs)
        parent = self.hooks.context().get("task_id") if self.hooks is not None else None
        with self.loop.lock:
            task_id = self.references.new_task_id()
        return Task(
            id=task_id,
            name=name,
            code=None,
            method="",
            arguments=arguments,
            refs=refs,
            slots=parts.slots,
            dependencies=parts.dependencies,
            num_returns=num_returns,
            retries=0,
            parent=bytes.fromhex(parent) if parent else None,
        )

    def _begin(self, task: Task) -> list[ObjectRef]:
        self.tasks[task.id] = task
        return [self.references.own(task.id, index) for index in range(task.num_returns)]

    def _when_ready(self, task: Task, go: Callable[[], None]) -> None:
        def ready() -> None:
            task.ready = True
            if task.id in self.tasks:  # not cancelled meanwhile
                go()

        self.references.when_all_ready(task.dependencies, ready)

    def finish(self, task: Task, error: Payload | None) -> None:
        """The task is over: if there is an error, its references get that."""
        if self.tasks.pop(task.id, None) is None:
            return
        if error is not None:
            for index in range(task.num_returns):
                self.references.resolve(task.id + index.to_bytes(2, "big"), error, [])
        task.refs.clear()
        task.dependencies.clear()
        task.actor = None
        self.loop.changed()

    # -- messages ----------------------------------------------------------------------------------------------------

    def post(self, process: int, message: Message) -> None:
        """Send to a process of the run; a dead one's messages are dropped, its end is told by the node."""
        connection = self._peers.get(process)
        if connection is None or connection.closed:
            try:
                connection = self.loop.connect(self.settings.socket_path(process), self.process, process)
            except OSError:
                with self.loop.lock:
                    self.references.peer_gone(process)
                return
            self._peers[process] = connection
        self.loop.send(connection, message)

    def tell_node(self, message: Message) -> None:
        """Send to the node."""
        self.loop.send(self._peers[NODE], message)

    def ask(self, kind: str, *args: Any) -> Any:
        """Ask the node and wait for its answer."""
        self.check_alive()
        with self.loop.lock:
            self._tickets += 1
            ticket = self._tickets
        self.tell_node((kind, ticket, *args))
        self.loop.run_until(lambda: ticket in self._replies or self._broken is not None)
        if ticket not in self._replies:
            self.check_alive()
        return self._replies.pop(ticket)

    def _handle(self, connection: Connection, message: Message) -> None:
        sender = connection.peer
        assert sender is not None
        self._peers.setdefault(sender, connection)
        handler = getattr(self, f"_on_{message[0]}", None)
        if handler is not None:
            handler(sender, *message[1:])
        elif self.hooks is not None:
            self.hooks.on_message(sender, message)

    def _on_done(self, sender: int, results: list[tuple[bytes, list[Any], Payload | None, float | None]]) -> None:
        for task_id, values, error, seconds in results:
            task = self.tasks.get(task_id)
            for index, (payload, inner) in enumerate(values):
                self.references.resolve(task_id + index.to_bytes(2, "big"), payload, self.references.receive(inner))
            if task is not None:
                if task.code is None:
                    self.actors.ended(task)
                else:
                    self.submitter.ended(sender, task, seconds)
                self.finish(task, error)
        self.submitter.answered(sender)

    def _on_taken(self, sender: int, ids: list[bytes], blocked: bool) -> None:
        self.submitter.taken_back(sender, ids, blocked)

    def _on_fetch(self, sender: int, object_id: bytes) -> None:
        ref = self.references.adopt(object_id)

        def answer() -> None:
            entry = self.references.entries[object_id]
            inner = self.references.grant(entry.inner, sender)
            self.post(sender, ("value", ref.binary(), entry.payload, inner))

        self.references.when_all_ready([ref], answer)

    def _on_value(self, sender: int, object_id: bytes, payload: Payload, inner: list[bytes]) -> None:
        self.references.resolve(object_id, payload, self.references.receive(inner))

    def _on_credit(self, sender: int, object_id: bytes, holder: int, change: int) -> None:
        self.references.credit(object_id, holder, change)

    def _on_cancel_for(self, sender: int, object_id: bytes, force: bool, recursive: bool) -> None:
        task = self.tasks.get(task_of(object_id))
        if task is not None:
            self._cancel(task, force and task.code is not None, recursive)

    def _on_welcome(self, node: int, log_key: bytes) -> None:
        self.log_key = log_key

    def _on_grant(self, node: int, request: Request, worker: int) -> None:
        self.submitter.granted(request, worker)

    def _on_refuse(self, node: int, request: Request, error: bytes) -> None:
        self.submitter.refused(request, error)

    def _on_group(self, node: int, group: bytes, state: Any) -> None:
        self._groups.changed(group, state)

    def _on_reclaim(self, node: int) -> None:
        self.submitter.return_unused(contended=True)

    def _on_actor(self, node: int, actor: bytes, state: Any, worker: int | None, cause: bytes | None) -> None:
        if state in ("dead", "restarting"):
            home = self.actors.home(actor)
            if home is not None:
                self.loop.read_now(home)
        self.actors.changed(actor, state, worker, cause)
        if state == "dead" and actor in self._own_actors:
            self._own_actors[actor] = (self._own_actors[actor][0], [])

    def _on_reply(self, node: int, ticket: int, answer: Any) -> None:
        if ticket:
            self._replies[ticket] = answer

    def _on_gone(self, node: int, process: int, reason: str) -> None:
        self.loop.drain(process)  # what it had finished before it died is not lost
        self._peers.pop(process, None)
        self.submitter.worker_gone(process, reason)
        self.tell_node(("settled", process, self.references.peer_gone(process)))
        self.loop.changed()

    def _lost(self, connection: Connection) -> None:
        if connection.peer == NODE and self._broken is None:
            self._broken = exc.RayChannelError("the node process of the runtime died; call shutdown() and init() again")
            error: Payload = ("error", dumps_error(self._broken))
            for task in list(self.tasks.values()):
                self.finish(task, error)
            if self.hooks is not None:
                self.hooks.on_message(NODE, ("node_lost",))

    # -- reference counts --------------------------------------------------------------------------------------------

    def _idle(self) -> None:
        self.references.sweep()

    def _free(self, payload: Payload) -> None:
        if payload[0] == "stored":
            self.tell_node(("free", payload[1]))

    def _released(self, object_id: bytes) -> None:
        detached, _ = self._own_actors.get(object_id, (True, None))
        if not detached:
            del self._own_actors[object_id]
            self.tell_node(("actor_kill", object_id, True, "all handles of the actor were dropped"))
