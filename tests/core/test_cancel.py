"""`cancel`: queued and running tasks, by force, with their children."""

from __future__ import annotations

import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rlray
from rlray.core.local.tasks import Task
from rlray.exceptions import RayError, TaskCancelledError, WorkerCrashedError
from tests.support import wait_until

pytestmark = pytest.mark.usefixtures("cluster")


@rlray.remote
def busy(marker: Path, seconds: float = 60.0) -> str:
    """Sleep in small steps, as code that can be interrupted does."""
    marker.write_text(str(os.getpid()))
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.01)
    return "slept"


@rlray.remote
def quick(value: Any = None) -> Any:
    return value


def started(marker: Path) -> int:
    """Wait for the task that writes ``marker``; its worker's pid."""
    assert wait_until(lambda: marker.exists() and marker.read_text(), 20)
    return int(marker.read_text())


def test_a_running_task(tmp_path: Path) -> None:
    ref = busy.remote(tmp_path / "m")
    started(tmp_path / "m")
    rlray.cancel(ref)
    with pytest.raises(TaskCancelledError):
        rlray.get(ref, timeout=10)


def test_a_task_blocked_in_one_long_sleep(tmp_path: Path) -> None:
    marker = tmp_path / "m"

    @rlray.remote
    def sleeper() -> None:
        marker.write_text(str(os.getpid()))
        time.sleep(60)

    ref = sleeper.remote()
    started(marker)
    rlray.cancel(ref)
    with pytest.raises(TaskCancelledError):
        rlray.get(ref, timeout=10)


def test_queued_tasks_never_run(tmp_path: Path) -> None:
    hogs = [busy.remote(tmp_path / f"hog{i}") for i in range(4)]
    for i in range(4):
        started(tmp_path / f"hog{i}")
    queued = [busy.remote(tmp_path / f"queued{i}") for i in range(3)]
    for ref in queued:
        rlray.cancel(ref)
    for ref in queued:
        with pytest.raises(TaskCancelledError):
            rlray.get(ref, timeout=10)
    for ref in hogs:
        rlray.cancel(ref)
    for ref in hogs:
        with pytest.raises(TaskCancelledError):
            rlray.get(ref, timeout=10)
    assert rlray.get(quick.remote(1), timeout=20) == 1
    assert not list(tmp_path.glob("queued*"))


def test_a_task_that_waits_for_its_argument(tmp_path: Path) -> None:
    slow = busy.remote(tmp_path / "slow")
    waiting = quick.remote(slow)
    started(tmp_path / "slow")
    rlray.cancel(waiting)
    with pytest.raises(TaskCancelledError):
        rlray.get(waiting, timeout=10)
    rlray.cancel(slow)
    with pytest.raises(TaskCancelledError):
        rlray.get(slow, timeout=10)


def test_a_task_that_depends_on_a_cancelled_one_fails_too(tmp_path: Path) -> None:
    slow = busy.remote(tmp_path / "slow")
    dependent = quick.remote(slow)
    started(tmp_path / "slow")
    rlray.cancel(slow)
    with pytest.raises(RayError, match=r"(?i)cancel"):
        rlray.get(dependent, timeout=10)


def test_by_force_where_asking_does_not_help(tmp_path: Path) -> None:
    marker = tmp_path / "m"

    @rlray.remote
    def stubborn() -> None:
        marker.write_text(str(os.getpid()))
        while True:
            try:
                while True:
                    time.sleep(0.01)
            except KeyboardInterrupt:
                continue

    ref = stubborn.remote()
    pid = started(marker)
    rlray.cancel(ref, force=True)
    with pytest.raises((TaskCancelledError, WorkerCrashedError)):
        rlray.get(ref, timeout=10)
    assert wait_until(lambda: not os.path.exists(f"/proc/{pid}") or "Z" in Path(f"/proc/{pid}/stat").read_text(), 5)
    marker.unlink()
    time.sleep(0.3)
    assert not marker.exists(), "a cancelled task was retried"


def test_children_are_cancelled_with_their_parent(tmp_path: Path) -> None:
    @rlray.remote
    def parent(folder: Path) -> None:
        rlray.get([busy.remote(folder / f"child{i}") for i in range(2)])

    ref = parent.remote(tmp_path)
    for i in range(2):
        started(tmp_path / f"child{i}")
    rlray.cancel(ref)
    with pytest.raises(TaskCancelledError):
        rlray.get(ref, timeout=10)
    assert wait_until(lambda: rlray.available_resources().get("CPU") == 4.0, 10), "children still hold their CPUs"


def test_children_are_spared_if_asked(tmp_path: Path) -> None:
    done = tmp_path / "done"

    @rlray.remote
    def child() -> None:
        (tmp_path / "child").write_text(str(os.getpid()))
        time.sleep(0.8)
        done.touch()

    @rlray.remote
    def parent() -> None:
        rlray.get(child.remote())

    ref = parent.remote()
    started(tmp_path / "child")
    rlray.cancel(ref, recursive=False)
    with pytest.raises(TaskCancelledError):
        rlray.get(ref, timeout=10)
    assert wait_until(done.exists, 10)


def test_a_finished_task_is_left_alone() -> None:
    ref = quick.remote(3)
    assert rlray.get(ref) == 3
    rlray.cancel(ref)
    assert rlray.get(ref) == 3
    rlray.cancel(ref, force=True)
    assert rlray.get([ref, quick.remote(4)]) == [3, 4]


def test_workers_survive_a_storm_of_cancels() -> None:
    """Cancels race with starting, running and ending tasks: each is either done or cancelled, none is lost."""
    for _ in range(6):
        refs = [rlray.remote(lambda i: time.sleep(0.002 * (i % 3)) or i).remote(i) for i in range(20)]
        for ref in refs[::2]:
            rlray.cancel(ref)
        for i, ref in enumerate(refs):
            try:
                assert rlray.get(ref, timeout=30) == i
            except TaskCancelledError:
                assert i % 2 == 0, "a task that nobody cancelled"
    assert rlray.get([quick.remote(i) for i in range(50)], timeout=30) == list(range(50))


def test_queued_actor_calls() -> None:
    @rlray.remote
    class Slow:
        def work(self, seconds: float, value: int) -> int:
            time.sleep(seconds)
            return value

    actor = Slow.remote()
    running, queued, last = actor.work.remote(0.6, 1), actor.work.remote(0, 2), actor.work.remote(0, 3)
    rlray.cancel(queued)
    assert rlray.get(running, timeout=20) == 1
    with pytest.raises(TaskCancelledError):
        rlray.get(queued, timeout=10)
    assert rlray.get(last, timeout=10) == 3


# -- many ------------------------------------------------------------------------------------------------------------


@rlray.remote
class Door:
    """Is made once its argument is there; what is called before waits in the caller."""

    def __init__(self, opened: Any) -> None:
        pass

    def same(self, value: Any) -> Any:
        return value


def steps_per_cancel(refs: list[rlray.ObjectRef], monkeypatch: pytest.MonkeyPatch) -> float:
    """Cancel all, in a random order: how many functions are called, generators resumed and tasks compared for each."""
    counts: Counter[str] = Counter()

    def equal(one: Task, other: object) -> bool:
        counts["compared"] += 1
        return one is other

    def step(frame: Any, event: str, argument: Any) -> None:
        counts[event] += 1

    random.Random(1).shuffle(refs)
    with monkeypatch.context() as patch:
        patch.setattr(Task, "__eq__", equal)
        patch.setattr(Task, "__hash__", object.__hash__)
        sys.setprofile(step)
        try:
            for ref in refs:
                rlray.cancel(ref)
        finally:
            sys.setprofile(None)
    for ref in random.Random(2).sample(refs, 100):
        with pytest.raises(TaskCancelledError):
            rlray.get(ref, timeout=10)
    return sum(counts.values()) / len(refs)


@pytest.mark.parametrize("kind", ["tasks", "calls of an actor"])
def test_what_a_cancel_costs_does_not_grow_with_the_queue(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hog = busy.options(num_cpus=4).remote(tmp_path / "hog")
    started(tmp_path / "hog")
    door = Door.remote(hog)
    function = quick.options(num_cpus=2) if kind == "tasks" else door.same  # of a class of their own: none is sent
    few, many = (steps_per_cancel([function.remote(i) for i in range(count)], monkeypatch) for count in (250, 4_000))
    assert many < 1.5 * few
    rlray.cancel(hog)


def test_queued_calls_of_an_actor_are_cancelled_by_the_thousand(tmp_path: Path) -> None:
    """They wait in its process, which looks through its queue once for all that it has been asked in the meantime."""

    @rlray.remote
    class Slow:
        def wait(self, marker: Path) -> None:
            while not marker.exists():
                time.sleep(0.01)

        def same(self, value: int) -> int:
            return value

    actor = Slow.remote()
    running = actor.wait.remote(tmp_path / "go")
    refs = [actor.same.remote(i) for i in range(3_000)]
    kept = set(random.Random(3).sample(range(3_000), 50))
    for i, ref in enumerate(refs):
        if i not in kept:
            rlray.cancel(ref)
    for i, ref in enumerate(refs):
        if i not in kept:
            with pytest.raises(TaskCancelledError):
                rlray.get(ref, timeout=20)
    (tmp_path / "go").touch()
    assert rlray.get([refs[i] for i in sorted(kept)], timeout=20) == sorted(kept)
    rlray.get(running, timeout=20)


def test_refuses_what_it_cannot_do() -> None:
    @rlray.remote
    class Slow:
        def call(self) -> str:
            time.sleep(0.5)
            return "done"

    actor = Slow.remote()
    ref = actor.call.remote()
    with pytest.raises(ValueError, match="force"):
        rlray.cancel(ref, force=True)
    assert rlray.get(ref, timeout=20) == "done"
    with pytest.raises(TypeError, match="int"):
        rlray.cancel(5)


def _puts() -> None:
    while True:
        rlray.put([1])


def _asks() -> None:
    while True:
        rlray.available_resources()


def _submits() -> None:
    task = rlray.remote(lambda: 1)
    while True:
        rlray.get(task.remote())


def _yields() -> Iterator[int]:
    while True:
        yield 1


def _maps() -> None:
    while True:
        list(rlray.remote(abs).map(range(10)))


@pytest.mark.parametrize("busy", [_puts, _asks, _submits, _yields, _maps], ids=lambda function: function.__name__)
def test_a_task_that_keeps_the_runtime_busy(busy: Callable[[], Any]) -> None:
    """It is interrupted all the same, in its own code and never inside the runtime's."""
    for _ in range(3):
        running = rlray.remote(max_retries=0)(busy).remote()
        ref = running.completed() if isinstance(running, rlray.ObjectRefGenerator) else running
        rlray.wait([ref], timeout=0.2)
        rlray.cancel(running)
        with pytest.raises(TaskCancelledError):
            rlray.get(ref, timeout=20)


def test_cancelling_others_does_not_spare_the_running_one(tmp_path: Path) -> None:
    """Tasks that wait at the same worker are cancelled with the one that runs there."""

    @rlray.remote(num_cpus=4)
    def nap(seconds: float, marker: Path) -> None:
        if seconds:
            marker.touch()
            time.sleep(seconds)

    rlray.get([nap.remote(0, tmp_path) for _ in range(50)], timeout=20)  # short so far: many are sent at a time
    refs = [nap.remote(60, tmp_path / "marker") for _ in range(6)]
    assert wait_until((tmp_path / "marker").exists, 20)
    for ref in refs:
        rlray.cancel(ref)
    for ref in refs:
        with pytest.raises(TaskCancelledError):
            rlray.get(ref, timeout=20)
