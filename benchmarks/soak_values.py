"""Cases of soak.py about the object store: large values by the hundred thousand, more than fits, a full store."""

from __future__ import annotations

import gc
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from growth import Growth

import rlray
from rlray.exceptions import ObjectStoreFullError

MB = 1_000_000
KINDS = (*["values put"] * 5, "results of tasks", "results of an actor", "arguments")
KEPT = 20  # values that live at a time, so that memory is used again in any order


def _block(number: int, size: int = MB) -> np.ndarray[Any, Any]:
    array = np.empty(size, np.uint8)
    array[:] = number % 251
    return array


def _right(array: np.ndarray[Any, Any], number: int) -> bool:
    return int(array[0]) == int(array[-1]) == number % 251


@rlray.remote
def give(number: int) -> np.ndarray[Any, Any]:
    return _block(number)


@rlray.remote
def look(array: np.ndarray[Any, Any], number: int) -> bool:
    return _right(array, number)


@rlray.remote
class Giver:
    def give(self, number: int) -> np.ndarray[Any, Any]:
        return _block(number)


def puts(scale: float) -> dict[str, Any]:
    """Values of 1 MB: put, results of tasks and of an actor, arguments: memory is used again and given back."""
    rlray.init(num_cpus=2, object_store_memory=256 * MB)
    giver, growth, wrong = Giver.remote(), Growth("values", 100_000), 0
    kept: deque[tuple[Any, int]] = deque()
    counts = dict.fromkeys(KINDS, 0)
    count = round(160_000 * scale)
    step = max(1, count // 80)
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        counts[kind] += 1
        match kind:
            case "values put":
                kept.append((rlray.put(_block(number)), number))
            case "results of tasks":
                kept.append((give.remote(number), number))
            case "results of an actor":
                kept.append((giver.give.remote(number), number))
            case _:
                wrong += rlray.get(look.remote(_block(number), number)) is not True
        if len(kept) > KEPT:
            wrong += not _right_behind(*kept.popleft())
        if (number + 1) % step == 0:
            growth.sample(number + 1)
    while kept:
        wrong += not _right_behind(*kept.popleft())
    return {**counts, "wrong": wrong, "left: bytes of the store": _store_left(), **growth.counts()}


def _right_behind(ref: rlray.ObjectRef, number: int) -> bool:
    return _right(rlray.get(ref), number)


def spill(scale: float) -> dict[str, Any]:
    """Four times what the store holds, from driver, tasks and actor, read back and compared; then the disk is empty."""
    with tempfile.TemporaryDirectory() as folder:
        rlray.init(num_cpus=2, object_store_memory=128 * MB, object_spilling_directory=folder)
        giver, growth, wrong, written, files = Giver.remote(), Growth("values", 10_000), 0, 0, 0
        rounds = max(5, round(100 * scale))
        for turn in range(rounds):
            refs = []
            for number in range(turn, turn + 512):
                maker = (lambda n: rlray.put(_block(n)), give.remote, giver.give.remote)[number % 3]
                refs.append(maker(number))
            wrong += sum(not (rlray.get(ref) == n % 251).all() for n, ref in enumerate(refs, turn))
            on_disk = [path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()]
            written, files = written + sum(on_disk), files + len(on_disk)
            refs.clear()
            growth.sample((turn + 1) * 512)
        left = _until(lambda: sum(path.is_file() for path in Path(folder).rglob("*")))
        found = {"values": rounds * 512, "of those on disk": files, "bytes on disk": written, "wrong": wrong}
        found |= {"left: files on disk": left, "left: bytes of the store": _store_left(), **growth.counts()}
        rlray.shutdown()
        return found


@rlray.remote
class Keeper:
    def __init__(self) -> None:
        self.kept: Any = None

    def keep(self, values: Any) -> None:
        self.kept = values


def full(scale: float) -> dict[str, Any]:
    """A store full of values that cannot move: who waits goes on when some go, else is told who holds them."""
    rlray.init(num_cpus=2, object_store_memory=64 * MB)
    keeper = Keeper.remote()
    waited, slowest, wrong, unexpected = round(500 * scale), 0.0, 0, 0
    for number in range(waited):
        values: Any = [rlray.put(_block(n, 15 * MB)) for n in range(4)]
        rlray.get(keeper.keep.remote(values))
        del values
        timer = threading.Timer(0.05, keeper.keep.remote, [None])
        timer.start()
        begun = time.monotonic()
        wrong += not _right(rlray.get(rlray.put(_block(number, 30 * MB))), number)
        slowest = max(slowest, time.monotonic() - begun)
        timer.join()
    told = max(1, round(20 * scale))
    rlray.get(keeper.keep.remote([rlray.put(_block(n, 15 * MB)) for n in range(4)]))
    for _ in range(told):
        try:
            rlray.put(_block(1, 30 * MB))
        except ObjectStoreFullError as error:
            unexpected += "Largest holders: actor Keeper" not in str(error) or "60.0 MB behind ref" not in str(error)
        else:
            unexpected += 1
    rlray.get(keeper.keep.remote(None))
    wrong += not _right(rlray.get(rlray.put(_block(7, 60 * MB))), 7)
    return {
        "puts that waited and went on": waited,
        "seconds, the slowest of those": round(slowest, 2),
        "puts that were told who holds the memory": told,
        "wrong": wrong,
        "unexpected": unexpected,
        "left: bytes of the store": _store_left(),
    }


def _store_left() -> int:
    def taken() -> int:
        gc.collect()
        total, free = rlray.cluster_resources(), rlray.available_resources()
        return int(total["object_store_memory"] - free["object_store_memory"])

    return _until(taken)


def _until(left: Callable[[], int], seconds: float = 5.0) -> int:
    """What is left once nothing is, or when time is up."""
    deadline = time.monotonic() + seconds
    while left() and time.monotonic() < deadline:
        time.sleep(0.05)
    return left()


CASES: dict[str, Callable[[float], dict[str, Any]]] = {"puts": puts, "spill": spill, "full": full}
