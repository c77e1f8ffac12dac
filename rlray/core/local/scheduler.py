"""Who gets which worker: events in, instructions out. No sockets, no clock, no processes in here.

A caller states its demand per scheduling class (resources); the scheduler grants it workers (leases) as resources
become free, and starts or reuses worker processes for that. An actor gets a worker of its own. A worker that is
blocked in ``get`` lends its CPUs to others meanwhile.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rlray.core.resources import UNIT, Shape, fits

WorkerState = Literal["starting", "idle", "leased", "actor", "dying"]
ActorState = Literal["pending", "alive", "restarting", "dead"]

_MAX_FAILED_STARTS = 5


# -- instructions ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartWorker:
    """Fork a worker that computes with ``threads`` threads and sees ``gpus``."""

    worker: int
    threads: int
    gpus: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KillWorker:
    """End a worker's process."""

    worker: int


@dataclass(frozen=True, slots=True)
class Grant:
    """Tell ``client`` that it may send tasks of its class ``request`` straight to ``worker``."""

    client: int
    request: Shape
    worker: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """Tell ``client`` that no worker can be started for its tasks of class ``request``."""

    client: int
    request: Shape
    reason: str


@dataclass(frozen=True, slots=True)
class Reclaim:
    """Ask ``client`` to return leases that it does not use at this moment."""

    client: int


@dataclass(frozen=True, slots=True)
class Become:
    """Tell ``worker`` to construct the actor."""

    worker: int
    actor: bytes


@dataclass(frozen=True, slots=True)
class ActorChanged:
    """Tell ``client`` how the actor stands; ``cause`` is a pickled error if it is dead, None otherwise."""

    client: int
    actor: bytes
    state: ActorState
    worker: int | None
    cause: bytes | None


Instruction = StartWorker | KillWorker | Grant | Refuse | Reclaim | Become | ActorChanged


# -- state -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Worker:
    """A worker process. ``held`` is what it has been given; its CPUs are lent to others while it is ``blocked``."""

    id: int
    threads: int
    state: WorkerState = "starting"
    held: Shape = ()
    gpus: tuple[tuple[str, int], ...] = ()  # (GPU, amount in 1/10,000)
    lessee: int | None = None  # the client that a task worker is leased to
    actor: bytes | None = None
    blocked: bool = False


@dataclass(slots=True)
class Actor:
    """An actor. ``spec`` is what its worker needs to construct it; the scheduler never looks inside."""

    id: bytes
    creator: int
    request: Shape
    spec: Any
    name: tuple[str, str] | None  # (namespace, name)
    detached: bool
    restarts_left: int  # -1: without end
    waits: bool = False  # for the arguments of its constructor
    state: ActorState = "pending"
    worker: int | None = None
    cause: bytes | None = None
    restarts: int = 0
    watchers: set[int] = field(default_factory=set)


def _gpu_names(gpus: Sequence[tuple[str, int]]) -> tuple[str, ...]:
    return tuple(name for name, _ in gpus)


class Scheduler:
    """The state of one node. Every event method returns what is to be done, in order."""

    def __init__(self, total: Shape, gpus: Sequence[str], first_worker: int, max_idle: int) -> None:
        self.total = dict(total)
        self.free = dict(total)
        self.gpus = dict.fromkeys(gpus, UNIT)
        self.workers: dict[int, Worker] = {}
        self.actors: dict[bytes, Actor] = {}
        self.names: dict[tuple[str, str], bytes] = {}
        self._demand: OrderedDict[tuple[int, Shape], int] = OrderedDict()
        self._unplaced: deque[bytes] = deque()  # actors that wait for resources
        self._next_worker = first_worker
        self._max_idle = max_idle
        self._failed_starts = 0

    # -- events: tasks -----------------------------------------------------------------------------------------------

    def demand(self, client: int, request: Shape, count: int) -> list[Instruction]:
        """``client`` could use ``count`` more workers for tasks of class ``request``."""
        key = (client, request)
        if count:
            self._demand[key] = count
        else:
            self._demand.pop(key, None)
        return [*self._dispatch(), *self._reclaim()]

    def returned(self, client: int, worker: int) -> list[Instruction]:
        """``client`` gives a lease back."""
        lease = self.workers.get(worker)
        if lease is None or lease.state != "leased" or lease.lessee != client:
            return []
        self._release(lease)
        return [*self._retire(lease), *self._dispatch()]

    def retired(self, client: int, worker: int) -> list[Instruction]:
        """``client`` gives a lease back, and the worker takes no other: it ends by itself."""
        lease = self.workers.get(worker)
        if lease is None or lease.state != "leased" or lease.lessee != client:
            return []
        self._release(lease)
        lease.state, lease.lessee, lease.gpus = "dying", None, ()
        return list(self._dispatch())

    def blocked(self, worker: int, blocked: bool) -> list[Instruction]:
        """A worker began or ended to wait in ``get``."""
        record = self.workers.get(worker)
        if record is None or record.blocked == blocked or record.state not in ("leased", "actor"):
            return []
        record.blocked = blocked
        cpus = dict(record.held).get("CPU", 0)
        if cpus:
            self.free["CPU"] += cpus if blocked else -cpus  # below zero: more run than there are CPUs, for a while
        return list(self._dispatch()) if blocked else []

    # -- events: processes -------------------------------------------------------------------------------------------

    def started(self, worker: int) -> list[Instruction]:
        """A worker that was forked has connected."""
        record = self.workers.get(worker)
        if record is None or record.state != "starting":
            return []
        self._failed_starts = 0
        if record.actor is not None:
            record.state = "actor"
            return [Become(worker, record.actor)]
        if record.lessee is None:
            record.state = "idle"
            return list(self._dispatch())
        record.state = "leased"
        return [Grant(record.lessee, record.held, worker)]

    def died(self, worker: int, cause: bytes) -> list[Instruction]:
        """A worker's process has ended; ``cause`` is a pickled error that says how."""
        record = self.workers.pop(worker, None)
        if record is None:
            return []
        self._release(record)
        out: list[Instruction] = []
        if record.state == "starting" and record.lessee is not None:
            out += self._start_failed(record.lessee, record.held)
        if record.actor is not None:
            out += self._actor_lost(self.actors[record.actor], cause)
        return [*out, *self._dispatch()]

    def client_gone(self, client: int, cause: bytes) -> list[Instruction]:
        """A client (driver or worker) is gone: what it asked for is wanted no more."""
        for key in [key for key in self._demand if key[0] == client]:
            del self._demand[key]
        out: list[Instruction] = []
        for worker in list(self.workers.values()):
            if worker.lessee == client:
                out += self._kill(worker)
        for actor in list(self.actors.values()):
            actor.watchers.discard(client)
            if actor.creator == client and not actor.detached and actor.state != "dead":
                out += self._end(actor, cause)
        return [*out, *self._dispatch()]

    def prestart(self, count: int) -> list[Instruction]:
        """Fork workers that the first tasks and actors will find ready."""
        return [StartWorker(self._add_worker(threads=1).id, 1, ()) for _ in range(count)]

    # -- events: actors ----------------------------------------------------------------------------------------------

    def create_actor(self, actor: Actor) -> list[Instruction]:
        """Place a new actor. Raises ValueError if its name is taken."""
        if actor.name is not None:
            if actor.name in self.names:
                raise ValueError(f"an actor named {actor.name[1]!r} already lives in namespace {actor.name[0]!r}")
            self.names[actor.name] = actor.id
        self.actors[actor.id] = actor
        actor.watchers.add(actor.creator)
        return [] if actor.waits else self._place(actor)

    def actor_arguments(self, actor_id: bytes, error: bytes | None) -> list[Instruction]:
        """The arguments of the actor's constructor are there, or one of them is an error."""
        actor = self.actors[actor_id]
        if actor.state == "dead":
            return []
        if error is not None:
            return self._end(actor, error)
        actor.waits = False
        return self._place(actor)

    def _place(self, actor: Actor) -> list[Instruction]:
        self._unplaced.append(actor.id)
        return [*self._dispatch(), *self._reclaim()]

    def actor_ready(self, actor_id: bytes) -> list[Instruction]:
        """The actor's constructor has returned."""
        actor = self.actors[actor_id]
        if actor.state == "dead":
            return []
        actor.state = "alive"
        return self._tell(actor)

    def actor_failed(self, actor_id: bytes, cause: bytes) -> list[Instruction]:
        """The actor's constructor raised, or the actor asked to leave: it is not restarted."""
        return [*self._end(self.actors[actor_id], cause), *self._dispatch()]

    def kill_actor(self, actor_id: bytes, cause: bytes, no_restart: bool) -> list[Instruction]:
        """Somebody wants the actor's process ended."""
        actor = self.actors.get(actor_id)
        if actor is None or actor.state == "dead":
            return []
        if no_restart or actor.worker is None:
            return [*self._end(actor, cause), *self._dispatch()]
        return [KillWorker(actor.worker)]  # its death leads to the restart

    def watch_actor(self, client: int, actor_id: bytes) -> list[Instruction]:
        """``client`` wants to know where the actor is, now and after each change."""
        actor = self.actors.get(actor_id)
        if actor is None:
            return [ActorChanged(client, actor_id, "dead", None, None)]
        actor.watchers.add(client)
        return [ActorChanged(client, actor_id, actor.state, actor.worker, actor.cause)]

    def unwatch_actor(self, client: int, actor_id: bytes) -> None:
        """``client`` has no handle to the actor any more."""
        actor = self.actors.get(actor_id)
        if actor is not None:
            actor.watchers.discard(client)

    # -- placing -----------------------------------------------------------------------------------------------------

    def _dispatch(self) -> Iterator[Instruction]:
        first_new = self._next_worker
        for _ in range(len(self._unplaced)):
            actor = self.actors[self._unplaced.popleft()]
            if actor.state == "dead":
                continue
            gpus = self._take(actor.request)
            if gpus is None:
                self._unplaced.append(actor.id)
                continue
            worker = self._worker_for(actor.request, gpus)
            worker.actor = actor.id
            actor.worker = worker.id
            if worker.state == "idle":
                worker.state = "actor"
                yield Become(worker.id, actor.id)
            elif worker.id >= first_new:
                yield StartWorker(worker.id, worker.threads, _gpu_names(gpus))
        granted = True
        while granted:  # one each per round, so that no client takes everything
            granted = False
            for key in list(self._demand):
                client, request = key
                gpus = self._take(request)
                if gpus is None:
                    continue
                granted = True
                self._demand[key] -= 1
                if not self._demand[key]:
                    del self._demand[key]
                worker = self._worker_for(request, gpus)
                worker.lessee = client
                if worker.state == "idle":
                    worker.state = "leased"
                    yield Grant(client, request, worker.id)
                elif worker.id >= first_new:
                    yield StartWorker(worker.id, worker.threads, _gpu_names(gpus))

    def _worker_for(self, request: Shape, gpus: tuple[tuple[str, int], ...]) -> Worker:
        """A worker for what was reserved: one that nobody uses, else a new one."""
        threads = _threads(request)
        spare = (worker for worker in self.workers.values() if _unbound(worker) and worker.threads == threads)
        worker = next(spare, None) if not gpus else None
        if worker is None:
            worker = self._add_worker(threads)
        worker.held, worker.gpus = request, gpus
        return worker

    def _add_worker(self, threads: int) -> Worker:
        worker = self.workers[self._next_worker] = Worker(self._next_worker, threads)
        self._next_worker += 1
        return worker

    def _take(self, request: Shape) -> tuple[tuple[str, int], ...] | None:
        """Reserve the resources; the GPUs chosen, or None if something is missing."""
        if not fits(request, self.free):
            return None
        wanted = dict(request).get("GPU", 0)
        chosen: list[tuple[str, int]] = []
        if 0 < wanted < UNIT:  # the fullest GPU that still has room
            room = [(left, name) for name, left in self.gpus.items() if left >= wanted]
            if not room:
                return None
            chosen = [(min(room)[1], wanted)]
        elif wanted:
            whole = [name for name, left in self.gpus.items() if left == UNIT]
            if len(whole) * UNIT < wanted:
                return None
            chosen = [(name, UNIT) for name in whole[: wanted // UNIT]]
        for name, parts in request:
            self.free[name] -= parts
        for name, parts in chosen:
            self.gpus[name] -= parts
        return tuple(chosen)

    def _release(self, worker: Worker) -> None:
        for name, parts in worker.held:
            if not (worker.blocked and name == "CPU"):  # lent already
                self.free[name] += parts
        for name, parts in worker.gpus:
            self.gpus[name] += parts
        worker.held, worker.blocked = (), False

    def _retire(self, worker: Worker) -> list[Instruction]:
        """A task worker's lease has ended: keep it for the next, unless it has seen a GPU or too many idle."""
        idle = sum(other.state == "idle" for other in self.workers.values())
        worker.lessee = None
        if worker.gpus or idle >= self._max_idle:
            worker.gpus = ()
            return self._kill(worker)
        worker.state = "idle"
        return []

    def _reclaim(self) -> list[Instruction]:
        if not self._demand and not self._unplaced:
            return []
        asked = set()
        for worker in self.workers.values():
            if worker.state == "leased" and worker.lessee is not None:
                wanted_by_others = any(key != (worker.lessee, worker.held) for key in self._demand)
                if self._unplaced or wanted_by_others:
                    asked.add(worker.lessee)
        return [Reclaim(client) for client in sorted(asked)]

    def reclaim(self) -> list[Instruction]:
        """Ask again for unused leases while somebody waits for resources."""
        return self._reclaim()

    # -- endings -----------------------------------------------------------------------------------------------------

    def _kill(self, worker: Worker) -> list[Instruction]:
        if worker.state == "dying":
            return []
        worker.state, worker.lessee = "dying", None
        return [KillWorker(worker.id)]

    def _start_failed(self, client: int, request: Shape) -> list[Instruction]:
        self._failed_starts += 1
        if self._failed_starts >= _MAX_FAILED_STARTS:
            self._failed_starts = 0
            self._demand.pop((client, request), None)
            return [Refuse(client, request, f"{_MAX_FAILED_STARTS} worker processes in a row died while starting")]
        self._demand[client, request] = self._demand.get((client, request), 0) + 1
        return []

    def _actor_lost(self, actor: Actor, cause: bytes) -> list[Instruction]:
        actor.worker = None
        if actor.state == "dead":
            return []
        if actor.restarts_left == 0:
            return self._end(actor, cause)
        if actor.restarts_left > 0:
            actor.restarts_left -= 1
        actor.restarts += 1
        actor.state = "restarting"
        self._unplaced.append(actor.id)
        return self._tell(actor)

    def _end(self, actor: Actor, cause: bytes) -> list[Instruction]:
        if actor.state == "dead":
            return []
        actor.state, actor.cause, actor.spec = "dead", cause, None
        if actor.name is not None:
            self.names.pop(actor.name, None)
        out = self._tell(actor)
        if actor.worker is not None:
            out += self._kill(self.workers[actor.worker])
        return out

    def _tell(self, actor: Actor) -> list[Instruction]:
        return [
            ActorChanged(client, actor.id, actor.state, actor.worker, actor.cause) for client in sorted(actor.watchers)
        ]

    # -- looking in --------------------------------------------------------------------------------------------------

    def actor_of(self, worker: int) -> Actor | None:
        """The living actor whose process the worker is."""
        record = self.workers.get(worker)
        actor = self.actors[record.actor] if record is not None and record.actor is not None else None
        return actor if actor is not None and actor.state != "dead" else None

    def available(self) -> Mapping[str, int]:
        """What is free, in 1/10,000 by name; never below zero."""
        return {name: max(0, parts) for name, parts in self.free.items()}

    def validate(self) -> None:
        """Check every invariant; for tests, after each event."""
        used = dict.fromkeys(self.total, 0)
        gpus = dict.fromkeys(self.gpus, 0)
        for worker in self.workers.values():
            for name, parts in worker.held:
                if not (worker.blocked and name == "CPU"):
                    used[name] += parts
            for name, parts in worker.gpus:
                gpus[name] += parts
            assert worker.state != "idle" or (not worker.held and worker.lessee is None)
            assert worker.state != "leased" or worker.lessee is not None
        assert {n: self.total[n] - used[n] for n in used} == self.free, "resources were lost or made"
        assert all(self.gpus[name] == UNIT - taken >= 0 for name, taken in gpus.items())
        assert all(count > 0 for count in self._demand.values())
        for actor in self.actors.values():
            assert actor.name is None or actor.state == "dead" or self.names[actor.name] == actor.id
            if actor.worker is not None and actor.state != "dead":
                assert self.workers[actor.worker].actor == actor.id


def _unbound(worker: Worker) -> bool:
    """Whether nobody has been promised the worker yet."""
    return worker.state == "idle" or (worker.state == "starting" and worker.lessee is None and worker.actor is None)


def _threads(request: Shape) -> int:
    return max(1, dict(request).get("CPU", 0) // UNIT)
