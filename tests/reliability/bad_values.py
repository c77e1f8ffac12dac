"""What the tests of bad values share: values that cannot be pickled or unpickled, and tasks that meet them."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import rlray
from tests.support import Process, descendants, wait_until


class Trap:
    """Raises while it is pickled, or while it is unpickled."""

    def __init__(self, when: str, what: type[BaseException] = RuntimeError) -> None:
        self.when, self.what = when, what

    def __reduce__(self) -> Any:
        if self.when == "pickling":
            raise self.what("sprung")
        return _spring, (self.what,)


def _spring(what: type[BaseException]) -> Any:
    raise what("sprung")


class State:
    """Raises in ``__setstate__`` at whoever reads it."""

    def __setstate__(self, state: Any) -> None:
        raise LookupError("sprung")

    def __getstate__(self) -> Any:
        return {"some": "state"}


class TwoArguments(Exception):
    """Plain pickle takes it, and cannot rebuild it."""

    def __init__(self, left: int, right: int) -> None:
        super().__init__(f"{left} and {right}")

    @classmethod
    def throw(cls) -> None:
        raise cls(1, 2)


class Holding(Exception):
    """Has what cannot travel among its arguments and attributes."""

    def __init__(self, text: str, lock: Any) -> None:
        super().__init__(text, lock)
        self.sock: Any = None
        self.code = 42


class Mute(ValueError):
    def __str__(self) -> str:
        raise RuntimeError("no text to be had")


UNPICKLABLE: dict[str, Callable[[], Any]] = {
    "lock": threading.Lock,
    "nested": lambda: {"deep": [threading.Lock()]},
    "generator": lambda: (i for i in range(3)),
    "frame": sys._getframe,
    "raises": lambda: Trap("pickling"),
    "attribute error": lambda: Trap("pickling", AttributeError),
    "os error": lambda: Trap("pickling", OSError),
    "mute": lambda: Trap("pickling", Mute),
}

SPRUNG: dict[str, Callable[[], Any]] = {
    "reduce": lambda: Trap("unpickling"),
    "setstate": State,
    "nested": lambda: [1, {"x": Trap("unpickling", ValueError)}],
    "exit": lambda: Trap("unpickling", SystemExit),
    "generator exit": lambda: Trap("unpickling", GeneratorExit),
    "mute": lambda: Trap("unpickling", Mute),
    "large": lambda: [np.zeros(300_000, np.uint8), Trap("unpickling")],
    "exception": lambda: TwoArguments(1, 2),
}


@rlray.remote
def make(table: str, kind: str) -> Any:
    return {"unpicklable": UNPICKLABLE, "sprung": SPRUNG}[table][kind]()


@rlray.remote
def through(value: Any) -> Any:
    return value


@rlray.remote
def pid(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


@rlray.remote
class Actor:
    def __init__(self, value: Any = None) -> None:
        self.value = value

    def through(self, value: Any) -> Any:
        return value

    def make(self, table: str, kind: str) -> Any:
        return {"unpicklable": UNPICKLABLE, "sprung": SPRUNG}[table][kind]()

    def each(self, kinds: list[str]) -> Iterator[Any]:
        for kind in kinds:
            yield UNPICKLABLE[kind]() if kind in UNPICKLABLE else kind

    def pid(self) -> int:
        return os.getpid()


@rlray.remote
class Coroutines:
    async def through(self, value: Any) -> Any:
        await asyncio.sleep(0)
        return value

    async def make(self, table: str, kind: str) -> Any:
        return {"unpicklable": UNPICKLABLE, "sprung": SPRUNG}[table][kind]()

    async def item(self, kind: str) -> Any:
        await asyncio.sleep(0)
        if kind == "exit":
            raise SystemExit(3)
        if kind == "a value":
            return ValueError("just data")
        return UNPICKLABLE[kind]() if kind in UNPICKLABLE else kind

    def pid(self) -> int:
        return os.getpid()


def error_of(ref: Any) -> BaseException:
    try:
        value = rlray.get(ref, timeout=30)
    except BaseException as error:
        return error
    raise AssertionError(f"no error, but {value!r}")


@pytest.fixture
def workers() -> Iterator[None]:
    """No worker that the test has run tasks in dies. For tests without actors, whose processes end with them."""
    before = _workers()
    yield
    rlray.get([through.remote(1) for _ in range(8)], timeout=30)
    assert all(process.running for process in before), "a worker has died"


def _workers() -> set[Process]:
    """The workers that take tasks, seen while all of them do."""
    refs = [pid.remote(0.02) for _ in range(4)]
    running = {process.pid: process for process in descendants(os.getpid()) if process.running}
    return {running[one] for one in rlray.get(refs, timeout=30) if one in running}


def all_memory_free() -> bool:
    """Nothing holds memory of the store any more (the inline engine has none)."""
    gc.collect()

    def taken() -> float:
        total, free = rlray.cluster_resources(), rlray.available_resources()
        return total.get("object_store_memory", 0.0) - free.get("object_store_memory", 0.0)

    return bool(wait_until(lambda: not taken()))
