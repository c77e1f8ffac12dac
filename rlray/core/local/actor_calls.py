"""Calls of actor methods on their way: in the caller's order, straight to the actor's process."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rlray.core.calls import as_call_error
from rlray.core.exceptions import ActorUnavailableError, TaskCancelledError
from rlray.core.local.line import Line
from rlray.core.local.references import Payload
from rlray.core.local.submitter import COMPANY, Host
from rlray.core.local.tasks import Task, batch_to_wire, first_error
from rlray.core.refs import ObjectRef
from rlray.core.resources import PLAIN
from rlray.core.serialization import dumps_error

if TYPE_CHECKING:
    from rlray.core.local.instructions import ActorState


@dataclass(slots=True)
class ActorLane:
    """The calls of one process to one actor."""

    id: bytes
    state: ActorState = "pending"
    killed: bool = False  # for good, by this process: its death is about to be told
    worker: int | None = None
    cause: Payload | None = None
    waiting: Line = field(default_factory=Line)  # not sent yet, in order
    running: OrderedDict[bytes, Task] = field(default_factory=OrderedDict)  # sent, in order


class ActorCalls:
    """Sends the actor calls of one process. All methods are called under the loop's lock."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._lanes: dict[bytes, ActorLane] = {}
        self._held: dict[bytes, ActorLane] = {}  # lanes with calls that wait for company

    def lane(self, actor: ObjectRef) -> ActorLane:
        """The lane to an actor; the node is asked to tell how the actor stands when it is new."""
        lane = self._lanes.get(actor.binary())
        if lane is None:
            lane = self.created(actor)
            self._host.tell_node(("actor_watch", lane.id))
        return lane

    def created(self, actor: ObjectRef) -> ActorLane:
        """A new lane. The process that has just created the actor is told of it by the node unasked."""
        lane = self._lanes[actor.binary()] = ActorLane(actor.binary())
        entry = self._host.references.entry(actor)
        if not entry.owned:
            entry.released = lambda: self.forget(lane.id)
        return lane

    def forget(self, actor: bytes) -> None:
        """No handle to the actor is left here, and so no call is under way."""
        lane = self._lanes.pop(actor, None)
        if lane is None:
            return
        if lane.worker is not None and self._host.sent.get(lane.worker) is lane.running:
            del self._host.sent[lane.worker]
        self._host.tell_node(("actor_unwatch", actor))

    @property
    def lack_workers(self) -> bool:
        """Whether calls wait for actors that have no process yet."""
        return any(lane.waiting.length and lane.state in ("pending", "restarting") for lane in self._lanes.values())

    def home(self, actor: bytes) -> int | None:
        """The process that the actor lives in, as far as is known."""
        lane = self._lanes.get(actor)
        return lane.worker if lane is not None else None

    def killed(self, actor: ObjectRef, no_restart: bool) -> None:
        """This process has just asked for the actor's end: its own later calls must not reach the old process."""
        lane = self.lane(actor)
        if lane.state != "dead":
            lane.state = "restarting"
            if no_restart:
                lane.killed = True

    def enqueue(self, task: Task) -> None:
        """A call, made now; it keeps its place even while its arguments are not there yet.

        While the actor is busy it waits for company, so that many calls share a message: until there are enough,
        something is answered, or somebody waits.
        """
        assert task.actor is not None
        lane = self._lanes.get(task.actor.binary()) or self.lane(task.actor)
        lane.waiting.append(task)
        if lane.running and len(lane.waiting) < COMPANY:
            self._held[lane.id] = lane
            self._host.hold()
        else:
            self._pump(lane)

    def arguments_ready(self, task: Task) -> None:
        """The arguments of a call have arrived."""
        assert task.actor is not None
        self._pump(self.lane(task.actor))

    def flush(self) -> None:
        """Send what waits for company."""
        while self._held:
            self._pump(self._held.popitem()[1])

    def tasks(self) -> Iterator[Task]:
        """All calls that have not ended."""
        for lane in self._lanes.values():
            yield from lane.waiting.tasks()
            yield from lane.running.values()

    def answered(self, worker: int, task: Task) -> None:
        """A process has answered calls, ``task`` among them: send it more."""
        if task.actor is not None and (lane := self._lanes.get(task.actor.binary())) is not None and lane.waiting:
            self._pump(lane)

    def again(self, task: Task) -> None:
        """Make a call once more, whose method raised what it may be retried for."""
        task.retries -= task.retries > 0
        task.worker = None
        self.enqueue(task)

    def _pump(self, lane: ActorLane) -> None:
        """Send what may be sent."""
        if lane.state == "dead":
            while (task := lane.waiting.first()) is not None:
                lane.waiting.popleft()
                self._host.finish(task, lane.cause or ("error", as_call_error(None)))
        elif lane.state == "alive" and lane.worker is not None:
            batch = []
            while (task := lane.waiting.first()) is not None and task.ready:
                lane.waiting.popleft()
                if task.dependencies and (error := first_error(task.dependencies, self._host.references)) is not None:
                    self._host.finish(task, error)
                    continue
                task.worker = lane.worker
                lane.running[task.id] = task
                batch.append(task)
            if batch:
                runs = batch_to_wire(batch, lane.worker, self._host.references, PLAIN)
                self._host.post(lane.worker, ("tasks", runs, {}))

    def changed(self, actor: bytes, state: ActorState, worker: int | None, cause: bytes | None) -> None:
        """The node tells how the actor stands."""
        lane = self._lanes.get(actor)
        if lane is None or lane.state == "dead" or (lane.killed and state != "dead"):
            return
        if lane.worker is not None and lane.worker != worker:
            self._host.sent.pop(lane.worker, None)
        lane.state, lane.worker = state, worker
        if state == "dead":
            lane.cause = ("error", as_call_error(cause))
            while lane.running:  # none of these will be answered any more
                self._host.finish(lane.running.popitem(last=False)[1], lane.cause)
        elif state == "restarting":
            self._lost(lane)
        elif worker is not None:
            self._host.sent[worker] = lane.running
        self._pump(lane)

    def _lost(self, lane: ActorLane) -> None:
        """The actor's process died and comes back: calls under way are retried if they may be, or fail."""
        running, lane.running = list(lane.running.values()), OrderedDict()
        again = []
        for task in running:
            if task.retries == 0:
                name = task.spec.name
                error = ActorUnavailableError(f"{name} failed: the actor's process died; it is being restarted")
                self._host.finish(task, ("error", dumps_error(error)))
            else:
                task.retries -= task.retries > 0
                task.worker = None
                again.append(task)
        lane.waiting.extendleft(reversed(again))

    def where(self, task: Task) -> str:
        """Where a call is, in words."""
        assert task.actor is not None
        lane = self.lane(task.actor)
        if lane.state == "alive":
            return "waiting for calls before it" if task.ready else "waiting for its arguments"
        return f"waiting for an actor that is {lane.state}"

    def cancel(self, task: Task, recursive: bool) -> None:
        """Cancel a call that has not started; one that runs is left to end, as in Ray, unless it is a coroutine."""
        assert task.actor is not None
        lane = self.lane(task.actor)
        if task.worker is not None:
            self._host.post(task.worker, ("cancel", task.id, recursive))
        else:
            lane.waiting.take_out(task)
            error = TaskCancelledError(f"{task.spec.name} was cancelled")
            self._host.finish(task, ("error", dumps_error(error)))
            task.let_go()
            self._pump(lane)  # the calls behind it may have waited for its arguments
