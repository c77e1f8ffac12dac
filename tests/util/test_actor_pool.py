"""Pools of actors: order, back-pressure, errors, dead actors."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

import rlray
from rlray.exceptions import ActorDiedError
from rlray.util import ActorPool

pytestmark = pytest.mark.usefixtures("cluster")


@rlray.remote
class Worker:
    def double(self, value: int) -> int:
        return 2 * value

    def wait_for(self, path: str) -> str:
        while not os.path.exists(path):
            time.sleep(0.01)
        return path

    def fail(self, value: int) -> None:
        raise ValueError(f"not {value}")

    def die(self, value: int) -> None:
        os._exit(1)

    @rlray.method(num_returns=2)
    def both(self, value: int) -> tuple[int, int]:
        return value, -value


def double(actor: Any, value: int) -> Any:
    return actor.double.remote(value)


def wait_for(actor: Any, path: str) -> Any:
    return actor.wait_for.remote(path)


def pool_of(count: int) -> ActorPool:
    return ActorPool([Worker.remote() for _ in range(count)])


def test_map_keeps_the_order() -> None:
    assert list(pool_of(3).map(double, range(50))) == list(range(0, 100, 2))


def test_map_unordered_gives_every_result_once() -> None:
    assert sorted(pool_of(3).map_unordered(double, range(50))) == list(range(0, 100, 2))


def test_map_unordered_does_not_wait_for_a_slow_one(tmp_path: Any) -> None:
    gate = str(tmp_path / "gate")
    pool = pool_of(2)

    def first_slow(actor: Any, value: int) -> Any:
        return actor.wait_for.remote(gate) if value == 0 else actor.double.remote(value)

    results = pool.map_unordered(first_slow, range(10))
    assert [next(results) for _ in range(9)] == list(range(2, 20, 2))
    open(gate, "w").close()
    assert list(results) == [gate]


def test_a_slow_head_does_not_idle_the_other_actors(tmp_path: Any) -> None:
    """The one actor that is free runs what lets the other finish."""
    gate = str(tmp_path / "gate")

    @rlray.remote
    class Opener:
        def run(self, value: int) -> int:
            if value == 0:
                while not os.path.exists(gate):
                    time.sleep(0.01)
            elif value == 2:
                open(gate, "w").close()
            return value

    pool = ActorPool([Opener.remote(), Opener.remote()])
    assert list(pool.map(lambda actor, value: actor.run.remote(value), range(4))) == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["map", "map_unordered"])
def test_endless_values_are_read_as_results_are_taken(name: str) -> None:
    read = 0

    def endless() -> Iterator[int]:
        nonlocal read
        while True:
            read += 1
            yield read

    results = getattr(pool_of(2), name)(double, endless())
    assert read == 4
    for taken in range(1, 21):
        next(results)
        assert read <= 4 + taken


def test_map_starts_before_the_first_result_is_asked_for(tmp_path: Any) -> None:
    started = tmp_path / "started"
    pool = pool_of(1)

    @rlray.remote
    class Toucher:
        def run(self, value: int) -> int:
            started.touch()
            return value

    pool = ActorPool([Toucher.remote()])
    results = pool.map(lambda actor, value: actor.run.remote(value), [1])
    deadline = time.monotonic() + 30
    while not started.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert started.exists()
    assert list(results) == [1]


def test_an_error_of_the_values_comes_after_the_results_before_it() -> None:
    def values() -> Iterator[int]:
        yield from range(5)
        raise KeyError("no more")

    results = pool_of(1).map(double, values())
    assert list(itertools.islice(results, 5)) == [0, 2, 4, 6, 8]
    with pytest.raises(KeyError, match="no more"):
        next(results)


def test_submit_and_get_next_in_order() -> None:
    pool = pool_of(2)
    assert pool.has_free()
    assert not pool.has_next()
    for value in range(5):
        pool.submit(double, value)
    assert pool.has_next()
    assert not pool.has_free()
    assert [pool.get_next() for _ in range(5)] == [0, 2, 4, 6, 8]
    assert not pool.has_next()
    assert pool.has_free()


def test_get_next_and_get_next_unordered_can_be_mixed() -> None:
    pool = pool_of(2)
    for value in range(6):
        pool.submit(double, value)
    got = [pool.get_next_unordered(), pool.get_next(), pool.get_next_unordered()]
    while pool.has_next():
        got.append(pool.get_next())
    assert sorted(got) == [0, 2, 4, 6, 8, 10]


@pytest.mark.parametrize("name", ["get_next", "get_next_unordered"])
def test_nothing_to_get_is_stop_iteration(name: str) -> None:
    with pytest.raises(StopIteration, match="no more results"):
        getattr(pool_of(1), name)()


@pytest.mark.parametrize("name", ["get_next", "get_next_unordered"])
def test_a_timeout_keeps_the_result_for_later(name: str, tmp_path: Any) -> None:
    gate = str(tmp_path / "gate")
    pool = pool_of(1)
    pool.submit(wait_for, gate)
    with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
        getattr(pool, name)(timeout=0.05)
    assert pool.has_next()
    open(gate, "w").close()
    assert getattr(pool, name)(timeout=30) == gate


@pytest.mark.parametrize("name", ["get_next", "get_next_unordered"])
def test_a_timeout_can_drop_the_result(name: str, tmp_path: Any) -> None:
    gate = str(tmp_path / "gate")
    pool = pool_of(1)
    pool.submit(wait_for, gate)
    with pytest.raises(TimeoutError, match="dropped"):
        getattr(pool, name)(timeout=0.05, ignore_if_timedout=True)
    assert not pool.has_next()
    assert not pool.has_free()  # it still works
    open(gate, "w").close()
    pool.submit(double, 1)
    assert pool.get_next() == 2


def test_map_drops_what_was_submitted_before() -> None:
    pool = pool_of(2)
    pool.submit(double, 100)
    assert list(pool.map(double, [1, 2, 3])) == [2, 4, 6]
    assert not pool.has_next()


def test_a_map_that_another_took_over_says_so() -> None:
    pool = pool_of(1)
    first = pool.map(double, range(5))
    assert next(first) == 0
    assert list(pool.map(double, [7])) == [14]
    with pytest.raises(RuntimeError, match="another map"):
        next(first)


def test_an_error_is_raised_in_its_place_and_the_actor_stays() -> None:
    pool = pool_of(1)
    pool.submit(double, 1)
    pool.submit(lambda actor, value: actor.fail.remote(value), 2)
    pool.submit(double, 3)
    assert pool.get_next() == 2
    with pytest.raises(ValueError, match="not 2"):
        pool.get_next()
    assert pool.get_next() == 6
    assert list(pool.map(double, [4])) == [8]


def test_an_actor_that_dies_leaves_the_pool() -> None:
    pool = pool_of(2)
    pool.submit(lambda actor, value: actor.die.remote(value), 0)
    with pytest.raises(ActorDiedError):
        pool.get_next()
    assert list(pool.map(double, range(10))) == list(range(0, 20, 2))
    assert pool.pop_idle() is not None
    assert pool.pop_idle() is None


def test_without_living_actors_every_value_gives_an_error() -> None:
    pool = pool_of(1)
    for value in range(3):
        pool.submit(lambda actor, value: actor.die.remote(value), value)
    errors = []
    while pool.has_next():
        with pytest.raises(ActorDiedError) as caught:
            pool.get_next()
        errors.append(str(caught.value))
    assert len(errors) == 3
    assert "no actor is left in the pool" in errors[-1]
    pool.submit(double, 5)
    pool.push(Worker.remote())
    assert pool.get_next() == 10


def test_push_and_pop_idle() -> None:
    first, second = Worker.remote(), Worker.remote()
    pool = ActorPool([first])
    with pytest.raises(ValueError, match="already"):
        pool.push(first)
    pool.submit(double, 1)
    assert pool.pop_idle() is None
    with pytest.raises(ValueError, match="already"):
        pool.push(first)
    pool.push(second)
    assert pool.pop_idle() == second
    assert pool.get_next() == 2
    assert pool.pop_idle() == first
    assert not pool.has_free()


def test_several_results_of_one_call() -> None:
    assert list(pool_of(2).map(lambda actor, value: actor.both.remote(value), [1, 2])) == [[1, -1], [2, -2]]


def test_a_function_that_returns_no_reference_is_told_so() -> None:
    pool = pool_of(1)
    with pytest.raises(TypeError, match="must return the reference"):
        pool.submit(lambda actor, value: value, 1)
    with pytest.raises(ZeroDivisionError):
        pool.submit(lambda actor, value: 1 / 0, 1)
    assert not pool.has_next()
    assert list(pool.map(double, [1])) == [2]


def test_a_pool_inside_a_task() -> None:
    @rlray.remote
    def inside(actors: list[Any]) -> list[int]:
        return list(ActorPool(actors).map(double, range(5)))

    assert rlray.get(inside.remote([Worker.remote(), Worker.remote()])) == [0, 2, 4, 6, 8]
