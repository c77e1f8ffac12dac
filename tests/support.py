"""What tests of real processes share: a view of /proc, and driver programs run as processes of their own."""

from __future__ import annotations

import asyncio
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import rlray

MARK = "RLRAY_TEST_DRIVER"
PACKAGE_PARENT = Path(rlray.__file__).resolve().parents[1]
REPOSITORY = Path(__file__).resolve().parents[1]

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc, which this system lacks")


class Process(NamedTuple):
    """One process; the start time tells it from a later one with the same number."""

    pid: int
    start: int

    def stat(self) -> tuple[str, int] | None:
        """(state, parent pid), or None when it is gone."""
        seen = _stat(self.pid)
        return None if seen is None or seen[2] != self.start else seen[:2]

    @property
    def running(self) -> bool:
        """Whether it still runs. A zombie holds no memory and is its parent's affair: it does not run."""
        seen = self.stat()
        return seen is not None and seen[0] not in "ZX"

    @property
    def command(self) -> str:
        try:
            return Path(f"/proc/{self.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            return ""


def _stat(pid: int) -> tuple[str, int, int] | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[1]), int(fields[19])


def _all_processes() -> dict[Process, int]:
    """Every process of this machine and its parent's pid."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (seen := _stat(int(entry.name))) is not None:
            found[Process(int(entry.name), seen[2])] = seen[1]
    return found


def descendants(pid: int) -> set[Process]:
    """Children of ``pid``, their children and so on, zombies included."""
    parent_of = _all_processes()
    family, found = {pid}, set[Process]()
    grew = True
    while grew:
        fresh = {process for process, parent in parent_of.items() if parent in family and process not in found}
        found |= fresh
        family |= {process.pid for process in fresh}
        grew = bool(fresh)
    return found


def children(pid: int) -> set[Process]:
    return {process for process, parent in _all_processes().items() if parent == pid}


def marked(mark: str) -> set[Process]:
    """Every process that inherited ``mark`` in its environment, wherever it hangs in the tree."""
    needle, found = f"{MARK}={mark}".encode(), set()
    for process in _all_processes():
        try:
            if needle in Path(f"/proc/{process.pid}/environ").read_bytes():
                found.add(process)
        except OSError:
            continue
    return found


def shared_memory() -> set[str]:
    """What lies in /dev/shm."""
    folder = Path("/dev/shm")
    return {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()


def store_used() -> int:
    """Bytes of the object store that are taken, by values or by pages that wait a moment for the next one."""
    total, free = rlray.cluster_resources(), rlray.available_resources()
    return int(total["object_store_memory"] - free["object_store_memory"])


@rlray.remote
class Meeting:
    """Where tasks wait for each other, so that each of them has a process of its own."""

    def __init__(self) -> None:
        self._all_here = asyncio.Event()
        self._here = 0

    async def wait_for(self, count: int) -> None:
        """Return once so many are here."""
        self._here += 1
        if self._here >= count:
            self._all_here.set()
        await self._all_here.wait()


def wait_until(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """The first true value of ``condition``, or its last one when ``seconds`` have passed."""
    deadline = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return value


def still_running(processes: Iterable[Process], within: float) -> list[str]:
    """Which of ``processes`` run after ``within`` seconds; returns as soon as none does."""
    processes = list(processes)
    wait_until(lambda: not any(process.running for process in processes), within)
    return [f"{process.pid} {process.command}" for process in processes if process.running]


class Driver:
    """A driver program in a process and a session of its own, whose temporary files go to a folder of its own.

    ``code`` is a program's text, or with ``python=()`` the path of a script. Its stdout is read line by line with
    `expect`; `output` is all of stdout and stderr so far; with ``listens`` it reads what is given to `say`. Leaving
    the ``with`` block kills what is left of it.
    """

    def __init__(
        self,
        code: str,
        *arguments: str,
        python: tuple[str, ...] = ("-c",),
        listens: bool = False,
        cwd: Path | None = None,
        **environment: str,
    ) -> None:
        self.mark = uuid.uuid4().hex
        self.folder = Path(tempfile.mkdtemp(prefix="rt-"))
        if python == ("-c",):  # whole lines at once: neither held back, nor mixed with what other processes write
            code = "import sys; sys.stdout.reconfigure(line_buffering=True)\n" + code
        search = os.pathsep.join(filter(None, [str(PACKAGE_PARENT), os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [sys.executable, *python, code, *arguments],
            stdin=subprocess.PIPE if listens else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=cwd,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": search, MARK: self.mark, "TMPDIR": str(self.folder), **environment},
        )
        self._lines: list[str] = []
        self._fresh: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for process in marked(self.mark):
            if process.running:
                os.kill(process.pid, 9)
        self._reader.join(10)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        return "".join(self._lines)

    def say(self, line: str) -> None:
        """A line for the program's stdin."""
        assert self.process.stdin is not None, "the program does not listen"
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def expect(self, word: str, timeout: float = 30.0) -> str:
        """The next line that starts with ``word``, without it."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = self._fresh.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no line {word!r} within {timeout} s; output:\n{self.output}") from None
            if line is None:
                raise AssertionError(f"ended without a line {word!r}; output:\n{self.output}")
            if line.startswith(word):
                return line[len(word) :].strip()

    def finish(self, timeout: float = 30.0) -> str:
        """All output, once the program and everyone who held its stdout have ended."""
        self.process.wait(timeout)
        self._reader.join(timeout)
        assert not self._reader.is_alive(), f"someone still holds the driver's stdout:\n{self.output}"
        return self.output

    def family(self) -> set[Process]:
        """The driver and every process that came of it and runs."""
        found = marked(self.mark) | descendants(self.pid)
        return {process for process in found if process.running}

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.append(line)
            self._fresh.put(line)
        self._fresh.put(None)


def assert_nothing_left(driver: Driver, family: Iterable[Process], shared: set[str], grace: float) -> None:
    """After ``grace`` seconds nothing is left of a driver that has ended.

    That is: no process of its ``family``, or that has its mark, no shared memory that is not in ``shared``, no file.
    """
    ended = time.monotonic()
    family = {*family, *marked(driver.mark)}
    left = still_running(family, grace)
    assert not left, f"after {time.monotonic() - ended:.1f} s: {left}\n{driver.output}"
    assert not [process for process in marked(driver.mark) - family if process.running]
    assert wait_until(lambda: shared_memory() <= shared, 2.0), (
        shared_memory() - shared
    )  # others may use it for a moment
    assert wait_until(lambda: not list(driver.folder.iterdir()), 0.5), sorted(driver.folder.rglob("*"))


def run_driver(code: str, *arguments: str, timeout: float = 60.0, **environment: str) -> str:
    """Run a driver program to its end; returns its output and fails unless it exited with 0."""
    with Driver(code, *arguments, **environment) as driver:
        output = driver.finish(timeout)
        assert driver.process.returncode == 0, f"exit code {driver.process.returncode}:\n{output}"
        return output
