"""``max_calls``: worker processes that end after so many calls of a function."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import rlray
from tests.support import needs_proc, wait_until

pytestmark = pytest.mark.usefixtures("cluster")


@rlray.remote(max_calls=3)
def pid_of_three() -> int:
    return os.getpid()


@rlray.remote(max_calls=1)
def pid_of_one() -> int:
    return os.getpid()


def exists(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_the_process_changes_after_so_many_calls() -> None:
    pids = Counter(rlray.get(pid_of_three.remote(), timeout=20) for _ in range(12))
    assert len(pids) >= 4
    assert max(pids.values()) <= 3


def test_without_it_the_process_stays() -> None:
    pid = rlray.remote(os.getpid)
    assert len({rlray.get(pid.remote(), timeout=20) for _ in range(12)}) <= 4  # as many as there are CPUs


def test_nothing_is_lost_with_many_calls_in_flight() -> None:
    @rlray.remote(max_calls=5)
    def numbered(i: int) -> tuple[int, int]:
        return i, os.getpid()

    results = rlray.get([numbered.remote(i) for i in range(200)], timeout=100)
    assert [i for i, _ in results] == list(range(200))
    assert max(Counter(pid for _, pid in results).values()) <= 5


def test_calls_without_retries_are_not_lost_either() -> None:
    @rlray.remote(max_calls=2, max_retries=0)
    def numbered(i: int) -> int:
        return i

    assert rlray.get([numbered.remote(i) for i in range(60)], timeout=100) == list(range(60))


@needs_proc
def test_the_process_is_gone_and_its_cpu_free() -> None:
    pids = rlray.get([pid_of_one.remote() for _ in range(4)], timeout=20)
    assert len(set(pids)) == 4
    assert wait_until(lambda: not any(exists(pid) for pid in pids), 10)


def test_other_functions_are_not_counted() -> None:
    pid = rlray.remote(os.getpid)
    pids = [(rlray.get(pid_of_three.remote(), timeout=20), rlray.get(pid.remote(), timeout=20)) for _ in range(6)]
    assert max(Counter(counted for counted, _ in pids).values()) <= 3


def test_nested_calls() -> None:
    @rlray.remote(max_calls=1)
    def outer(depth: int) -> list[int]:
        return [os.getpid(), *(rlray.get(outer.remote(depth - 1)) if depth else [])]

    assert len(set(rlray.get(outer.remote(5), timeout=60))) == 6


@needs_proc
def test_what_the_process_owned_stays_as_long_as_somebody_holds_it() -> None:
    @rlray.remote(max_calls=1)
    def owner() -> tuple[int, rlray.ObjectRef, rlray.ObjectRef]:
        slow = rlray.remote(lambda: time.sleep(0.5) or "late")
        return os.getpid(), rlray.put(np.ones(1_000_000)), slow.remote()

    pid, array, late = rlray.get(owner.remote(), timeout=20)
    time.sleep(0.3)
    assert rlray.get(array, timeout=20).sum() == 1_000_000
    assert rlray.get(late, timeout=20) == "late"
    assert exists(pid)
    del array, late
    assert wait_until(lambda: not exists(pid), 10)


def test_an_actor_that_it_made_lives_as_long_as_a_handle_to_it() -> None:
    @rlray.remote
    class Counter:
        def ping(self) -> str:
            return "pong"

    @rlray.remote(max_calls=1)
    def maker() -> rlray.ActorHandle:
        return Counter.remote()

    actor = rlray.get(maker.remote(), timeout=20)
    time.sleep(0.3)
    assert rlray.get(actor.ping.remote(), timeout=20) == "pong"


def test_generators() -> None:
    @rlray.remote(max_calls=1)
    def three() -> Iterator[int]:
        for _ in range(3):
            yield os.getpid()

    pids = [[rlray.get(ref, timeout=20) for ref in three.remote()] for _ in range(3)]
    assert [len(set(some)) for some in pids] == [1, 1, 1]
    assert len({some[0] for some in pids}) == 3


def test_calls_that_raise_count_too() -> None:
    @rlray.remote(max_calls=1)
    def fail() -> None:
        raise ValueError(str(os.getpid()))

    seen = set()
    for _ in range(3):
        with pytest.raises(ValueError, match=r"\d") as caught:
            rlray.get(fail.remote(), timeout=20)
        seen.add(str(caught.value.cause))
    assert len(seen) == 3


def test_wrong_values() -> None:
    with pytest.raises(ValueError, match="max_calls"):
        rlray.remote(max_calls=-1)(os.getpid)
    with pytest.raises(ValueError, match="max_calls"):
        rlray.remote(max_calls=1)(Counter)


def test_a_process_that_ends_is_not_given_to_an_actor() -> None:
    """Somebody who waits for its CPU has the caller give it back at once: to end, not to become an actor."""

    @rlray.remote(num_cpus=4, max_calls=1)
    def once() -> int:
        return 1

    @rlray.remote(num_cpus=4)
    class Waiting:
        def get(self) -> int:
            return 2

    for _ in range(5):
        first = once.remote()
        actor = Waiting.remote()
        assert rlray.get([first, actor.get.remote()], timeout=20) == [1, 2]
        del actor
        assert wait_until(lambda: rlray.available_resources()["CPU"] == 4)
