"""Who gets which worker: events in, instructions out. No sockets, no clock, no processes in here.

A caller states its demand per scheduling class (`Request`); the scheduler grants it workers (leases) as resources
become free, and starts or reuses worker processes for that. An actor gets a worker of its own. A worker that is
blocked in ``get`` lends its CPUs to others meanwhile. A placement group moves resources from the node's pool into one
pool per bundle, from which the requests that name the group take.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence

from rlray.core.exceptions import (
    ActorPlacementGroupRemoved,
    RaySystemError,
    RuntimeEnvSetupError,
    TaskPlacementGroupRemoved,
)
from rlray.core.local.instructions import (
    ActorChanged,
    Become,
    Dismiss,
    Grant,
    GroupChanged,
    Instruction,
    KillWorker,
    Orphan,
    Reclaim,
    Refuse,
    SetUp,
    StartWorker,
)
from rlray.core.local.records import Actor, Group
from rlray.core.local.waiting import Waiting
from rlray.core.local.workers import Worker, Workers
from rlray.core.pools import Gpus, Pool, take_together
from rlray.core.resources import UNIT, Request, Shape
from rlray.core.serialization import dumps_error

_MAX_FAILED_STARTS = 20  # in a row: something is wrong with every one of them, it is not chance
_REMEMBERED = 1_000  # dead actors, and removed groups, of which one can still be told what became of them


class Scheduler:
    """The state of one node. Every event method returns what is to be done, in order."""

    def __init__(self, total: Shape, gpus: Sequence[str], first_worker: int, max_idle: int) -> None:
        self.node = Pool(total, dict.fromkeys(gpus, UNIT))
        self.workers = Workers(first_worker)
        self.actors: dict[bytes, Actor] = {}
        self.groups: dict[bytes, Group] = {}
        self.names: dict[tuple[str, str], bytes] = {}
        self.group_names: dict[tuple[str, str], bytes] = {}
        self._demand: OrderedDict[tuple[int, Request], int] = OrderedDict()
        self._unplaced: Waiting[Request] = Waiting()  # actors that wait for resources
        self._waiting_groups: Waiting[tuple[Shape, ...]] = Waiting()
        self.actors_of: dict[int, set[bytes]] = {}  # client -> living actors that it made or watches
        self._dead: deque[bytes] = deque()
        self._removed: deque[bytes] = deque()
        self._max_idle = max_idle
        self._failed_starts = 0

    # -- events: tasks -----------------------------------------------------------------------------------------------

    def demand(self, client: int, request: Request, count: int) -> list[Instruction]:
        """``client`` could use ``count`` more workers for tasks of class ``request``."""
        key = (client, request)
        if count and request.group and self._living_group(request.group) is None:
            return [Refuse(client, request, TaskPlacementGroupRemoved())]
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
        return [*self._retire(lease), *self._dispatch()]

    def retired(self, client: int, worker: int) -> list[Instruction]:
        """``client`` gives a lease back, and the worker takes no other: it ends by itself."""
        lease = self.workers.get(worker)
        if lease is None or lease.state != "leased" or lease.lessee != client:
            return []
        self._release(lease)
        self.workers.withdraw(lease)
        lease.state = "dying"
        return list(self._dispatch())

    def blocked(self, worker: int, blocked: bool) -> list[Instruction]:
        """A worker began or ended to wait in ``get``."""
        record = self.workers.get(worker)
        if record is None or record.blocked == blocked or record.state not in ("leased", "actor"):
            return []
        record.blocked = blocked
        cpus = dict(record.held).get("CPU", 0)
        if cpus and record.pool is not None:
            record.pool.add((("CPU", cpus),), (), 1 if blocked else -1)  # below zero: more run than there are CPUs
        return self._dispatch() if blocked else []

    # -- events: processes -------------------------------------------------------------------------------------------

    def started(self, worker: int) -> list[Instruction]:
        """A worker that was forked has connected."""
        record = self.workers.get(worker)
        if record is None or record.state != "starting":
            return []
        self._failed_starts = 0
        if record.request is not None:
            return self._employ(record)
        self.workers.rest(record)
        return self._dispatch()

    def set_up(self, worker: int, failure: str | None) -> list[Instruction]:
        """A worker has set itself up with the environment that it was told, or says why it could not."""
        record = self.workers.get(worker)
        if record is None or record.state != "setting up" or record.request is None:
            return []
        if failure is None:
            record.environment = record.request.environment
            return self._employ(record)
        error = RuntimeEnvSetupError(f"a worker could not be set up with {record.request.environment}: {failure}")
        lessee, actor = record.lessee, self._actor_in(record)
        out = self._kill(record)
        if lessee is not None:
            self._demand.pop((lessee, record.request), None)
            out.append(Refuse(lessee, record.request, error))
        if actor is not None:
            out += self._end(actor, dumps_error(error))
        return out

    def died(self, worker: int, cause: bytes, reason: str = "") -> list[Instruction]:
        """A worker's process has ended; ``cause`` is a pickled error that says how, ``reason`` says it in words."""
        record = self.workers.get(worker)
        if record is None:
            return []
        lessee, request = record.lessee, record.request
        self.workers.remove(worker)
        self._release(record)
        out: list[Instruction] = []
        if record.state in ("starting", "setting up") and lessee is not None and request is not None:
            out += self._start_failed(lessee, request, reason)
        actor = self._actor_in(record)
        if actor is not None:
            out += self._actor_lost(actor, cause)
        return [*out, *self._dispatch()]

    def client_gone(self, client: int, cause: bytes) -> list[Instruction]:
        """A client (driver or worker) is gone: what it asked for is wanted no more."""
        for key in [key for key in self._demand if key[0] == client]:
            del self._demand[key]
        out: list[Instruction] = []
        for worker in self.workers.leased_to(client):
            out += self._orphan(worker, client) if worker.state == "leased" else self._kill(worker)
        for actor in [self.actors[one] for one in self.actors_of.pop(client, ())]:
            actor.watchers.discard(client)
            if actor.creator == client and not actor.detached:
                out += self._end(actor, cause)
        return [*out, *self._dispatch()]

    def rested(self, worker: int) -> list[Instruction]:
        """A worker that is about to end runs nothing any more, but is still needed."""
        record = self.workers.get(worker)
        if record is None or record.state != "dying":
            return []
        self._release(record)
        return self._dispatch()

    def prestart(self, count: int) -> list[Instruction]:
        """Fork workers that the first tasks and actors will find ready."""
        return [StartWorker(self.workers.add(threads=1).id, 1, ()) for _ in range(count)]

    # -- events: actors ----------------------------------------------------------------------------------------------

    def create_actor(self, actor: Actor) -> list[Instruction]:
        """Place a new actor. Raises ValueError if its name is taken."""
        if actor.name is not None:
            if actor.name in self.names:
                raise ValueError(f"an actor named {actor.name[1]!r} already lives in namespace {actor.name[0]!r}")
            self.names[actor.name] = actor.id
        self.actors[actor.id] = actor
        self._watch(actor, actor.creator)
        return [] if actor.waits else self._place(actor)

    def actor_arguments(self, actor_id: bytes, error: bytes | None) -> list[Instruction]:
        """The arguments of the actor's constructor are there, or one of them is an error."""
        actor = self.living_actor(actor_id)
        if actor is None:
            return []
        if error is not None:
            return self._end(actor, error)
        actor.waits = False
        return self._place(actor)

    def _place(self, actor: Actor) -> list[Instruction]:
        if actor.request.group and self._living_group(actor.request.group) is None:
            return self._end(actor, dumps_error(ActorPlacementGroupRemoved()))
        self._unplaced.add(actor.request, actor.id)
        return [*self._dispatch(), *self._reclaim()]

    def actor_ready(self, actor_id: bytes) -> list[Instruction]:
        """The actor's constructor has returned."""
        actor = self.living_actor(actor_id)
        if actor is None:
            return []
        actor.state = "alive"
        return self._tell(actor)

    def actor_failed(self, actor_id: bytes, cause: bytes) -> list[Instruction]:
        """The actor's constructor raised, or the actor asked to leave: it is not restarted."""
        actor = self.living_actor(actor_id)
        return [] if actor is None else [*self._end(actor, cause), *self._dispatch()]

    def declined(self, worker: int) -> list[Instruction]:
        """A worker was told to become an actor, but owns what others need, which must not end with the actor."""
        record = self.workers.get(worker)
        if record is None or record.state != "actor":
            return []
        actor = self._actor_in(record)
        record.actor, record.state = None, "dying"
        self._release(record)
        if actor is not None:
            actor.worker = None
            self._unplaced.add(actor.request, actor.id)
        return self._dispatch()

    def kill_actor(self, actor_id: bytes, cause: bytes, no_restart: bool) -> list[Instruction]:
        """Somebody wants the actor's process ended."""
        actor = self.living_actor(actor_id)
        if actor is None:
            return []
        if no_restart or actor.worker is None:
            return [*self._end(actor, cause), *self._dispatch()]
        return [KillWorker(actor.worker)]  # its death leads to the restart

    def watch_actor(self, client: int, actor_id: bytes) -> list[Instruction]:
        """``client`` wants to know where the actor is, now and after each change."""
        actor = self.actors.get(actor_id)
        if actor is None:
            return [ActorChanged(client, actor_id, "dead", None, None)]
        if actor.state != "dead":
            self._watch(actor, client)
        return [ActorChanged(client, actor_id, actor.state, actor.worker, actor.cause)]

    def _watch(self, actor: Actor, client: int) -> None:
        actor.watchers.add(client)
        self.actors_of.setdefault(client, set()).add(actor.id)

    def unwatch_actor(self, client: int, actor_id: bytes) -> None:
        """``client`` has no handle to the actor any more."""
        actor = self.actors.get(actor_id)
        if actor is not None:
            actor.watchers.discard(client)
            if client != actor.creator:
                self._forget_tie(client, actor)

    def _forget_tie(self, client: int, actor: Actor) -> None:
        theirs = self.actors_of.get(client, set())
        theirs.discard(actor.id)
        if not theirs:
            self.actors_of.pop(client, None)

    # -- events: placement groups ------------------------------------------------------------------------------------

    def create_group(self, group: Group, creator: int, detached: bool) -> list[Instruction]:
        """Set resources aside as soon as they are free. A group that an actor made ends with it, unless detached.

        Raises: ValueError if its name is taken.
        """
        maker = self.actor_of(creator)
        process = self.workers.get(creator)
        if maker is None and process is not None and process.actor is not None and not detached:
            return []  # the actor is dead already: this is one of its last words, and the group would have no end
        if group.name is not None:
            if group.name in self.group_names:
                raise ValueError(f"a placement group named {group.name[1]!r} already exists")
            self.group_names[group.name] = group.id
        self.groups[group.id] = group
        group.watchers.add(creator)
        if maker is not None and not detached:
            maker.groups.add(group.id)
            group.maker = maker.id
        self._waiting_groups.add(group.bundles, group.id)
        out = self._dispatch()
        return out if group.state == "created" else [*out, *self._reclaim()]

    def remove_group(self, client: int, group_id: bytes, cause: bytes) -> list[Instruction]:
        """Give a group's resources back and end what runs with them; ``client``, who asks for it, is not told."""
        return [*self._remove(group_id, cause, client), *self._dispatch()]

    def _remove(self, group_id: bytes, cause: bytes, client: int | None = None) -> list[Instruction]:
        group = self._living_group(group_id)
        if group is None:
            return []
        out: list[Instruction] = [
            GroupChanged(watcher, group.id, "removed") for watcher in sorted(group.watchers) if watcher != client
        ]
        for pool in group.pools:
            self.node.add(tuple(pool.free.items()), tuple(pool.gpus.items()))
        group.state, group.pools = "removed", []
        group.watchers.clear()
        self._waiting_groups.discard(group.bundles, group.id)
        if group.name is not None:
            del self.group_names[group.name]
        if group.maker in self.actors:
            self.actors[group.maker].groups.discard(group.id)
        self._removed.append(group.id)
        if len(self._removed) > _REMEMBERED:
            del self.groups[self._removed.popleft()]
        return [*out, *self._evict(group, cause)]

    def _evict(self, group: Group, cause: bytes) -> list[Instruction]:
        """End what runs in a removed group, and refuse what waits for it."""
        out: list[Instruction] = []
        refused = [key for key in self._demand if key[1].group == group.id]
        for worker in [self.workers[number] for number in sorted(group.workers)]:
            worker.pool = self.node  # where what it holds goes when it has ended
            if worker.state in ("starting", "setting up") and worker.lessee is not None and worker.request is not None:
                refused.append((worker.lessee, worker.request))
            actor = self._actor_in(worker)
            out += self._end(actor, cause) if actor is not None else self._kill(worker)
        group.workers.clear()
        for homeless in self._unplaced.of_kinds(lambda request: request.group == group.id):
            out += self._end(self.actors[homeless], dumps_error(ActorPlacementGroupRemoved()))
        for key in dict.fromkeys(refused):
            self._demand.pop(key, None)
            out.append(Refuse(*key, TaskPlacementGroupRemoved()))
        return out

    def watch_group(self, client: int, group_id: bytes) -> list[Instruction]:
        """``client`` wants to know how the group stands, now and after each change."""
        group = self._living_group(group_id)
        if group is not None:
            group.watchers.add(client)
        return [GroupChanged(client, group_id, group.state if group is not None else "removed")]

    def _living_group(self, group_id: bytes) -> Group | None:
        group = self.groups.get(group_id)
        return group if group is not None and group.state != "removed" else None

    # -- placing -----------------------------------------------------------------------------------------------------

    def _dispatch(self) -> list[Instruction]:
        """Give what is free to groups, then to actors, then to tasks."""
        out: list[Instruction] = []
        self._waiting_groups.serve(lambda group: self._reserve(self.groups[group], out))
        self._unplaced.serve(lambda actor: self._house(self.actors[actor], out))
        granted = True
        while granted:  # one each per round, so that no client takes everything
            granted = False
            for key in list(self._demand):
                client, request = key
                worker = self._hire(request, out)
                if worker is None:
                    continue
                granted = True
                self._demand[key] -= 1
                if not self._demand[key]:
                    del self._demand[key]
                self.workers.lease(worker, client)
                if worker.state == "idle":
                    out += self._employ(worker)
        return out

    def _reserve(self, group: Group, out: list[Instruction]) -> bool:
        pools = take_together(self.node, group.bundles)
        if pools is None:
            return False
        group.pools, group.state = pools, "created"
        out += [GroupChanged(client, group.id, "created") for client in sorted(group.watchers)]
        return True

    def _house(self, actor: Actor, out: list[Instruction]) -> bool:
        worker = self._hire(actor.request, out)
        if worker is None:
            return False
        worker.actor, actor.worker = actor.id, worker.id
        if worker.state == "idle":
            out += self._employ(worker)
        return True

    def _hire(self, request: Request, out: list[Instruction]) -> Worker | None:
        """A worker for the request with its resources reserved; None if they are not free."""
        pools: Sequence[Pool] = (self.node,)
        if request.group:
            group = self._living_group(request.group)
            pools = [] if group is None else group.pools
            if request.bundle >= 0:
                pools = pools[request.bundle : request.bundle + 1]
        for pool in pools:
            gpus = pool.take(request.resources)
            if gpus is not None:
                worker = self._worker_for(request, gpus, out)
                worker.request, worker.held, worker.pool, worker.gpus = request, request.resources, pool, gpus
                if request.group:
                    self.groups[request.group].workers.add(worker.id)
                return worker
        return None

    def _worker_for(self, request: Request, gpus: Gpus, out: list[Instruction]) -> Worker:
        """A worker for what was reserved: one that nobody uses, else a new one."""
        threads = max(1, dict(request.resources).get("CPU", 0) // UNIT)
        worker = self.workers.find(threads, request.environment) if not gpus else None
        if worker is None:
            worker = self.workers.add(threads)
            out.append(StartWorker(worker.id, threads, tuple(name for name, _ in gpus)))
        self.workers.withdraw(worker)
        return worker

    def _employ(self, worker: Worker) -> list[Instruction]:
        """A connected worker can begin, or is set up for it first."""
        request = worker.request
        assert request is not None
        if worker.environment is None and not request.environment:
            worker.environment = ""
        if worker.environment != request.environment:
            worker.state = "setting up"
            return [SetUp(worker.id, request.environment)]
        if worker.actor is not None:
            worker.state = "actor"
            return [Become(worker.id, worker.actor)]
        assert worker.lessee is not None
        worker.state = "leased"
        return [Grant(worker.lessee, request, worker.id)]

    def _release(self, worker: Worker) -> None:
        if worker.pool is not None:
            held = worker.held
            if worker.blocked:  # its CPUs are lent already
                held = tuple((name, parts) for name, parts in held if name != "CPU")
            worker.pool.add(held, worker.gpus)
        if worker.request is not None and worker.request.group in self.groups:
            self.groups[worker.request.group].workers.discard(worker.id)
        worker.held, worker.pool, worker.gpus, worker.blocked = (), None, (), False

    def _retire(self, worker: Worker) -> list[Instruction]:
        """A task worker's lease has ended: keep it for the next, unless it has seen a GPU."""
        has_seen_gpu = bool(worker.gpus)
        self._release(worker)
        if has_seen_gpu:
            return self._dismiss(worker)
        self.workers.rest(worker)
        superfluous = self.workers.longest_idle(self._max_idle)
        return [] if superfluous is None else self._dismiss(superfluous)

    def _reclaim(self) -> list[Instruction]:
        """Ask for unused leases back, from everybody who stands in the way of somebody else."""
        if not self._demand and not self._unplaced and not self._waiting_groups:
            return []
        if self._unplaced or self._waiting_groups or len(self._demand) > 1:
            return [Reclaim(client) for client in self.workers.lessees()]
        (only,) = self._demand
        return [
            Reclaim(client)
            for client in self.workers.lessees()
            if any((client, worker.request) != only for worker in self.workers.leased_to(client))
        ]

    def reclaim(self) -> list[Instruction]:
        """Ask again for unused leases while somebody waits for resources."""
        return self._reclaim()

    # -- endings -----------------------------------------------------------------------------------------------------

    def _kill(self, worker: Worker) -> list[Instruction]:
        if worker.state == "dying":
            return []
        self.workers.withdraw(worker)
        worker.state = "dying"
        return [KillWorker(worker.id)]

    def _dismiss(self, worker: Worker) -> list[Instruction]:
        """Nobody uses a worker any more, but it may own what others need."""
        self.workers.withdraw(worker)
        worker.state = "dying"
        return [Dismiss(worker.id)]

    def _orphan(self, worker: Worker, client: int) -> list[Instruction]:
        """Nobody waits any more for what a worker runs. What it holds is free when it `rested`, or has ended."""
        self.workers.withdraw(worker)
        worker.state = "dying"
        return [Orphan(worker.id, client)]

    def _start_failed(self, client: int, request: Request, reason: str) -> list[Instruction]:
        self._failed_starts += 1
        if self._failed_starts >= _MAX_FAILED_STARTS:
            self._failed_starts = 0
            self._demand.pop((client, request), None)
            error = RaySystemError(f"{_MAX_FAILED_STARTS} workers in a row died while starting; the last one: {reason}")
            return [Refuse(client, request, error)]
        self._demand[client, request] = self._demand.get((client, request), 0) + 1
        return []

    def _actor_lost(self, actor: Actor, cause: bytes) -> list[Instruction]:
        actor.worker = None
        if actor.restarts_left == 0:
            return self._end(actor, cause)
        if actor.restarts_left > 0:
            actor.restarts_left -= 1
        actor.restarts += 1
        actor.state = "restarting"
        self._unplaced.add(actor.request, actor.id)
        return self._tell(actor)

    def _end(self, actor: Actor, cause: bytes) -> list[Instruction]:
        if actor.state == "dead":
            return []
        actor.state, actor.cause, actor.spec = "dead", cause, None
        if actor.name is not None:
            self.names.pop(actor.name, None)
        self._unplaced.discard(actor.request, actor.id)
        out = self._tell(actor)
        for client in {actor.creator, *actor.watchers}:
            self._forget_tie(client, actor)
        actor.watchers.clear()
        worker = self.workers.get(actor.worker)
        if worker is not None:
            out += self._kill(worker)
        self._dead.append(actor.id)
        if len(self._dead) > _REMEMBERED:
            del self.actors[self._dead.popleft()]
        for group in sorted(actor.groups):
            out += self._remove(group, cause)
        return out

    def _tell(self, actor: Actor) -> list[Instruction]:
        return [
            ActorChanged(client, actor.id, actor.state, actor.worker, actor.cause) for client in sorted(actor.watchers)
        ]

    # -- looking in --------------------------------------------------------------------------------------------------

    def living_actor(self, actor_id: bytes | None) -> Actor | None:
        """The actor of that id, unless it is dead or unknown."""
        actor = self.actors.get(actor_id) if actor_id is not None else None
        return actor if actor is not None and actor.state != "dead" else None

    def _actor_in(self, worker: Worker) -> Actor | None:
        return self.living_actor(worker.actor)

    def actor_of(self, worker: int) -> Actor | None:
        """The living actor whose process the worker is."""
        record = self.workers.get(worker)
        return self._actor_in(record) if record is not None else None

    def demands(self) -> list[tuple[int, Request, int]]:
        """Who still waits for how many workers of which class."""
        return [(client, request, count) for (client, request), count in self._demand.items()]

    def available(self) -> Mapping[str, int]:
        """What is free, in 1/10,000 by name; never below zero."""
        return {name: max(0, parts) for name, parts in self.node.free.items()}
