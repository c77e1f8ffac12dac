"""Workers that die: what the caller sees, and what is run again."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

import rlray
from rlray.exceptions import WorkerCrashedError

pytestmark = pytest.mark.usefixtures("cluster")


def die(how: str) -> None:
    if how == "exit":
        os._exit(3)
    if how == "sys":
        sys.exit(3)
    os.kill(os.getpid(), getattr(signal, how))
    time.sleep(30)


def count_run(log: Path) -> int:
    """Append a line for this run and say which one it is."""
    with log.open("a") as file:
        file.write("run\n")
    return len(log.read_text().splitlines())


@rlray.remote
def die_at_first(log: Path, deaths: int, how: str = "SIGKILL") -> int:
    run = count_run(log)
    if run <= deaths:
        die(how)
    return run


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ("exit", r"\b3\b"),
        ("SIGKILL", "SIGKILL"),
        ("SIGSEGV", "SIGSEGV"),
        ("SIGABRT", "SIGABRT"),
        ("SIGTERM", "SIGTERM"),
    ],
)
def test_a_crash_names_what_killed_the_worker(how: str, named: str) -> None:
    crash = rlray.remote(max_retries=0)(die)
    start = time.monotonic()
    with pytest.raises(WorkerCrashedError, match=named) as caught:
        rlray.get(crash.remote(how), timeout=30)
    assert time.monotonic() - start < 5.0
    assert "die" in str(caught.value), "it should name the task"


def test_sys_exit_ends_the_task_with_an_error() -> None:
    quit_ = rlray.remote(max_retries=0)(die)
    with pytest.raises(rlray.exceptions.RayError, match="3"):
        rlray.get(quit_.remote("sys"), timeout=30)


def test_other_work_goes_on_after_a_crash() -> None:
    crash, square = rlray.remote(max_retries=0)(die), rlray.remote(lambda x: x * x)
    crashes = [crash.remote("SIGKILL") for _ in range(4)]
    squares = [square.remote(i) for i in range(200)]
    assert rlray.get(squares, timeout=60) == [i * i for i in range(200)]
    for ref in crashes:
        with pytest.raises(WorkerCrashedError):
            rlray.get(ref, timeout=30)


def test_three_retries_by_default(tmp_path: Path) -> None:
    assert rlray.get(die_at_first.remote(tmp_path / "ok", 3), timeout=60) == 4
    with pytest.raises(WorkerCrashedError):
        rlray.get(die_at_first.remote(tmp_path / "too often", 99), timeout=60)
    assert (tmp_path / "too often").read_text().count("run") == 4


@pytest.mark.parametrize(("retries", "runs"), [(0, 1), (1, 2)])
def test_max_retries_counts(tmp_path: Path, retries: int, runs: int) -> None:
    log = tmp_path / "log"
    with pytest.raises(WorkerCrashedError):
        rlray.get(die_at_first.options(max_retries=retries).remote(log, 99, "exit"), timeout=60)
    assert log.read_text().count("run") == runs


def test_minus_one_retries_for_ever(tmp_path: Path) -> None:
    assert rlray.get(die_at_first.options(max_retries=-1).remote(tmp_path / "log", 6), timeout=60) == 7


def test_exceptions_are_not_retried(tmp_path: Path) -> None:
    log = tmp_path / "log"

    @rlray.remote(max_retries=3)
    def fail() -> None:
        count_run(log)
        raise ValueError("once")

    with pytest.raises(ValueError, match="once"):
        rlray.get(fail.remote())
    assert log.read_text().count("run") == 1


def test_a_crash_does_not_run_finished_tasks_again(tmp_path: Path) -> None:
    """Tasks that had ended on the worker that died are not lost and not repeated."""
    log = tmp_path / "log"

    @rlray.remote
    def note(i: int) -> int:
        with log.open("a") as file:
            file.write(f"{i}\n")
        return i

    before = [note.remote(i) for i in range(20)]
    assert rlray.get(before) == list(range(20))
    rlray.get(die_at_first.remote(tmp_path / "crash", 1))
    assert rlray.get(before) == list(range(20))
    assert sorted(map(int, log.read_text().split())) == list(range(20))


def test_tasks_queued_behind_a_crash_all_come_back(tmp_path: Path) -> None:
    @rlray.remote
    def maybe(i: int) -> int:
        if i % 37 == 5 and count_run(tmp_path / f"log{i}") == 1:
            die("SIGKILL")
        return i

    assert rlray.get([maybe.remote(i) for i in range(150)], timeout=90) == list(range(150))


def test_a_killed_parent_is_run_again_with_its_children(tmp_path: Path) -> None:
    square = rlray.remote(lambda x: x * x)

    @rlray.remote
    def parent() -> int:
        total = sum(rlray.get([square.remote(i) for i in range(5)]))
        if count_run(tmp_path / "log") == 1:
            die("SIGKILL")
        return total

    assert rlray.get(parent.remote(), timeout=60) == 30


def test_a_worker_killed_from_outside_while_it_works(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"

    @rlray.remote(max_retries=1)
    def work() -> int:
        first = not pid_file.exists()
        pid_file.write_text(str(os.getpid()))
        if first:
            time.sleep(60)
        return os.getpid()

    ref = work.remote()
    while not (pid_file.exists() and pid_file.read_text()):
        time.sleep(0.01)
    victim = int(pid_file.read_text())
    os.kill(victim, signal.SIGKILL)
    assert rlray.get(ref, timeout=30) != victim


def test_what_a_dead_process_had_put_is_lost_and_says_so() -> None:
    """Results belong to the process that asked for them and stay; what a task has put itself goes with its process."""

    @rlray.remote(max_retries=0)
    def pid_and_value() -> tuple[int, rlray.ObjectRef]:
        return os.getpid(), rlray.put("mine")

    pid, value = rlray.get(pid_and_value.remote(), timeout=20)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(rlray.exceptions.OwnerDiedError):
        rlray.get(value, timeout=20)
