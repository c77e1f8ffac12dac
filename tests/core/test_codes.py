"""Functions are sent once and forgotten with their last caller: the tables against a slow model, and what users see."""

from __future__ import annotations

import gc
import random
import weakref
from collections import Counter
from typing import Any

import numpy as np
import pytest

import rlray
from rlray.core.engine import Code
from rlray.core.local import codes
from rlray.core.local.codes import ReceivedCodes, SentCodes
from tests.support import wait_until


def code(number: int, light: bool) -> Code:
    """A new object each time, with contents that depend on the arguments only."""
    return Code(b"%d" % number, "f", b"x" * (10 if light else codes._SMALL + 1))


class Model:
    """Two callers and two workers: every call must find its function, and what is forgotten must be dead."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.noted = 0
        self.callers = [SentCodes(self._note) for _ in range(2)]
        self.alive: list[list[Code]] = [[], []]
        self.called: list[list[Code]] = [[], []]  # those among them that were called already
        self.workers = {1: ReceivedCodes(), 2: ReceivedCodes()}
        self.forgotten: Counter[str] = Counter()

    def _note(self) -> None:
        self.noted += 1

    def make(self, caller: int) -> None:
        number = self.rng.randrange(6)
        self.alive[caller].append(code(number, light=number % 2 == 0))

    def call(self, caller: int) -> None:
        if not self.alive[caller]:
            return
        called = self.rng.sample(self.alive[caller], self.rng.randint(1, min(3, len(self.alive[caller]))))
        self.called[caller] += [one for one in called if not any(one is other for other in self.called[caller])]
        number = self.rng.choice([1, 2])
        for one in self.callers[caller].lacking(number, called):
            self.workers[number].take(caller, one.id, b"C" + one.id, ())
        for one in called:
            assert one.id in self.workers[number]._codes, "a worker was not sent what it is to run"
            assert caller in self.workers[number]._codes[one.id].senders
            assert one.id in self.callers[caller]

    def drop(self, caller: int) -> None:
        if self.alive[caller]:
            gone = self.alive[caller].pop(self.rng.randrange(len(self.alive[caller])))
            self.called[caller] = [one for one in self.called[caller] if one is not gone]

    def sweep(self, caller: int) -> None:
        living = {one.id for one in self.called[caller]}
        over, told = self.callers[caller].forgotten()
        assert not living & set(over), "what can still be called was forgotten"
        for number, theirs in told:
            assert set(theirs) <= set(over)
            for gone in self.workers[number].forget(caller, theirs):
                assert gone not in self.workers[number]._codes
        self.forgotten.update(one.decode() for one in over)
        dead = [one for one in self.callers[caller]._sent if one not in living]
        assert all(int(one) % 2 == 0 for one in dead), "a large one that is gone was kept"
        assert len(dead) <= codes._KEPT
        for number, worker in self.workers.items():
            for one, received in worker._codes.items():
                assert (caller in received.senders) == (one in self.callers[caller]._known.get(number, ()))

    def kill(self) -> None:
        number = self.rng.choice([1, 2])
        self.workers[number] = ReceivedCodes()
        for caller in self.callers:
            caller.process_gone(number)


@pytest.mark.parametrize("seed", range(8))
def test_whoever_runs_a_function_has_it_and_nobody_keeps_the_dead(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codes, "_KEPT", 2)
    model = Model(seed)
    for _ in range(2_000):
        action = model.rng.choices(["make", "call", "drop", "sweep", "kill"], [4, 6, 4, 3, 0.1])[0]
        caller = model.rng.randrange(2)
        if action == "kill":
            model.kill()
        else:
            getattr(model, action)(caller)
    assert model.noted
    assert len(model.forgotten) == 6
    for caller in range(2):
        model.alive[caller].clear()
        model.called[caller].clear()
        model.sweep(caller)
        assert len(model.callers[caller]._sent) <= 2
    for worker in model.workers.values():
        worker.process_gone(0)
        assert not worker.process_gone(0)
        worker.process_gone(1)
        assert not worker._codes


def test_a_function_that_cannot_be_loaded_is_tried_again() -> None:
    received = ReceivedCodes()
    received.take(1, b"id", b"no pickle", ())
    for _ in range(2):
        with pytest.raises(Exception, match=r"pickle|invalid|load"):
            received.load(b"id")


def taken() -> float:
    """Bytes of the object store that somebody holds."""
    total, free = rlray.cluster_resources(), rlray.available_resources()
    return total["object_store_memory"] - free["object_store_memory"]


def last_of(array: rlray.ObjectRef) -> Any:
    return rlray.remote(lambda _=0: int(rlray.get(array)[-1]))


WATCHED: list[weakref.ref[Captured]] = []


def test_the_inline_engine_forgets_functions_too(fresh: None) -> None:
    def make() -> Any:
        captured = Captured()

        def watch() -> None:
            from tests.core.test_codes import WATCHED  # a function that travels by value has globals of its own

            WATCHED.append(weakref.ref(captured))

        return rlray.remote(watch)

    rlray.init(engine="inline")
    watch = make()
    rlray.get([watch.remote(), watch.remote()])
    gc.collect()
    copies = [one() for one in WATCHED]
    assert copies[0] is copies[1] is not None, "it is loaded once"
    del watch, copies
    gc.collect()
    assert [one() for one in WATCHED] == [None, None]


@pytest.mark.usefixtures("cluster")
class TestWhatAFunctionCapturesGoesWithIt:
    """A worker that has run a function keeps what it captures no longer than its caller keeps the function."""

    def test_in_the_driver(self) -> None:
        last = last_of(rlray.put(np.arange(1_000_000)))
        assert rlray.get([last.remote() for _ in range(8)], timeout=20) == [999_999] * 8
        assert taken() >= 8_000_000
        del last
        gc.collect()
        assert wait_until(lambda: not taken()), "a worker has kept it"

    def test_in_a_task(self) -> None:
        @rlray.remote
        def caller() -> int:
            return int(rlray.get(last_of(rlray.put(np.arange(1_000_000))).remote()))

        assert rlray.get([caller.remote() for _ in range(4)], timeout=20) == [999_999] * 4
        gc.collect()
        assert wait_until(lambda: not taken()), "a worker has kept it"

    def test_in_map(self) -> None:
        last = last_of(rlray.put(np.arange(1_000_000)))
        assert list(last.map(range(100)).results()) == [999_999] * 100
        del last
        gc.collect()
        assert wait_until(lambda: not taken()), "a worker has kept it"

    def test_of_a_caller_that_died(self) -> None:
        @rlray.remote
        class Caller:
            def __init__(self) -> None:
                self.last = last_of(rlray.put(np.arange(1_000_000)))

            def call(self) -> int:
                return int(rlray.get(self.last.remote()))

        caller = Caller.remote()
        assert rlray.get(caller.call.remote(), timeout=20) == 999_999
        rlray.kill(caller)
        assert wait_until(lambda: not taken()), "a worker has kept it"


class Captured:
    """Whose copy, inside a function that was loaded, can be watched."""
