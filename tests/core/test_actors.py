"""Actors: state, order, handles that travel, methods, inheritance."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import numpy as np
import pytest

import rlray

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.every_engine]


class Base:
    kind = "base"

    def __init__(self, start: int = 0) -> None:
        self.value = start

    def describe(self) -> str:
        return f"{self.kind} {self.value}"


@rlray.remote
class Counter(Base):
    """Counts."""

    kind = "counter"

    def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value

    def read(self) -> int:
        return self.value

    def history(self, *values: Any, **more: Any) -> Any:
        return values, more

    @rlray.method(num_returns=2)
    def pair(self) -> tuple[int, int]:
        return self.value, -self.value

    def pid(self) -> int:
        return os.getpid()

    def fail(self) -> None:
        self.value += 100
        raise ValueError("in a method")

    def me(self) -> Any:
        return rlray.get_runtime_context().current_actor

    def _private(self) -> str:
        return "private"


def test_state_lives_between_calls_and_apart_from_other_instances() -> None:
    one, two = Counter.remote(), Counter.remote(10)
    rlray.get([one.add.remote(), one.add.remote(5), two.add.remote()])
    assert rlray.get([one.read.remote(), two.read.remote()]) == [6, 11]


@pytest.mark.processes
def test_each_lives_in_a_process_of_its_own() -> None:
    one, two = Counter.remote(), Counter.remote()
    assert len({os.getpid(), *rlray.get([one.pid.remote(), two.pid.remote()])}) == 3


def test_calls_of_one_caller_run_in_their_order() -> None:
    @rlray.remote
    class Log:
        def __init__(self) -> None:
            self.seen: list[int] = []

        def note(self, i: int) -> int:
            self.seen.append(i)
            return i

        def all(self) -> list[int]:
            return self.seen

    log = Log.remote()
    refs = [log.note.remote(i) for i in range(2000)]
    assert rlray.get(log.all.remote()) == list(range(2000))
    assert rlray.get(refs) == list(range(2000))


def test_order_is_kept_when_an_early_argument_is_late() -> None:
    log = Counter.remote(1)
    late = rlray.remote(lambda: time.sleep(0.5) or 10).remote()
    assert rlray.get([log.add.remote(late), log.add.remote(1), log.read.remote()]) == [11, 12, 12]


def test_calls_of_several_threads_and_tasks_all_arrive() -> None:
    counter = Counter.remote()

    @rlray.remote
    def add_many(handle: Any) -> None:
        rlray.get([handle.add.remote() for _ in range(50)])

    def here() -> None:
        rlray.get([counter.add.remote() for _ in range(50)])

    refs = [add_many.remote(counter) for _ in range(4)]
    threads = [threading.Thread(target=here) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rlray.get(refs)
    assert rlray.get(counter.read.remote()) == 400


def test_arguments_and_references() -> None:
    actor = Counter.remote(start=rlray.put(3))
    assert rlray.get(actor.read.remote()) == 3
    ref = rlray.put("value")
    (values, more) = rlray.get(actor.history.remote(ref, [ref], key=ref))
    assert values[0] == "value"
    assert values[1] == [ref]
    assert more == {"key": "value"}


def test_methods_with_several_returns() -> None:
    left, right = Counter.remote(4).pair.remote()
    assert rlray.get([left, right]) == [4, -4]
    refs = Counter.remote(5).history.options(num_returns=2).remote(1)
    assert rlray.get(list(refs)) == [(1,), {}]


def test_inheritance_and_class_attributes() -> None:
    assert rlray.get(Counter.remote(2).describe.remote()) == "counter 2"

    @rlray.remote
    class Grandchild(Base):
        kind = "grandchild"

        def describe(self) -> str:
            return super().describe() + "!"

    assert rlray.get(Grandchild.remote(7).describe.remote()) == "grandchild 7!"


def test_class_methods_and_static_methods() -> None:
    @rlray.remote
    class Shop:
        open = 8

        @classmethod
        def hours(cls, length: int) -> tuple[str, int]:
            return cls.__name__, cls.open + length

        @staticmethod
        def price(amount: int, *, each: int = 3) -> int:
            return amount * each

    shop = Shop.remote()
    assert rlray.get([shop.hours.remote(10), shop.price.remote(2), shop.price.remote(2, each=5)]) == [
        ("Shop", 18),
        6,
        10,
    ]


def test_class_without_a_constructor_and_private_methods() -> None:
    @rlray.remote
    class Bare:
        def hello(self) -> str:
            return "hello"

    assert rlray.get(Bare.remote().hello.remote()) == "hello"
    assert rlray.get(Counter.remote()._private.remote()) == "private"


def test_exceptions_in_methods_leave_the_actor_alive() -> None:
    counter = Counter.remote()
    ref = counter.fail.remote()
    assert rlray.get(counter.add.remote()) == 101
    with pytest.raises(ValueError, match="in a method"):
        rlray.get(ref)
    assert rlray.get(counter.read.remote()) == 101


def test_handles_travel_through_tasks_actors_puts_and_back() -> None:
    counter = Counter.remote()

    @rlray.remote
    class Middle:
        def __init__(self, handle: Any) -> None:
            self.handle = handle

        def forward(self) -> int:
            return rlray.get(self.handle.add.remote())

        def give(self) -> Any:
            return {"handle": self.handle}

    middle = Middle.remote(counter)
    assert rlray.get(middle.forward.remote()) == 1
    back = rlray.get(middle.give.remote())["handle"]
    again = rlray.get(rlray.put([back]))[0]
    assert rlray.get(again.add.remote()) == 2
    use = rlray.remote(lambda box: rlray.get(box["h"].add.remote()))
    assert rlray.get(use.remote({"h": again})) == 3
    assert back == counter
    assert hash(back) == hash(counter)
    assert back != middle


def test_an_actor_made_by_a_task_is_usable_by_the_driver() -> None:
    counter = rlray.get(rlray.remote(lambda: Counter.remote(40)).remote())
    assert rlray.get(counter.add.remote(2)) == 42


def test_actors_call_each_other_and_themselves() -> None:
    @rlray.remote
    class Player:
        def __init__(self) -> None:
            self.partner: Any = None

        def meet(self, partner: Any) -> None:
            self.partner = partner

        def rally(self, n: int) -> int:
            return n if n == 0 else 1 + rlray.get(self.partner.answer.remote(n - 1))

        def answer(self, n: int) -> int:
            return n

    one, two = Player.remote(), Player.remote()
    rlray.get([one.meet.remote(two), two.meet.remote(one)])
    assert [rlray.get(one.rally.remote(5), timeout=20), rlray.get(two.rally.remote(9), timeout=20)] == [5, 9]
    assert rlray.get(rlray.get(Counter.remote(8).me.remote()).read.remote()) == 8


def test_more_actors_than_cpus() -> None:
    actors = [Counter.remote(i) for i in range(12)]
    assert rlray.get([actor.add.remote() for actor in actors], timeout=60) == [i + 1 for i in range(12)]
    assert rlray.get(rlray.remote(lambda: 1).remote(), timeout=20) == 1


def test_large_results_and_arguments_of_methods() -> None:
    @rlray.remote
    class Buffer:
        def __init__(self) -> None:
            self.total = 0

        def feed(self, batch: dict[str, Any]) -> Any:
            self.total += int(batch["x"].sum())
            return {"echo": batch["x"] + 1, "total": self.total}

    buffer = Buffer.remote()
    for i in range(10):
        out = rlray.get(buffer.feed.remote({"x": np.full(500_000, i)}))
        assert out["echo"][-1] == i + 1
    assert out["total"] == 500_000 * 45


def test_an_actor_runs_one_call_at_a_time() -> None:
    @rlray.remote
    class Critical:
        def __init__(self) -> None:
            self.inside = 0

        def enter(self) -> int:
            self.inside += 1
            time.sleep(0.01)
            seen = self.inside
            self.inside -= 1
            return seen

    critical = Critical.remote()
    use = rlray.remote(lambda handle: max(rlray.get([handle.enter.remote() for _ in range(5)])))
    assert set(rlray.get([use.remote(critical) for _ in range(4)])) == {1}


def test_misuse_names_the_remedy() -> None:
    counter = Counter.remote()
    with pytest.raises(TypeError, match=r"Counter\.remote\("):
        Counter()
    with pytest.raises(TypeError, match=r"add\.remote\("):
        counter.add()
    with pytest.raises(AttributeError, match="no_such_method"):
        counter.no_such_method.remote()
    with pytest.raises(TypeError, match="argument"):
        counter.add.remote(1, 2, 3)
    with pytest.raises(TypeError, match="argument"):
        Counter.remote(1, 2)
    with pytest.raises(ValueError, match=r"(?s)max_restart\b.*max_restarts"):
        Counter.options(max_restart=1)
    assert "Counter" in repr(counter)
