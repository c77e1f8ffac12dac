"""Actors that run several calls at once: threads and asyncio; and references awaited by the driver."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import rlray
from rlray.exceptions import RayActorError, TaskCancelledError
from tests.support import wait_until

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.every_engine]


@rlray.remote
class Threaded:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = 0

    def meet(self, company: int, seconds: float) -> int:
        """Stay until ``company`` calls are in at once, at most ``seconds``; the most that were seen."""
        with self.lock:
            self.inside += 1
        seen, deadline = 0, time.monotonic() + seconds
        while seen < company and time.monotonic() < deadline:
            seen = max(seen, self.inside)
            time.sleep(0.005)
        time.sleep(0.1)
        with self.lock:
            seen = max(seen, self.inside)
            self.inside -= 1
        return seen


@rlray.remote
class Asynchronous:
    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.inside = self.peak = 0

    async def hold(self) -> int:
        self.inside += 1
        self.peak = max(self.peak, self.inside)
        await self.event.wait()
        self.inside -= 1
        return self.peak

    async def release(self) -> int:
        self.event.set()
        return self.inside

    async def waiting(self) -> int:
        return self.inside

    async def add(self, box: list[rlray.ObjectRef]) -> int:
        return sum(await asyncio.gather(*box))

    async def fail(self) -> None:
        await asyncio.sleep(0)
        raise ValueError("in a coroutine")

    async def whoami(self) -> tuple[str | None, str | None]:
        before = rlray.get_runtime_context().get_task_id()
        await asyncio.sleep(0.05)
        return before, rlray.get_runtime_context().get_task_id()

    def plain(self) -> str:
        return "a plain method of an async actor"


def all_inside(actor: Any, count: int) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if rlray.get(actor.waiting.remote()) == count:
            return True
    return False


def test_threads_run_side_by_side_up_to_the_limit() -> None:
    actor = Threaded.options(max_concurrency=3).remote()
    refs = [actor.meet.remote(3, 10.0) for _ in range(5)]
    assert max(rlray.get(refs[:3], timeout=30)) == 3
    rlray.kill(actor)


def test_without_max_concurrency_one_at_a_time() -> None:
    actor = Threaded.remote()
    assert rlray.get([actor.meet.remote(2, 0.2) for _ in range(3)], timeout=30) == [1, 1, 1]


def test_coroutines_wait_together() -> None:
    actor = Asynchronous.remote()
    refs = [actor.hold.remote() for _ in range(50)]
    assert all_inside(actor, 50)
    rlray.get(actor.release.remote())
    assert rlray.get(refs, timeout=20) == [50] * 50


def test_coroutines_keep_to_max_concurrency() -> None:
    actor = Asynchronous.options(max_concurrency=3).remote()
    held = [actor.hold.remote() for _ in range(2)]
    assert all_inside(actor, 2)
    assert rlray.get(actor.release.remote()) == 2
    assert max(rlray.get(held, timeout=20)) == 2


def test_a_coroutine_awaits_references() -> None:
    square = rlray.remote(lambda x: x * x)
    actor = Asynchronous.remote()
    assert rlray.get(actor.add.remote([square.remote(i) for i in range(5)]), timeout=20) == 30


def test_errors_context_and_plain_methods() -> None:
    actor = Asynchronous.remote()
    with pytest.raises(ValueError, match="in a coroutine"):
        rlray.get(actor.fail.remote())
    seen = rlray.get([actor.whoami.remote() for _ in range(4)])
    assert all(before == after for before, after in seen), "each coroutine keeps its own context"
    assert len({before for before, _ in seen}) == 4
    assert rlray.get(actor.plain.remote()) == "a plain method of an async actor"


@pytest.mark.differs("ray", "coroutines may begin in any order")
@pytest.mark.processes
@pytest.mark.parametrize("turns", range(5))
def test_a_coroutine_can_be_cancelled_at_the_moment_when_it_begins(turns: int, tmp_path: Path) -> None:
    """The cancel is read when the call before it has so many turns of the event loop to go."""

    @rlray.remote(max_concurrency=1)
    class OneByOne:
        async def first(self, begun: Path, gate: Path, turns: int) -> None:
            begun.touch()
            while not gate.exists():
                time.sleep(0.01)
            time.sleep(0.1)
            for _ in range(turns):
                await asyncio.sleep(0)

        async def second(self) -> None:
            await asyncio.sleep(60)

        async def third(self) -> int:
            return 3

    actor, begun, gate = OneByOne.remote(), tmp_path / "begun", tmp_path / "gate"
    first = actor.first.remote(begun, gate, turns)
    second = actor.second.remote()
    assert wait_until(begun.exists, 20)
    time.sleep(0.1)  # the second call waits behind the first
    rlray.cancel(second)
    gate.touch()
    with pytest.raises(TaskCancelledError):
        rlray.get(second, timeout=20)
    assert rlray.get([first, actor.third.remote()], timeout=20) == [None, 3]


@pytest.mark.differs("ray", "no thread stands in for an event loop there")
@pytest.mark.processes
def test_a_cancel_of_a_coroutine_waits_for_no_further_message() -> None:
    """A fresh actor's event loop takes over from the thread that stood in for it, which may have read the cancel."""

    @rlray.remote(max_concurrency=1)
    class Busy:
        async def block(self) -> None:
            time.sleep(0.5)

        async def behind(self) -> None:
            await asyncio.sleep(60)

    actors = [Busy.remote() for _ in range(16)]
    blocking = [actor.block.remote() for actor in actors]
    behind = [actor.behind.remote() for actor in actors]
    time.sleep(0.3)
    for ref in behind:
        rlray.cancel(ref)
    for ref in behind:
        with pytest.raises(TaskCancelledError):
            rlray.get(ref, timeout=20)
    assert rlray.get(blocking, timeout=20) == [None] * 16


def test_a_coroutine_can_be_cancelled() -> None:
    actor = Asynchronous.remote()
    ref = actor.hold.remote()
    assert all_inside(actor, 1)
    rlray.cancel(ref)
    with pytest.raises(TaskCancelledError):
        rlray.get(ref, timeout=10)
    assert rlray.get(actor.plain.remote(), timeout=10)


def test_kill_fails_every_coroutine() -> None:
    actor = Asynchronous.remote()
    refs = [actor.hold.remote() for _ in range(5)]
    assert all_inside(actor, 5)
    rlray.kill(actor)
    for ref in refs:
        with pytest.raises(RayActorError):
            rlray.get(ref, timeout=10)


def test_the_driver_awaits_references() -> None:
    square = rlray.remote(lambda x: x * x)

    @rlray.remote
    def fail() -> None:
        raise KeyError("awaited")

    async def main() -> list[int]:
        with pytest.raises(KeyError):
            await fail.remote()
        return await asyncio.gather(*[square.remote(i) for i in range(5)])

    assert asyncio.run(main()) == [0, 1, 4, 9, 16]


def test_references_as_futures() -> None:
    nap = rlray.remote(lambda seconds: time.sleep(seconds) or seconds)
    futures = [nap.remote(seconds).future() for seconds in (0.2, 0.0)]
    done = [future.result() for future in concurrent.futures.as_completed(futures, timeout=20)]
    assert sorted(done) == [0.0, 0.2]
    assert rlray.put(5).future().result(timeout=5) == 5
