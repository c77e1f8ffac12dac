"""The engine as one process sees it: submits, owns, gets. The driver has one, and every worker has one."""

from __future__ import annotations

import logging
import pickle
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

from rlray.core import exceptions as exc
from rlray.core.calls import Arguments, immutable_arguments, take_apart
from rlray.core.engine import STREAMING, ActorInfo, CallSpec, Code, Context, Engine, chunked
from rlray.core.local.actor_calls import ActorCalls
from rlray.core.local.awaiting import Awaiting
from rlray.core.local.chunks import LocalChunk, packed
from rlray.core.local.generators import Stream
from rlray.core.local.groups import Groups
from rlray.core.local.hooks import Hooks
from rlray.core.local.inbox import Inbox
from rlray.core.local.lineage import make_again
from rlray.core.local.loop import Loop
from rlray.core.local.owned_actors import OwnedActors
from rlray.core.local.peers import Peers
from rlray.core.local.recorder import Recorder, recorded
from rlray.core.local.references import Entry, Payload, References, owner_of
from rlray.core.local.reports import Reports, Waiting
from rlray.core.local.results import Results
from rlray.core.local.settings import FIRST_WORKER, NODE, RunSettings
from rlray.core.local.submitter import Lane, Submitter
from rlray.core.local.tasks import Task
from rlray.core.local.values import Values
from rlray.core.local.wire import Connection, Message
from rlray.core.local.wishes import Wishes
from rlray.core.mapping import Chunk
from rlray.core.refs import ObjectRef, ObjectRefGenerator
from rlray.core.resources import Request, Wish, amounts
from rlray.core.serialization import dumps_error, serialize
from rlray.core.signatures import MethodTable
from rlray.core.state import Report
from rlray.core.timeline import NO_TASK, Kind, Track

if TYPE_CHECKING:
    from concurrent.futures import Future

    from rlray.core.local.futures import Futures

logger = logging.getLogger(__name__)

_FIRST = b"\0\0"  # what follows the task's id in the id of its first result


class Client(Engine):
    """One process's half of the embedded engine."""

    def __init__(self, settings: RunSettings, process: int, node: socket.socket | None = None) -> None:
        self.settings = settings
        self.process = process
        self.hooks: Hooks | None = None
        self.environment = settings.environment  # what tasks and actors started here inherit
        self.loop = Loop(settings.secret, Inbox(self).handle, self._lost, self._idle)
        self.references = References(process, self.post, self.free, self.loop.attend, self._future)
        self.values = Values(settings, self.references, self.ask, self.post, self.loop, self.blocking)
        self.values.recover = self.recover
        self.submitter = Submitter(self, settings.total)
        self.actors = ActorCalls(self)
        self._awaiting = Awaiting(self)
        self.results = Results(self)
        self._groups = Groups(self)
        self.wishes = Wishes(self)
        self.reports = Reports(self)
        self.recorder = Recorder(settings.spans_directory, process, settings.timeline)
        self.sent: dict[int, OrderedDict[bytes, Task]] = {}
        self.welcome = False  # the node is ready
        self._unready: dict[bytes, Task] = {}  # tasks that wait for their arguments
        self._holding = False  # calls wait for company
        self.peers = Peers(self.loop, settings, process, self._unreachable)
        self.replies: dict[int, Any] = {}
        self._tickets = 0
        self.owned_actors = OwnedActors(self)
        self._broken: Exception | None = None
        self._all_failed = False
        self._futures: Futures | None = None
        self.loop.listen(settings.socket_path(process))
        if node is not None:
            self._node = self.loop.adopt(node, NODE)
        else:
            self._node = self.loop.connect(settings.socket_path(NODE), process, NODE, patient=True)
        self.peers.add(self._node)

    # -- the Engine interface: tasks and actors ----------------------------------------------------------------------

    def submit(self, spec: CallSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if kwargs or not immutable_arguments(args):
            return self._submit_packed(spec, args, kwargs)
        with self.loop.lock:
            self.check_alive()  # here: what is begun later than `_fail_all` would never end
            lane = self.submitter.lane(spec)
            task = Task(self.references.new_task_id(), spec, ("args", args))
            result = self._begin(task)
            task.ready = True
            self.submitter.enqueue(lane, task)
        return result

    def _submit_packed(self, spec: CallSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.check_alive()
        lane = self.submitter.lane(spec)
        task = self._pack_task(spec, args, kwargs)
        with self.loop.lock:
            self.check_alive()
            result = self._begin(task)
            if task.dependencies:
                self._when_ready(task, lambda: self.submitter.enqueue(lane, task))
            else:
                task.ready = True
                self.submitter.enqueue(lane, task)
        return result

    def create_actor(
        self,
        code: Code,
        methods: MethodTable,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        asked: Wish,
        options: Mapping[str, Any],
    ) -> ObjectRef:
        self.check_alive()
        life = self.owned_actors.create(code, methods, args, kwargs, asked, options)
        with self.loop.lock:
            self.lacks_workers()
        return life

    def call(self, actor: ObjectRef, spec: CallSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.references.entry(actor)  # a handle of this run
        if kwargs or not immutable_arguments(args):
            return self._call_packed(actor, spec, args, kwargs)
        with self.loop.lock:
            self.check_alive()
            task = Task(self.references.new_task_id(), spec, ("args", args))
            result = self._begin(task)
            task.actor = actor
            task.ready = True
            self.actors.enqueue(task)
        return result

    def _call_packed(self, actor: ObjectRef, spec: CallSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.check_alive()
        task = self._pack_task(spec, args, kwargs)
        task.actor = actor
        with self.loop.lock:
            self.check_alive()
            result = self._begin(task)
            if task.dependencies:
                self.actors.enqueue(task)
                self._when_ready(task, lambda: self.actors.arguments_ready(task))
            else:
                task.ready = True
                self.actors.enqueue(task)
        return result

    def chunk(self, spec: CallSpec, actor: ObjectRef | None, items: tuple[Any, ...]) -> Chunk:
        arguments = packed(items) if spec.max_retries != 0 or actor is not None else None
        if arguments is None:
            return super().chunk(spec, actor, items)
        together = chunked(spec)
        lane = self.submitter.lane(together) if actor is None else None
        with self.loop.lock:
            self.check_alive()
            chunk = LocalChunk(self, spec, actor, len(items))
            task = Task(self.references.new_task_id(), together, arguments)
            chunk.begin(task)
            self._go(task, actor, lane)
        return chunk

    def resubmit(
        self, spec: CallSpec, actor: ObjectRef | None, lane: Lane | None, arguments: Payload, entry: Entry
    ) -> None:
        """Make a call of a chunk on its own, once more. Call with the loop's lock held."""
        task = Task(self.references.new_task_id(), spec, arguments)
        task.retries -= task.retries > 0
        task.entries = (entry,)
        entry.task = task
        self._go(task, actor, lane)

    def recover(self, ref: ObjectRef) -> bool:
        """Make a lost value again and wait for it; False if that cannot be."""
        entry = self.references.entry(ref)
        with self.loop.lock:
            if not entry.owned:
                entry.payload, entry.fetching = None, True
                self.post(owner_of(entry.id), ("recover", entry.id))
            elif entry.payload is not None and not make_again(self, entry):
                return False
        self.wait_for([ref])
        return True

    def run_again(self, task: Task) -> None:
        """Run a task of which there is nothing left but its results' entries."""
        lane = task.lane
        assert lane is not None
        self._when_ready(task, lambda: self.submitter.enqueue(lane, task))

    def _go(self, task: Task, actor: ObjectRef | None, lane: Lane | None) -> None:
        task.ready, task.actor = True, actor
        if lane is not None:
            self.submitter.enqueue(lane, task)
        else:
            self.actors.enqueue(task)

    def find_actor(self, name: str, namespace: str | None) -> tuple[ObjectRef, ActorInfo]:
        where = namespace or self.settings.namespace
        found = self.ask("actor_find", where, name)
        if found is None:
            raise ValueError(f"there is no living actor named {name!r} in namespace {where!r}")
        return self.claim(found[0]), pickle.loads(found[1])

    def named_actors(self) -> list[tuple[str, str]]:
        return self.ask("actor_names")  # type: ignore[no-any-return]

    def claim(self, object_id: bytes) -> ObjectRef:
        with self.loop.lock:
            return self.references.claim([object_id])[0]

    def kill(self, actor: ObjectRef, no_restart: bool) -> None:
        self.check_alive()
        with self.loop.lock:
            self.actors.killed(actor, no_restart)
        self.tell_node(("actor_kill", actor.binary(), no_restart, "the actor was killed by kill()"))

    def cancel(self, ref: ObjectRef, force: bool, recursive: bool) -> None:
        owner = owner_of(ref.binary())
        if owner != self.process:
            self.post(owner, ("cancel_for", ref.binary(), force, recursive))
            return
        with self.loop.lock:
            task = self.references.entry(ref).task
            if task is None:
                return
            if task.actor is not None and force:
                raise ValueError("force=True cannot cancel an actor's method; use kill(actor) to end the actor")
            self.cancel_here(task, force, recursive)
            self.loop.changed()

    def cancel_here(self, task: Task, force: bool, recursive: bool) -> None:
        """What the task has started itself is known to the process that runs it, which hears of this."""
        if task.actor is not None:
            self.actors.cancel(task, recursive)
        else:
            self.submitter.cancel(task, force, recursive)

    def cancel_children(self, parent: bytes) -> None:
        """Cancel what a task that runs in this process has started."""
        with self.loop.lock:
            for task in [task for task in self.all_tasks() if task.parent == parent]:
                self.cancel_here(task, force=False, recursive=True)

    def all_tasks(self) -> Iterator[Task]:
        """The calls of this process that have not ended."""
        unready = (task for task in self._unready.values() if task.actor is None)  # calls of actors are in their lanes
        return chain(unready, self.submitter.tasks(), self.actors.tasks())

    # -- the Engine interface: objects -------------------------------------------------------------------------------

    def put(self, value: Any) -> ObjectRef:
        self.check_alive()
        return self.values.put(value)

    def empty(self, shape: Any, dtype: Any, order: Literal["C", "F"]) -> Any:
        self.check_alive()
        return self.values.empty(shape, dtype, order)

    def failed(self, error: Exception) -> ObjectRef:
        with self.loop.lock:
            ref = self.references.own_put()
            self.references.resolve(ref.entry, ("error", dumps_error(error)))
        return ref

    def get(self, refs: Sequence[ObjectRef], timeout: float | None) -> list[Any]:
        references, values = self.references, []
        for ref in refs:
            payload = references.entry(ref).payload
            if payload is None or payload[0] == "error":
                return self._awaiting.get(refs, timeout)
            values.append(payload[1] if payload[0] == "value" else self.values.load(ref))
        return values

    def wait_for(self, refs: Sequence[ObjectRef], timeout: float | None = None) -> bool:
        """Wait until all values, or an error among them, are there; False if time ran out."""
        return self._awaiting.wait_for(refs, timeout)

    def wait(
        self, refs: Sequence[ObjectRef], num_returns: int, timeout: float | None, fetch_local: bool = True
    ) -> tuple[list[ObjectRef], list[ObjectRef]]:
        return self._awaiting.wait(refs, num_returns, timeout)

    def first_ready(self, refs: Sequence[ObjectRef]) -> int | None:
        return self._awaiting.first_ready(refs) if len(set(refs)) == len(refs) else None

    def wait_until(self, done: Callable[[], bool], timeout: float | None, waiting: Waiting) -> bool:
        """Wait for something; False if time ran out. Whoever looks in meanwhile is told of ``waiting``."""
        self.check_alive()
        if done():
            return True
        hooks, thread = self.hooks, threading.get_ident()
        waiting.task = hooks.running_id() if hooks is not None else None
        waiting.began = waiting.began or time.perf_counter()
        self.reports.waiting[thread] = waiting
        in_time = True
        try:
            if hooks is None:
                in_time = self.loop.run_until(lambda: done() or self._broken is not None, timeout)
            else:
                with self.blocking():
                    in_time = self.loop.run_until(
                        lambda: done() or self._broken is not None or hooks.interrupted(), timeout
                    )
                hooks.check_interrupt()
        finally:
            self.reports.waiting.pop(thread, None)
            seconds = time.perf_counter() - waiting.began
            if seconds >= self.recorder.least and (in_time or not waiting.for_ever):
                self.recorder.add(waiting.began, seconds, waiting.what, Kind.WAITING, waiting.task or NO_TASK)
        if not done():
            self.check_alive()
        return in_time

    def _future(self, ref: ObjectRef) -> Future[Any]:
        self.check_alive()
        if self._futures is None:
            from rlray.core.local.futures import Futures  # threads, which many programs never need

            self._futures = Futures(self)
        return self._futures.of(ref)

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

    def inspect(self, kind: str, **options: Any) -> Report:
        return self.ask("inspect", kind, options)  # type: ignore[no-any-return]

    def tracks(self) -> list[Track]:
        return recorded(self.settings.spans_directory, self.inspect("timeline"))

    def note(self, began: float, seconds: float, name: str) -> None:
        task = self.hooks.running_id() if self.hooks is not None else None
        self.recorder.add(began, seconds, name, Kind.PROFILE, task or NO_TASK)

    def adopt(self, object_id: bytes) -> ObjectRef:
        entry = self.references.entries.get(object_id)
        if entry is not None and entry.ref is not None and (ref := entry.ref()) is not None:
            return ref  # without the lock: thousands may lie in one value
        with self.loop.lock:
            return self.references.adopt(object_id)

    def shutdown(self) -> None:
        """Close this process's half; `rlray.core.local.launch` ends the processes."""
        self._broken = self._broken or RuntimeError("rlray was shut down")
        with self.loop.lock:
            self._fail_all(self._broken)
        if self._futures is not None:
            self._futures.close(self.values.close)
        else:
            self.values.close()
        self.loop.close()
        self.recorder.close()

    def forked(self) -> None:
        """In a forked child: all of this is the parent's; whoever uses what it has inherited is told."""
        self._broken = RuntimeError(
            "this process was forked from one in which rlray runs, and cannot use the references and actors of that "
            "one; get() what it needs before the fork, or call rlray.init() in it for a runtime of its own"
        )
        self.loop.close_copies()

    # -- making calls ------------------------------------------------------------------------------------------------

    def check_alive(self) -> None:
        """Raise the error that ended the runtime, if it has ended."""
        if self._broken is not None:  # a new one each time: an exception keeps the frames alive that it has passed
            raise type(self._broken)(*self._broken.args)

    def pack(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Arguments, Payload, list[ObjectRef]]:
        """Arguments ready to travel, and the references to keep while they do. Raises TypeError if that cannot be."""
        parts = take_apart(args, kwargs)
        payload, refs = self.values.payload(serialize(parts.values, f"an argument of {name}"))
        return parts, payload, refs

    def _pack_task(self, spec: CallSpec, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Task:
        parts, arguments, refs = self.pack(spec.name, args, kwargs)
        with self.loop.lock:
            task_id = self.references.new_task_id()
        task = Task(task_id, spec, arguments)
        task.refs, task.slots, task.dependencies = refs, parts.slots, parts.dependencies
        return task

    def _begin(self, task: Task) -> Any:
        """Make the references of a task's results, as its caller gets them."""
        if self.hooks is not None:
            task.parent = self.hooks.running_id()
        count = task.spec.num_returns
        if count == 1:
            ref = self.references.own(task.id + _FIRST)
            ref.entry.task = task
            task.entries = (ref.entry,)
            return ref
        if count == STREAMING:
            task.sink = stream = Stream(self, task)
            return ObjectRefGenerator(stream)
        refs = [self.references.own(task.id + index.to_bytes(2, "big")) for index in range(count)]
        task.entries = [ref.entry for ref in refs]
        for entry in task.entries:
            entry.task = task
        return refs or None

    def _when_ready(self, task: Task, go: Callable[[], None]) -> None:
        def ready() -> None:
            task.ready = True
            if self._unready.pop(task.id, None) is not None:  # not cancelled meanwhile
                go()

        self._unready[task.id] = task
        self.references.when_all_ready(task.dependencies, ready)

    def finish(self, task: Task, error: Payload) -> None:
        """The task is over without a result: its references get the error."""
        self.reports.has_failed(task.spec.name)
        self._unready.pop(task.id, None)
        for entry in task.entries:
            entry.task = None
            self.references.resolve(entry, error)
        if task.sink is not None:
            task.sink.failed(error)

    def _fail_all(self, why: BaseException) -> None:
        """No task will be answered any more, and no value will come. Once: nothing begins after that."""
        if self._all_failed:
            return
        self._all_failed = True
        error: Payload = ("error", dumps_error(why))
        for task in list(self.all_tasks()):
            self.finish(task, error)
        self.submitter.close()
        for entry in list(self.references.entries.values()):
            if entry.payload is None and entry.released is None:  # those that stand for a life have no value
                self.references.resolve(entry, error)

    def hold(self) -> None:
        """Calls wait for company: see to it that they leave before anybody waits, or soon."""
        if not self._holding:
            self._holding = True
            self.loop.attend()

    def request(self, spec: CallSpec) -> Request:
        """What a call of ``spec``, made here and now, asks of the scheduler. Raises TaskUnschedulableError."""
        return self.wishes.request(spec.wish, exc.TaskUnschedulableError, f"task {spec.name!r}")

    def lacks_workers(self) -> None:
        """Something that was started here waits for resources. Call with the loop's lock held."""
        if self.hooks is not None:
            self.hooks.in_need(lambda: self.submitter.lacks_workers or self.actors.lack_workers)

    def blocking(self) -> AbstractContextManager[Any]:
        """Entered by a thread that is about to wait for others: a task's CPU is lent meanwhile."""
        return nullcontext() if self.hooks is None else self.hooks.blocking()

    def captures(self) -> bool:
        """Whether what is called here and now goes into the caller's placement group."""
        return self.wishes.capturing() is not None

    # -- messages ----------------------------------------------------------------------------------------------------

    def post(self, process: int, message: Message) -> None:
        """Send to a process of the run; a dead one's messages are dropped, its end is told by the node."""
        self.peers.post(process, message)

    def _unreachable(self, process: int) -> None:
        """A process is dead of which the node will not tell, if it died before this one came."""

        def gone() -> None:
            self.loop.read_now(process)  # what it had written is not lost
            self.references.peer_gone(process)
            self.loop.changed()

        if not self.references.is_gone(process):
            self.loop.call_later(0, gone)  # after what is being handled now

    def tell_node(self, message: Message) -> None:
        """Send to the node."""
        self.loop.send(self._node, message)

    def ask(self, kind: str, *args: Any) -> Any:
        """Ask the node and wait for its answer. Raises KeyboardInterrupt if the task was cancelled, before it asks."""
        self.check_alive()
        if self.hooks is not None:
            self.hooks.check_interrupt()
        with self.loop.lock:
            self._tickets += 1
            ticket = self._tickets
        self.tell_node((kind, ticket, *args))
        self.loop.run_until(lambda: ticket in self.replies or self._broken is not None)
        if ticket not in self.replies:
            self.check_alive()
        return self.replies.pop(ticket)

    def on_other(self, sender: int, message: Message) -> None:
        """A message of a kind that not every process knows, see `rlray.core.local.inbox`."""
        if self.hooks is not None:
            self.hooks.on_message(sender, message)

    def _lost(self, connection: Connection) -> None:
        if connection.peer == NODE and self.hooks is not None:
            self.hooks.on_message(NODE, ("node_lost",))
        elif connection.fault:  # what it has said is lost: whoever waits for it must hear of an end
            self.tell_node(("kill_worker", connection.peer if connection.peer >= FIRST_WORKER else self.process))

    def needed(self) -> bool:
        """Whether others hold, or wait for, what this process owns; or a task that it has started has not ended."""
        return self.references.needed() or any(True for _ in self.all_tasks())

    # -- between messages --------------------------------------------------------------------------------------------

    def _idle(self) -> None:
        if self._holding:
            self._holding = False
            self.submitter.flush()
            self.actors.flush()
        if self.submitter.codes.dropped():
            self.submitter.forget_codes()
        if self.references.noted:
            self.references.sweep()
        self.values.extents.sweep()

    def free(self, payload: Payload) -> None:
        """Give back the memory of a value that nobody holds."""
        self.values.free(payload)
