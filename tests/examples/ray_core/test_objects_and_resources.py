"""Programs around objects and resources as Ray's walkthrough teaches them, and what is better not done."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import pytest

from tests.examples.ray_core.support import ray, runtime, submodule

__all__ = ["runtime"]


def test_an_object_is_put_once_and_read_by_many() -> None:
    data = ray.put(np.arange(1_000_000))

    @ray.remote
    def part(array: np.ndarray, i: int) -> int:
        return int(array[i::4].sum())

    assert sum(ray.get([part.remote(data, i) for i in range(4)])) == 499_999_500_000


def test_references_in_containers_stay_references() -> None:
    @ray.remote
    def kinds(top: Any, box: dict[str, Any]) -> tuple[bool, bool, int]:
        inside = box["inside"]
        return isinstance(top, ray.ObjectRef), isinstance(inside, ray.ObjectRef), ray.get(inside)

    ref = ray.put(7)
    assert ray.get(kinds.remote(ref, {"inside": ref})) == (False, True, 7)


def test_objects_hold_references_to_objects() -> None:
    outer = ray.put([ray.put(1), {"deep": ray.put(2)}])
    first, box = ray.get(outer)
    assert ray.get([first, box["deep"]]) == [1, 2]


def test_arrays_from_the_store_are_read_only() -> None:
    ref = ray.put(np.zeros(100_000))
    array = ray.get(ref)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    copy = array.copy()
    copy[0] = 1
    assert ray.get(ref)[0] == 0


def test_a_large_object_is_put_instead_of_captured() -> None:
    """A closure takes what it captures along with its code, once per function; a reference costs nothing to capture."""
    table = ray.put(np.ones(2_000_000))

    @ray.remote
    def total() -> float:
        return float(ray.get(table).sum())

    assert ray.get([total.remote() for _ in range(3)]) == [2_000_000.0] * 3


def test_a_large_argument_is_put_once_for_many_calls() -> None:
    @ray.remote
    def length(array: np.ndarray) -> int:
        return len(array)

    array = np.zeros(500_000)
    shared = ray.put(array)
    assert ray.get([length.remote(shared) for _ in range(10)]) == [500_000] * 10
    assert ray.get(length.remote(array)) == 500_000


def test_references_are_returned_by_tasks() -> None:
    """A task that delegates may return the reference without waiting for it."""

    @ray.remote
    def work(x: int) -> int:
        return x + 1

    @ray.remote
    def delegate(x: int) -> list[Any]:
        return [work.remote(x)]

    [inner] = ray.get(delegate.remote(1))
    assert ray.get(inner) == 2


def test_globals_are_not_shared_and_an_actor_is() -> None:
    settings = {"step": 1}

    @ray.remote
    def step() -> int:
        return settings["step"]

    @ray.remote
    class Settings:
        def __init__(self) -> None:
            self.step = 1

        def set(self, step: int) -> None:
            self.step = step

        def get(self) -> int:
            return self.step

    ray.get(step.remote())
    settings["step"] = 2
    assert ray.get(step.remote()) == 1, "the function was sent with the value of that time"
    shared = Settings.remote()
    ray.get(shared.set.remote(2))
    assert ray.get(shared.get.remote()) == 2


def test_small_items_are_batched() -> None:
    """A task has a price; many tiny items go together."""

    @ray.remote
    def squares(items: list[int]) -> list[int]:
        return [i * i for i in items]

    refs = [squares.remote(list(range(start, start + 250))) for start in range(0, 1_000, 250)]
    assert [value for batch in ray.get(refs) for value in batch] == [i * i for i in range(1_000)]


def test_a_get_with_a_timeout() -> None:
    @ray.remote
    def slow() -> None:
        time.sleep(30)

    ref = slow.remote()
    with pytest.raises(TimeoutError):
        ray.get(ref, timeout=0.2)
    ray.cancel(ref, force=True)
    with pytest.raises((ray.exceptions.TaskCancelledError, ray.exceptions.WorkerCrashedError)):
        ray.get(ref)


def test_fractions_of_a_resource() -> None:
    @ray.remote(num_cpus=0.25, resources={"special": 0.5})
    def granted() -> dict[str, float]:
        return dict(ray.get_runtime_context().get_assigned_resources())

    found = ray.get([granted.remote() for _ in range(8)])
    assert all(one == {"CPU": 0.25, "special": 0.5} for one in found)


def test_a_custom_resource_limits_what_runs_at_once() -> None:
    @ray.remote
    class Gauge:
        def __init__(self) -> None:
            self.inside = self.peak = 0

        def change(self, by: int) -> int:
            self.inside += by
            self.peak = max(self.peak, self.inside)
            return self.peak

    gauge = Gauge.remote()

    @ray.remote(num_cpus=0, resources={"special": 1})
    def guarded() -> None:
        ray.get(gauge.change.remote(1))
        time.sleep(0.05)
        ray.get(gauge.change.remote(-1))

    ray.get([guarded.remote() for _ in range(6)])
    assert ray.get(gauge.change.remote(0)) == 2


def test_what_the_cluster_has() -> None:
    total = ray.cluster_resources()
    assert total["CPU"] == 4
    assert total["special"] == 2
    assert set(ray.available_resources()) <= set(total)
    [node] = ray.nodes()
    assert node["Alive"]
    assert node["NodeID"] == ray.get_runtime_context().get_node_id()
    assert node["Resources"]["CPU"] == 4


def test_where_code_runs() -> None:
    @ray.remote
    def who() -> tuple[str, str, int]:
        context = ray.get_runtime_context()
        return context.get_job_id(), context.get_task_id(), os.getpid()

    (job, one, pid), (same_job, other, _) = ray.get([who.remote(), who.remote()])
    assert job == same_job == ray.get_runtime_context().get_job_id()
    assert one != other
    assert pid != os.getpid()


@pytest.fixture
def group() -> Any:
    groups = submodule("util.placement_group")
    group = groups.placement_group([{"CPU": 2}, {"CPU": 1}], strategy="PACK")
    yield group
    groups.remove_placement_group(group)


def test_a_placement_group_reserves_for_several(group: Any) -> None:
    strategy = submodule("util.scheduling_strategies").PlacementGroupSchedulingStrategy
    ray.get(group.ready(), timeout=30)

    @ray.remote(num_cpus=1)
    class Member:
        def where(self) -> int:
            return os.getpid()

    members = [
        Member.options(
            scheduling_strategy=strategy(placement_group=group, placement_group_bundle_index=bundle)
        ).remote()
        for bundle in (0, 0, 1)
    ]
    assert len(set(ray.get([member.where.remote() for member in members], timeout=30))) == 3
    for member in members:
        ray.kill(member)
