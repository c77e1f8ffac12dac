"""What others have of a worker that dies: no hang, no call run twice that must not be, no message lost."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import rlray
from rlray.exceptions import RayError, WorkerCrashedError
from tests.support import descendants, needs_proc, wait_until

pytestmark = pytest.mark.usefixtures("cluster")
GRACE = 2.0  # seconds: what the runtime promises

# -- what the caller is told -----------------------------------------------------------------------------------------


def die(how: str, note: Path) -> None:
    """Print, note the time, and die; or raise."""
    sys.stdout.write(f"last words before {how}\n")
    sys.stderr.write("and an unfinished line")
    note.write_text(str(time.monotonic()))
    if how == "raise":
        raise ValueError("a mistake")
    if how == "os._exit":
        sys.stderr.flush()
        os._exit(3)
    if how == "segfault":
        ctypes.string_at(0)
    os.kill(os.getpid(), getattr(signal, how))
    time.sleep(30)


class Mortal:
    def die(self, how: str, note: Path) -> None:
        die(how, note)

    async def later(self, how: str, note: Path) -> None:
        die(how, note)


ENDS = {
    "SIGKILL": ["SIGKILL", "last words before SIGKILL"],
    "SIGTERM": ["SIGTERM", "last words before SIGTERM"],
    "SIGABRT": ["SIGABRT", "last words before SIGABRT", "in die"],
    "segfault": ["SIGSEGV", "last words before segfault", "Segmentation fault", "in string_at", "in die"],
    "os._exit": ["code 3", "last words before os._exit", "and an unfinished line"],
    "raise": ["a mistake", "in die", "ValueError"],
}
WAYS: dict[str, Any] = {
    "get": lambda ref: rlray.get(ref, timeout=30),
    "wait": lambda ref: rlray.get(rlray.wait([ref, rlray.put(1)], num_returns=2, timeout=30)[0]),
    "future": lambda ref: ref.future().result(30),
    "argument": lambda ref: rlray.get(rlray.remote(lambda value: value).remote(ref), timeout=30),
}


@pytest.mark.parametrize("kind", ["task", "actor", "async actor", "actor on threads"])
@pytest.mark.parametrize("how", ENDS)
def test_whoever_waits_is_told_within_two_seconds(how: str, kind: str, tmp_path: Path) -> None:
    """Signal or exit code, and what was printed last, in whatever way the caller waits."""
    for way, wait in WAYS.items():
        note = tmp_path / way
        if kind == "task":
            ref = rlray.remote(max_retries=0)(die).remote(how, note)
        else:
            actor = rlray.remote(max_concurrency=1 + ("threads" in kind))(Mortal).remote()
            ref = (actor.later if kind == "async actor" else actor.die).remote(how, note)
        with pytest.raises(RayError) as caught:
            wait(ref)
        assert time.monotonic() - float(note.read_text()) < GRACE
        for words in ENDS[how]:
            assert words in str(caught.value), f"{way}: {caught.value}"


def memory_group(folder: Path, most: int) -> bool:
    """Make a control group whose processes may use ``most`` bytes; whether that can be done here."""
    try:
        folder.mkdir()
        limit = folder / "memory.limit_in_bytes"
        (limit if limit.exists() else folder / "memory.max").write_text(str(most))
    except OSError:
        return False
    return True


def test_who_is_killed_by_the_kernel_for_lack_of_memory_is_told_so() -> None:
    roots = [
        root for root in map(Path, ("/sys/fs/cgroup/memory", "/sys/fs/cgroup")) if (root / "cgroup.procs").exists()
    ]
    group = roots[0] / f"rlray-test-{os.getpid()}" if roots else None
    if group is None or not memory_group(group, 100_000_000):
        pytest.skip("this user may not limit the memory of a group of processes here")

    @rlray.remote(max_retries=0)
    def take_all() -> None:
        (group / "cgroup.procs").write_text(str(os.getpid()))
        sys.stdout.write("taking\n")
        bytearray(b"x") * 1_000_000_000

    try:
        with pytest.raises(WorkerCrashedError, match=r"SIGKILL.*lack of memory(?s:.*)taking"):
            rlray.get(take_all.remote(), timeout=60)
    finally:
        assert wait_until(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()


# -- what others have of it ------------------------------------------------------------------------------------------


class Source:
    """Generators that say in a file when they are closed."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def count(self) -> Iterator[int]:
        try:
            yield from range(1_000_000)
        finally:
            self.log.write_text("closed")

    def alive(self) -> bool:
        return True


class AsyncSource(Source):
    async def count(self) -> AsyncIterator[int]:  # type: ignore[override]
        try:
            for i in range(1_000_000):
                yield i
        finally:
            self.log.write_text("closed")


@pytest.mark.parametrize("ahead", [2, -1], ids=["backpressure", "no backpressure"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [(Source, {"num_cpus": 0}), (Source, {"max_concurrency": 2}), (AsyncSource, {"num_cpus": 0})],
    ids=["one", "threads", "async"],
)
def test_a_generator_ends_with_its_reader(kind: type, options: dict[str, Any], ahead: int, tmp_path: Path) -> None:
    """The actor is not held up for ever by a generator whose reader was killed, nor by one that has no end."""
    source = rlray.remote(**options)(kind).remote(tmp_path / "log")

    @rlray.remote(max_retries=0)
    def read() -> None:
        values = source.count.options(num_returns="streaming", _generator_backpressure_num_objects=ahead).remote()
        rlray.get(next(values))
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(WorkerCrashedError, match="SIGKILL"):
        rlray.get(read.remote(), timeout=30)
    assert rlray.get(source.alive.remote(), timeout=30)
    assert wait_until(lambda: (tmp_path / "log").exists()), "it was not closed"


def test_a_call_that_must_not_run_twice_is_not_taken_for_one_behind_the_dead(tmp_path: Path) -> None:
    """An answer that waits for company leaves before a call begins that must not run twice."""

    @rlray.remote(num_cpus=4)
    def short(number: int) -> int:
        return number

    @rlray.remote(num_cpus=4, max_retries=0)
    def once(path: Path | None) -> None:
        if path is not None:
            with path.open("a") as file:
                file.write("run\n")
            os.kill(os.getpid(), signal.SIGKILL)

    @rlray.remote(num_cpus=4)
    def pause() -> None:
        time.sleep(0.05)

    for _ in range(200):  # until both are known to be short
        rlray.get([short.remote(1), once.remote(None)])
    for turn in range(8):
        rlray.get([short.remote(1), once.remote(None)])
        holding_up = pause.remote()  # so that the next two leave together
        path = tmp_path / str(turn)
        refs = [short.remote(turn), once.remote(path)]
        with pytest.raises(WorkerCrashedError, match="SIGKILL"):
            rlray.get(refs[1], timeout=30)
        assert path.read_text() == "run\n"
        assert rlray.get([refs[0], holding_up], timeout=30) == [turn, None]


# -- what a worker has started itself --------------------------------------------------------------------------------


@needs_proc
def test_a_dead_worker_takes_its_family_along_and_nobody_elses() -> None:
    """Children of children too. What another worker has left running in the background runs on."""

    @rlray.remote(num_cpus=0)
    class Parent:
        def start(self, command: str) -> int:
            subprocess.run(command, shell=True, check=True, stdout=subprocess.DEVNULL)
            return os.getpid()

    living, dying = Parent.remote(), Parent.remote()
    rlray.get(living.start.remote("(sleep 600.25 & sleep 600.25) &"))
    victim = rlray.get(
        dying.start.remote("(sleep 600.75 & setsid sh -c 'sleep 600.75 & sleep 600.75' & sleep 600.75) &")
    )

    def running(command: str) -> int:
        return sum(command == one.command and one.running for one in descendants(os.getpid()))

    assert wait_until(lambda: running("sleep 600.75") == 4), "the test needs them"
    assert running("sleep 600.25") == 2
    os.kill(victim, signal.SIGKILL)
    assert wait_until(lambda: not running("sleep 600.75"), GRACE), running("sleep 600.75")
    time.sleep(0.2)
    assert running("sleep 600.25") == 2
    rlray.kill(living)
    assert wait_until(lambda: not running("sleep 600.25"), GRACE)


def test_a_worker_that_signals_its_process_group_ends_alone() -> None:
    """Libraries do so to clean up; the other workers and the runtime are not in that group."""

    @rlray.remote(max_retries=0)
    def clean_up() -> None:
        os.killpg(0, signal.SIGKILL)

    other = rlray.remote(lambda: os.getpid())
    before = rlray.get(other.remote())
    with pytest.raises(WorkerCrashedError, match="SIGKILL"):
        rlray.get(clean_up.remote(), timeout=30)
    assert before
    assert rlray.get(other.remote(), timeout=30)
