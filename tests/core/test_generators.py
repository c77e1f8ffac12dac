"""Generators: tasks and methods that give one reference per value, as values are yielded."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rlray
from rlray.exceptions import ActorDiedError, RayTaskError, TaskCancelledError, WorkerCrashedError
from tests.support import wait_until

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.every_engine]


@rlray.remote
def count(n: int) -> Iterator[int]:
    yield from range(n)


@rlray.remote
def fail_at(n: int, fail: int) -> Iterator[int]:
    for i in range(n):
        if i == fail:
            raise ValueError(f"at {i}")
        yield i


@rlray.remote
def arrays(n: int, size: int) -> Iterator[np.ndarray]:
    for i in range(n):
        yield np.full(size, i, dtype=np.uint8)


@rlray.remote
def note(path: Path, n: int, seconds: float = 0.0) -> Iterator[int]:
    """Write each value down just before it is yielded, and ``end`` at the end."""
    for i in range(n):
        with path.open("a") as file:
            file.write(f"{i}\n")
        yield i
        time.sleep(seconds)
    with path.open("a") as file:
        file.write("end\n")


def noted(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


@rlray.remote
class Source:
    def count(self, n: int) -> Iterator[int]:
        yield from range(n)

    def fail(self, n: int) -> Iterator[int]:
        yield from range(n)
        raise KeyError("source")

    @rlray.method(num_returns=2)
    def pair(self) -> Iterator[str]:
        yield "a"
        yield "b"

    def die(self) -> Iterator[int]:
        yield 1
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)


@rlray.remote
class AsyncSource:
    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.closed = 0

    async def count(self, n: int, seconds: float = 0.0) -> AsyncIterator[int]:
        for i in range(n):
            await asyncio.sleep(seconds)
            yield i

    async def fail(self, n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i
        raise KeyError("async source")

    async def hold(self) -> AsyncIterator[int]:
        try:
            yield 1
            await self.gate.wait()
            yield 2
        finally:
            self.closed += 1

    async def open(self) -> None:
        self.gate.set()

    async def how_many_closed(self) -> int:
        return self.closed

    async def endless(self) -> AsyncIterator[int]:
        while True:
            yield 1

    def plain(self, n: int) -> Iterator[int]:
        yield from range(n)


def outcomes(generator: rlray.ObjectRefGenerator) -> list[Any]:
    """The values; for an error its class."""
    found: list[Any] = []
    for ref in generator:
        try:
            found.append(rlray.get(ref, timeout=20))
        except Exception as error:
            found.append(type(error).__mro__)
    return found


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
