"""What a program does over and over takes no memory that stays: not in the driver, not in workers, not in the node.

Each kind of work is done some hundred times after a warm-up; then the tables of driver and worker must be as long as
before, and no process may have grown by more than a little for each. `benchmarks/soak.py` does the same by the million.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rlray
from rlray.util.placement_group import placement_group, remove_placement_group
from rlray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from tests.reliability.tables import grown, here
from tests.support import children, needs_proc

pytestmark = needs_proc

NOISE = 3_000_000  # bytes that a process may grow by, whatever is done
EACH = 250  # bytes more for each repetition, which is less than the smallest record of a call
OBJECTS = 500  # Python's own count of what is alive may grow by so much, whatever is done


@pytest.fixture(scope="module", autouse=True)
def _one_worker() -> Iterator[None]:
    """A runtime with one CPU, so that tasks share one worker and its tables can be looked at."""
    rlray.init(num_cpus=1, resources={"special": 10})
    yield
    rlray.shutdown()


@rlray.remote
def one(_: Any = None) -> int:
    return 1


@rlray.remote
def array(_: Any = None) -> np.ndarray[Any, Any]:
    return np.zeros(200_000, np.uint8)


class Clumsy(Exception):
    def __init__(self, left: int, right: int) -> None:
        super().__init__(f"{left} and {right}")
        self.lock = threading.Lock()


@rlray.remote
def fail(kind: int) -> Any:
    match kind % 4:
        case 0:
            raise ValueError(kind)
        case 1:
            raise Clumsy(kind, kind)
        case 2:
            return threading.Lock()
    return Clumsy(kind, kind)  # which cannot be unpickled


@rlray.remote
def count(to: int) -> Iterator[int]:
    yield from range(to)


@rlray.remote
class Actor:
    def call(self, _: Any = None) -> int:
        return 1

    def groups(self, number: int) -> None:
        for _ in range(number):
            remove_placement_group(placement_group([{"CPU": 0.1}]))


@rlray.remote
def tables() -> tuple[dict[str, int], int]:
    return here(), sys.getallocatedblocks()


def error(ref: rlray.ObjectRef) -> Exception | None:
    try:
        rlray.get(ref, timeout=60)
    except Exception as why:
        return why
    return None


def new_function(i: int) -> None:
    box = rlray.put([i])
    assert rlray.get(rlray.remote(lambda: i + rlray.get(box)[0]).remote(), timeout=60) == 2 * i


def small_tasks(i: int) -> None:
    assert rlray.get([one.remote(), one.remote([i]), one.remote(one.remote())], timeout=60) == [1, 1, 1]


def errors(i: int) -> None:
    assert error(fail.remote(i)) is not None
    assert isinstance(error(one.remote(fail.remote(i))), Exception)


def mapped(i: int) -> None:
    assert sum(one.map(range(20)).results()) == 20
    assert len(list(fail.map(range(4)).results(return_exceptions=True))) == 4
    assert sum(rlray.get(list(one.map([[1], [2]]).as_completed()), timeout=60)) == 2


def large_values(i: int) -> None:
    ref = rlray.put(np.zeros(200_000, np.uint8))
    assert rlray.get(one.remote(ref), timeout=60) == 1
    assert rlray.get(one.remote(array.remote()), timeout=60) == 1
    assert rlray.get(one.remote(np.zeros(200_000, np.uint8)), timeout=60) == 1
    assert len(rlray.get([ref, array.remote()], timeout=60)) == 2


def generators(i: int) -> None:
    assert rlray.get(list(count.remote(3)), timeout=60) == [0, 1, 2]
    assert rlray.get(next(count.remote(100)), timeout=60) == 0


def cancelled(i: int) -> None:
    refs = [one.remote() for _ in range(4)]
    rlray.cancel(refs[-1])
    for ref in refs:
        error(ref)


def options(i: int) -> None:
    """Each a class of its own for the scheduler."""
    assert rlray.get(one.options(resources={"special": (i % 5_000 + 1) / 1_000}).remote(), timeout=60) == 1


def groups(i: int) -> None:
    group = placement_group([{"CPU": 0.5}], name=f"group {i % 3}")
    assert rlray.get(group.ready(), timeout=60) is not None
    remove_placement_group(group)


def groups_with_tasks(i: int) -> None:
    group = placement_group([{"CPU": 1}])
    strategy = PlacementGroupSchedulingStrategy(group)
    assert rlray.get(one.options(scheduling_strategy=strategy).remote(), timeout=60) == 1
    remove_placement_group(group)


def actors(i: int) -> None:
    actor = Actor.options(name=f"actor {i % 3}" if i % 2 else None).remote()
    assert rlray.get([actor.call.remote(), actor.call.remote([1])], timeout=60) == [1, 1]
    if i % 3 == 0:
        rlray.kill(actor)


def detached_actors(i: int) -> None:
    needed = rlray.put([i])
    actor = Actor.options(name=f"detached {i}", lifetime="detached").remote()
    assert rlray.get(actor.call.remote([needed]), timeout=60) == 1
    del actor
    rlray.kill(rlray.get_actor(f"detached {i}"))


def deaths(i: int) -> None:
    dying = rlray.remote(max_retries=0)(lambda: os._exit(1))
    assert isinstance(error(dying.remote()), rlray.exceptions.WorkerCrashedError)


def threads(i: int) -> None:
    thread = threading.Thread(target=lambda: rlray.get(one.remote(), timeout=60))
    thread.start()
    thread.join()


def futures(i: int) -> None:
    assert one.remote().future().result(60) == 1
    assert rlray.wait([one.remote(), one.remote()], num_returns=2, timeout=60)[1] == []
    with contextlib.suppress(rlray.exceptions.GetTimeoutError):
        rlray.get(array.remote(), timeout=0)


QUICK = 300
SLOW = 24
WORK: dict[Callable[[int], None], int] = {
    **dict.fromkeys((new_function, small_tasks, errors, mapped, large_values, generators, cancelled, options), QUICK),
    **dict.fromkeys((groups, threads, futures), QUICK),
    **dict.fromkeys((groups_with_tasks, actors, detached_actors, deaths), SLOW),
}


@pytest.mark.parametrize("work", WORK, ids=lambda work: work.__name__)
def test_nothing_grows(work: Callable[[int], None]) -> None:
    times = WORK[work]
    for i in range(times // 4):
        work(i)
    before = look()
    for i in range(times // 4, times // 4 + times):
        work(i)
    after = look()
    for who in ("driver", "worker"):
        longer = grown(before[who], after[who], by=max(10, times // 4))
        assert not longer, f"tables of the {who} have grown: {longer}"
        more = after["objects"][who] - before["objects"][who]
        assert more < OBJECTS + times // 2, f"the {who} has {more} objects more after {times} times"
    most = NOISE + times * EACH
    for process, memory in after["memory"].items():
        assert memory - before["memory"].get(process, memory) < most, f"{process} has grown"


def look() -> dict[str, dict[str, int]]:
    """Tables and objects of the driver and of a worker, and the memory of those processes that live on."""
    time.sleep(0.1)  # leases are given back, answers have left
    worker, objects = rlray.get(tables.remote(), timeout=60)
    driver = here()
    del driver["Recorder.notes"], worker["Recorder.notes"]  # written to a file when it is long
    counts = {"driver": sys.getallocatedblocks(), "worker": objects}
    return {"driver": driver, "worker": worker, "objects": counts, "memory": memory()}


def memory() -> dict[str, int]:
    """Bytes of each process's own memory."""
    gc.collect()
    [zygote] = [child for child in children(os.getpid()) if "rlray.core.local.zygote" in child.command]
    forked = sorted(children(zygote.pid), key=lambda process: (process.start, process.pid))
    named = {"driver": os.getpid(), "zygote": zygote.pid, "node": forked[0].pid}
    named |= {f"worker {process.pid}": process.pid for process in forked[1:]}
    return {name: own for name, pid in named.items() if (own := _anonymous(pid))}


def _anonymous(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it has just ended
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


def test_groups_of_an_actor_that_lives_on() -> None:
    """The node remembers the last thousand; more is not kept for their maker."""
    actor = Actor.remote()
    rlray.get(actor.groups.remote(1_500), timeout=60)
    before = memory()["node"]
    rlray.get(actor.groups.remote(20_000), timeout=60)
    assert memory()["node"] - before < 800_000


def test_a_name_is_free_once_the_last_handle_is_dropped() -> None:
    for _ in range(20):
        actor = Actor.options(name="again").remote()
        assert rlray.get(actor.call.remote(), timeout=60) == 1
        del actor
