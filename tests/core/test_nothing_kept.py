"""Memory comes back as soon as nobody holds what lies in it: not with the next call, the collector, or a death."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import rlray
from tests.support import store_used, wait_until

MB = 1_000_000


@pytest.fixture(autouse=True, scope="module")
def _runtime() -> Iterator[None]:
    rlray.init(num_cpus=4, object_store_memory=100 * 1024 * 1024)
    gc.disable()
    yield
    gc.enable()
    rlray.shutdown()


@pytest.fixture(autouse=True)
def _nothing_is_kept() -> Iterator[None]:
    """What a test's functions have dropped is gone, although whoever has worked for it lives on."""
    before = store_used()
    yield
    assert wait_until(lambda: store_used() == before, 5), f"{store_used() - before} bytes are kept"


def block(value: int = 1, size: int = 2 * MB) -> np.ndarray[Any, Any]:
    return np.full(size, value, np.uint8)


class Plain:
    def __init__(self, *box: Any) -> None:
        self.box = list(box)

    def take(self, *box: Any) -> int:
        self.box = list(box)
        return len(box)

    def give(self) -> Any:
        return [self.box.pop()]

    def put(self) -> Any:
        return [rlray.put(block(3))]

    def look(self, array: Any) -> int:
        return int(array[0])

    def fail(self, array: Any) -> None:
        mine = rlray.put(block(2))
        raise ValueError(f"{mine} {len(array)}")

    def short(self) -> None:
        threading.Event().wait(0.0001)


class Async(Plain):
    async def sleep(self) -> None:
        await asyncio.sleep(0)


KINDS: dict[str, Callable[..., Any]] = {
    "plain": rlray.remote(Plain).remote,
    "threads": rlray.remote(Plain).options(max_concurrency=2).remote,
    "async": rlray.remote(Async).remote,
}
every_kind = pytest.mark.parametrize("kind", sorted(KINDS))


@pytest.fixture
def actor(kind: str) -> Iterator[Any]:
    """An actor that still lives when memory is looked at."""
    made = KINDS[kind]()
    yield made
    assert wait_until(lambda: store_used() == 0, 5), "an idle actor keeps something"
    rlray.get(made.short.remote())


@every_kind
def test_of_the_last_call(actor: Any) -> None:
    assert rlray.get(actor.look.remote(block(5))) == 5


@every_kind
def test_of_the_last_call_that_raised(actor: Any) -> None:
    with pytest.raises(ValueError, match=r"\d"):
        rlray.get(actor.fail.remote(block()))


@every_kind
def test_of_the_constructor(kind: str) -> None:
    actor = KINDS[kind](block())
    assert rlray.get(actor.take.remote()) == 0
    assert wait_until(lambda: store_used() == 0, 5), "an actor that is not constructed again needs it no more"
    rlray.get(actor.short.remote())


def test_of_the_constructor_of_an_actor_that_may_be_constructed_again() -> None:
    actor = rlray.remote(Plain).options(max_restarts=1, max_task_retries=1).remote(rlray.put(block(4)))
    assert rlray.get(actor.take.remote()) == 0
    os.kill(rlray.get(actor.__ray_call__.remote(lambda self: os.getpid())), signal.SIGKILL)
    [array] = rlray.get(actor.__ray_call__.remote(lambda self: list(self.box)))
    assert (array == 4).all()


def test_of_a_task_that_raised() -> None:
    @rlray.remote
    def fail(array: Any) -> None:
        mine = rlray.put(block())
        raise ValueError(f"{mine} {len(array)}")

    with pytest.raises(ValueError, match=r"\d"):
        rlray.get(fail.remote(block()))


def test_of_items_of_a_map_that_raised() -> None:
    @rlray.remote
    def fail(item: int) -> None:
        mine = rlray.put(block(item))
        raise ValueError(f"{mine}")

    for ref in fail.map(range(3)):
        with pytest.raises(ValueError, match=r"\d"):
            rlray.get(ref)


def test_of_a_map_that_is_left_in_the_middle() -> None:
    @rlray.remote
    def make(item: int) -> Any:
        return block(item)

    for ref in make.map(range(20)):
        assert (rlray.get(ref) == 0).all()
        break


def test_of_items_of_a_map_for_which_there_is_no_room() -> None:
    """The item fails alone, and nothing is lost with those beside it."""

    @rlray.remote
    def make(size: int) -> Any:
        return block(1, size)

    assert len(rlray.get(next(make.map([MB])))) == MB  # so far each is short: the next ones share a chunk
    small, large, last = list(make.map([MB, 200 * MB, MB]))
    assert len(rlray.get(small)) == len(rlray.get(last)) == MB
    with pytest.raises(rlray.exceptions.ObjectStoreFullError):
        rlray.get(large)


def test_inside_a_large_result_that_was_dropped() -> None:
    """The value is remembered, to be made again; what it had references to is not kept for that."""

    @rlray.remote
    def make() -> Any:
        return [rlray.put(block()), block()]

    rlray.wait([make.remote()])


def test_inside_results_of_which_one_cannot_be_pickled() -> None:
    actor = rlray.remote(Plain).remote()
    box = rlray.get(actor.put.remote())

    @rlray.remote(num_returns=2)
    def give_back(box: Any) -> Any:
        return [box, block()], threading.Lock()

    with pytest.raises(TypeError, match="cannot be pickled"):
        rlray.get(give_back.remote(box))
    del box
    assert wait_until(lambda: store_used() == 0, 5), "its owner waits for somebody who got nothing"


def test_inside_answers_that_die_with_their_worker() -> None:
    """An answer that waits for company has booked its references already when its process is killed."""
    actor = rlray.remote(Plain).remote()

    @rlray.remote(max_retries=-1)
    def give_back(box: Any) -> Any:
        return box

    @rlray.remote(max_retries=0)
    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    box = rlray.get(actor.put.remote())
    rlray.get([give_back.remote(box) for _ in range(300)])  # short so far: answers share messages
    for _ in range(5):
        refs = [give_back.remote(box) for _ in range(20)]
        with pytest.raises(rlray.exceptions.WorkerCrashedError):
            rlray.get(die.remote())
        rlray.get(refs)
    del box, refs
    assert wait_until(lambda: store_used() == 0, 5), "its owner waits for references that went down with a worker"
    rlray.get(actor.short.remote())


def test_a_reference_that_is_given_back_to_its_owner_is_not_freed_on_the_way() -> None:
    """The actor was the last to hold it, and the answer leaves a little after it has let go."""
    actor = rlray.remote(Plain).remote()
    rlray.get([actor.short.remote() for _ in range(200)])  # so short that answers wait for company
    for i in range(40):
        rlray.get(actor.take.remote([rlray.put(block(i))]))
        others = [actor.short.remote() for _ in range(10)]
        given = actor.give.remote()
        others += [actor.short.remote() for _ in range(50)]
        [[ref]] = rlray.get(given)
        assert (rlray.get(ref) == i).all()
        rlray.get(others)
