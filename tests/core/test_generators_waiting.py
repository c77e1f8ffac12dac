"""Waiting for generators, cancelling them, and backpressure."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rlray
from rlray.exceptions import TaskCancelledError
from tests.core.generator_support import AsyncSource, Source, count, fail_at, note, noted, outcomes
from tests.support import wait_until

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.every_engine]


# -- cancel ----------------------------------------------------------------------------------------------------------


def test_cancel_of_a_running_generator() -> None:
    @rlray.remote
    def endless() -> Iterator[int]:
        while True:
            yield 1
            time.sleep(0.01)

    generator = endless.remote()
    assert rlray.get(next(generator), timeout=20) == 1
    rlray.cancel(generator)
    assert TaskCancelledError in outcomes(generator)[-1]
    with pytest.raises(TaskCancelledError):
        rlray.get(generator.completed(), timeout=20)


@pytest.mark.processes
def test_cancel_of_a_generator_that_has_not_begun() -> None:
    never = rlray.remote(time.sleep).remote(60)
    generator = count.remote(never)
    rlray.cancel(generator)
    assert TaskCancelledError in outcomes(generator)[-1]
    rlray.cancel(never, force=True)


def test_cancel_of_an_asynchronous_generator() -> None:
    source = AsyncSource.remote()
    generator = source.hold.remote()
    assert rlray.get(next(generator), timeout=20) == 1
    rlray.cancel(generator)
    assert TaskCancelledError in outcomes(generator)[-1]
    assert rlray.get(source.how_many_closed.remote(), timeout=20) == 1


def test_cancel_of_a_finished_generator_changes_nothing() -> None:
    generator = count.remote(3)
    rlray.get(generator.completed(), timeout=20)
    rlray.cancel(generator)
    assert outcomes(generator) == [0, 1, 2]


# -- waiting ---------------------------------------------------------------------------------------------------------


@pytest.mark.processes
def test_wait_over_several_generators(tmp_path: Path) -> None:
    """Values are processed as they come, whichever generator they are from."""
    gate = tmp_path / "gate"

    @rlray.remote
    def gated() -> Iterator[str]:
        while not gate.exists():
            time.sleep(0.01)
        yield "late"

    late, early, empty = gated.remote(), count.remote(1), count.remote(0)
    ready, rest = rlray.wait([late, early, empty], num_returns=2, timeout=20)
    assert ready == [early, empty]
    assert rest == [late]
    gate.touch()
    seen, pending = [], [late, early, empty]
    while pending:
        [one], pending = rlray.wait(pending, timeout=20)
        ref = next(one, None)
        if ref is not None:
            seen.append(rlray.get(ref))
            pending.append(one)
    assert sorted(seen, key=str) == [0, "late"]


def test_wait_mixes_generators_and_references() -> None:
    generator, ref = count.remote(1), rlray.put(1)
    assert rlray.wait([generator, ref], num_returns=2, timeout=20) == ([generator, ref], [])
    with pytest.raises(ValueError, match="more than once"):
        rlray.wait([generator, generator])


def test_async_for() -> None:
    complaints: list[Any] = []

    async def main() -> list[Any]:
        asyncio.get_running_loop().set_exception_handler(lambda loop, what: complaints.append(what))
        found: list[Any] = []
        async for ref in fail_at.remote(5, 3):
            try:
                found.append(await ref)
            except ValueError:
                found.append("error")
        return found

    assert asyncio.run(main()) == [0, 1, 2, "error"]
    gc.collect()
    assert not complaints


def test_async_for_inside_an_async_actor() -> None:
    @rlray.remote
    class Reader:
        async def read(self, n: int) -> list[int]:
            return [await ref async for ref in count.remote(n)]

    assert rlray.get(Reader.remote().read.remote(20), timeout=20) == list(range(20))


def test_several_readers_share_the_values() -> None:
    """Threads or coroutines that read one generator get each value once between them."""
    generator, found = count.remote(3_000), list[int]()

    def read() -> None:
        found.extend(rlray.get(ref) for ref in generator)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(found) == list(range(3_000))

    async def main() -> list[int]:
        shared = count.remote(300)

        async def read() -> list[int]:
            return [await ref async for ref in shared]

        return [value for part in await asyncio.gather(*[read() for _ in range(4)]) for value in part]

    assert sorted(asyncio.run(main())) == list(range(300))


@pytest.mark.processes
def test_an_actor_that_comes_back_loses_and_repeats_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "died"

    @rlray.remote(max_restarts=1, max_task_retries=1)
    class Fragile:
        def count(self) -> Iterator[int]:
            for i in range(1_000):
                if i == 500 and not marker.exists():
                    marker.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                yield i

    assert outcomes(Fragile.remote().count.remote()) == list(range(1_000))


def test_completed(tmp_path: Path) -> None:
    generator = count.remote(3)
    assert rlray.get(generator.completed(), timeout=20) is None
    assert outcomes(generator) == [0, 1, 2]


def test_a_generator_that_reads_a_generator() -> None:
    @rlray.remote
    def doubled(n: int) -> Iterator[int]:
        for ref in count.remote(n):
            yield 2 * rlray.get(ref)

    assert outcomes(doubled.remote(200)) == [2 * i for i in range(200)]


# -- backpressure ----------------------------------------------------------------------------------------------------


@pytest.mark.processes
def test_backpressure(tmp_path: Path) -> None:
    """The generator is never more than the given number of values ahead of its reader."""
    log = tmp_path / "log"
    generator = note.options(_generator_backpressure_num_objects=3).remote(log, 30)
    assert wait_until(lambda: len(noted(log)) >= 3, 20)
    for taken in range(30):
        assert rlray.get(next(generator), timeout=20) == taken
        assert len(noted(log)) <= taken + 1 + 3
    assert list(generator) == []


@pytest.mark.parametrize("source", [Source, AsyncSource, Source.options(max_concurrency=2)])
def test_backpressure_of_an_actors_generator(source: Any) -> None:
    actor = source.remote()
    generator = actor.count.options(_generator_backpressure_num_objects=2).remote(50)
    assert outcomes(generator) == list(range(50))


@pytest.mark.processes
def test_backpressure_ends_when_nobody_reads_any_more(tmp_path: Path) -> None:
    log = tmp_path / "log"
    generator = note.options(_generator_backpressure_num_objects=2).remote(log, 10)
    assert rlray.get(next(generator), timeout=20) == 0
    del generator
    assert wait_until(lambda: noted(log)[-1:] == ["end"], 20)


@pytest.mark.processes
def test_backpressure_survives_a_retry(tmp_path: Path) -> None:
    marker = tmp_path / "died"

    @rlray.remote(max_retries=1, _generator_backpressure_num_objects=2)
    def fragile() -> Iterator[int]:
        for i in range(12):
            if i == 6 and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield i

    assert outcomes(fragile.remote()) == list(range(12))


def test_cancel_of_a_generator_that_waits_for_its_reader() -> None:
    generator = count.options(_generator_backpressure_num_objects=1).remote(10)
    assert rlray.get(next(generator), timeout=20) == 0
    rlray.cancel(generator)
    assert TaskCancelledError in outcomes(generator)[-1]
