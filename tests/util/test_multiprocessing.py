"""The pool of processes: the methods of multiprocessing.Pool, its errors, its end."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rlray
from rlray.exceptions import ActorDiedError, RayError, RayTaskError
from rlray.util.multiprocessing import Pool, TimeoutError
from tests import support

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(scope="module")
def pool(cluster: None) -> Iterator[Pool]:
    with Pool(2) as made:
        yield made


def square(value: int) -> int:
    return value * value


def not_three(value: int) -> int:
    if value == 3:
        raise ValueError("three")
    return value


def when_there(path: Path) -> str:
    while not path.exists():
        time.sleep(0.01)
    return path.name


def test_map_and_starmap(pool: Pool) -> None:
    assert pool.map(square, range(100)) == [value * value for value in range(100)]
    assert pool.map(square, iter(range(3)), chunksize=2) == [0, 1, 4]
    assert pool.map(square, []) == []
    assert pool.starmap(pow, [(2, 3), [3, 2]]) == [8, 9]
    assert pool.starmap_async(pow, iter([(2, 3)]), chunksize=1).get() == [8]


def test_apply(pool: Pool) -> None:
    assert pool.apply(square, (3,)) == 9
    assert pool.apply(int, ("ff",), {"base": 16}) == 255
    assert pool.apply(os.getpid) != os.getpid()
    offset = 5
    assert pool.apply(lambda: offset) == 5


def test_the_number_of_chunks_is_that_of_multiprocessing(pool: Pool) -> None:
    """Four per process, rounded up: 17 items on 2 processes make chunks of 3. A function is unpickled once a chunk."""

    class Counts:
        def __call__(self, value: int) -> int:
            self.calls = getattr(self, "calls", 0) + 1
            return self.calls

    assert pool.map(Counts(), range(17)) == [1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2]
    assert pool.map(Counts(), range(5), chunksize=4) == [1, 2, 3, 4, 1]
    assert pool.map(Counts(), range(8)) == [1] * 8


def test_both_processes_work(pool: Pool) -> None:
    def meet(folder: Path, mine: str, other: str) -> int:
        (folder / mine).touch()
        when_there(folder / other)
        return os.getpid()

    with Pool(2) as two, tempfile.TemporaryDirectory() as folder:
        pids = two.starmap(meet, [(Path(folder), "a", "b"), (Path(folder), "b", "a")])
    assert len(set(pids)) == 2


def test_an_error_is_the_original_with_the_remote_traceback_as_cause(pool: Pool) -> None:
    for call in (lambda: pool.apply(not_three, (3,)), lambda: pool.map(not_three, range(6))):
        with pytest.raises(ValueError, match=r"^three$") as caught:
            call()
        assert type(caught.value) is ValueError
        assert isinstance(caught.value.__cause__, RayTaskError)
        assert "not_three" in str(caught.value.__cause__)


def test_an_error_that_cannot_be_pickled_arrives_as_text(pool: Pool) -> None:
    def fail() -> None:
        raise ValueError("held", threading.Lock())

    with pytest.raises(RayError, match=r"ValueError: \('held'.*cannot be pickled"):
        pool.apply(fail)


def test_what_cannot_be_pickled_is_an_error_of_the_call(pool: Pool) -> None:
    with pytest.raises(TypeError, match="cannot be pickled"):
        pool.apply(square, (threading.Lock(),))
    with pytest.raises(TypeError, match="cannot be pickled"):
        pool.apply(threading.Lock)
    assert pool.apply(square, (2,)) == 4


def test_an_exit_in_a_function_does_not_exit_the_caller(pool: Pool) -> None:
    def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(RayTaskError, match="SystemExit"):
        pool.apply(leave)
    assert pool.apply(square, (2,)) == 4


def test_async_results(pool: Pool, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    result = pool.apply_async(when_there, (gate,))
    assert not result.ready()
    with pytest.raises(ValueError, match="not ready"):
        result.successful()
    with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
        result.get(timeout=0.05)
    result.wait(0.05)
    assert not result.ready()
    gate.touch()
    result.wait(60)
    assert result.ready()
    assert result.successful()
    assert result.get() == "gate"
    assert issubclass(TimeoutError, multiprocessing.TimeoutError)
    failed = pool.map_async(not_three, range(6))
    failed.wait(60)
    assert not failed.successful()


def called_back(start: Callable[[Any, Any], Any]) -> tuple[str, Any]:
    """What came to which callback."""
    called: list[tuple[str, Any]] = []
    start(lambda value: called.append(("value", value)), lambda error: called.append(("error", error)))
    assert support.wait_until(lambda: called, 60)
    return called[0]


def test_callbacks(pool: Pool) -> None:
    assert called_back(lambda good, bad: pool.apply_async(square, (2,), {}, good, bad)) == ("value", 4)
    assert called_back(lambda good, bad: pool.map_async(square, range(9), 2, good, bad))[1][-1] == 64
    assert called_back(lambda good, bad: pool.map_async(square, [], None, good, bad)) == ("value", [])
    assert called_back(lambda good, bad: pool.starmap_async(pow, [(2, 2)], good, bad)) == ("value", [4])
    kind, error = called_back(lambda good, bad: pool.map_async(not_three, range(9), None, good, bad))
    assert (kind, type(error)) == ("error", ValueError)
    with pytest.raises(TypeError, match="callback must be callable, got int 1"):
        pool.starmap_async(pow, [(2, 2)], 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("chunksize", [1, 2, 4])
def test_imap_goes_on_after_an_error(pool: Pool, chunksize: int) -> None:
    results = pool.imap(not_three, range(6), chunksize)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match=r"^three$"):
        next(results)
    assert list(results) == [4, 5]


def test_imap_unordered(pool: Pool, tmp_path: Path) -> None:
    assert sorted(pool.imap_unordered(square, range(20), chunksize=3)) == [value * value for value in range(20)]
    gate = tmp_path / "gate"
    results = pool.imap_unordered(lambda path: when_there(path) if path else "", [gate, None, None, None, None])
    assert [next(results) for _ in range(4)] == [""] * 4
    with pytest.raises(TimeoutError):
        results.next(timeout=0.05)
    gate.touch()
    assert list(results) == ["gate"]


@pytest.mark.parametrize("name", ["imap", "imap_unordered"])
def test_endless_iterables_are_read_as_results_are_taken(pool: Pool, name: str) -> None:
    read = 0

    def endless() -> Iterator[int]:
        nonlocal read
        while True:
            read += 1
            yield read

    results = getattr(pool, name)(square, endless())
    for taken in range(1, 21):
        next(results)
        assert read <= taken + 4


def test_wrong_arguments() -> None:
    for arguments, error, message in (
        ({"processes": 0}, ValueError, "processes must be at least 1, got 0"),
        ({"processes": "2"}, TypeError, "processes must be an int or None, got str '2'"),
        ({"processes": 1, "maxtasksperchild": 0}, ValueError, "maxtasksperchild must be at least 1, got 0"),
        ({"processes": 1, "initializer": 3}, TypeError, "initializer must be callable, got int 3"),
        ({"processes": 1, "ray_address": "10.0.0.1:6379"}, ValueError, "runs on this machine, got '10.0.0.1:6379'"),
        ({"processes": 1, "ray_remote_args": {"nmu_cpus": 1}}, ValueError, "did you mean 'num_cpus'"),
    ):
        with pytest.raises(error, match=message):
            Pool(**arguments)  # type: ignore[arg-type]


def test_wrong_chunksizes_and_iterables(pool: Pool) -> None:
    for call in (lambda: pool.map(square, [1], 0), lambda: pool.imap(square, [1], 0)):
        with pytest.raises(ValueError, match="chunksize must be at least 1, got 0"):
            call()
    with pytest.raises(TypeError, match="not iterable"):
        pool.map(square, 5)  # type: ignore[arg-type]


def test_initializer() -> None:
    def set_up(value: int) -> None:
        os.environ["RLRAY_TEST_POOL"] = str(value)

    with Pool(2, set_up, (7,)) as pool:
        assert pool.map(lambda _: os.environ["RLRAY_TEST_POOL"], range(4)) == ["7"] * 4


def test_an_initializer_that_raises_fails_the_calls() -> None:
    def set_up() -> None:
        raise KeyError("no such thing")

    with Pool(1, set_up) as pool:
        for _ in range(2):
            with pytest.raises(ActorDiedError) as caught:
                pool.apply(square, (1,))
            assert "no such thing" in str(caught.value.__cause__)


def test_maxtasksperchild_counts_chunks() -> None:
    with Pool(1, maxtasksperchild=2) as pool:
        pids = [pool.apply(os.getpid) for _ in range(5)]
        assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]
        assert len(set(pool.map(lambda _: os.getpid(), range(8), chunksize=8))) == 1


def test_a_dead_process_fails_its_chunk_and_is_replaced() -> None:
    with Pool(2) as pool:
        results = pool.imap(lambda value: os._exit(1) if value == 2 else value, range(6))
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(ActorDiedError):
            next(results)
        assert list(results) == [3, 4, 5]
        assert pool.map(square, range(8)) == [value * value for value in range(8)]


def test_close_lets_what_was_submitted_finish() -> None:
    pool = Pool(1)
    pid = pool.apply(os.getpid)
    with pytest.raises(ValueError, match=r"still running: call close\(\) or terminate\(\)"):
        pool.join()
    results = [pool.apply_async(square, (value,)) for value in range(5)]
    lazy = pool.imap(square, range(20))
    pool.close()
    for call in (lambda: pool.apply(square, (1,)), lambda: pool.map(square, [1]), lambda: pool.imap(square, [1])):
        with pytest.raises(ValueError, match="not running"):
            call()
    pool.join()
    assert [result.ready() for result in results] == [True] * 5
    assert [result.get() for result in results] == [0, 1, 4, 9, 16]
    assert list(lazy) == [value * value for value in range(20)]
    assert support.wait_until(lambda: not alive(pid), 30)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_terminate_ends_the_processes_and_fails_the_rest(tmp_path: Path) -> None:
    pool = Pool(1)
    pid = pool.apply(os.getpid)
    running = pool.apply_async(when_there, (tmp_path / "never",))
    waiting = pool.apply_async(square, (1,))
    lazy = pool.imap(square, itertools.count())
    pool.terminate()
    pool.join()
    for result in (running, waiting):
        with pytest.raises(ActorDiedError):
            result.get(timeout=60)
    for _ in range(10):
        with pytest.raises(ActorDiedError):
            next(lazy)
    assert support.wait_until(lambda: not alive(pid), 30)


def test_leaving_the_context_terminates() -> None:
    with Pool(1) as pool:
        pid = pool.apply(os.getpid)
    with pytest.raises(ValueError, match="not running"):
        pool.apply(square, (1,))
    assert support.wait_until(lambda: not alive(pid), 30)


def test_a_pool_that_is_dropped_ends_its_processes() -> None:
    pool = Pool(1)
    pid = pool.apply(os.getpid)
    del pool
    assert support.wait_until(lambda: not alive(pid), 30)


def test_options_of_the_actors() -> None:
    with Pool(2, ray_remote_args={"num_cpus": 1}) as pool:
        pool.map(square, range(4))
        assert rlray.available_resources()["CPU"] == 2
    with Pool(ray_remote_args={"num_cpus": 2}) as pool:
        assert pool.imap(square, itertools.count())._ahead == 4  # two processes
    with pytest.raises(ValueError, match=r"3 processes with num_cpus=2 need 6 CPUs, but the runtime has 4\.0"):
        Pool(3, ray_remote_args={"num_cpus": 2})
    with Pool(6) as pool:  # more processes than CPUs
        assert pool.map(square, range(6), 1) == [0, 1, 4, 9, 16, 25]


def test_large_arrays_are_sent_and_returned(pool: Pool) -> None:
    arrays = [np.full(50_000, value) for value in range(4)]
    assert [result[0] for result in pool.map(lambda array: array + 1, arrays)] == [1, 2, 3, 4]


def test_threads_share_a_pool(pool: Pool) -> None:
    found: list[list[int]] = []
    threads = [threading.Thread(target=lambda: found.append(pool.map(square, range(40), 1))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [[value * value for value in range(40)]] * 4


def test_pools_inside_tasks_that_hold_all_cpus() -> None:
    """The pool's functions call tasks, which need the CPUs of the tasks that wait for the pool."""

    @rlray.remote
    def add_one(value: int) -> int:
        return value + 1

    @rlray.remote(num_cpus=4)
    def outer() -> list[int]:
        with Pool(2) as pool:
            return pool.map(lambda value: rlray.get(add_one.remote(value)), range(4))

    assert rlray.get(outer.remote(), timeout=60) == [1, 2, 3, 4]
