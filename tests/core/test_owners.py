"""Who owns a value, a task or an actor is not ended for want of work, and what a dead owner leaves is lost or whole."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rlray
from tests.support import Meeting, store_used, wait_until

MB = 1_000_000
CAPACITY = 80 * 1024 * 1024
WIDE = 12  # tasks at once: many more than the idle workers that a runtime with two CPUs keeps


@pytest.fixture(autouse=True, scope="module")
def _runtime() -> Iterator[None]:
    rlray.init(num_cpus=2, object_store_memory=CAPACITY)
    yield
    rlray.shutdown()


def block(value: int, size: int = MB) -> np.ndarray[Any, Any]:
    return np.full(size, value, np.uint8)


@rlray.remote
class Keeper:
    def __init__(self, thing: Any = None) -> None:
        self.thing = thing

    def keep(self, thing: Any) -> None:
        self.thing = thing

    def holds(self, value: int) -> bool:
        array = rlray.get(self.thing[0]) if isinstance(self.thing, list) else self.thing
        return bool((array == value).all())

    def put(self, value: int, size: int) -> Any:
        self.thing = rlray.put(block(value, size))
        return [self.thing]

    def send(self, peer: Any, value: int) -> None:
        rlray.get(peer.keep.remote(block(value, 10 * MB)))

    def create(self, value: int, restarts: int) -> None:
        kept = Keeper.options(name="kept", lifetime="detached", max_restarts=restarts, max_task_retries=restarts)
        rlray.get(kept.remote(block(value, 10 * MB)).holds.remote(value))


def in_many_processes(work: Any) -> list[Any]:
    """What ``work(i)`` returns in so many processes at once that most of them are superfluous afterwards."""

    @rlray.remote
    def run(i: int, meeting: Any) -> Any:
        rlray.get(meeting.wait_for.remote(WIDE))
        return work(i)

    meeting = Meeting.remote()
    results = rlray.get([run.remote(i, meeting) for i in range(WIDE)], timeout=60)
    time.sleep(0.5)  # until the leases are given back
    return results


def test_values_that_idle_workers_own_stay() -> None:
    refs = [ref for [ref] in in_many_processes(lambda i: [rlray.put(block(i))])]
    assert all((rlray.get(ref, timeout=20) == i).all() for i, ref in enumerate(refs))


def test_tasks_that_idle_workers_have_started_end() -> None:
    @rlray.remote(num_cpus=0)
    def later(keeper: Any) -> int:
        time.sleep(1)
        return rlray.get(keeper.hit.remote())

    @rlray.remote
    class Target:
        def __init__(self) -> None:
            self.hits = 0

        def hit(self) -> int:
            self.hits += 1
            return self.hits

        def count(self) -> int:
            return self.hits

    target = Target.remote()

    def start(i: int) -> None:
        later.options(num_returns=i % 2).remote(target)

    in_many_processes(start)
    assert wait_until(lambda: rlray.get(target.count.remote()) == WIDE, 20)


def test_actors_that_idle_workers_have_created_live() -> None:
    keepers = in_many_processes(lambda i: Keeper.remote([rlray.put(block(i))]))
    assert rlray.get([keeper.holds.remote(i) for i, keeper in enumerate(keepers)], timeout=20) == [True] * WIDE


def test_an_idle_worker_outlives_the_caller_that_used_it_last() -> None:
    """Its last caller dies while it still has the lease; what it owns is somebody else's."""

    @rlray.remote
    class Caller:
        def use_every_worker(self, meeting: Any) -> None:
            rlray.get([meet.remote(meeting) for _ in range(WIDE)])
            os.kill(os.getpid(), signal.SIGKILL)

    @rlray.remote
    def meet(meeting: Any) -> None:
        rlray.get(meeting.wait_for.remote(WIDE))

    refs = [ref for [ref] in in_many_processes(lambda i: [rlray.put(block(i))])]
    with pytest.raises(rlray.exceptions.ActorDiedError):
        rlray.get(Caller.remote().use_every_worker.remote(Meeting.remote()), timeout=20)
    time.sleep(0.5)
    assert all((rlray.get(ref, timeout=20) == i).all() for i, ref in enumerate(refs))


def test_what_a_dead_caller_had_started_stops(tmp_path: Path) -> None:
    """Its tasks and theirs, also in a process that owns what somebody else needs."""

    @rlray.remote
    def own_and_nest(depth: int, folder: Path) -> Any:
        if depth:
            return rlray.get(own_and_nest.remote(depth - 1, folder))
        while True:
            (folder / str(os.getpid())).touch()
            time.sleep(0.01)

    @rlray.remote
    class Caller:
        def start(self, folder: Path) -> int:
            self.refs = [own_and_nest.remote(2, folder) for _ in range(2)]
            return os.getpid()

    refs = [ref for [ref] in in_many_processes(lambda i: [rlray.put(block(i))])]
    caller = Caller.remote()
    pid = rlray.get(caller.start.remote(tmp_path))
    assert wait_until(lambda: len(list(tmp_path.iterdir())) == 2, 20)
    os.kill(pid, signal.SIGKILL)

    def stopped() -> bool:
        for path in tmp_path.iterdir():
            path.unlink()
        time.sleep(0.3)
        return not list(tmp_path.iterdir())

    assert wait_until(stopped, 10)
    assert wait_until(lambda: rlray.available_resources()["CPU"] == 2, 10)
    assert all((rlray.get(ref, timeout=20) == i).all() for i, ref in enumerate(refs))


def test_what_a_process_owned_before_it_was_given_to_an_actor_outlives_that() -> None:
    refs = [ref for [ref] in in_many_processes(lambda i: [rlray.put(block(i))])]
    keepers = [Keeper.remote() for _ in range(6)]
    rlray.get([keeper.keep.remote(None) for keeper in keepers])
    del keepers
    time.sleep(0.5)
    assert all((rlray.get(ref, timeout=20) == i).all() for i, ref in enumerate(refs))


def test_superfluous_workers_end_once_nobody_needs_them() -> None:
    refs = in_many_processes(lambda i: [os.getpid(), rlray.put(block(i))])
    pids = [pid for pid, _ in refs]
    assert len(set(pids)) == WIDE
    assert all(map(_runs, pids))
    del refs
    assert wait_until(lambda: sum(map(_runs, pids)) <= 4, 10)


def _runs(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


def kill(actor: Any) -> None:
    pid = rlray.get(actor.__ray_call__.remote(lambda self: os.getpid()))
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: not _runs(pid))
    time.sleep(0.3)  # until everybody has heard of it


def churn() -> None:
    """Write over all that is free."""
    arrays = []
    while store_used() < CAPACITY - 4 * MB:
        arrays.append(rlray.get(rlray.put(block(255, 3 * MB))))
    assert len(arrays) > 15


def test_arguments_outlive_their_caller() -> None:
    """An array that was an argument of a call is its receiver's as long as that one looks at it."""
    caller, keeper = Keeper.remote(), Keeper.remote()
    rlray.get(caller.send.remote(keeper, 7))
    kill(caller)
    churn()
    assert rlray.get(keeper.holds.remote(7))


@pytest.mark.parametrize("restarts", [0, 1])
def test_a_detached_actor_that_outlives_its_creator(restarts: int) -> None:
    """What its constructor was given is its own; to be constructed once more it would need what is lost."""
    creator = Keeper.remote()
    rlray.get(creator.create.remote(7, restarts))
    kept = rlray.get_actor("kept")
    kill(creator)
    churn()
    assert rlray.get(kept.holds.remote(7))
    if restarts:
        kill(kept)
        with pytest.raises(rlray.exceptions.ActorDiedError, match="owned"):
            rlray.get(kept.holds.remote(7), timeout=20)
    rlray.kill(kept)


def test_what_a_dead_process_owned_is_not_passed_on() -> None:
    """Who has read it may read it again. Nobody else does: no one would count them, and memory would go under them."""
    owner = Keeper.remote()
    [ref] = rlray.get(owner.put.remote(9, 10 * MB))
    assert (rlray.get(ref) == 9).all()
    kill(owner)
    assert (rlray.get(ref) == 9).all()
    late = Keeper.remote()
    with pytest.raises(rlray.exceptions.OwnerDiedError):
        rlray.get(late.keep.remote(ref), timeout=20)
    rlray.get(late.keep.remote([ref]))
    with pytest.raises(rlray.exceptions.OwnerDiedError):
        rlray.get(late.holds.remote(9), timeout=20)
