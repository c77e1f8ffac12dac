"""Calls that wait for each other in a circle raise; calls that are only slow never do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

import rlray
from rlray.exceptions import ActorDiedError, DeadlockError, GetTimeoutError
from tests.support import run_driver

pytestmark = pytest.mark.usefixtures("impatient")

PATIENCE = 30  # seconds for what must not hang
SLOW = 1.5  # seconds: longer than several looks


@pytest.fixture(autouse=True, scope="module")
def impatient() -> Iterator[None]:
    """A runtime that looks for circles after a fifth of a second instead of after five."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLRAY_DEADLOCK_SECONDS", "0.2")
        rlray.init(num_cpus=4)
    yield
    rlray.shutdown()


@rlray.remote
class Caller:
    """Waits for others, in one of several ways."""

    def __init__(self, name: str = "", first: Any = None) -> None:
        self.name = name
        self.others: list[Any] = []
        if first is not None:
            rlray.get(first.value.remote())

    def meet(self, *others: Any) -> None:
        self.others = list(others)

    def value(self) -> int:
        return 1

    def itself(self, me: Any) -> Any:
        return rlray.get(me.value.remote())

    def ask(self, depth: int) -> Any:
        """Ask the first of the others, who asks the first of its, and so on."""
        return rlray.get(self.others[0].ask.remote(depth - 1)) if depth else 0

    def ask_in_wait(self, me: Any) -> Any:
        ready, _ = rlray.wait([me.value.remote(), rlray.put(1)], num_returns=2)
        return len(ready)

    def any_of(self, me: Any) -> int:
        ready, _ = rlray.wait([me.value.remote(), slow.remote(SLOW)], num_returns=1)
        return len(ready)

    def any_of_these(self, other: Any, me: Any) -> list[Any]:
        """Returns the reference that was not waited for in a list, since that must not be waited for either."""
        back = other.ask_back.remote(me)
        ready, _ = rlray.wait([back, slow.remote(SLOW)], num_returns=1)
        assert ready != [back]
        return [back]

    def ask_back(self, other: Any) -> Any:
        return rlray.get(other.value.remote())

    def with_timeout(self, me: Any, seconds: float) -> str:
        try:
            return str(rlray.get(me.value.remote(), timeout=seconds))
        except GetTimeoutError:
            return "timeout"

    def asks_one_who_asks_back(self, other: Any, me: Any, seconds: float) -> list[Any]:
        back = other.ask_back.remote(me)
        with pytest.raises(GetTimeoutError):
            rlray.get(back, timeout=seconds)
        return [back]

    def echo(self, value: Any) -> Any:
        return value

    def own_call_with_a_late_argument(self, me: Any) -> Any:
        return rlray.get(me.echo.remote(slow.remote(SLOW)))

    def through_a_task(self, me: Any) -> Any:
        return rlray.get(passes_on.remote(me.value.remote()))

    def through_nested_tasks(self, me: Any) -> Any:
        return rlray.get(nested.remote(me, 3))

    def slow(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds


@rlray.remote
def slow(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@rlray.remote(num_cpus=0)
def passes_on(value: Any) -> Any:
    return value


@rlray.remote
def nested(actor: Any, depth: int) -> Any:
    return rlray.get(nested.remote(actor, depth - 1) if depth else actor.value.remote())


@rlray.remote
class Async:
    async def value(self) -> int:
        return 1

    async def blocking(self, me: Any) -> Any:
        return rlray.get(me.value.remote())

    async def awaiting(self, me: Any, seconds: float) -> Any:
        await asyncio.sleep(seconds)
        return await me.value.remote()


def circle(ref: rlray.ObjectRef[Any]) -> str:
    """What the error of a call says, whose circle must be found."""
    with pytest.raises(DeadlockError) as caught:
        rlray.get(ref, timeout=PATIENCE)
    return str(caught.value)


class TestCircles:
    def test_an_actor_that_calls_itself(self) -> None:
        caller = Caller.remote()
        text = circle(caller.itself.remote(caller))
        assert "get would wait for ever: Caller.itself (running in actor Caller, pid " in text
        assert "waits for Caller.value (not begun) waits for Caller.itself" in text
        assert "max_concurrency=2" in text
        assert rlray.get(caller.value.remote()) == 1, "the actor lives on"

    def test_two_actors_that_call_each_other(self) -> None:
        one, two = Caller.options(name="one").remote(), Caller.options(name="two").remote()
        rlray.get([one.meet.remote(two), two.meet.remote(one)])
        text = circle(one.ask.remote(5))
        assert "actor Caller 'one'" in text
        assert "actor Caller 'two'" in text
        assert rlray.get([one.value.remote(), two.value.remote()]) == [1, 1]

    def test_three_actors(self) -> None:
        callers = [Caller.options(name=f"ring-{i}").remote() for i in range(3)]
        rlray.get([caller.meet.remote(callers[i - 1]) for i, caller in enumerate(callers)])
        text = circle(callers[0].ask.remote(10))
        assert all(f"'ring-{i}'" in text for i in range(3))

    def test_through_the_argument_of_a_task(self) -> None:
        caller = Caller.remote()
        assert "passes_on (not begun)" in circle(caller.through_a_task.remote(caller))

    def test_through_nested_tasks(self) -> None:
        caller = Caller.remote()
        assert "nested (running in worker" in circle(caller.through_nested_tasks.remote(caller))

    def test_through_wait_for_all(self) -> None:
        caller = Caller.remote()
        assert "wait would wait for ever" in circle(caller.ask_in_wait.remote(caller))

    def test_through_a_constructor(self) -> None:
        """It asks one that asks the actor which it constructs."""
        first = Caller.remote()
        second = Caller.options(name="under construction").remote("second", first)
        busy = first.meet.remote(second)
        rlray.get(busy)
        assert rlray.get(second.value.remote()) == 1, "no circle yet"

        @rlray.remote
        class Selfish:
            def __init__(self) -> None:
                me = rlray.get_runtime_context().current_actor
                rlray.get(me.call.remote())

            def call(self) -> None:
                """Never begins."""

        selfish = Selfish.remote()
        with pytest.raises(ActorDiedError, match=r"Selfish\.__init__ \(running in actor Selfish"):
            rlray.get(selfish.call.remote(), timeout=PATIENCE)

    def test_a_coroutine_that_holds_up_its_own_actor(self) -> None:
        actor = Async.remote()
        text = circle(actor.blocking.remote(actor))
        assert "Async.blocking (running in actor Async" in text
        assert rlray.get(actor.value.remote()) == 1

    def test_many_at_once(self) -> None:
        callers = [Caller.remote() for _ in range(12)]
        refs = [caller.itself.remote(caller) for caller in callers]
        for ref in refs:
            circle(ref)


class TestNoCircles:
    """They take longer than several looks."""

    def test_a_long_call_and_many_waiters(self) -> None:
        ref = slow.remote(SLOW)

        @rlray.remote(num_cpus=0)
        def waits(refs: list[Any]) -> Any:
            return rlray.get(refs[0])

        assert rlray.get([waits.remote([ref]) for _ in range(5)], timeout=PATIENCE) == [SLOW] * 5

    def test_a_busy_actor(self) -> None:
        """The callee is slow, and others wait in its queue."""
        callee, caller = Caller.remote(), Caller.remote()
        busy = callee.slow.remote(SLOW)
        rlray.get(caller.meet.remote(callee))
        assert rlray.get(caller.ask.remote(1), timeout=PATIENCE) == 0
        rlray.get(busy)

    def test_nested_tasks_beyond_the_cpus(self) -> None:
        @rlray.remote
        def tree(depth: int) -> int:
            return sum(rlray.get([tree.remote(depth - 1) for _ in range(2)])) if depth else len([time.sleep(0.3)])

        assert rlray.get(tree.remote(4), timeout=PATIENCE) == 16

    def test_threaded_actors_that_call_themselves(self) -> None:
        caller = Caller.options(max_concurrency=2).remote()
        assert rlray.get(caller.itself.remote(caller), timeout=PATIENCE) == 1
        assert rlray.get(caller.own_call_with_a_late_argument.remote(caller), timeout=PATIENCE) == SLOW
        rlray.get(caller.meet.remote(caller))
        busy = caller.slow.remote(SLOW)
        assert rlray.get(caller.ask.remote(1), timeout=PATIENCE) == 0
        rlray.get(busy)

    def test_coroutines_that_await(self) -> None:
        actor = Async.remote()
        assert rlray.get(actor.awaiting.remote(actor, SLOW), timeout=PATIENCE) == 1

    def test_a_timeout_in_the_circle(self) -> None:
        caller = Caller.remote()
        assert rlray.get(caller.with_timeout.remote(caller, SLOW), timeout=PATIENCE) == "timeout"
        one, two = Caller.remote(), Caller.remote()
        [back] = rlray.get(one.asks_one_who_asks_back.remote(two, one, SLOW), timeout=PATIENCE)
        assert rlray.get(back, timeout=PATIENCE) == 1

    def test_wait_for_any_of_several(self) -> None:
        caller = Caller.remote()
        assert rlray.get(caller.any_of.remote(caller), timeout=PATIENCE) == 1

    def test_one_waits_in_a_circle_that_another_leaves(self) -> None:
        one, two = Caller.remote(), Caller.remote()
        [back] = rlray.get(one.any_of_these.remote(two, one), timeout=PATIENCE)
        assert rlray.get(back, timeout=PATIENCE) == 1

    def test_an_argument_that_comes_late(self) -> None:
        late = slow.remote(SLOW)
        assert rlray.get(passes_on.remote(passes_on.remote(late)), timeout=PATIENCE) == SLOW


def test_how_long_it_waits_must_be_a_number() -> None:
    code = "import rlray\ntry:\n    rlray.init()\nexcept ValueError as error:\n    print(error)"
    for wrong in ("soon", "0", "-1", "nan"):
        output = run_driver(code, RLRAY_DEADLOCK_SECONDS=wrong)
        assert f"RLRAY_DEADLOCK_SECONDS is a number of seconds above 0, got '{wrong}'" in output
