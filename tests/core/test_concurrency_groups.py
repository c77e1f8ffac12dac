"""Concurrency groups: calls of one actor that run beside each other, each group with its own limit and order."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import rlray
from tests.support import wait_until

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.every_engine]


@rlray.remote(concurrency_groups={"io": 2, "compute": 1})
class Threaded:
    def __init__(self) -> None:
        self.gate = threading.Event()
        self.lock = threading.Lock()
        self.inside: dict[str, int] = {}
        self.peak: dict[str, int] = {}
        self.order: list[int] = []

    def _hold(self, group: str) -> str:
        with self.lock:
            self.inside[group] = self.inside.get(group, 0) + 1
            self.peak[group] = max(self.peak.get(group, 0), self.inside[group])
        self.gate.wait(30)
        with self.lock:
            self.inside[group] -= 1
        return group

    @rlray.method(concurrency_group="io")
    def read(self) -> str:
        return self._hold("io")

    @rlray.method(concurrency_group="compute")
    def compute(self) -> str:
        return self._hold("compute")

    def default(self) -> str:
        return self._hold("default")

    @rlray.method(concurrency_group="compute")
    def note(self, i: int) -> str:
        self.order.append(i)
        return threading.current_thread().name

    @rlray.method(concurrency_group="io")
    def stream(self, n: int) -> Iterator[int]:
        yield from range(n)

    def where(self) -> str:
        return threading.current_thread().name

    def look(self) -> tuple[dict[str, int], dict[str, int], list[int]]:
        with self.lock:
            return dict(self.inside), dict(self.peak), list(self.order)

    def open(self) -> None:
        self.gate.set()


@rlray.remote(concurrency_groups={"io": 2, "compute": 1})
class Asynchronous:
    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.inside: dict[str, int] = {}
        self.peak: dict[str, int] = {}
        self.order: list[int] = []

    async def _hold(self, group: str) -> str:
        self.inside[group] = self.inside.get(group, 0) + 1
        self.peak[group] = max(self.peak.get(group, 0), self.inside[group])
        await self.gate.wait()
        self.inside[group] -= 1
        return group

    @rlray.method(concurrency_group="io")
    async def read(self) -> str:
        return await self._hold("io")

    @rlray.method(concurrency_group="compute")
    async def compute(self) -> str:
        return await self._hold("compute")

    async def default(self) -> str:
        return await self._hold("default")

    @rlray.method(concurrency_group="compute")
    async def note(self, i: int) -> None:
        self.order.append(i)

    async def look(self) -> tuple[dict[str, int], dict[str, int], list[int]]:
        return dict(self.inside), dict(self.peak), list(self.order)

    async def open(self) -> None:
        self.gate.set()


LOOPS = pytest.mark.differs("ray", "each group of an asynchronous actor has an event loop of its own")


@pytest.fixture(params=[pytest.param(Threaded, id="threads"), pytest.param(Asynchronous, id="asyncio", marks=LOOPS)])
def actor(request: pytest.FixtureRequest) -> Any:
    return request.param.options(max_concurrency=3).remote()


def holds(actor: Any, inside: dict[str, int]) -> bool:
    """Whether so many calls are inside, after a while at most."""
    return bool(wait_until(lambda: rlray.get(actor.look.remote(), timeout=20)[0] == inside, 20))


def test_each_group_has_its_own_limit(actor: Any) -> None:
    refs = [actor.read.remote() for _ in range(5)]
    refs += [actor.compute.remote() for _ in range(3)]
    refs += [actor.default.remote() for _ in range(2)]
    assert holds(actor, {"io": 2, "compute": 1, "default": 2})
    rlray.get(actor.open.remote(), timeout=20)
    assert rlray.get(refs, timeout=20) == ["io"] * 5 + ["compute"] * 3 + ["default"] * 2
    _, peak, _ = rlray.get(actor.look.remote())
    assert peak == {"io": 2, "compute": 1, "default": 2}


def test_a_full_group_does_not_hold_up_the_others(actor: Any) -> None:
    held = [actor.compute.remote() for _ in range(4)]
    assert holds(actor, {"compute": 1})
    assert rlray.get(actor.look.remote(), timeout=20)[0] == {"compute": 1}
    rlray.get(actor.open.remote(), timeout=20)
    rlray.get(held, timeout=20)


@pytest.mark.differs("ray", "calls to such actors may begin in any order")
def test_calls_of_a_group_of_one_run_in_the_order_in_which_they_were_made(actor: Any) -> None:
    others = [actor.read.remote() for _ in range(10)]
    rlray.get([actor.note.remote(i) for i in range(300)], timeout=20)
    assert rlray.get(actor.look.remote(), timeout=20)[2] == list(range(300))
    rlray.get(actor.open.remote(), timeout=20)
    rlray.get(others, timeout=20)


def test_the_group_of_one_call(actor: Any) -> None:
    refs = [actor.default.options(concurrency_group="compute").remote() for _ in range(3)]
    assert holds(actor, {"default": 1}), "the limit is that of the group compute"
    rlray.get(actor.open.remote(), timeout=20)
    assert rlray.get(refs, timeout=20) == ["default"] * 3


@pytest.mark.processes
def test_groups_have_threads_of_their_own() -> None:
    actor = Threaded.remote()
    names = {rlray.get(actor.note.remote(i), timeout=20) for i in range(10)}
    assert len(names) == 1
    default = {rlray.get(actor.where.remote(), timeout=20) for _ in range(10)}
    assert len(default) == 1, "without max_concurrency the default group has one thread"
    assert not names & default


def test_a_generator_in_a_group() -> None:
    actor = Threaded.remote()
    assert [rlray.get(ref, timeout=20) for ref in actor.stream.remote(20)] == list(range(20))


def test_an_unknown_group_is_told_at_the_call(actor: Any) -> None:
    with pytest.raises(ValueError, match=r"default.*'network'.*'io', 'compute'"):
        actor.default.options(concurrency_group="network")
    with pytest.raises(ValueError, match="'io'"):
        Plain.remote().call.options(concurrency_group="io")
    [same] = rlray.get([rlray.put([actor])])[0:1]
    with pytest.raises(ValueError, match="'network'"):
        same[0].default.options(concurrency_group="network")


@rlray.remote
class Plain:
    def call(self) -> int:
        return 1


def test_an_unknown_group_of_a_method_is_told_when_the_actor_is_made() -> None:
    @rlray.remote(concurrency_groups={"io": 2})
    class Wrong:
        @rlray.method(concurrency_group="oi")
        def call(self) -> int:
            return 1

    with pytest.raises(ValueError, match=r"'call'.*'oi'.*only 'io'"):
        Wrong.remote()
    assert rlray.get(Wrong.options(concurrency_groups={"oi": 1}).remote().call.remote(), timeout=20) == 1


@pytest.mark.parametrize("wrong", [{"io": 0}, {"io": "2"}, {"io": -1}])
def test_wrong_sizes(wrong: Any) -> None:
    with pytest.raises(ValueError, match="concurrency_groups"):
        rlray.remote(concurrency_groups=wrong)(Plain._class)


def test_named_actors_know_their_groups() -> None:
    actor = Threaded.options(name="with groups").remote()
    found = rlray.get_actor("with groups")
    ref = found.compute.remote()
    assert holds(found, {"compute": 1})
    with pytest.raises(ValueError, match="'network'"):
        found.default.options(concurrency_group="network")
    rlray.get(actor.open.remote(), timeout=20)
    assert rlray.get(ref, timeout=20) == "compute"


def test_a_waiting_call_of_a_group_can_be_cancelled(actor: Any) -> None:
    first = actor.compute.remote()
    assert holds(actor, {"compute": 1})
    second, third = actor.compute.remote(), actor.compute.remote()
    rlray.cancel(second)
    time.sleep(0.1)
    rlray.get(actor.open.remote(), timeout=20)
    assert rlray.get([first, third], timeout=20) == ["compute"] * 2
    with pytest.raises(rlray.exceptions.TaskCancelledError):
        rlray.get(second, timeout=20)
