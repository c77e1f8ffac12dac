"""The worker processes of a node as the scheduler keeps them: by number, by what they are ready for, by lessee."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from rlray.core.pools import Gpus, Pool
from rlray.core.resources import Request, Shape

WorkerState = Literal["starting", "setting up", "idle", "leased", "actor", "dying"]


@dataclass(slots=True)
class Worker:
    """A worker process. It is bound from the moment that somebody is to get it: ``request`` says for what."""

    id: int
    threads: int
    state: WorkerState = "starting"
    environment: str | None = None  # None: it has not run anything, and can still be set up with any
    request: Request | None = None
    held: Shape = ()
    pool: Pool | None = None  # where ``held`` was taken from
    gpus: Gpus = ()
    lessee: int | None = None  # the client that a task worker is leased to
    actor: bytes | None = None
    blocked: bool = False  # its CPUs are lent to others


class Workers:
    """Every worker of the node."""

    def __init__(self, first: int) -> None:
        self._all: dict[int, Worker] = {}
        self._next = first
        self._spare: dict[tuple[int, str | None, bool], dict[int, None]] = {}  # by (threads, environment, connected)
        self._idle: dict[int, None] = {}  # longest first
        self._leased: dict[int, set[int]] = {}  # by client

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._all.values())

    def __len__(self) -> int:
        return len(self._all)

    def __getitem__(self, number: int) -> Worker:
        return self._all[number]

    def get(self, number: int | None) -> Worker | None:
        """The worker of that number, if it lives."""
        return self._all.get(number) if number is not None else None

    def add(self, threads: int) -> Worker:
        """A new one, which nobody is bound to get."""
        worker = self._all[self._next] = Worker(self._next, threads)
        self._next += 1
        self._offer(worker)
        return worker

    def remove(self, number: int) -> Worker | None:
        """Its process has ended."""
        worker = self._all.pop(number, None)
        if worker is not None:
            self.withdraw(worker)
        return worker

    # -- workers that nobody uses ------------------------------------------------------------------------------------

    def find(self, threads: int, environment: str) -> Worker | None:
        """One that nobody is bound to get: of that environment, else one that can still be set up with it."""
        for key in ((threads, environment, True), (threads, None, True), (threads, None, False)):
            for number in self._spare.get(key, ()):
                return self._all[number]
        return None

    def _offer(self, worker: Worker) -> None:
        self._spare.setdefault((worker.threads, worker.environment, worker.state == "idle"), {})[worker.id] = None

    def withdraw(self, worker: Worker) -> None:
        """Somebody is about to get it, or it is about to end."""
        key = (worker.threads, worker.environment, worker.state == "idle")
        spare = self._spare.get(key, {})
        if worker.id in spare:
            del spare[worker.id]
            if not spare:
                del self._spare[key]
        self._idle.pop(worker.id, None)
        self.unlease(worker)

    def rest(self, worker: Worker) -> None:
        """It waits for somebody to use it."""
        self.withdraw(worker)
        worker.state, worker.request = "idle", None
        self._offer(worker)
        self._idle[worker.id] = None

    def longest_idle(self, most: int) -> Worker | None:
        """The one that has been idle the longest, if more than ``most`` are."""
        return self._all[next(iter(self._idle))] if len(self._idle) > most else None

    # -- leases ------------------------------------------------------------------------------------------------------

    def lease(self, worker: Worker, client: int) -> None:
        """``client`` is to get the worker."""
        worker.lessee = client
        self._leased.setdefault(client, set()).add(worker.id)

    def unlease(self, worker: Worker) -> None:
        """The lease ends, if there is one."""
        if worker.lessee is not None:
            leased = self._leased[worker.lessee]
            leased.discard(worker.id)
            if not leased:
                del self._leased[worker.lessee]
            worker.lessee = None

    def leased_to(self, client: int) -> list[Worker]:
        """What ``client`` has, or is about to get."""
        return [self._all[number] for number in self._leased.get(client, ())]

    def lessees(self) -> list[int]:
        """The clients that have a worker, or are about to get one."""
        return sorted(self._leased)

    def validate(self) -> None:
        """Check that every worker is found where it should be; for tests."""
        for worker in self._all.values():
            unbound = worker.request is None and worker.state in ("starting", "idle")
            key = (worker.threads, worker.environment, worker.state == "idle")
            assert unbound == (worker.id in self._spare.get(key, {})), worker
            assert (worker.state == "idle") == (worker.id in self._idle), worker
            assert (worker.lessee is not None) == (worker.id in self._leased.get(worker.lessee or 0, set())), worker
            assert worker.state != "idle" or not (worker.held or worker.gpus or worker.pool), worker
            assert worker.state != "leased" or worker.lessee is not None, worker
        assert sum(map(len, self._spare.values())) == sum(
            worker.request is None and worker.state in ("starting", "idle") for worker in self
        )
        assert all(self._spare.values()), "empty sets are left behind"
        assert set(self._idle) | {n for ids in self._leased.values() for n in ids} <= set(self._all)
