"""Generators: tasks and methods that give one reference per value, as values are yielded."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rlray
from rlray.exceptions import ActorDiedError, RayTaskError, TaskCancelledError, WorkerCrashedError
from tests.core.generator_support import AsyncSource, Source, arrays, count, fail_at, note, noted, outcomes
from tests.support import wait_until

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.every_engine]


# -- what comes out --------------------------------------------------------------------------------------------------


def test_a_generator_function_streams_by_default() -> None:
    generator = count.remote(5)
    assert isinstance(generator, rlray.ObjectRefGenerator)
    refs = list(generator)
    assert all(isinstance(ref, rlray.ObjectRef) for ref in refs)
    assert rlray.get(refs) == [0, 1, 2, 3, 4]


def test_num_returns_streaming_said_in_words() -> None:
    assert [rlray.get(ref) for ref in count.options(num_returns="streaming").remote(3)] == [0, 1, 2]

    @rlray.remote(num_returns="streaming")
    def iterator(n: int) -> Iterator[int]:
        return iter(range(n))

    assert [rlray.get(ref) for ref in iterator.remote(3)] == [0, 1, 2]


@pytest.mark.processes
def test_values_come_while_the_generator_still_runs(tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    @rlray.remote
    def gated() -> Iterator[int]:
        yield 1
        while not gate.exists():
            time.sleep(0.01)
        yield 2

    generator = gated.remote()
    assert rlray.get(next(generator), timeout=20) == 1
    assert not generator.next_ready()
    assert not generator.is_finished()
    gate.touch()
    assert rlray.get(next(generator), timeout=20) == 2
    with pytest.raises(StopIteration):
        next(generator)
    assert generator.is_finished()


def test_an_empty_generator() -> None:
    generator = count.remote(0)
    assert list(generator) == []
    assert list(generator) == []
    assert generator.is_finished()


def test_more_values_than_fit_two_bytes() -> None:
    total = 120_000
    got = 0
    for i, ref in enumerate(count.remote(total)):
        if i % 9_973 == 0 or i > total - 3:
            assert rlray.get(ref) == i
        got += 1
    assert got == total


def test_the_references_are_ordinary_ones() -> None:
    """They go into tasks, lists and other processes, and outlive their generator."""
    double = rlray.remote(lambda x: 2 * x)
    total = rlray.remote(lambda refs: sum(rlray.get(refs)))
    generator = count.remote(4)
    refs = list(generator)
    del generator
    assert rlray.get([double.remote(ref) for ref in refs]) == [0, 2, 4, 6]
    assert rlray.get(total.remote(refs)) == 6


def test_references_inside_yielded_values() -> None:
    @rlray.remote
    def boxes() -> Iterator[list[rlray.ObjectRef]]:
        for i in range(3):
            yield [rlray.put(np.full(200_000, i, dtype=np.uint8))]

    refs = list(boxes.remote())
    assert [int(rlray.get(rlray.get(ref)[0])[0]) for ref in refs] == [0, 1, 2]


def test_generators_of_an_actor() -> None:
    source = Source.remote()
    assert outcomes(source.count.remote(3)) == [0, 1, 2]
    *values, last = outcomes(source.fail.remote(2))
    assert values == [0, 1]
    assert KeyError in last
    assert rlray.get(source.pair.remote()) == ["a", "b"]


def test_asynchronous_generators_of_an_actor() -> None:
    source = AsyncSource.remote()
    assert outcomes(source.count.remote(3)) == [0, 1, 2]
    assert outcomes(source.plain.remote(3)) == [0, 1, 2]
    *values, last = outcomes(source.fail.remote(2))
    assert values == [0, 1]
    assert KeyError in last


def test_asynchronous_generators_run_side_by_side() -> None:
    source = AsyncSource.remote()
    first, second = source.hold.remote(), source.hold.remote()
    assert rlray.get([next(first), next(second)], timeout=20) == [1, 1]
    rlray.get(source.open.remote())
    assert rlray.get([next(first), next(second)], timeout=20) == [2, 2]


def test_an_asynchronous_generator_that_awaits_nothing_leaves_room_for_others() -> None:
    source = AsyncSource.remote()
    generator = source.endless.remote()
    assert rlray.get(next(generator), timeout=20) == 1
    assert rlray.get(source.how_many_closed.remote(), timeout=20) == 0
    rlray.cancel(generator)
    with pytest.raises(TaskCancelledError):
        rlray.get(generator.completed(), timeout=20)


def test_a_generator_of_a_threaded_actor() -> None:
    source = Source.options(max_concurrency=2).remote()
    first, second = source.count.remote(50), source.count.remote(50)
    assert outcomes(second) == outcomes(first) == list(range(50))


def test_num_returns_of_a_generator() -> None:
    """A number of results takes that many values of the generator, and no more."""
    assert rlray.get(count.options(num_returns=3).remote(3)) == [0, 1, 2]
    assert rlray.get(count.options(num_returns=2).remote(1_000_000_000)) == [0, 1]
    assert rlray.get(count.options(num_returns=1).remote(3)) == 0
    with pytest.raises(ValueError, match="num_returns=4"):
        rlray.get(count.options(num_returns=4).remote(3)[0])


# -- errors ----------------------------------------------------------------------------------------------------------


def test_an_error_in_the_middle_is_the_last_reference() -> None:
    generator = fail_at.remote(5, 2)
    first, second, third = list(generator)
    assert rlray.get([first, second]) == [0, 1]
    with pytest.raises(ValueError, match="at 2") as caught:
        rlray.get(third)
    assert isinstance(caught.value, RayTaskError)
    assert generator.is_finished()


def test_an_error_before_the_first_value() -> None:
    generator = fail_at.remote(5, 0)
    with pytest.raises(ValueError, match="at 0"):
        rlray.get(next(generator))
    with pytest.raises(StopIteration):
        next(generator)


def test_a_value_that_cannot_be_pickled() -> None:
    @rlray.remote
    def locks() -> Iterator[Any]:
        yield 1
        yield threading.Lock()

    value, error = outcomes(locks.remote())
    assert value == 1
    assert TypeError in error


def test_not_a_generator() -> None:
    @rlray.remote
    def plain() -> int:
        return 5

    generator = plain.options(num_returns="streaming").remote()
    with pytest.raises(TypeError, match=r"plain has num_returns='streaming' but returned int.*yield"):
        rlray.get(next(generator))


def test_a_failed_argument() -> None:
    @rlray.remote
    def fail() -> int:
        raise KeyError("argument")

    [error] = outcomes(count.remote(fail.remote()))
    assert KeyError in error


def test_a_generator_object_does_not_travel() -> None:
    generator = count.remote(2)
    with pytest.raises(TypeError, match="ObjectRefGenerator cannot travel"):
        count.remote(generator)
    with pytest.raises(TypeError, match="ObjectRefGenerator cannot travel"):
        rlray.put([generator])
    with pytest.raises(TypeError, match="ObjectRefGenerator cannot travel"):
        pickle.dumps(generator)
    with pytest.raises(TypeError, match="ObjectRefGenerator"):
        rlray.get(generator)
    assert outcomes(generator) == [0, 1]


def test_wrong_values_of_num_returns() -> None:
    for wrong in ("some", -1, -2):
        with pytest.raises(ValueError, match="num_returns"):
            count.options(num_returns=wrong)


# -- memory ----------------------------------------------------------------------------------------------------------


def test_large_arrays_are_views_of_shared_memory() -> None:
    seen = [rlray.get(ref) for ref in arrays.remote(3, 1_000_000)]
    assert [int(array[0]) for array in seen] == [0, 1, 2]
    assert not any(array.flags.writeable or array.flags.owndata for array in seen)


@pytest.mark.processes
@pytest.mark.usefixtures("fresh")
class TestASmallStore:
    """With room for a few arrays only, so that what is not freed shows."""

    @pytest.fixture(autouse=True)
    def _small_store(self) -> Iterator[None]:
        rlray.shutdown()
        rlray.init(num_cpus=2, object_store_memory=50_000_000)
        yield
        rlray.shutdown()
        rlray.init(num_cpus=4, resources={"special": 2})

    def test_arrays_are_freed_when_dropped(self) -> None:
        for i, ref in enumerate(arrays.remote(30, 10_000_000)):
            assert int(rlray.get(ref)[-1]) == i

    def test_what_nobody_reads_is_not_kept(self) -> None:
        """Ten times the store goes through a generator of which one value was read."""
        generator = arrays.remote(40, 10_000_000)
        assert int(rlray.get(next(generator))[0]) == 0
        end = generator.completed()
        del generator
        rlray.get(end, timeout=60)
        assert len(rlray.get(rlray.put(np.zeros(40_000_000, dtype=np.uint8)))) == 40_000_000

    def test_what_had_arrived_is_freed_with_the_generator(self) -> None:
        generator = arrays.remote(3, 10_000_000)
        rlray.get(generator.completed(), timeout=60)
        del generator
        assert len(rlray.get(rlray.put(np.zeros(40_000_000, dtype=np.uint8)))) == 40_000_000


@pytest.mark.processes
def test_a_dropped_generator_runs_to_its_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    generator = note.remote(log, 20, 0.005)
    assert rlray.get(next(generator), timeout=20) == 0
    del generator
    assert wait_until(lambda: noted(log)[-1:] == ["end"], 20)


# -- processes that die ----------------------------------------------------------------------------------------------


@pytest.mark.processes
def test_a_worker_killed_in_the_middle_loses_and_repeats_nothing(tmp_path: Path) -> None:
    marker, n = tmp_path / "died", 3_000

    @rlray.remote(max_retries=1)
    def fragile() -> Iterator[tuple[int, int]]:
        for i in range(n):
            if i == n // 2 and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield i, os.getpid()

    values = [rlray.get(ref, timeout=20) for ref in fragile.remote()]
    assert [i for i, _ in values] == list(range(n))
    assert len({pid for _, pid in values}) == 2


@pytest.mark.processes
def test_without_retries_the_death_is_the_last_reference() -> None:
    @rlray.remote(max_retries=0)
    def fragile() -> Iterator[int]:
        yield 1
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)

    generator = fragile.remote()
    one, error = outcomes(generator)
    assert one == 1
    assert WorkerCrashedError in error
    with pytest.raises(WorkerCrashedError):
        rlray.get(generator.completed())


@pytest.mark.processes
def test_an_actor_killed_in_the_middle() -> None:
    one, error = outcomes(Source.remote().die.remote())
    assert one == 1
    assert ActorDiedError in error


def test_retry_exceptions_of_a_generator(tmp_path: Path) -> None:
    marker = tmp_path / "raised"

    @rlray.remote(max_retries=1, retry_exceptions=[ValueError])
    def moody() -> Iterator[int]:
        for i in range(6):
            if i == 3 and not marker.exists():
                marker.touch()
                raise ValueError("once")
            yield i

    assert outcomes(moody.remote()) == list(range(6))
