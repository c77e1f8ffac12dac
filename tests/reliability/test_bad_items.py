"""``f.map`` over items that cannot travel, there or back: each is an error in its own place, the others are as they
should be."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import numpy as np
import pytest

import rlray
from rlray.exceptions import RaySystemError, RayTaskError
from tests.reliability.bad_values import (
    SPRUNG,
    UNPICKLABLE,
    Actor,
    Coroutines,
    State,
    all_memory_free,
    error_of,
    through,
    workers,
)

__all__ = ["workers"]

pytestmark = [
    pytest.mark.usefixtures("cluster"),
    pytest.mark.every_engine,
    pytest.mark.differs("ray", "Ray pickles, and says what is wrong in its own words"),
]


class TestMap:
    """An item that cannot travel, there or back, is an error in its own place."""

    MIXED: tuple[Any, ...] = (1, "lock", 2, "raises", 3, "os error", 4)

    @pytest.mark.usefixtures("workers")
    @pytest.mark.parametrize("size", [7, 700])
    def test_items_that_cannot_be_pickled(self, size: int) -> None:
        kinds = [self.MIXED[i % 7] for i in range(size)]
        items = [[UNPICKLABLE[kind]()] if kind in UNPICKLABLE else [kind] for kind in kinds]
        outcomes = list(through.map(items).results(return_exceptions=True))
        self._check(kinds, [one[0] if isinstance(one, list) else one for one in outcomes], "an argument of through")

    @pytest.mark.usefixtures("workers")
    @pytest.mark.parametrize("size", [7, 700])
    def test_results_that_cannot_be_pickled(self, size: int) -> None:
        @rlray.remote
        def turn(kind: Any) -> Any:
            return UNPICKLABLE[kind]() if kind in UNPICKLABLE else kind

        kinds = [self.MIXED[i % 7] for i in range(size)]
        self._check(kinds, list(turn.map(kinds).results(return_exceptions=True)), "the result of turn")
        refs = list(turn.map(kinds))
        for kind, ref in zip(kinds, refs, strict=True):
            if kind in UNPICKLABLE:
                assert "the result of turn cannot be pickled" in str(error_of(ref))
            else:
                assert rlray.get(ref) == kind

    def _check(self, kinds: list[Any], outcomes: list[Any], what: str) -> None:
        assert len(outcomes) == len(kinds)
        for kind, outcome in zip(kinds, outcomes, strict=True):
            if kind in UNPICKLABLE:
                assert isinstance(outcome, TypeError)
                assert f"{what} cannot be pickled" in str(outcome)
            else:
                assert outcome == kind

    @pytest.mark.usefixtures("workers")
    @pytest.mark.parametrize("kind", SPRUNG)
    def test_items_that_cannot_be_unpickled(self, kind: str) -> None:
        items = [SPRUNG[kind]() if i % 5 == 3 else [i] for i in range(50)]
        for i, outcome in enumerate(through.map(items).results(return_exceptions=True)):
            if i % 5 == 3:
                assert isinstance(outcome, RaySystemError)
                assert "an argument of through cannot be unpickled" in str(outcome)
            else:
                assert outcome == [i]

    @pytest.mark.parametrize("kind", SPRUNG)
    def test_results_that_cannot_be_unpickled(self, kind: str) -> None:
        @rlray.remote
        def turn(i: int) -> Any:
            return SPRUNG[kind]() if i % 5 == 3 else i

        for i, outcome in enumerate(turn.map(range(50)).results(return_exceptions=True)):
            if i % 5 == 3:
                assert isinstance(outcome, RaySystemError)
                assert "made by turn cannot be unpickled" in str(outcome)
            else:
                assert outcome == i

    @pytest.mark.usefixtures("workers")
    @pytest.mark.parametrize("what", [StopIteration, SystemExit, KeyboardInterrupt, GeneratorExit])
    def test_exceptions_that_python_takes_for_signs(self, what: type[BaseException]) -> None:
        @rlray.remote
        def sign(i: int) -> int:
            if i % 5 == 3:
                raise what
            return i

        for i, outcome in enumerate(sign.map(range(50)).results(return_exceptions=True)):
            if i % 5 == 3:
                assert isinstance(outcome, RayTaskError)
                assert what.__name__ in str(outcome)
            else:
                assert outcome == i
        assert i == 49

    def test_methods(self) -> None:
        serial, coroutines = Actor.remote(), Coroutines.remote()
        pids = rlray.get([serial.pid.remote(), coroutines.pid.remote()], timeout=30)
        kinds = ["a", "lock", "exit", "b", "a value", "raises"] * 5
        for kind, outcome in zip(kinds, coroutines.item.map(kinds).results(return_exceptions=True), strict=True):
            if kind in UNPICKLABLE:
                assert "the result of" in str(outcome)
            elif kind == "exit":
                assert isinstance(outcome, RayTaskError)
                assert "SystemExit: 3" in str(outcome)
            elif kind == "a value":
                assert type(outcome) is ValueError
            else:
                assert outcome == kind
        items = [State() if i % 5 == 3 else [i] for i in range(20)]
        for method in (serial.through, coroutines.through):
            outcomes = list(method.map(items).results(return_exceptions=True))
            assert [one for i, one in enumerate(outcomes) if i % 5 != 3] == [[i] for i in range(20) if i % 5 != 3]
            assert all("cannot be unpickled" in str(one) for one in outcomes[3::5])
        assert rlray.get([serial.pid.remote(), coroutines.pid.remote()], timeout=30) == pids

    @pytest.mark.usefixtures("workers")
    def test_large_results_beside_bad_ones_are_not_kept(self) -> None:
        @rlray.remote
        def turn(i: int) -> Any:
            return [np.zeros(300_000, np.uint8), threading.Lock() if i % 2 else rlray.put(np.zeros(300_000, np.uint8))]

        outcomes = list(turn.map(range(20)).results(return_exceptions=True))
        assert sum(isinstance(one, TypeError) for one in outcomes) == 10
        del outcomes
        assert all_memory_free()

    @pytest.mark.processes
    def test_an_item_is_retried_as_it_was_sent(self, tmp_path: Any) -> None:
        """Also if it was changed since, or can no longer be pickled."""

        @rlray.remote(max_retries=2)
        def wait_and_die_once(item: list[Any]) -> list[Any]:
            if item == [0]:
                deadline = time.monotonic() + 30
                while not (tmp_path / "changed").exists() and time.monotonic() < deadline:
                    time.sleep(0.01)
                if not (tmp_path / "died").exists():
                    (tmp_path / "died").touch()
                    os._exit(1)
            return item

        items: list[list[Any]] = [[i] for i in range(4)]
        calls = wait_and_die_once.map(items)
        items[0][0] = threading.Lock()
        (tmp_path / "changed").touch()
        assert rlray.get(next(calls), timeout=30) == [0]
        assert (tmp_path / "died").exists()
