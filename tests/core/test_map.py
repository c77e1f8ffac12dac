"""``f.map``: a call per item in chunks, with order, errors, retries and crashes per item, and bounded memory."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rlray
from rlray.exceptions import ActorDiedError, WorkerCrashedError
from rlray.util import ActorPool

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.every_engine]


@rlray.remote
def double(x: Any) -> Any:
    return x * 2


@rlray.remote
class Adder:
    def __init__(self) -> None:
        self.total = 0

    def add(self, x: int) -> int:
        self.total += x
        return self.total


def test_results_come_in_the_order_of_the_items() -> None:
    assert list(double.map(range(5_000)).results()) == [2 * i for i in range(5_000)]


def test_one_reference_per_item_in_order() -> None:
    refs = list(double.map(range(3_000)))
    assert len(set(refs)) == 3_000
    assert all(isinstance(ref, rlray.ObjectRef) for ref in refs)
    assert rlray.get(refs) == [2 * i for i in range(3_000)]


@pytest.mark.processes
def test_a_reference_taken_early_gets_its_value_later() -> None:
    @rlray.remote
    def slow(x: int) -> int:
        time.sleep(0.2)
        return x

    mapped = slow.map(range(2))
    first = next(mapped)
    assert rlray.wait([first], timeout=0) == ([], [first])
    assert rlray.get([first, next(mapped)]) == [0, 1]


def test_references_may_be_passed_on() -> None:
    refs = list(double.map(range(100)))
    assert rlray.get([double.remote(ref) for ref in refs]) == [4 * i for i in range(100)]
    del refs
    assert rlray.get(double.remote(next(double.map([21])))) == 84


def test_no_items() -> None:
    assert list(double.map([])) == []
    assert list(double.map([]).results()) == []
    assert list(double.map([]).as_completed()) == []


@pytest.mark.processes
def test_as_completed_gives_each_once_and_the_ready_ones_first() -> None:
    @rlray.remote
    def wait(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    refs = list(wait.map([1.0, 0.0, 0.0]).as_completed())
    assert rlray.get(refs) == [0.0, 0.0, 1.0]
    assert sorted(rlray.get(list(double.map(range(2_000)).as_completed()))) == [2 * i for i in range(2_000)]


def test_an_error_concerns_its_own_item() -> None:
    @rlray.remote
    def picky(x: int) -> int:
        if x % 1_000 == 7:
            raise ValueError(f"item {x}")
        return x

    refs = list(picky.map(range(3_000)))
    for i, ref in enumerate(refs):
        if i % 1_000 == 7:
            with pytest.raises(ValueError, match=f"item {i}"):
                rlray.get(ref)
        else:
            assert rlray.get(ref) == i


def test_results_raise_at_the_place_of_the_error_or_give_it() -> None:
    @rlray.remote
    def picky(x: int) -> int:
        if x == 3:
            raise KeyError(x)
        return x

    results = picky.map(range(5)).results()
    assert list(itertools.islice(results, 3)) == [0, 1, 2]
    with pytest.raises(KeyError):
        next(results)
    values = list(picky.map(range(5)).results(return_exceptions=True))
    assert isinstance(values[3], KeyError)
    assert values[:3] + values[4:] == [0, 1, 2, 4]


@pytest.mark.processes
def test_what_kills_its_worker_fails_alone() -> None:
    @rlray.remote(max_retries=1)
    def deadly(x: int) -> int:
        if x == 1_234:
            os._exit(1)
        return x

    refs = list(deadly.map(range(2_000)))
    with pytest.raises(WorkerCrashedError):
        rlray.get(refs[1_234])
    del refs[1_234]
    assert rlray.get(refs) == [x for x in range(2_000) if x != 1_234]


def test_errors_are_retried_per_item(tmp_path: Path) -> None:
    @rlray.remote(retry_exceptions=[ConnectionError], max_retries=2)
    def flaky(x: int) -> int:
        if x % 100 == 5 and not (tmp_path / str(x)).exists():
            (tmp_path / str(x)).touch()
            raise ConnectionError
        return x

    assert list(flaky.map(range(500)).results()) == list(range(500))
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.processes
def test_without_retries_nothing_runs_twice(tmp_path: Path) -> None:
    log = tmp_path / "log"

    @rlray.remote(max_retries=0)
    def once(x: int) -> int:
        with log.open("a") as file:
            file.write(f"{x}\n")
        if x == 20:
            os._exit(1)
        return x

    values = list(once.map(range(40)).results(return_exceptions=True))
    assert [x for x in range(40) if isinstance(values[x], WorkerCrashedError)] == [20]
    assert sorted(map(int, log.read_text().split())) == list(range(40))


def test_an_endless_iterable_is_taken_only_as_far_as_it_is_read() -> None:
    taken = 0

    def count() -> Iterator[int]:
        nonlocal taken
        for number in itertools.count():
            taken = number
            yield number

    @rlray.remote
    def some_work(x: int) -> int:
        time.sleep(0.001)
        return x

    results = some_work.map(count()).results()
    assert list(itertools.islice(results, 500)) == list(range(500))
    time.sleep(0.5)  # what was under way ends; nothing new is begun
    assert taken < 5_000
    before = taken
    time.sleep(0.2)
    assert taken == before


def test_calls_do_not_share_what_they_are_given() -> None:
    @rlray.remote
    def append(items: list[int]) -> list[int]:
        items.append(1)
        return items

    shared: list[int] = []
    assert list(append.map([shared] * 50).results()) == [[1]] * 50
    assert shared == []


def test_large_items_and_large_results() -> None:
    arrays = [np.full(50_000, i, np.float64) for i in range(10)]
    for i, result in enumerate(double.map(arrays).results()):
        np.testing.assert_array_equal(result, arrays[i] * 2)

    @rlray.remote
    def grow(i: int) -> np.ndarray[Any, Any]:
        return np.full(50_000, i)

    refs = list(grow.map(range(20)))
    assert [int(rlray.get(ref)[0]) for ref in refs] == list(range(20))


def test_references_among_the_items_arrive_as_values() -> None:
    assert list(double.map([rlray.put(1), 2, rlray.put(3)]).results()) == [2, 4, 6]


def test_a_result_that_cannot_be_pickled_is_an_error_of_its_item() -> None:
    @rlray.remote
    def lock(x: int) -> Any:
        import threading

        return threading.Lock() if x == 1 else x

    values = list(lock.map(range(3)).results(return_exceptions=True))
    assert values[0] == 0
    assert values[2] == 2
    assert isinstance(values[1], TypeError)
    assert "cannot be pickled" in str(values[1])


@pytest.mark.processes
def test_long_items_are_spread_over_the_workers() -> None:
    @rlray.remote
    def where(x: int) -> int:
        time.sleep(0.1)
        return os.getpid()

    assert len(set(where.map(range(12)).results())) == 4


def test_map_within_a_task() -> None:
    @rlray.remote
    def total(n: int) -> int:
        return sum(double.map(range(n)).results())

    assert rlray.get(total.remote(2_000)) == 2_000 * 1_999


def test_a_method_is_called_for_each_item_in_order() -> None:
    adder = Adder.remote()
    assert list(adder.add.map(range(1_000)).results()) == list(itertools.accumulate(range(1_000)))
    assert rlray.get(adder.add.remote(0)) == sum(range(1_000))


@pytest.mark.processes
def test_a_pool_spreads_a_method_over_its_actors() -> None:
    @rlray.remote
    class Worker:
        def where(self, x: int) -> tuple[int, int]:
            time.sleep(0.01)
            return x, os.getpid()

    pool = ActorPool([Worker.remote() for _ in range(3)])
    results = list(pool.map("where", range(60)).results())
    assert [x for x, _ in results] == list(range(60))
    counts = [sum(pid == one for _, pid in results) for one in {pid for _, pid in results}]
    assert len(counts) == 3
    assert min(counts) >= 5
    assert sorted(x for x, _ in rlray.get(list(pool.map("where", range(9)).as_completed()))) == list(range(9))
    with pytest.raises(AttributeError, match="nowhere"):
        pool.map("nowhere", [1])


@pytest.mark.processes
def test_a_pool_goes_on_without_an_actor_that_dies() -> None:
    @rlray.remote
    class Mortal:
        def die_at(self, x: int) -> int:
            if x == 5:
                os._exit(1)
            time.sleep(0.001)
            return x

    pool = ActorPool([Mortal.remote() for _ in range(2)])
    values = list(pool.map("die_at", range(2_000)).results(return_exceptions=True))
    lost = [x for x, value in enumerate(values) if isinstance(value, ActorDiedError)]
    assert 5 in lost
    assert len(lost) < 200
    assert [value for value in values if not isinstance(value, ActorDiedError)] == [
        x for x in range(2_000) if x not in lost
    ]


def test_a_coroutine_is_called_for_each_item() -> None:
    @rlray.remote
    class Async:
        async def double(self, x: int) -> int:
            if x == 2:
                raise ValueError
            return 2 * x

    values = list(Async.remote().double.map(range(4)).results(return_exceptions=True))
    assert isinstance(values[2], ValueError)
    assert values[:2] + values[3:] == [0, 2, 6]


def test_calls_of_an_actor_that_dies() -> None:
    adder = Adder.remote()
    rlray.kill(adder)
    assert all(isinstance(e, ActorDiedError) for e in adder.add.map(range(5)).results(return_exceptions=True))


def test_map_wants_one_result_per_call() -> None:
    with pytest.raises(ValueError, match="num_returns"):
        double.options(num_returns=2).map([1])
    with pytest.raises(TypeError, match="iterable"):
        double.map(5)

    @rlray.remote
    def two(a: int, b: int) -> int:
        return a + b

    with pytest.raises(TypeError, match="missing a required argument: 'b'"):
        two.map([1])
