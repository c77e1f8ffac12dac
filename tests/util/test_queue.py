"""The queue: order, limits, timeouts, many producers and consumers, the end."""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
import time
from typing import Any

import numpy as np
import pytest

import rlray
from rlray.exceptions import ActorDiedError
from rlray.util.queue import Empty, Full, Queue

pytestmark = pytest.mark.usefixtures("cluster")


@rlray.remote
def put_all(target: Queue, items: list[Any]) -> int:
    for item in items:
        target.put(item)
    return len(items)


@rlray.remote
def take(source: dict[str, Queue], count: int) -> list[Any]:
    return [source["queue"].get() for _ in range(count)]


def test_first_in_first_out() -> None:
    q = Queue()
    for item in range(20):
        q.put(item)
    assert (len(q), q.size(), q.qsize(), q.empty(), q.full()) == (20, 20, 20, False, False)
    assert [q.get() for _ in range(20)] == list(range(20))
    assert q.empty()


def test_full_and_empty_without_waiting() -> None:
    q = Queue(maxsize=2)
    q.put_nowait(1)
    q.put(2, block=False)
    assert q.full()
    with pytest.raises(Full, match="no room"):
        q.put_nowait(3)
    assert (q.get_nowait(), q.get(block=False)) == (1, 2)
    with pytest.raises(Empty):
        q.get_nowait()


def test_full_and_empty_after_a_timeout() -> None:
    q = Queue(maxsize=1)
    with pytest.raises(Empty):
        q.get(timeout=0.05)
    q.put(1)
    with pytest.raises(Full):
        q.put(2, timeout=0.05)
    assert q.get(timeout=30) == 1
    assert q.empty()  # what timed out was not put


def test_a_timeout_of_zero_takes_what_is_there() -> None:
    q = Queue()
    q.put(1, timeout=0)
    assert q.get(timeout=0) == 1


def test_errors_are_those_of_the_standard_library() -> None:
    assert issubclass(Empty, queue.Empty)
    assert issubclass(Full, queue.Full)


def test_a_negative_timeout_is_an_error_where_one_would_wait() -> None:
    q = Queue()
    for call in (lambda: q.get(timeout=-1), lambda: q.put(1, timeout=-1)):
        with pytest.raises(ValueError, match="must not be negative, got -1"):
            call()
    q.put(1, block=False, timeout=-1)
    assert q.get(block=False, timeout=-1) == 1


def test_batches_are_whole_or_not_at_all() -> None:
    q = Queue(maxsize=3)
    q.put_nowait_batch(range(2))
    with pytest.raises(Full, match="no room for 2"):
        q.put_nowait_batch([2, 3])
    with pytest.raises(Empty, match="fewer than 3"):
        q.get_nowait_batch(3)
    assert q.get_nowait_batch(2) == [0, 1]
    assert q.get_nowait_batch(0) == []


def test_wrong_batches_are_told() -> None:
    q = Queue()
    with pytest.raises(TypeError, match="num_items must be an int, got str 'x'"):
        q.get_nowait_batch("x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        q.get_nowait_batch(-1)
    with pytest.raises(TypeError, match="iterable"):
        q.put_nowait_batch(3)  # type: ignore[arg-type]


def test_without_a_maxsize_there_is_always_room() -> None:
    q = Queue(-1)
    q.put_nowait_batch(range(1000))
    assert not q.full()
    assert q.qsize() == 1000


def test_a_get_that_waits_gets_what_is_put_later() -> None:
    q = Queue()
    ref = take.remote({"queue": q}, 1)
    q.put("late")
    assert rlray.get(ref) == ["late"]


def test_a_put_that_waits_goes_on_when_there_is_room() -> None:
    q = Queue(maxsize=1)
    ref = put_all.remote(q, [1, 2, 3])
    assert [q.get(timeout=30) for _ in range(3)] == [1, 2, 3]
    assert rlray.get(ref) == 3


def test_producers_and_consumers_in_tasks() -> None:
    q = Queue(maxsize=4)
    producers = [put_all.remote(q, list(range(start, start + 25))) for start in (0, 100)]
    consumers = [take.remote({"queue": q}, 25) for _ in range(2)]
    assert sorted(itertools.chain(*rlray.get(consumers))) == [*range(25), *range(100, 125)]
    assert rlray.get(producers) == [25, 25]


def test_items_outlive_their_producer_and_arrays_arrive_whole() -> None:
    q = Queue()

    @rlray.remote
    class Producer:
        def produce(self, target: Queue) -> None:
            target.put(np.arange(100_000))

    producer = Producer.remote()
    rlray.get(producer.produce.remote(q))
    rlray.kill(producer)
    assert q.get().sum() == sum(range(100_000))


def test_a_reference_arrives_as_its_value_and_in_a_list_as_itself() -> None:
    q = Queue()
    ref = rlray.put(5)
    q.put(ref)
    q.put([ref])
    assert q.get() == 5
    assert q.get() == [ref]


def test_coroutines() -> None:
    q = Queue(maxsize=1)

    async def main() -> list[Any]:
        getter = asyncio.ensure_future(q.get_async())
        await q.put_async(1)
        got = [await getter]
        await q.put_async(2)
        with pytest.raises(Full):
            await q.put_async(3, timeout=0.05)
        with pytest.raises(Full):
            await q.put_async(3, block=False)
        got.append(await q.get_async(block=False))
        with pytest.raises(Empty):
            await q.get_async(timeout=0.05)
        with pytest.raises(Empty):
            await q.get_async(block=False)
        return got

    assert asyncio.run(main()) == [1, 2]


def test_a_get_that_was_given_up_takes_nothing() -> None:
    q = Queue()

    async def give_up() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(q.get_async(), 0.05)

    asyncio.run(give_up())
    q.put(1)
    assert q.get(timeout=30) == 1


def test_shutdown_ends_what_waits_and_all_later_calls() -> None:
    q = Queue()
    ref = take.remote({"queue": q}, 1)
    assert rlray.wait([ref], timeout=0.3)[0] == []
    q.shutdown(grace_period_s=0)
    with pytest.raises(ActorDiedError):
        rlray.get(ref)
    with pytest.raises(ActorDiedError, match="shut down"):
        q.put(1)
    assert q.actor is None
    q.shutdown()


def test_shutdown_gives_what_waits_its_grace() -> None:
    q = Queue()
    other = rlray.get(rlray.remote(lambda q: q).remote(q))
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(q.get()))
    thread.start()
    while not rlray.get(other.actor.waiting.remote()):
        time.sleep(0.01)
    ender = threading.Thread(target=lambda: q.shutdown(grace_period_s=60))
    ender.start()
    other.put("in time")
    thread.join(60)
    ender.join(60)
    assert got == ["in time"]
    assert q.actor is None


def test_shutdown_by_force() -> None:
    q = Queue()
    q.put(1)
    copy = rlray.get(rlray.remote(lambda q: q).remote(q))
    q.shutdown(force=True)
    with pytest.raises(ActorDiedError):
        copy.get()


def test_options_of_the_actor() -> None:
    q = Queue(actor_options={"name": "a queue", "num_cpus": 1})
    q.put(1)
    assert rlray.get(rlray.get_actor("a queue").qsize.remote()) == 1
    assert rlray.available_resources()["CPU"] == 3
    with pytest.raises(ValueError, match="unknown option 'nmae'"):
        Queue(actor_options={"nmae": "x"})
