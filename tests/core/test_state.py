"""What `rlray.util.state` tells: tasks, actors, objects, workers and groups, while they are in every state."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rlray
from rlray.exceptions import RayActorError, WorkerCrashedError
from rlray.util import state
from tests.support import wait_until

pytestmark = [
    pytest.mark.every_engine,
    pytest.mark.usefixtures("cluster"),
    pytest.mark.differs("ray", "it is looked into with Ray's own tools"),
]


@rlray.remote
def wait_for(file: Path, *more: Any) -> str:
    """Runs until there is such a file."""
    deadline = time.monotonic() + 60
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    return file.name


@rlray.remote
def get_inside(refs: list[rlray.ObjectRef[Any]]) -> Any:
    return rlray.get(refs[0])


@rlray.remote
def wait_inside(refs: list[rlray.ObjectRef[Any]]) -> Any:
    return len(rlray.wait(refs, num_returns=2)[0])


@rlray.remote
def naps(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@rlray.remote
def fails() -> None:
    raise ValueError("not today")


@rlray.remote
class Keeper:
    """Keeps what it is given."""

    def __init__(self, delay: float = 0.0) -> None:
        time.sleep(delay)
        self.kept: Any = None

    def keep(self, refs: Any) -> int:
        self.kept = refs
        return os.getpid()

    def read(self, refs: list[rlray.ObjectRef[Any]]) -> int:
        self.kept = rlray.get(refs[0])
        return os.getpid()

    def drop(self) -> None:
        self.kept = None

    def wait_for(self, file: Path) -> None:
        while not file.exists():
            time.sleep(0.005)

    def die(self) -> None:
        os._exit(7)


def task_of(ref: rlray.ObjectRef[Any]) -> str:
    """The id of the call that makes a value begins the value's."""
    return ref.hex()[:20]


def find(name: str, **fields: Any) -> state.TaskState | None:
    """The one call of that name with these fields, or None."""
    rows = [
        row for row in state.list_tasks(filters=[("name", "=", name)]) if all(row[k] == v for k, v in fields.items())
    ]
    assert len(rows) < 2, rows
    return rows[0] if rows else None


def seen(look: Callable[[], Any]) -> Any:
    """What ``look`` finds, once it finds something."""
    found = wait_until(look)
    assert found, look()
    return found


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """What calls wait for; it is there at the end of the test."""
    file = tmp_path / "gate"
    yield file
    file.touch()


@pytest.mark.processes
class TestTasks:
    def test_a_running_one(self, gate: Path) -> None:
        ref = wait_for.options(name="runs", num_cpus=2).remote(gate)
        row = seen(lambda: find("runs", state="RUNNING"))
        assert row.type == "NORMAL_TASK"
        assert row.task_id == task_of(ref)
        assert row.required_resources == {"CPU": 2}
        assert row.func_or_class_name == "runs"
        assert row.seconds is not None
        assert 0 <= row.seconds < 60
        assert abs(row.start_time_ms / 1000 - time.time()) < 60
        assert row.end_time_ms is None
        worker = state.get_worker(row.worker_id)
        assert worker is not None
        assert worker.pid == row.worker_pid
        assert [name for name, _ in worker.running] == ["runs"]
        assert worker.resources == {"CPU": 2}
        gate.touch()
        rlray.get(ref)
        after = state.get_task(row.task_id)
        assert after is not None
        assert (after.state, after.worker_pid, after.type) == ("FINISHED", row.worker_pid, "NORMAL_TASK")

    def test_those_that_wait_for_resources_and_for_arguments(self, gate: Path) -> None:
        running = [wait_for.options(name="first").remote(gate) for _ in range(4)]
        queued = wait_for.options(name="queued").remote(gate)
        late = naps.options(name="late").remote(queued)
        assert seen(lambda: find("queued", state="PENDING_NODE_ASSIGNMENT")).worker_pid is None
        row = seen(lambda: find("late", state="PENDING_ARGS_AVAIL"))
        assert row.waits_for == (queued.hex(),)
        seen(lambda: len(state.list_tasks(filters=[("state", "=", "RUNNING")])) == 4)
        counts = state.summarize_tasks()["summary"]
        assert counts["first"]["state_counts"] == {"RUNNING": 4}
        assert counts["queued"]["state_counts"] == {"PENDING_NODE_ASSIGNMENT": 1}
        rlray.cancel(late)
        gate.touch()
        rlray.get([*running, queued])

    def test_those_that_wait_in_get_and_in_wait(self, gate: Path) -> None:
        inner = wait_for.remote(gate)
        refs = [get_inside.remote([inner]), wait_inside.remote([inner, rlray.put(1)])]
        seen(lambda: find("get_inside", state="RUNNING_IN_RAY_GET"))
        seen(lambda: find("wait_inside", state="RUNNING_IN_RAY_WAIT"))
        blocked = [worker for worker in state.list_workers() if worker.blocked]
        seen(lambda: len([worker for worker in state.list_workers() if worker.blocked]) == 2)
        assert all(worker.running for worker in blocked)
        gate.touch()
        assert rlray.get(refs) == ["gate", 2]

    def test_nested_ones_name_their_parent(self, gate: Path) -> None:
        @rlray.remote
        def parent(file: Path) -> Any:
            return rlray.get(wait_for.options(name="child").remote(file))

        ref = parent.remote(gate)
        assert seen(lambda: find("child", state="RUNNING")).parent_task_id == task_of(ref)
        gate.touch()
        rlray.get(ref)

    def test_calls_of_an_actor(self, gate: Path) -> None:
        keeper = Keeper.remote()
        first, second = keeper.wait_for.remote(gate), keeper.drop.remote()
        row = seen(lambda: find("Keeper.wait_for", state="RUNNING"))
        assert row.type == "ACTOR_TASK"
        actor = state.get_actor(row.actor_id)
        assert actor is not None
        assert actor.pid == row.worker_pid
        assert seen(lambda: find("Keeper.drop", state="SUBMITTED_TO_WORKER")).actor_id == row.actor_id
        gate.touch()
        rlray.get([first, second])
        ended = state.get_task(row.task_id)
        assert ended is not None
        assert (ended.state, ended.type, ended.actor_id) == ("FINISHED", "ACTOR_TASK", row.actor_id)

    def test_a_constructor(self) -> None:
        keeper = Keeper.remote(0.5)
        row = seen(lambda: find("Keeper.__init__", state="RUNNING", type="ACTOR_CREATION_TASK"))
        rlray.get(keeper.drop.remote())
        ended = state.get_task(row.task_id)
        assert ended is not None
        assert (ended.state, ended.type, ended.actor_id) == ("FINISHED", "ACTOR_CREATION_TASK", row.actor_id)

    def test_running_ones_are_told_whatever_waits_beside_them(self, gate: Path) -> None:
        refs = [wait_for.options(name="many").remote(gate) for _ in range(300)]
        seen(lambda: len(state.list_tasks(filters=[("name", "=", "many"), ("state", "=", "running")])) == 4)
        first = state.list_tasks(limit=10)
        assert [row.state for row in first] == ["RUNNING"] * 4 + ["PENDING_NODE_ASSIGNMENT"] * 6
        assert len(state.list_tasks(filters=[("name", "=", "many")], limit=1000)) == 300
        last = task_of(refs[-1])
        assert [row.task_id for row in state.list_tasks(filters=[("task_id", "=", last)])] == [last]
        others = state.list_tasks(filters=[("task_id", "!=", last), ("name", "=", "many")], limit=1000)
        assert len(others) == 299
        rlray.cancel(refs[-1])
        gate.touch()
        rlray.get(refs[:-1])


class TestEndedTasks:
    def test_finished_and_failed_ones(self) -> None:
        rlray.get(naps.options(name="slept").remote(0.02))
        with pytest.raises(ValueError, match="not today"):
            rlray.get(fails.options(name="failed").remote())
        row = seen(lambda: find("slept", state="FINISHED"))
        assert row.seconds is not None
        assert row.seconds >= 0.02
        assert row.end_time_ms - row.start_time_ms >= 19
        counts = state.summarize_tasks()["summary"]
        assert counts["slept"]["state_counts"] == {"FINISHED": 1}
        assert counts["failed"]["state_counts"] == {"FAILED": 1}

    def test_short_ones_are_counted_though_not_listed(self) -> None:
        quick = rlray.remote(lambda: 1).options(name="quick")
        rlray.get([quick.remote() for _ in range(50)])
        counts = state.summarize_tasks()
        assert counts["summary"]["quick"]["state_counts"] == {"FINISHED": 50}
        assert counts["total_tasks"] >= 50

    def test_rows_are_like_dictionaries(self) -> None:
        rlray.get(naps.options(name="rows").remote(0.005))
        row = seen(lambda: find("rows"))
        assert row["name"] == row.get("name") == row.asdict()["name"] == "rows"
        assert row.get("nothing", 3) == 3
        with pytest.raises(KeyError):
            row["nothing"]


class TestFilters:
    def test_limits_and_what_is_wrong_with_them(self) -> None:
        rlray.get([naps.options(name="limited").remote(0.003) for _ in range(5)])
        assert len(state.list_tasks(filters=[("name", "=", "LIMITED")], limit=3)) == 3
        for limit in (0, -1):
            with pytest.raises(ValueError, match=f"limit must be at least 1, got {limit}"):
                state.list_tasks(limit=limit)

    def test_unknown_fields_and_comparisons(self) -> None:
        rlray.get(naps.remote(0.003))
        with pytest.raises(ValueError, match="there is no field 'colour'; there are task_id, name"):
            state.list_tasks(filters=[("colour", "=", "blue")])
        with pytest.raises(ValueError, match="compares with '=' or '!=', got '<'"):
            state.list_tasks(filters=[("name", "<", "x")])

    def test_nothing_is_found(self) -> None:
        assert state.get_task("00") is None
        assert state.get_actor("00") is None
        assert state.get_worker("zz") is None
        assert state.get_placement_group("00") is None
        assert state.get_objects("00") == []


class TestActors:
    def test_a_living_one_and_how_it_died(self) -> None:
        keeper = Keeper.options(name="state-alive", num_cpus=1).remote()
        rlray.get(keeper.drop.remote())
        row = next(row for row in state.list_actors() if row.name == "state-alive")
        assert (row.state, row.class_name, row.num_restarts, row.is_detached) == ("ALIVE", "Keeper", 0, False)
        assert row.required_resources == {"CPU": 1}
        assert row.death_cause is None
        assert row.ray_namespace == rlray.get_runtime_context().namespace
        rlray.kill(keeper)
        dead = seen(lambda: state.list_actors(filters=[("actor_id", "=", row.actor_id), ("state", "=", "DEAD")]))[0]
        assert "killed by kill()" in dead.death_cause
        assert dead.pid is None
        summary = state.summarize_actors()["summary"]["Keeper"]["state_counts"]
        assert summary["DEAD"] >= 1

    def test_one_whose_constructor_raises_tells_the_users_error(self) -> None:
        class Unlucky:
            def __init__(self) -> None:
                class Custom(Exception):
                    """Known nowhere else."""

                raise Custom("out of luck")

            def call(self) -> None:
                """Never happens."""

        actor = rlray.remote(Unlucky).remote()
        with pytest.raises(RayActorError):
            rlray.get(actor.call.remote())
        row = seen(lambda: [row for row in state.list_actors() if row.class_name == "Unlucky" and row.state == "DEAD"])[
            0
        ]
        assert "out of luck" in row.death_cause
        assert "Custom" in row.death_cause

    def test_a_detached_one(self) -> None:
        keeper = Keeper.options(name="state-detached", lifetime="detached").remote()
        rlray.get(keeper.drop.remote())
        assert next(row for row in state.list_actors() if row.name == "state-detached").is_detached
        rlray.kill(keeper)

    @pytest.mark.processes
    def test_restarts_and_the_pid(self) -> None:
        keeper = Keeper.options(name="state-restarts", max_restarts=1).remote()
        pid = rlray.get(keeper.keep.remote(None))
        with pytest.raises(RayActorError):
            rlray.get(keeper.die.remote())

        def again() -> Any:
            return [row for row in state.list_actors() if row.name == "state-restarts" and row.num_restarts == 1]

        row = seen(lambda: [row for row in again() if row.state == "ALIVE" and row.pid])[0]
        assert row.pid not in (None, pid)
        with pytest.raises(RayActorError):
            rlray.get(keeper.die.remote())
        assert "exited with code 7" in seen(lambda: [row for row in again() if row.state == "DEAD"])[0].death_cause

    @pytest.mark.processes
    def test_those_that_wait(self, gate: Path) -> None:
        def standing(name: str) -> str:
            return next((row.state for row in state.list_actors() if row.name == name), "")

        late = wait_for.remote(gate)
        first = Keeper.options(name="needs-arguments").remote(late)
        second = Keeper.options(name="needs-place", resources={"special": 2}).remote()
        rlray.get(second.drop.remote())
        third = Keeper.options(name="has-none", resources={"special": 1}).remote()
        seen(lambda: standing("needs-arguments") == "DEPENDENCIES_UNREADY")
        seen(lambda: standing("has-none") == "PENDING_CREATION")
        rlray.kill(first)
        rlray.kill(second)
        rlray.get(third.drop.remote())


@pytest.mark.processes
class TestWorkers:
    def test_the_driver_and_idle_ones(self) -> None:
        rows = state.list_workers()
        assert [row.pid for row in rows if row.worker_type == "DRIVER"] == [os.getpid()]
        assert all(row.is_alive and row.answers for row in rows if row.exit_detail is None)

    def test_a_dead_one_with_the_reason(self) -> None:
        @rlray.remote(max_retries=0)
        def killed() -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        with pytest.raises(WorkerCrashedError):
            rlray.get(killed.remote())
        dead = [row for row in state.list_workers(limit=1000) if not row.is_alive]
        assert dead[-1].exit_detail == f"worker process {dead[-1].pid} was killed by SIGKILL"
        assert dead[-1].state == "dead"

    def test_a_stopped_one_does_not_answer(self, gate: Path) -> None:
        keeper = Keeper.options(name="stopped").remote()
        pid = rlray.get(keeper.keep.remote(None))
        os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            silent = [row.pid for row in state.list_workers() if not row.answers]
            assert time.monotonic() - began < 30
            assert silent == [pid]
        finally:
            os.kill(pid, signal.SIGCONT)
        assert rlray.get(keeper.keep.remote(None)) == pid
        assert all(row.answers for row in state.list_workers())


class TestObjects:
    def test_a_value_and_its_call_site(self) -> None:
        ref = rlray.put(np.zeros(300_000))
        [row] = state.get_objects(ref.hex())
        assert row.object_size >= 2_400_000
        assert row.type == "DRIVER"
        assert row.pid == os.getpid()
        assert len(row.holders) == 1
        assert "driver" in row.holders[0].how
        assert row.object_id in [one.object_id for one in state.list_objects(limit=5)]

    def test_the_sum_of_what_made_them(self) -> None:
        many = rlray.remote(lambda: np.zeros(50_000)).options(name="made-many")
        refs = [many.remote() for _ in range(4)]
        rlray.wait(refs, num_returns=4)
        summary = state.summarize_objects()
        assert summary["total_size_mb"] >= 1.6
        assert summary["total_objects"] >= 4
        del refs

    def test_the_largest_come_first(self) -> None:
        refs = [rlray.put(np.zeros(size)) for size in (200_000, 400_000, 300_000)]
        sizes = [row.object_size for row in state.list_objects(limit=3)]
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[0] >= 3_200_000
        ids = {ref.hex() for ref in refs}
        assert {row.object_id for row in state.list_objects(filters=[("object_size", "!=", 0)], limit=3)} == ids


@pytest.mark.processes
class TestHolders:
    """Who keeps a value alive, in words."""

    def held(self, ref: rlray.ObjectRef[Any]) -> list[str]:
        [row] = state.get_objects(ref.hex())
        return [holder.how for holder in row.holders]

    def test_where_it_was_put(self) -> None:
        ref = rlray.put(np.zeros(300_000))
        line = state.get_objects(ref.hex())[0].call_site
        assert line.startswith(f"put at {__file__}:")
        made = rlray.remote(lambda: np.zeros(300_000)).options(name="maker").remote()
        rlray.wait([made])
        row = state.get_objects(made.hex())[0]
        assert (row.call_site, row.where) == ("maker", "memory")

    def test_a_borrower_and_a_reader(self) -> None:
        ref = rlray.put(np.zeros(300_000))
        keeper = Keeper.options(name="holds").remote()
        pid = rlray.get(keeper.keep.remote([ref]))
        [row] = seen(lambda: [row for row in state.get_objects(ref.hex()) if len(row.holders) == 2])
        assert [(one.pid, one.how) for one in row.holders] == [
            (os.getpid(), "driver has a reference"),
            (pid, "actor Keeper 'holds' has a reference"),
        ]
        assert row.reference_type == "LOCAL_REFERENCE"
        rlray.get(keeper.read.remote([ref]))
        assert seen(lambda: "actor Keeper 'holds' reads it" in self.held(ref))
        assert state.get_objects(ref.hex())[0].reference_type == "PINNED_IN_MEMORY"
        rlray.get(keeper.drop.remote())
        seen(lambda: self.held(ref) == ["driver has a reference"])

    def test_the_driver_reads_it(self) -> None:
        ref = rlray.put(np.zeros(300_000))
        view = rlray.get(ref)
        assert self.held(ref) == ["driver reads it"]
        del view
        assert self.held(ref) == ["driver has a reference"]

    def test_a_call_under_way(self, gate: Path) -> None:
        busy = [wait_for.remote(gate) for _ in range(4)]
        call = wait_for.remote(gate, np.zeros(300_000))
        row = seen(lambda: [one for one in state.list_objects() if one.call_site.startswith("argument at")])[0]
        assert row.reference_type == "USED_BY_PENDING_TASK"
        assert any("is the argument of a call under way" in holder.how for holder in row.holders)
        gate.touch()
        rlray.get([*busy, call])

    def test_pending_and_small_ones(self, gate: Path) -> None:
        ref = wait_for.options(name="to-come").remote(gate)
        row = state.get_objects(ref.hex())[0]
        assert (row.where, row.object_size, row.call_site) == ("pending", 0, "to-come")
        gate.touch()
        rlray.get(ref)
        assert state.get_objects(ref.hex())[0].where == "message"
        failed = fails.remote()
        rlray.wait([failed])
        assert state.get_objects(failed.hex())[0].where == "error"


class TestGroups:
    def test_states(self) -> None:
        group = rlray.util.placement_group([{"CPU": 1}, {"special": 1}], name="state-group")
        assert group.wait(10)
        row = state.get_placement_group(group.id.hex())
        assert row is not None
        assert (row.name, row.state, row.strategy) == ("state-group", "CREATED", "PACK")
        assert row.bundles == ({"CPU": 1.0}, {"special": 1.0})
        rlray.util.remove_placement_group(group)

        def gone() -> bool:
            found = state.get_placement_group(group.id.hex())
            return found is None or found.state == "REMOVED"

        assert seen(gone)


@pytest.mark.processes
def test_of_many_pending_calls_few_are_told_and_a_filter_looks_through_all(gate: Path) -> None:
    refs = [wait_for.options(name="heap").remote(gate) for _ in range(4)]
    late = wait_for.options(name="heap").remote(gate, refs[0])
    refs += [wait_for.options(name="heap").remote(gate) for _ in range(5_000)]
    counts = state.summarize_tasks()["summary"]["heap"]["state_counts"]
    assert sum(counts.values()) == 5_005
    assert len(state.list_tasks()) == 100
    found = state.list_tasks(filters=[("state", "=", "PENDING_ARGS_AVAIL")])
    assert [row.task_id for row in found] == [task_of(late)]
    assert state.get_task(task_of(refs[-1])) is not None
    gate.touch()
    rlray.get([*refs, late])


@pytest.mark.processes
def test_what_a_nested_caller_waits_for_is_told_by_that_caller(gate: Path) -> None:
    @rlray.remote
    class Caller:
        def call(self, file: Path) -> Any:
            return rlray.get(wait_for.options(name="of-an-actor").remote(file))

    caller = Caller.remote()
    ref = caller.call.remote(gate)
    row = seen(lambda: find("of-an-actor", state="RUNNING"))
    assert row.parent_task_id == task_of(ref)
    gate.touch()
    rlray.get(ref)


def test_without_a_runtime_it_says_so() -> None:
    """In a process of its own: here one runs."""
    from tests.support import run_driver

    code = (
        "import rlray\nfrom rlray.util import state\n"
        "for look in (state.list_tasks, state.list_objects, state.summarize_tasks, rlray.timeline):\n"
        "    try:\n        look()\n"
        "    except RuntimeError as error:\n        print(error)\n"
    )
    assert run_driver(code).count("call init() first") == 4


def test_metrics_of_the_run_from_inside() -> None:
    from rlray.core.inspecting import metrics_text

    rlray.get([naps.options(name="measured").remote(0.0) for _ in range(7)])
    lines = metrics_text().splitlines()
    assert 'rlray_tasks_finished_total{name="measured"} 7' in lines
    assert 'rlray_resource_capacity{resource="CPU"} 4.0' in lines
