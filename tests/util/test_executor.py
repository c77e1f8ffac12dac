"""The executor: what concurrent.futures promises, kept by tasks."""

from __future__ import annotations

import asyncio
import concurrent.futures
import operator
import os
import threading
import time
from pathlib import Path

import pytest

import rlray
from rlray.exceptions import RayTaskError, TaskUnschedulableError, WorkerCrashedError
from rlray.util import Executor

pytestmark = pytest.mark.usefixtures("cluster")


def not_three(value: int) -> int:
    if value == 3:
        raise ValueError("three")
    return value


def when_there(path: Path) -> str:
    while not path.exists():
        time.sleep(0.01)
    return path.name


def test_submit_gives_real_futures() -> None:
    with Executor() as executor:
        assert isinstance(executor, concurrent.futures.Executor)
        future = executor.submit(divmod, 7, 2)
        assert isinstance(future, concurrent.futures.Future)
        assert future.result() == (3, 1)
        assert executor.submit(int, "ff", base=16).result(timeout=60) == 255
        assert executor.submit(os.getpid).result() != os.getpid()
        futures = [executor.submit(operator.neg, value) for value in range(20)]
        assert not concurrent.futures.wait(futures, timeout=60).not_done
        assert sorted(future.result() for future in concurrent.futures.as_completed(futures)) == list(range(-19, 1))


def test_an_error_is_the_original_with_the_remote_traceback_as_cause() -> None:
    with Executor() as executor:
        future = executor.submit(not_three, 3)
        error = future.exception(timeout=60)
        assert type(error) is ValueError
        assert isinstance(error.__cause__, RayTaskError)
        assert "in not_three" in str(error.__cause__)
        with pytest.raises(ValueError, match=r"^three$"):
            future.result()


def test_what_cannot_be_sent_is_an_error_of_the_future() -> None:
    with Executor() as executor, pytest.raises(TypeError, match="cannot be pickled"):
        executor.submit(print, threading.Lock()).result()


def test_a_timeout(tmp_path: Path) -> None:
    with Executor() as executor:
        future = executor.submit(when_there, tmp_path / "gate")
        for wait in (future.result, future.exception):
            with pytest.raises(concurrent.futures.TimeoutError):
                wait(timeout=0.05)
        (tmp_path / "gate").touch()
        assert future.result() == "gate"


def test_map() -> None:
    with Executor(2) as executor:
        assert list(executor.map(pow, range(10), [2] * 10)) == [value**2 for value in range(10)]
        assert list(executor.map(pow, range(10), [2] * 10, chunksize=4)) == [value**2 for value in range(10)]
        results = executor.map(not_three, range(6))
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ValueError, match="three"):
            next(results)
        with pytest.raises(ValueError, match="chunksize must be at least 1, got 0"):
            executor.map(not_three, [1], chunksize=0)


def test_map_runs_a_chunk_in_one_task() -> None:
    with Executor(2) as executor:
        threads = list(executor.map(lambda _: rlray.get_runtime_context().get_task_id(), range(6), chunksize=3))
    assert threads[0] == threads[1] == threads[2] != threads[3] == threads[4] == threads[5]


def test_map_with_a_timeout(tmp_path: Path) -> None:
    with Executor() as executor:
        results = executor.map(when_there, [tmp_path / "gate"], timeout=0.05)
        with pytest.raises(concurrent.futures.TimeoutError):
            next(results)
        (tmp_path / "gate").touch()


def test_max_workers_bounds_what_runs_and_the_rest_can_be_cancelled(tmp_path: Path) -> None:
    def started(name: str) -> str:
        (tmp_path / f"{name} started").touch()
        return when_there(tmp_path / name)

    with Executor(max_workers=2, num_cpus=0) as executor:
        futures = [executor.submit(started, name) for name in "abcd"]
        when_there(tmp_path / "a started")
        when_there(tmp_path / "b started")
        assert [future.running() for future in futures] == [True, True, False, False]
        assert not futures[0].cancel()
        assert futures[2].cancel()
        (tmp_path / "a").touch()
        when_there(tmp_path / "d started")
        assert not (tmp_path / "c started").exists()
        with pytest.raises(concurrent.futures.CancelledError):
            futures[2].result()
        (tmp_path / "b").touch()
        (tmp_path / "d").touch()
    assert [future.result() for future in futures if not future.cancelled()] == ["a", "b", "d"]


def test_shutdown_waits_and_takes_no_more() -> None:
    executor = Executor()
    futures = [executor.submit(time.sleep, 0.01) for _ in range(10)]
    executor.shutdown()
    assert all(future.done() for future in futures)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(abs, 1)
    executor.shutdown()


def test_shutdown_without_waiting_still_runs_everything(tmp_path: Path) -> None:
    executor = Executor(1)
    futures = [executor.submit(when_there, tmp_path / "gate") for _ in range(3)]
    executor.shutdown(wait=False)
    assert not any(future.done() for future in futures)
    (tmp_path / "gate").touch()
    assert [future.result() for future in futures] == ["gate"] * 3


def test_shutdown_can_cancel_what_waits(tmp_path: Path) -> None:
    executor = Executor(1)
    futures = [executor.submit(when_there, tmp_path / "gate") for _ in range(3)]
    executor.shutdown(wait=False, cancel_futures=True)
    assert [future.cancelled() for future in futures] == [False, True, True]
    assert concurrent.futures.wait(futures[1:], timeout=60).not_done == set()
    (tmp_path / "gate").touch()
    executor.shutdown()
    assert futures[0].result() == "gate"


def test_in_asyncio() -> None:
    async def main(executor: Executor) -> list[int]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(executor, operator.neg, value) for value in range(10)))

    with Executor() as executor:
        assert asyncio.run(main(executor)) == [-value for value in range(10)]


def test_callbacks() -> None:
    with Executor() as executor:
        called = threading.Event()
        executor.submit(abs, -1).add_done_callback(lambda future: called.set() if future.result() == 1 else None)
        assert called.wait(60)


def test_options_of_the_tasks() -> None:
    with Executor(num_cpus=2) as executor:
        resources = executor.submit(lambda: rlray.get_runtime_context().get_assigned_resources()).result()
        assert resources["CPU"] == 2
    with Executor(max_retries=0) as executor, pytest.raises(WorkerCrashedError):
        executor.submit(os._exit, 1).result()
    with Executor(num_cpus=100) as executor, pytest.raises(TaskUnschedulableError):
        executor.submit(abs, 1).result()


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="max_workers must be at least 1, got 0"):
        Executor(0)
    with pytest.raises(TypeError, match="max_workers must be an int or None, got float"):
        Executor(1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="did you mean 'num_cpus'"):
        Executor(num_cpu=1)
    with pytest.raises(ValueError, match="num_returns"):
        Executor(num_returns=2)


def test_an_executor_inside_tasks_that_hold_all_cpus() -> None:
    @rlray.remote(num_cpus=4)
    def outer() -> list[int]:
        with Executor(2) as executor:
            first = executor.submit(abs, -5).result()
            return [first, *executor.map(abs, range(-3, 0))]

    assert rlray.get(outer.remote(), timeout=60) == [5, 3, 2, 1]
