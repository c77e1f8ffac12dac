"""What the tests of the inline engine share: the engine, and a place to write down what happened."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import rlray

happened: list[Any] = []
"""What tasks did; they write it down with `note`, since decorated code has copies of its module's globals."""

colour = contextvars.ContextVar("colour", default="none")


def note(value: Any) -> int:
    """Write it down. Called by its name in this module, which exists once; returns the thread."""
    happened.append(value)
    return threading.get_ident()


def runs() -> int:
    note("run")
    return len(happened)


def new_colour(value: str) -> str:
    before = colour.get()
    colour.set(value)
    return before


@pytest.fixture(autouse=True, scope="module")
def _inline() -> Iterator[None]:
    rlray.init(engine="inline", num_cpus=4, num_gpus=2)
    yield
    rlray.shutdown()
    assert not loops(), "an event loop outlived the runtime"


@pytest.fixture(autouse=True)
def _nothing_happened() -> None:
    happened.clear()


def loops() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("rlray-")]


@rlray.remote
class Signal:
    """Others wait for what it is sent."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.inside = 0

    async def wait(self, value: Any = None) -> Any:
        self.inside += 1
        await self.event.wait()
        return value

    async def waiting(self) -> int:
        return self.inside

    async def send(self) -> None:
        self.event.set()


@rlray.remote
class Log:
    def note(self, value: Any, _: Any = None) -> int:
        return note(value)

    def count(self, n: int) -> Iterator[int]:
        for i in range(n):
            note(i)
            yield i

    def note_through(self, handle: Any, value: Any) -> Any:
        ref = handle.note.remote(value)
        note("called")
        return [ref]

    def wait_for_itself(self, handle: Any, how: str) -> Any:
        if how == "next":
            return next(handle.count.options(num_returns="streaming").remote(1))
        return (rlray.get if how == "get" else rlray.wait)([handle.note.remote("after all")])

    def leave(self) -> None:
        rlray.actor.exit_actor()

    def restarted(self) -> bool:
        return rlray.get_runtime_context().was_current_actor_reconstructed
