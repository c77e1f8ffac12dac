"""What the tests of generators share: generators, and looking at what they gave."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import rlray


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
