"""Calls of actor methods on their way: in the caller's order, straight to the actor's process."""

from __future__ import annotations

import pickle
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from rlray.core.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    ActorUnschedulableError,
    RuntimeEnvSetupError,
    TaskCancelledError,
)
from rlray.core.local.instructions import ActorState
from rlray.core.local.references import Payload
from rlray.core.local.submitter import Host
from rlray.core.local.tasks import Task, first_error, to_wire
from rlray.core.serialization import dumps_error


@dataclass(slots=True)
class ActorLane:
    """The calls of one process to one actor."""

    id: bytes
    state: ActorState = "pending"
    killed: bool = False  # for good, by this process: its death is about to be told
    worker: int | None = None
    cause: Payload | None = None
    waiting: deque[Task] = field(default_factory=deque)  # not sent yet, in order
    running: OrderedDict[bytes, Task] = field(default_factory=OrderedDict)  # sent, in order


class ActorCalls:
    """Sends the actor calls of one process. All methods are called under the loop's lock."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._lanes: dict[bytes, ActorLane] = {}
        self._lane_of: dict[bytes, ActorLane] = {}  # by task

    def lane(self, actor: bytes) -> ActorLane:
        """The lane to an actor; the node is asked to tell how the actor stands when it is new."""
        lane = self._lanes.get(actor)
        if lane is None:
            lane = self._lanes[actor] = ActorLane(actor)
            self._host.tell_node(("actor_watch", actor))
        return lane

    def home(self, actor: bytes) -> int | None:
        """The process that the actor lives in, as far as is known."""
        lane = self._lanes.get(actor)
        return lane.worker if lane is not None else None

    def killed(self, actor: bytes, no_restart: bool) -> None:
        """This process has just asked for the actor's end: its own later calls must not reach the old process."""
        lane = self.lane(actor)
        if lane.state != "dead":
            lane.state = "restarting"
            if no_restart:
                lane.killed = True

    def created(self, actor: bytes) -> None:
        """This process has just created the actor: the node tells of it unasked."""
        self._lanes[actor] = ActorLane(actor)

    def enqueue(self, actor: bytes, task: Task) -> None:
        """A call, made now; it keeps its place even while its arguments are not there yet."""
        lane = self.lane(actor)
        lane.waiting.append(task)
        self._lane_of[task.id] = lane
        self.pump(lane)

    def pump_task(self, task: Task) -> None:
        """The arguments of a call have arrived."""
        lane = self._lane_of.get(task.id)
        if lane is not None:
            self.pump(lane)

    def pump(self, lane: ActorLane) -> None:
        """Send what may be sent."""
        if lane.state == "dead":
            while lane.waiting:
                self._finish(lane.waiting.popleft(), lane.cause)
            return
        if lane.state == "alive" and lane.worker is not None:
            batch = []
            while lane.waiting and lane.waiting[0].ready:
                task = lane.waiting.popleft()
                error = first_error(task.dependencies, self._host.references)
                if error is not None:
                    self._finish(task, error)
                    continue
                task.where = f"with the actor, worker process {lane.worker}"
                lane.running[task.id] = task
                batch.append(to_wire(task, lane.worker, self._host.references))
            if batch:
                self._host.post(lane.worker, ("tasks", batch, {}))
        else:
            for task in lane.waiting:
                task.where = f"waiting for an actor that is {lane.state}"

    def changed(self, actor: bytes, state: ActorState, worker: int | None, cause: bytes | None) -> None:
        """The node tells how the actor stands."""
        lane = self._lanes.get(actor)
        if lane is None or lane.state == "dead" or (lane.killed and state != "dead"):
            return
        lane.state, lane.worker = state, worker
        if state == "dead":
            lane.cause = ("error", _as_call_error(cause))
            for task in list(lane.running.values()):  # none of these will be answered any more
                self._finish(task, lane.cause)
            lane.running.clear()
        elif state == "restarting":
            self._lost(lane)
        self.pump(lane)

    def _lost(self, lane: ActorLane) -> None:
        """The actor's process died and comes back: calls under way are retried if they may be, or fail."""
        running, lane.running = list(lane.running.values()), OrderedDict()
        again = []
        for task in running:
            if task.retries == 0:
                error = ActorUnavailableError(f"{task.name} failed: the actor's process died; it is being restarted")
                self._finish(task, ("error", dumps_error(error)))
            else:
                task.retries -= task.retries > 0
                again.append(task)
        lane.waiting.extendleft(reversed(again))

    def ended(self, task: Task) -> None:
        """A call has been answered."""
        lane = self._lane_of.pop(task.id, None)
        if lane is not None:
            lane.running.pop(task.id, None)

    def cancel(self, task: Task, recursive: bool) -> None:
        """Cancel a call that has not started; one that runs is left to end, as in Ray, unless it is a coroutine."""
        lane = self._lane_of.get(task.id)
        if lane is None:
            return
        if task.id in lane.running and lane.worker is not None:
            self._host.post(lane.worker, ("cancel", task.id, recursive))
        elif task in lane.waiting:
            lane.waiting.remove(task)
            self._finish(task, ("error", dumps_error(TaskCancelledError(f"{task.name} was cancelled"))))

    def _finish(self, task: Task, error: Payload | None) -> None:
        self._lane_of.pop(task.id, None)
        self._host.finish(task, error or ("error", _as_call_error(None)))


def _as_call_error(cause: bytes | None) -> bytes:
    """The pickled error that calls get: ActorDiedError, whose cause is an error of the constructor.

    That the actor could not even be placed has errors of its own.
    """
    if cause is None:
        return dumps_error(ActorDiedError("the actor is dead"))
    error = pickle.loads(cause)
    if isinstance(error, ActorDiedError | ActorUnschedulableError | RuntimeEnvSetupError):
        return cause
    return dumps_error(ActorDiedError(f"the actor's constructor raised, so it never lived:\n{error}", error))
