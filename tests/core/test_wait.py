"""`wait`, and `get` with a timeout."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import rlray

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.every_engine]


@rlray.remote
def nap(seconds: float, value: Any = None) -> Any:
    time.sleep(seconds)
    return value


@rlray.remote
def fail() -> None:
    raise ValueError("on purpose")


@rlray.remote(max_retries=0)
def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@rlray.remote
class Coroutines:
    async def behind(self, path: Path) -> str:
        while not path.exists():
            await asyncio.sleep(0.01)
        return "through"


@pytest.fixture
def gate(tmp_path: Path, engine: str) -> Any:
    """What runs until the file appears, and the function that makes it appear. Inline, only coroutines wait."""
    path = tmp_path / "open"

    @rlray.remote
    def behind(path: Path) -> str:
        while not path.exists():
            time.sleep(0.01)
        return "through"

    actor = Coroutines.remote()
    start = behind if engine == "local" else actor.behind
    yield Gate(lambda: start.remote(path)), path.touch
    path.touch()


class Gate(NamedTuple):
    remote: Callable[[], rlray.ObjectRef]


def test_returns_the_ready_ones_and_the_rest_in_the_callers_order(gate: Any) -> None:
    behind, unlock = gate
    slow = behind.remote()
    refs = [rlray.put(0), slow, rlray.put(1), nap.remote(0)]
    ready, rest = rlray.wait(refs, num_returns=3)
    assert ready == [refs[0], refs[2], refs[3]]
    assert rest == [slow]
    unlock()
    assert rlray.wait(refs, num_returns=4) == (refs, [])


def test_default_is_one(gate: Any) -> None:
    behind, _ = gate
    slow, quick = behind.remote(), nap.remote(0.05)
    assert rlray.wait([slow, quick]) == ([quick], [slow])


def test_never_more_than_asked_for() -> None:
    refs = [rlray.put(i) for i in range(5)]
    ready, rest = rlray.wait(refs, num_returns=2)
    assert (len(ready), len(rest)) == (2, 3)
    assert set(ready) | set(rest) == set(refs)


def test_timeout_zero_looks_and_returns(gate: Any) -> None:
    behind, _ = gate
    done, slow = rlray.put(1), behind.remote()
    start = time.monotonic()
    assert rlray.wait([slow, done], num_returns=2, timeout=0) == ([done], [slow])
    assert rlray.wait([slow], timeout=0) == ([], [slow])
    assert time.monotonic() - start < 1.0


def test_timeout_is_kept(gate: Any) -> None:
    behind, _ = gate
    slow = behind.remote()
    start = time.monotonic()
    assert rlray.wait([slow], timeout=0.4) == ([], [slow])
    assert 0.35 < time.monotonic() - start < 3.0


@pytest.mark.processes
def test_errors_and_crashes_count_as_ready() -> None:
    refs = [fail.remote(), die.remote()]
    assert rlray.wait(refs, num_returns=2, timeout=20) == (refs, [])


def test_wait_does_not_fetch_or_raise() -> None:
    [ref], _ = rlray.wait([fail.remote()])
    with pytest.raises(ValueError, match="on purpose"):
        rlray.get(ref)


def test_processing_results_as_they_come() -> None:
    rest = [nap.remote(0.15 * (3 - i), i) for i in range(4)]
    rlray.get([nap.remote(0) for _ in range(4)])
    seen = []
    while rest:
        ready, rest = rlray.wait(rest)
        seen += rlray.get(ready)
    assert sorted(seen) == [0, 1, 2, 3]


def test_wait_over_a_thousand_references() -> None:
    rest = [nap.remote(0, i) for i in range(1000)]
    seen = 0
    while rest:
        ready, rest = rlray.wait(rest, num_returns=min(100, len(rest)))
        seen += sum(rlray.get(ready))
    assert seen == sum(range(1000))


def test_bad_arguments() -> None:
    ref = rlray.put(1)
    with pytest.raises(ValueError, match=r"unique|more than once"):
        rlray.wait([ref, ref])
    with pytest.raises(ValueError, match="num_returns"):
        rlray.wait([ref], num_returns=2)
    with pytest.raises(ValueError, match="0"):
        rlray.wait([ref], num_returns=0)
    with pytest.raises(TypeError, match="list"):
        rlray.wait(ref)
    with pytest.raises(TypeError, match="int"):
        rlray.wait([1])
    with pytest.raises((TypeError, ValueError), match="timeout"):
        rlray.wait([ref], timeout=-1)
    assert rlray.wait([]) == ([], [])


def test_get_with_a_timeout_says_what_it_waits_for(gate: Any) -> None:
    behind, unlock = gate
    ref = behind.remote()
    start = time.monotonic()
    with pytest.raises(rlray.exceptions.GetTimeoutError, match="behind"):
        rlray.get(ref, timeout=0.3)
    assert time.monotonic() - start < 3.0
    with pytest.raises(TimeoutError):
        rlray.get([rlray.put(1), ref], timeout=0)
    unlock()
    assert rlray.get(ref, timeout=20) == "through", "a timeout must not harm the task"


def test_get_of_what_is_ready_ignores_the_timeout() -> None:
    assert rlray.get(rlray.put(1), timeout=0) == 1
    ref = nap.remote(0, 2)
    rlray.wait([ref])
    assert rlray.get(ref, timeout=0) == 2


def test_get_timeout_covers_the_whole_list(gate: Any) -> None:
    behind, _ = gate
    refs = [behind.remote() for _ in range(3)]
    start = time.monotonic()
    with pytest.raises(rlray.exceptions.GetTimeoutError):
        rlray.get(refs, timeout=0.3)
    assert time.monotonic() - start < 2.0


def test_the_first_error_of_a_list_is_raised_without_waiting_for_the_others(gate: Any) -> None:
    behind, _ = gate
    with pytest.raises(ValueError, match="on purpose"):
        rlray.get([fail.remote(), behind.remote()], timeout=20)
