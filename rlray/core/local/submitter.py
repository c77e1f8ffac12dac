"""Tasks on their way: which worker gets which, how many at once, and what happens when one dies.

Per scheduling class (`Request`) the caller holds leases on workers and sends tasks straight to them. Short tasks are
sent many at a time; how many follows their measured duration, so that a short task never waits long behind others
while another worker is idle, and what has not been started can be taken back.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from rlray.core.exceptions import TaskCancelledError, WorkerCrashedError
from rlray.core.local.loop import Loop
from rlray.core.local.references import Payload, References
from rlray.core.local.tasks import Task, first_error, to_wire
from rlray.core.local.wire import Message
from rlray.core.resources import Request, Shape
from rlray.core.serialization import dumps_error

_AHEAD = 0.010  # seconds of work that a worker may be sent ahead
_STUCK = 0.020  # seconds without an answer after which what was sent ahead is taken back
_MAX_AHEAD = 1_000  # tasks
_LINGER = 0.050  # seconds an unused lease is kept for the next task
_ZERO_COST_LEASES = 16  # workers at most for tasks that ask for nothing


class Host(Protocol):
    """What the submitter needs of its client."""

    loop: Loop
    references: References

    def post(self, process: int, message: Message) -> None:
        """Send to a process of the run."""

    def tell_node(self, message: Message) -> None:
        """Send to the node."""

    def finish(self, task: Task, error: Payload | None) -> None:
        """The task is over: if there is an error, its references get that."""


@dataclass(slots=True)
class Lease:
    """A worker that runs this process's tasks of one class."""

    worker: int
    running: OrderedDict[bytes, Task] = field(default_factory=OrderedDict)  # sent, in order
    asked_back: bool = False
    guarded: bool = False  # a timer looks whether it gets on with what was sent ahead
    stuck: bool = False  # its first task takes long or waits for others: nothing more until it is answered
    used: float = 0.0  # when a task last ended
    watched: bool = False  # a timer looks whether it is still used


@dataclass(slots=True)
class Lane:
    """All tasks of one class."""

    request: Request
    most: int  # workers to ask for at once: what the machine can hold
    ready: deque[Task] = field(default_factory=deque)
    leases: dict[int, Lease] = field(default_factory=dict)
    demanded: int = 0


class Submitter:
    """Sends the tasks of one process. All methods are called under the loop's lock."""

    def __init__(self, host: Host, total: Shape) -> None:
        self._host = host
        self._total = dict(total)
        self._lanes: dict[Request, Lane] = {}
        self._lane_of: dict[int, Lane] = {}  # by leased worker
        self._known: dict[int, set[bytes]] = {}  # code that a process has already
        self._mean: dict[bytes, float] = {}  # measured seconds per call, by code
        self._contended_until = 0.0

    def enqueue(self, task: Task) -> None:
        """A task whose dependencies are all there."""
        error = first_error(task.dependencies, self._host.references)
        if error is not None:
            self._host.finish(task, error)
            return
        lane = self._lanes.get(task.request)
        if lane is None:
            fit = [self._total[name] // parts for name, parts in task.request.resources]
            lane = self._lanes[task.request] = Lane(task.request, min(fit, default=_ZERO_COST_LEASES))
        task.where = "waiting for a worker"
        lane.ready.append(task)
        self._pump(lane)

    # -- sending -----------------------------------------------------------------------------------------------------

    def _depth(self, task: Task) -> int:
        assert task.code is not None
        mean = self._mean.get(task.code.id)
        if mean is None:
            return 1
        return max(1, min(_MAX_AHEAD, int(_AHEAD / max(mean, 1e-6))))

    def _pump(self, lane: Lane) -> None:
        if lane.ready:
            for lease in sorted(lane.leases.values(), key=lambda lease: len(lease.running)):
                self._fill(lane, lease)
                if not lane.ready:
                    break
        self._state_demand(lane)

    def _fill(self, lane: Lane, lease: Lease) -> None:
        if lease.stuck:
            return
        batch, codes = [], {}
        known = self._known.setdefault(lease.worker, set())
        while lane.ready and len(lease.running) < self._depth(lane.ready[0]):
            task = lane.ready.popleft()
            assert task.code is not None
            if task.code.id not in known:
                known.add(task.code.id)
                codes[task.code.id] = (task.code.name, task.code.pickled)
            task.where = f"with worker process {lease.worker}"
            lease.running[task.id] = task
            batch.append(to_wire(task, lease.worker, self._host.references))
        if batch:
            self._host.post(lease.worker, ("tasks", batch, codes))
            self._guard(lane, lease)

    def _guard(self, lane: Lane, lease: Lease) -> None:
        """What waits behind a task that turns out to be long goes elsewhere."""
        if lease.guarded or len(lease.running) < 2:
            return
        lease.guarded = True
        head = next(iter(lease.running.values()))

        def look() -> None:
            lease.guarded = False
            if lane.leases.get(lease.worker) is not lease or len(lease.running) < 2:
                return
            if next(iter(lease.running.values())) is not head:
                self._guard(lane, lease)
                return
            assert head.code is not None
            self._mean[head.code.id] = max(self._mean.get(head.code.id, 0.0), _STUCK)
            lease.stuck = True
            self._take_back(lease, list(lease.running)[1:])

        self._host.loop.call_later(_STUCK, look)

    def _state_demand(self, lane: Lane) -> None:
        wanted = min(len(lane.ready), lane.most)  # beyond the leases held: workers blocked in `get` lend their CPUs
        if (wanted > lane.demanded) or (lane.demanded and not wanted):
            lane.demanded = wanted
            self._host.tell_node(("demand", lane.request, wanted))

    def granted(self, request: Request, worker: int) -> None:
        """The node leases a worker to this process."""
        lane = self._lanes.get(request)
        if lane is None:  # its placement group is gone
            self._host.tell_node(("return", worker))
            return
        lane.demanded = max(0, lane.demanded - 1)
        lane.leases[worker] = lease = Lease(worker, used=time.monotonic())
        self._lane_of[worker] = lane
        self._pump(lane)
        if not lease.running:
            self._unused(lane, lease)

    def refused(self, request: Request, error: bytes) -> None:
        """The node has no workers for tasks of this class, and says why."""
        lane = self._lanes.get(request)
        if lane is None:
            return
        lane.demanded = 0
        while lane.ready:
            self._host.finish(lane.ready.popleft(), ("error", error))
        self._forget_if_idle(lane)

    def _forget_if_idle(self, lane: Lane) -> None:
        """Placement groups come and go: their lanes must not pile up."""
        if lane.request.group and not (lane.ready or lane.leases or lane.demanded):
            self._lanes.pop(lane.request, None)

    # -- answers -----------------------------------------------------------------------------------------------------

    def ended(self, worker: int, task: Task, seconds: float | None) -> None:
        """A task has been answered by its worker; ``seconds`` is None if it did not run to its end."""
        assert task.code is not None
        if seconds is not None:
            mean = self._mean.get(task.code.id)
            self._mean[task.code.id] = seconds if mean is None else 0.8 * mean + 0.2 * seconds
        lane = self._lane_of.get(worker)
        if lane is not None:
            lease = lane.leases[worker]
            lease.stuck = False
            lease.running.pop(task.id, None)

    def answered(self, worker: int) -> None:
        """All results of a message from ``worker`` have been taken in: send more, or let go."""
        lane = self._lane_of.get(worker)
        if lane is None:
            return
        self._pump(lane)
        lease = lane.leases.get(worker)
        if lease is not None and not lease.running:
            lease.used = time.monotonic()
            self._take_back_from_busiest(lane)
            self._unused(lane, lease)

    def _take_back_from_busiest(self, lane: Lane) -> None:
        busiest = max(lane.leases.values(), key=lambda lease: len(lease.running))
        if len(busiest.running) >= 2:
            ids = list(busiest.running)
            self._take_back(busiest, ids[(len(ids) + 1) // 2 :])

    def _take_back(self, lease: Lease, ids: list[bytes]) -> None:
        if not lease.asked_back:
            lease.asked_back = True
            self._host.post(lease.worker, ("take_back", ids))

    def taken_back(self, worker: int, ids: Iterable[bytes], blocked: bool) -> None:
        """A worker returns tasks that it has not started, of its own accord if it is ``blocked`` in `get`."""
        lane = self._lane_of.get(worker)
        if lane is None:
            return
        lease = lane.leases[worker]
        lease.asked_back = False
        lease.stuck |= blocked
        tasks = [task for task in (lease.running.pop(task_id, None) for task_id in ids) if task is not None]
        self._again(lane, tasks)
        self._pump(lane)

    def _again(self, lane: Lane, tasks: list[Task]) -> None:
        for task in reversed(tasks):
            if task.cancelled:
                self._host.finish(task, _cancelled(task))
            else:
                task.where = "waiting for a worker"
                lane.ready.appendleft(task)

    # -- leases that are not used ------------------------------------------------------------------------------------

    def _unused(self, lane: Lane, lease: Lease) -> None:
        if time.monotonic() < self._contended_until:
            self._return(lane, lease)
        elif not lease.watched:
            lease.watched = True
            self._host.loop.call_later(_LINGER, lambda: self._return_if_unused(lane, lease))

    def _return_if_unused(self, lane: Lane, lease: Lease) -> None:
        lease.watched = False
        if lane.leases.get(lease.worker) is lease and not lease.running:
            if time.monotonic() - lease.used >= _LINGER * 0.9:
                self._return(lane, lease)
            else:
                self._unused(lane, lease)

    def _return(self, lane: Lane, lease: Lease) -> None:
        del lane.leases[lease.worker], self._lane_of[lease.worker]
        self._host.tell_node(("return", lease.worker))
        self._forget_if_idle(lane)

    def return_unused(self, contended: bool) -> None:
        """Give back every lease without work; if others wait for resources, keep none for a while."""
        if contended:
            self._contended_until = time.monotonic() + 1.0
        for lane in list(self._lanes.values()):
            for lease in list(lane.leases.values()):
                if not lease.running and not lane.ready:
                    self._return(lane, lease)

    # -- endings -----------------------------------------------------------------------------------------------------

    def cancel(self, task: Task, force: bool, recursive: bool) -> None:
        """Stop a task that is waiting or running."""
        task.cancelled = True
        lane = self._lanes.get(task.request)
        if lane is not None:
            for lease in lane.leases.values():
                if task.id in lease.running:
                    self._host.post(lease.worker, ("cancel", task.id, recursive))
                    if force and next(iter(lease.running)) == task.id:
                        self._host.tell_node(("kill_worker", lease.worker))
                    return
            if task in lane.ready:
                lane.ready.remove(task)
                self._state_demand(lane)
        self._host.finish(task, _cancelled(task))

    def worker_gone(self, worker: int, reason: str) -> None:
        """A worker died. What it had not started runs elsewhere; what it was running is retried or fails."""
        self._known.pop(worker, None)
        lane = self._lane_of.pop(worker, None)
        if lane is None:
            return
        lost = list(lane.leases.pop(worker).running.values())
        if lost:
            running, *lost = lost
            if running.cancelled:
                self._host.finish(running, _cancelled(running))
            elif running.retries == 0:
                error = WorkerCrashedError(f"{running.name} failed: {reason}")
                self._host.finish(running, ("error", dumps_error(error)))
            else:
                running.retries -= running.retries > 0
                lost = [running, *lost]
        self._again(lane, lost)
        self._pump(lane)
        self._forget_if_idle(lane)


def _cancelled(task: Task) -> Payload:
    return ("error", dumps_error(TaskCancelledError(f"{task.name} was cancelled")))
