"""Tasks on their way: which worker gets which, how many at once, and what happens when one dies.

Per scheduling class (`Request`) the caller holds leases on workers and sends tasks straight to them. Short tasks are
sent many at a time; how many follows their measured duration, so that a short task never waits long behind others
while another worker is idle, and what has not been started can be taken back.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from rlray.core.engine import CallSpec
from rlray.core.exceptions import TaskCancelledError, WorkerCrashedError
from rlray.core.local.codes import SentCodes
from rlray.core.local.jobs import Measures
from rlray.core.local.line import Line
from rlray.core.local.loop import Loop
from rlray.core.local.references import Payload, References
from rlray.core.local.tasks import Task, batch_to_wire, first_error
from rlray.core.local.wire import Message
from rlray.core.resources import Request, Shape
from rlray.core.serialization import dumps_error

_AHEAD = 0.010  # seconds of work that a worker may be sent ahead
_STUCK = 0.020  # seconds without an answer after which what was sent ahead is taken back
_MAX_AHEAD = 1_000  # tasks
COMPANY = 64  # tasks that are worth a message of their own while every worker is busy
_SHARE = 0.0005  # seconds of work at least that a worker is sent, if there is as much
_WORTH_MOVING = 0.002  # seconds of work that a worker has before some of it is moved to an idle one
_LINGER = 0.050  # seconds an unused lease is kept for the next task
_LANES = 64  # of classes without a placement group that are kept while nothing is asked of them
_ZERO_COST_LEASES = 16  # workers at most for tasks that ask for nothing


class Host(Protocol):
    """What the submitter needs of its client."""

    loop: Loop
    references: References
    sent: dict[int, OrderedDict[bytes, Task]]  # by process: what it has been sent and not answered, in order

    def post(self, process: int, message: Message) -> None:
        """Send to a process of the run."""

    def tell_node(self, message: Message) -> None:
        """Send to the node."""

    def finish(self, task: Task, error: Payload) -> None:
        """The task is over without a result: its references get the error."""

    def hold(self) -> None:
        """Call `flush` before anybody waits, or soon."""

    def request(self, spec: CallSpec) -> Request:
        """What a call of ``spec``, made here and now, asks of the scheduler. Raises TaskUnschedulableError."""

    def lacks_workers(self) -> None:
        """Something that was started here waits for resources. Called under the loop's lock."""

    def captures(self) -> bool:
        """Whether what is called here and now goes into the caller's placement group."""


@dataclass(slots=True)
class Lease:
    """A worker that runs this process's tasks of one class."""

    worker: int
    running: OrderedDict[bytes, Task]  # sent, in order
    asked_back: bool = False
    guarded: bool = False  # a timer looks whether it gets on with what was sent ahead
    stuck: bool = False  # its first task takes long or waits for others: nothing more until it is answered
    leaving: bool = False  # it takes nothing any more, and ends once all is answered or returned
    used: float = 0.0  # when a task last ended
    watched: bool = False  # a timer looks whether it is still used


@dataclass(slots=True)
class Lane:
    """All tasks of one class."""

    request: Request
    most: int  # workers to ask for at once: what the machine can hold
    ready: Line = field(default_factory=Line)
    leases: dict[int, Lease] = field(default_factory=dict)
    demanded: int = 0
    eager: bool = False  # a worker has nothing to do, and what comes next is worth sending to it alone
    least: int = 1  # tasks that are worth waking one more worker for
    full: bool = False  # no lease can take more until something is answered
    forgotten: bool = False  # there is another one for its class now, or none


class Submitter:
    """Sends the tasks of one process. All methods are called under the loop's lock."""

    def __init__(self, host: Host, total: Shape) -> None:
        self._host = host
        self._total = dict(total)
        self._lanes: dict[Request, Lane] = {}
        self._here = object()  # stands for this submitter where it must not be kept alive
        self._lane_of: dict[int, Lane] = {}  # by leased worker
        self.codes = SentCodes(host.loop.attend)
        self._mean: dict[bytes, float] = {}  # measured seconds per call, by code
        self._contended_until = 0.0
        self._held: set[Request] = set()  # lanes with tasks that wait for company

    def lane(self, spec: CallSpec) -> Lane:
        """The lane for calls of ``spec``.

        Raises TaskUnschedulableError if this machine can never run them; ValueError if the function has captured a
        reference of a run that has ended.
        """
        home = spec.home
        if home is not None and home[0] is self._here and not self._host.captures():
            return home[1]  # type: ignore[no-any-return]
        if spec.code is not None:
            for ref in spec.code.refs:
                self._host.references.entry(ref)
        request = self._host.request(spec)
        lane = self._lanes.get(request)
        if lane is None:
            fit = [self._total[name] // parts for name, parts in request.resources]
            lane = self._lanes[request] = Lane(request, min(fit, default=_ZERO_COST_LEASES))
        if not request.group:  # groups come and go, and their lanes with them
            spec.home = (self._here, lane)
        return lane

    def enqueue(self, lane: Lane, task: Task) -> None:
        """A task whose dependencies are all there.

        It leaves at once if a worker is free. If all are busy it waits for company, so that many share a message: until
        there are enough, something is answered, or somebody waits.
        """
        if task.dependencies:
            error = first_error(task.dependencies, self._host.references)
            if error is not None:
                self._host.finish(task, error)
                return
        if lane.forgotten:  # while the task waited for its arguments
            lane = self._lanes.setdefault(lane.request, Lane(lane.request, lane.most))
        task.lane = lane
        lane.ready.append(task)
        if lane.eager or (not lane.full and len(lane.ready) >= COMPANY):
            self._pump(lane)
        else:
            if lane.demanded < lane.most:
                self._state_demand(lane)
            if not lane.full and lane.leases:
                self._held.add(lane.request)
                self._host.hold()

    def flush(self) -> None:
        """Send what waits for company."""
        while self._held:
            lane = self._lanes.get(self._held.pop())
            if lane is not None:
                self._pump(lane)

    def forget_codes(self) -> None:
        """Let workers forget the functions that nobody here can call any more."""
        over, told = self.codes.forgotten()
        for code_id in over:
            self._mean.pop(code_id, None)
        for worker, theirs in told:
            self._host.post(worker, ("forget", theirs))

    def tasks(self) -> Iterator[Task]:
        """All that have not ended."""
        for lane in self._lanes.values():
            yield from lane.ready.tasks()
            for lease in lane.leases.values():
                yield from lease.running.values()

    def close(self) -> None:
        """Nothing is sent any more. A function that knows its lane keeps alive nothing of what was there."""
        for lane in self._lanes.values():
            lane.forgotten = True
            lane.ready = Line()
            lane.leases.clear()
        self._lanes.clear()
        self._lane_of.clear()
        self._held.clear()

    # -- sending -----------------------------------------------------------------------------------------------------

    def _depth(self, spec: CallSpec) -> int:
        """How many tasks like this one a worker may have at a time."""
        assert spec.code is not None
        mean = self._mean.get(spec.code.id)
        if mean is None:
            return 1
        return max(1, min(_MAX_AHEAD, int(_AHEAD / max(mean, 1e-6))))

    def _is_eager(self, lane: Lane) -> bool:
        idle = [not lease.running for lease in lane.leases.values() if not lease.leaving]
        return any(idle) and (lane.least == 1 or all(idle))

    def _worth_sharing(self, spec: CallSpec) -> int:
        """How many tasks like this one are worth waking one more worker for."""
        assert spec.code is not None
        mean = self._mean.get(spec.code.id)
        return 1 if mean is None else max(1, min(_MAX_AHEAD, int(_SHARE / max(mean, 1e-6))))

    def _pump(self, lane: Lane) -> None:
        first = lane.ready.first()
        if first is not None:
            depth = self._depth(first.spec)
            roomy = [
                lease
                for lease in lane.leases.values()
                if not lease.stuck and not lease.leaving and len(lease.running) < depth
            ]
            roomy.sort(key=lambda lease: len(lease.running))
            lane.least = self._worth_sharing(first.spec)
            for i, lease in enumerate(roomy):
                self._fill(lane, lease, max(lane.least, -(-lane.ready.length // (len(roomy) - i))))
                if not lane.ready:
                    break
        lane.full = lane.ready.length > 0
        lane.eager = self._is_eager(lane)
        self._state_demand(lane)

    def _fill(self, lane: Lane, lease: Lease, share: int) -> None:
        """Send a worker its share of what is ready, as far as it has room."""
        host, worker, ready, running = self._host, lease.worker, lane.ready, lease.running
        batch: list[Task] = []
        spec: CallSpec | None = None
        room = 0
        while ready and len(batch) < share:
            task = ready[0]
            if task.cancelled:
                ready.skip()
                continue
            if task.spec is not spec:
                spec = task.spec
                room = self._depth(spec) - len(running)
            if room <= 0:
                break
            room -= 1
            ready.popleft()
            task.worker = worker
            running[task.id] = task
            batch.append(task)
        if batch:
            calls = {id(task.spec.code): task.spec.code for task in batch}  # not by contents: comparing takes longer
            lacking = self.codes.lacking(worker, calls.values())
            codes = {code.id: (code.pickled, host.references.grant(code.refs, worker)) for code in lacking}
            host.post(worker, ("tasks", batch_to_wire(batch, worker, host.references, lane.request), codes))
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
            assert head.spec.code is not None
            self._mean[head.spec.code.id] = max(self._mean.get(head.spec.code.id, 0.0), _STUCK)
            lease.stuck = True
            self._take_back(lease, list(lease.running)[1:])

        self._host.loop.call_later(_STUCK, look)

    def _state_demand(self, lane: Lane) -> None:
        # beyond the leases held: workers blocked in `get` lend their CPUs
        wanted = min(-(-lane.ready.length // lane.least), lane.most)
        if (wanted > lane.demanded) or (lane.demanded and not wanted):
            lane.demanded = wanted
            self._host.tell_node(("demand", lane.request, wanted))
            if wanted:
                self._host.lacks_workers()

    @property
    def lacks_workers(self) -> bool:
        """Whether tasks wait for workers."""
        return any(lane.demanded for lane in self._lanes.values())

    def granted(self, request: Request, worker: int) -> None:
        """The node leases a worker to this process."""
        lane = self._lanes.get(request)
        if lane is None:  # its placement group is gone
            self._host.tell_node(("return", worker))
            return
        lane.demanded = max(0, lane.demanded - 1)
        running = self._host.sent[worker] = OrderedDict()
        lane.leases[worker] = lease = Lease(worker, running, used=time.monotonic())
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
        while (task := lane.ready.first()) is not None:
            lane.ready.popleft()
            self._host.finish(task, ("error", error))
        self._forget_if_idle(lane)

    def _forget_if_idle(self, lane: Lane) -> None:
        """Placement groups come and go, and so may other wishes: their lanes must not pile up."""
        if lane.ready.length or lane.leases or lane.demanded:
            return
        if lane.request.group or len(self._lanes) > _LANES:
            self._lanes.pop(lane.request, None)
            lane.forgotten = True

    # -- answers -----------------------------------------------------------------------------------------------------

    def answered(self, worker: int, measures: Measures) -> None:
        """Results of a message from ``worker`` have been taken in: send more, or let go."""
        lane = self._lane_of.get(worker)
        if lane is None:
            return
        for code, (_, mean, _, _) in measures.items():
            if code in self.codes:
                self._mean[code] = mean
        lease = lane.leases[worker]
        lease.stuck = False
        self._pump(lane)
        if not lease.running:
            lease.used = time.monotonic()
            if lease.leaving:
                self._left(lane, lease)
                return
            self._take_back_from_busiest(lane)
            self._unused(lane, lease)

    def _left(self, lane: Lane, lease: Lease) -> None:
        """A worker that wanted to end has nothing left to answer."""
        self._drop(lane, lease)
        self._host.tell_node(("retire", lease.worker))
        self._host.post(lease.worker, ("end",))

    def again(self, task: Task) -> None:
        """Run a task once more, whose function raised what it may be retried for."""
        task.retries -= task.retries > 0
        task.worker = None
        if task.cancelled:
            self._host.finish(task, _cancelled(task))
        else:
            assert task.lane is not None
            self.enqueue(task.lane, task)

    def _take_back_from_busiest(self, lane: Lane) -> None:
        busiest = max(lane.leases.values(), key=lambda lease: len(lease.running))
        if len(busiest.running) < 2:
            return
        spec = next(iter(busiest.running.values())).spec
        assert spec.code is not None
        if self._mean.get(spec.code.id, _STUCK) * len(busiest.running) > _WORTH_MOVING:
            ids = list(busiest.running)
            self._take_back(busiest, ids[(len(ids) + 1) // 2 :])

    def _take_back(self, lease: Lease, ids: list[bytes]) -> None:
        if not lease.asked_back:
            lease.asked_back = True
            self._host.post(lease.worker, ("take_back", ids))

    def taken_back(self, worker: int, ids: Iterable[bytes], why: str) -> None:
        """A worker returns tasks that it has not started: because it was ``"asked"``, is ``"blocked"`` in `get`, or is
        ``"leaving"``."""
        lane = self._lane_of.get(worker)
        if lane is None:
            return
        lease = lane.leases[worker]
        lease.asked_back = False
        lease.stuck |= why == "blocked"
        lease.leaving |= why == "leaving"
        tasks = [task for task in (lease.running.pop(task_id, None) for task_id in ids) if task is not None]
        self._again(lane, tasks)
        self._pump(lane)
        if lease.leaving and not lease.running:
            self._left(lane, lease)

    def _again(self, lane: Lane, tasks: list[Task]) -> None:
        for task in reversed(tasks):
            if task.cancelled:
                self._host.finish(task, _cancelled(task))
            else:
                task.worker = None
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
        self._drop(lane, lease)
        self._host.tell_node(("return", lease.worker))
        self._forget_if_idle(lane)

    def _drop(self, lane: Lane, lease: Lease) -> None:
        del lane.leases[lease.worker], self._lane_of[lease.worker], self._host.sent[lease.worker]
        lane.eager = self._is_eager(lane)

    def return_unused(self, contended: bool) -> None:
        """Give back every lease without work; if others wait for resources, keep none for a while."""
        if contended:
            self._contended_until = time.monotonic() + 1.0
        for lane in list(self._lanes.values()):
            for lease in list(lane.leases.values()):
                if not lease.running and not lane.ready.length:
                    self._return(lane, lease)

    # -- endings -----------------------------------------------------------------------------------------------------

    def cancel(self, task: Task, force: bool, recursive: bool) -> None:
        """Stop a task that is waiting or running."""
        if task.worker is not None:
            task.cancelled = True
            self._host.post(task.worker, ("cancel", task.id, recursive))
            if force and next(iter(self._host.sent[task.worker])) == task.id:
                self._host.tell_node(("kill_worker", task.worker))
            return
        lane = task.lane
        if lane is not None and task.ready:  # else it waits for its arguments
            lane.ready.take_out(task)
            self._state_demand(lane)
            self._forget_if_idle(lane)
        self._host.finish(task, _cancelled(task))
        task.let_go()

    def worker_gone(self, worker: int, reason: str) -> None:
        """A worker died. What it had not started runs elsewhere; what it was running is retried or fails."""
        self.codes.process_gone(worker)
        lane = self._lane_of.get(worker)
        if lane is None:
            return
        lease = lane.leases[worker]
        lost = list(lease.running.values())
        self._drop(lane, lease)
        if lost:
            running, *lost = lost
            if running.cancelled:
                self._host.finish(running, _cancelled(running))
            elif running.sink is not None and running.sink.lost():
                pass  # its calls are made again one by one
            elif running.retries == 0:
                error = WorkerCrashedError(f"{running.spec.name} failed: {reason}")
                self._host.finish(running, ("error", dumps_error(error)))
            else:
                running.retries -= running.retries > 0
                lost = [running, *lost]
        self._again(lane, lost)
        self._pump(lane)
        self._forget_if_idle(lane)


def _cancelled(task: Task) -> Payload:
    return ("error", dumps_error(TaskCancelledError(f"{task.spec.name} was cancelled")))
