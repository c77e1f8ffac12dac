"""Memory as a resource: booked in bytes, shown beside the object store."""

from __future__ import annotations

import ast
import time
from pathlib import Path
from typing import Any

import pytest

import rlray
from rlray.core.resources import machine_memory
from tests.support import run_driver, wait_until

GB = 1_000_000_000


@pytest.fixture(autouse=True, scope="module")
def _cluster() -> Any:
    rlray.init(num_cpus=4, memory=4 * GB, object_store_memory=64 << 20)
    yield
    rlray.shutdown()


@rlray.remote
def assigned() -> dict[str, float]:
    return dict(rlray.get_runtime_context().get_assigned_resources())


@rlray.remote
class Holder:
    def assigned(self) -> dict[str, float]:
        return dict(rlray.get_runtime_context().get_assigned_resources())


def test_the_cluster_shows_memory_and_the_object_store_in_bytes() -> None:
    total = rlray.cluster_resources()
    assert (total["memory"], total["object_store_memory"]) == (4.0 * GB, float(64 << 20))
    assert set(rlray.available_resources()) == set(total)


def test_by_default_memory_is_what_the_store_leaves() -> None:
    code = "import rlray; rlray.init(num_cpus=1); print(rlray.cluster_resources()); rlray.shutdown()"
    total = ast.literal_eval(run_driver(code))
    assert total["memory"] + total["object_store_memory"] == machine_memory()
    assert 0.69 < total["memory"] / machine_memory() < 0.71


def test_a_value_in_the_store_shows_as_taken() -> None:
    before = rlray.available_resources()["object_store_memory"]
    ref = rlray.put(bytes(1 << 20))
    assert rlray.available_resources()["object_store_memory"] <= before - (1 << 20)
    del ref
    assert wait_until(lambda: rlray.available_resources()["object_store_memory"] == before, 5)


def test_tasks_and_actors_book_memory() -> None:
    assert rlray.get(assigned.options(memory=GB).remote()) == {"CPU": 1.0, "memory": float(GB)}
    actor = Holder.options(memory=3 * GB).remote()
    assert rlray.get(actor.assigned.remote()) == {"memory": 3.0 * GB}
    assert rlray.available_resources()["memory"] == float(GB)
    rlray.kill(actor)
    assert wait_until(lambda: rlray.available_resources()["memory"] == 4.0 * GB, 5)


@pytest.mark.parametrize("memory", [10.9, 123_456_789.7, 0.7 * 17_393_980_621])
def test_parts_of_a_byte_do_not_count(memory: float) -> None:
    asked = rlray.get(assigned.options(num_cpus=0, memory=memory).remote()) if memory < 4 * GB else None
    assert asked in (None, {"memory": float(int(memory))})
    if memory > 4 * GB:
        with pytest.raises(rlray.exceptions.TaskUnschedulableError, match="12175786434"):
            assigned.options(memory=memory).remote()


def test_who_needs_memory_waits_for_it(tmp_path: Path) -> None:
    @rlray.remote(num_cpus=0, memory=3 * GB)
    def alone(name: str) -> list[str]:
        mine = tmp_path / name
        mine.touch()
        time.sleep(0.2)
        seen = sorted(path.name for path in tmp_path.iterdir())
        mine.unlink()
        return seen

    assert rlray.get([alone.remote(name) for name in ("a", "b", "c")], timeout=60) == [["a"], ["b"], ["c"]]


def test_more_than_there_is_raises_at_once_and_says_how_much_there_is() -> None:
    with pytest.raises(rlray.exceptions.TaskUnschedulableError, match=r"memory: 5000000000.*memory: 4000000000"):
        assigned.options(memory=5 * GB).remote()
    with pytest.raises(rlray.exceptions.ActorUnschedulableError, match="memory"):
        Holder.options(memory=5 * GB).remote()


@pytest.mark.parametrize("name", ["memory", "object_store_memory"])
def test_memory_is_no_custom_resource(name: str) -> None:
    with pytest.raises(ValueError, match=r"custom resources only; .*memory"):
        assigned.options(resources={name: 1})
    with pytest.raises(RuntimeError, match="init"):
        rlray.init(resources={name: 1})


@pytest.mark.parametrize(("value", "error"), [(-1, ValueError), ("1 GB", TypeError), (True, TypeError)])
def test_wrong_amounts_are_named(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="'memory'"):
        assigned.options(memory=value)
