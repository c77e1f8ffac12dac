"""``ref.future()``: whoever waits takes the value, and nothing is kept when nobody does."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as LateError
from typing import Any

import pytest

import rlray
from rlray.core.engine import current
from tests.support import wait_until

pytestmark = pytest.mark.usefixtures("cluster")


@rlray.remote
def later(value: Any, seconds: float = 0.0) -> Any:
    time.sleep(seconds)
    return value


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_a_callback_may_wait_for_another_future() -> None:
    first, second = later.remote(1, 0.1).future(), later.remote(2, 0.4).future()
    seen: list[tuple[int, int]] = []
    first.add_done_callback(lambda done: seen.append((done.result(), second.result(timeout=20))))
    assert wait_until(lambda: seen == [(1, 2)], 20)


def test_many_threads_that_wait_get_the_same_object() -> None:
    future = later.remote([1], 0.2).future()
    seen: list[Any] = []
    threads = [threading.Thread(target=lambda: seen.append(future.result(timeout=20))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 5
    assert all(one is seen[0] for one in seen)


def test_a_timeout_is_kept_once() -> None:
    future = later.remote(1, 1.0).future()
    begun = time.monotonic()
    with pytest.raises(LateError):
        future.result(timeout=0.3)
    assert time.monotonic() - begun < 0.6, "it has waited twice"
    assert future.result(timeout=20) == 1


@rlray.remote
class Owner:
    def put(self) -> Any:
        return [rlray.put([1]), os.getpid()]


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("asked", ["dropped", "result", "exception"])
def test_an_error_keeps_neither_its_reference_nor_itself(asked: str) -> None:
    client: Any = current()

    def use() -> bytes:
        owner = Owner.remote()
        ref, pid = rlray.get(owner.put.remote())
        os.kill(pid, signal.SIGKILL)
        assert wait_until(lambda: isinstance(_error_of(ref), rlray.exceptions.OwnerDiedError), 20)
        box: list[Future[Any]] = [ref.future()]  # no variable of this frame, to which the error's traceback leads
        if asked == "result":
            with pytest.raises(rlray.exceptions.OwnerDiedError):
                box.pop().result(timeout=20)
        elif asked == "exception":
            assert isinstance(box.pop().exception(timeout=20), rlray.exceptions.OwnerDiedError)
        return bytes(ref.binary())

    object_id = use()
    assert wait_until(lambda: object_id not in client.references.entries, 5)


def _error_of(ref: Any) -> BaseException | None:
    try:
        rlray.get(ref, timeout=20)
    except rlray.exceptions.RayError as error:
        return error.with_traceback(None)
    return None
