"""What tasks and actors ask for: fractions, custom resources, GPUs, and requests that can never be met."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rlray
from tests.support import wait_until

pytestmark = pytest.mark.every_engine


@pytest.fixture(autouse=True, scope="module")
def _cluster(engine: str) -> Iterator[None]:
    rlray.init(num_cpus=4, num_gpus=2, resources={"special": 2}, engine=engine)
    yield
    rlray.shutdown()


def free(name: str) -> float:
    return float(rlray.available_resources().get(name, 0.0))


@rlray.remote
def visit(room: Path, company: int) -> int:
    """Stay until ``company`` visitors are in together, and a little longer for one too many to show; how many were.

    Visitors leave files, since one that waited for an actor would lend its CPU to the next.
    """
    mine, full = room / f"visitor-{rlray.get_runtime_context().get_task_id()}", room / "full"
    mine.touch()
    seen, deadline = 0, time.monotonic() + 10.0
    while not full.exists() and time.monotonic() < deadline:
        seen = max(seen, len(list(room.glob("visitor-*"))))
        if seen >= company:
            full.touch()
        time.sleep(0.01)
    time.sleep(0.15)
    seen = max(seen, len(list(room.glob("visitor-*"))))
    mine.unlink()
    return seen


@rlray.remote
def gpus() -> tuple[list[Any], str | None]:
    return rlray.get_gpu_ids(), os.environ.get("CUDA_VISIBLE_DEVICES")


@rlray.remote
class GpuActor:
    def gpus(self) -> Any:
        return rlray.get_gpu_ids(), os.environ.get("CUDA_VISIBLE_DEVICES")

    def assigned(self) -> Any:
        return rlray.get_runtime_context().get_assigned_resources()


def test_cluster_resources_are_what_init_was_given() -> None:
    total = rlray.cluster_resources()
    assert (total["CPU"], total["GPU"], total["special"]) == (4.0, 2.0, 2.0)
    assert all(isinstance(amount, float) for amount in total.values())


@pytest.mark.processes
@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ({"num_cpus": 2}, 2),
        ({"num_cpus": 0.5}, 8),
        ({"num_cpus": 0, "resources": {"special": 1}}, 2),
        ({"num_cpus": 0, "num_gpus": 0.5}, 4),
        ({"num_cpus": 1, "resources": {"special": 0.5}}, 4),
    ],
    ids=str,
)
def test_never_more_at_once_than_fit_and_not_fewer(options: dict[str, Any], limit: int, tmp_path: Path) -> None:
    refs = [visit.options(**options).remote(tmp_path, limit) for _ in range(limit + 3)]
    assert max(rlray.get(refs, timeout=60)) == limit


@pytest.mark.processes
def test_available_goes_down_and_comes_back() -> None:
    hold = rlray.remote(num_cpus=1.5, resources={"special": 2})(lambda: time.sleep(1.0))
    ref = hold.remote()
    assert wait_until(lambda: (free("CPU"), free("special")) == (2.5, 0.0), 5)
    rlray.get(ref)
    assert wait_until(lambda: (free("CPU"), free("special")) == (4.0, 2.0), 5)


def test_actors_hold_what_they_asked_for_until_they_end() -> None:
    actor = GpuActor.options(num_cpus=2, num_gpus=1, resources={"special": 1}).remote()
    assert rlray.get(actor.assigned.remote()) == {"CPU": 2.0, "GPU": 1.0, "special": 1.0}
    assert wait_until(lambda: (free("CPU"), free("GPU"), free("special")) == (2.0, 1.0, 1.0), 5)
    rlray.kill(actor)
    assert wait_until(lambda: (free("CPU"), free("GPU"), free("special")) == (4.0, 2.0, 2.0), 5)


def test_an_actor_holds_no_cpu_by_default() -> None:
    actor = GpuActor.remote()
    assert rlray.get(actor.assigned.remote()) == {}
    assert wait_until(lambda: free("CPU") == 4.0, 5)


@pytest.mark.processes
def test_an_actor_waits_for_its_resources() -> None:
    first = GpuActor.options(num_gpus=2).remote()
    rlray.get(first.gpus.remote())
    second = GpuActor.options(num_gpus=1).remote()
    ref = second.gpus.remote()
    assert rlray.wait([ref], timeout=0.5) == ([], [ref])
    rlray.kill(first)
    assert len(rlray.get(ref, timeout=20)[0]) == 1


@pytest.mark.processes
def test_gpus_are_numbered_and_apart() -> None:
    one, two = (GpuActor.options(num_gpus=1).remote() for _ in range(2))
    seen = rlray.get([one.gpus.remote(), two.gpus.remote()])
    assert sorted(seen) == [([0], "0"), ([1], "1")]


@pytest.mark.processes
def test_a_task_with_both_gpus_and_one_with_none() -> None:
    ids, visible = rlray.get(gpus.options(num_gpus=2).remote())
    assert sorted(ids) == [0, 1]
    assert visible in ("0,1", "1,0")
    assert rlray.get(gpus.remote()) == ([], "")


def test_fractions_of_a_gpu_share_one() -> None:
    actors = [GpuActor.options(num_gpus=0.5).remote() for _ in range(4)]
    seen = [ids for ids, _ in rlray.get([actor.gpus.remote() for actor in actors])]
    assert sorted(seen) == [[0], [0], [1], [1]]


@pytest.mark.processes
def test_gpus_change_with_the_task_on_a_reused_worker() -> None:
    for _ in range(5):
        assert rlray.get(gpus.options(num_gpus=1).remote())[1] in ("0", "1")
        assert rlray.get(gpus.remote()) == ([], "")


@pytest.mark.processes
def test_a_cpu_actor_sees_no_gpu() -> None:
    assert rlray.get(GpuActor.remote().gpus.remote()) == ([], "")


@pytest.mark.parametrize(
    ("options", "request_text", "capacity"),
    [
        ({"num_cpus": 100}, r"100", r"\b4\b"),
        ({"num_gpus": 3}, r"\b3\b", r"\b2\b"),
        ({"resources": {"special": 2.5}}, r"special.*2\.5|2\.5.*special", r"\b2\b"),
        ({"resources": {"unheard_of": 1}}, r"unheard_of", r"special"),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["task", "actor"])
def test_an_impossible_request_raises_at_once(
    kind: str, options: dict[str, Any], request_text: str, capacity: str
) -> None:
    """It names what was asked for and what there is."""

    def ask() -> None:
        if kind == "task":
            rlray.get(gpus.options(**options).remote(), timeout=4)
        else:
            rlray.get(GpuActor.options(**options).remote().gpus.remote(), timeout=4)

    start = time.monotonic()
    with pytest.raises((ValueError, rlray.exceptions.RayError), match=f"(?s){request_text}") as caught:
        ask()
    assert not isinstance(caught.value, rlray.exceptions.GetTimeoutError)
    assert time.monotonic() - start < 5.0
    assert re.search(capacity, str(caught.value)), str(caught.value)


def test_a_blocked_task_lends_its_cpu_but_not_its_gpu() -> None:
    @rlray.remote(num_cpus=4, num_gpus=2)
    def outer() -> Any:
        return rlray.get(rlray.remote(num_cpus=4)(lambda: free("GPU")).remote())

    assert rlray.get(outer.remote(), timeout=30) == 0.0


@pytest.mark.processes
def test_a_big_request_is_not_starved_by_small_ones() -> None:
    small = rlray.remote(lambda: time.sleep(0.05))
    small_refs = [small.remote() for _ in range(40)]
    big = rlray.remote(num_cpus=4)(lambda: "big").remote()
    small_refs += [small.remote() for _ in range(100)]
    assert rlray.get(big, timeout=60) == "big"
    rlray.get(small_refs, timeout=60)
