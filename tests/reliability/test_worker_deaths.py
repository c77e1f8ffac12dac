"""What others have of a worker that dies: no hang, no call run twice that must not be, no message lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import rlray
from rlray.exceptions import WorkerCrashedError
from tests.support import wait_until

pytestmark = pytest.mark.usefixtures("cluster")


class Source:
    """Generators that say in a file when they are closed."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def count(self) -> Iterator[int]:
        try:
            yield from range(1_000_000)
        finally:
            self.log.write_text("closed")

    def alive(self) -> bool:
        return True


class AsyncSource(Source):
    async def count(self) -> AsyncIterator[int]:  # type: ignore[override]
        try:
            for i in range(1_000_000):
                yield i
        finally:
            self.log.write_text("closed")


@pytest.mark.parametrize("ahead", [2, -1], ids=["backpressure", "no backpressure"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [(Source, {"num_cpus": 0}), (Source, {"max_concurrency": 2}), (AsyncSource, {"num_cpus": 0})],
    ids=["one", "threads", "async"],
)
def test_a_generator_ends_with_its_reader(kind: type, options: dict[str, Any], ahead: int, tmp_path: Path) -> None:
    """The actor is not held up for ever by a generator whose reader was killed, nor by one that has no end."""
    source = rlray.remote(**options)(kind).remote(tmp_path / "log")

    @rlray.remote(max_retries=0)
    def read() -> None:
        values = source.count.options(num_returns="streaming", _generator_backpressure_num_objects=ahead).remote()
        rlray.get(next(values))
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(WorkerCrashedError, match="SIGKILL"):
        rlray.get(read.remote(), timeout=30)
    assert rlray.get(source.alive.remote(), timeout=30)
    assert wait_until(lambda: (tmp_path / "log").exists()), "it was not closed"


def test_a_call_that_must_not_run_twice_is_not_taken_for_one_behind_the_dead(tmp_path: Path) -> None:
    """An answer that waits for company leaves before a call begins that must not run twice."""

    @rlray.remote(num_cpus=4)
    def short(number: int) -> int:
        return number

    @rlray.remote(num_cpus=4, max_retries=0)
    def once(path: Path | None) -> None:
        if path is not None:
            with path.open("a") as file:
                file.write("run\n")
            os.kill(os.getpid(), signal.SIGKILL)

    @rlray.remote(num_cpus=4)
    def pause() -> None:
        time.sleep(0.05)

    for _ in range(200):  # until both are known to be short
        rlray.get([short.remote(1), once.remote(None)])
    for turn in range(8):
        rlray.get([short.remote(1), once.remote(None)])
        holding_up = pause.remote()  # so that the next two leave together
        path = tmp_path / str(turn)
        refs = [short.remote(turn), once.remote(path)]
        with pytest.raises(WorkerCrashedError, match="SIGKILL"):
            rlray.get(refs[1], timeout=30)
        assert path.read_text() == "run\n"
        assert rlray.get([refs[0], holding_up], timeout=30) == [turn, None]
