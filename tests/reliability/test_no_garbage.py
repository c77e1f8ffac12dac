"""What calls leave behind goes at once, without Python's collector having to look for circles.

A circle keeps what hangs on it (arguments, results in shared memory, references) until the collector comes by, which
may be long after. With the collector off, nothing of the runtime's may turn up when it finally looks.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import rlray


@pytest.fixture(scope="module", autouse=True)
def _one_worker() -> Iterator[None]:
    rlray.init(num_cpus=1)
    yield
    rlray.shutdown()


class Clumsy(Exception):
    def __init__(self, left: int, right: int) -> None:
        super().__init__(f"{left} and {right}")


@rlray.remote
def array(_: Any = None) -> np.ndarray[Any, Any]:
    return np.zeros(200_000, np.uint8)


@rlray.remote
def small(_: Any = None) -> list[int]:
    return [1]


@rlray.remote
def fail(kind: int) -> Any:
    match kind % 3:
        case 0:
            raise ValueError(kind)
        case 1:
            raise Clumsy(kind, kind)
    return threading.Lock()


@rlray.remote
def count(to: int) -> Iterator[int]:
    yield from range(to)


@rlray.remote
class Actor:
    def small(self, _: Any = None) -> list[int]:
        return [1]

    def fail(self, kind: int) -> None:
        raise Clumsy(kind, kind)


def failing(ref: rlray.ObjectRef) -> None:
    with pytest.raises(rlray.exceptions.RayTaskError):
        rlray.get(ref)


def calls(actor: Any) -> dict[str, Callable[[], Any]]:
    return {
        "task": lambda: rlray.get(small.remote([1])),
        "dependency": lambda: rlray.get(small.remote(array.remote())),
        "large result": lambda: rlray.get(array.remote()),
        "large argument": lambda: rlray.get(small.remote(np.zeros(200_000, np.uint8))),
        "large put": lambda: rlray.get(rlray.put(np.zeros(200_000, np.uint8))),
        "error": lambda: failing(fail.remote(0)),
        "error that is rebuilt": lambda: failing(fail.remote(1)),
        "result that cannot travel": lambda: failing(fail.remote(2)),
        "map": lambda: list(small.map(range(6)).results()),
        "map of large ones": lambda: list(array.map(range(3)).results()),
        "map with errors": lambda: list(fail.map(range(3)).results(return_exceptions=True)),
        "map's references": lambda: rlray.get(list(small.map(range(6)))),
        "generator": lambda: rlray.get(list(count.remote(3))),
        "generator left early": lambda: rlray.get(next(count.remote(3))),
        "method": lambda: rlray.get(actor.small.remote([1])),
        "error of a method": lambda: failing(actor.fail.remote(1)),
        "actor": lambda: rlray.get(Actor.remote().small.remote()),
        "function": lambda: rlray.get(rlray.remote(lambda: 1).remote()),
        "future": lambda: small.remote().future().result(),
        "wait": lambda: rlray.wait([small.remote(), small.remote()], num_returns=2),
    }


def collected() -> Counter[str]:
    """Let the collector look again; returns what of the runtime's it has found, by type."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    gc.set_debug(0)
    names = (f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.garbage)
    found = Counter(name for name in names if name.startswith("rlray."))
    gc.garbage.clear()
    gc.enable()
    return found


@pytest.mark.parametrize("kind", list(calls(None)))
def test_in_the_driver(kind: str) -> None:
    call = calls(Actor.remote())[kind]
    for _ in range(3):
        call()
    gc.collect()
    gc.disable()
    for _ in range(5):
        call()
    time.sleep(0.1)  # timers that still know of them have run
    assert not collected()


IN_WORKERS = [kind for kind in calls(None) if "put" not in kind and "method" not in kind and kind != "actor"]


@rlray.remote
def begin() -> int:
    gc.collect()
    gc.disable()
    return os.getpid()


@rlray.remote
def end() -> tuple[int, dict[str, int]]:
    return os.getpid(), dict(collected())


@pytest.mark.parametrize("kind", IN_WORKERS)
def test_in_a_worker(kind: str) -> None:
    """There is one CPU, and so one worker that runs the tasks."""
    call = calls(None)[kind]
    for _ in range(3):
        call()
    before = rlray.get(begin.remote())
    for _ in range(5):
        call()
    pid, found = rlray.get(end.remote())
    assert pid == before, "another worker has run the tasks"
    assert not found
