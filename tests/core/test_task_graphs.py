"""References as arguments, nested tasks and graphs that grow as they run."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

import rlray
from tests.support import wait_until

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.every_engine]


@rlray.remote
def add(*terms: int) -> int:
    return sum(terms)


@rlray.remote
def kinds(*args: Any, **kwargs: Any) -> Any:
    return [isinstance(a, rlray.ObjectRef) for a in args], {
        k: isinstance(v, rlray.ObjectRef) for k, v in kwargs.items()
    }


def test_top_level_references_become_values() -> None:
    one, two = rlray.put(1), add.remote(1, 1)
    assert rlray.get(add.remote(one, two, 3)) == 6
    assert rlray.get(kinds.remote(one, x=two)) == ([False], {"x": False})


def test_references_in_containers_stay_references() -> None:
    ref = add.remote(20, 1)

    @rlray.remote
    def look(box: dict[str, list[rlray.ObjectRef]]) -> Any:
        inner = box["refs"][0]
        return isinstance(inner, rlray.ObjectRef), rlray.get(inner), inner

    is_ref, value, same = rlray.get(look.remote({"refs": [ref]}))
    assert (is_ref, value) == (True, 21)
    assert same == ref
    assert rlray.get(same) == 21


def test_a_chain_of_dependent_tasks() -> None:
    ref = rlray.put(0)
    for _ in range(200):
        ref = add.remote(ref, 1)
    assert rlray.get(ref) == 200


def test_one_result_feeds_many_and_many_feed_one() -> None:
    seed = add.remote(1)
    layer = [add.remote(seed, i) for i in range(50)]
    assert rlray.get(add.remote(*layer)) == sum(1 + i for i in range(50))


@pytest.mark.processes
def test_a_task_waits_for_its_argument_without_taking_a_cpu() -> None:
    """More tasks wait than there are CPUs, and what they wait for is submitted last: all of them get done."""

    @rlray.remote
    class Gate:
        def __init__(self) -> None:
            self.open = False

        def pass_through(self) -> int:
            return 1 if self.open else 0

        def unlock(self) -> None:
            self.open = True

    @rlray.remote
    def knock(gate: Any) -> int:
        while not (answer := rlray.get(gate.pass_through.remote())):
            pass
        return answer

    gate = Gate.remote()
    blocked = knock.remote(gate)
    waiting = [add.remote(blocked, i) for i in range(20)]
    assert rlray.get(add.remote(2, 3), timeout=20) == 5, "tasks that only wait keep a ready one from running"
    rlray.get(gate.unlock.remote())
    assert rlray.get(waiting, timeout=20) == [1 + i for i in range(20)]


@rlray.remote
def fibonacci(n: int) -> int:
    if n < 2:
        return n
    return sum(rlray.get([fibonacci.remote(n - 1), fibonacci.remote(n - 2)]))


def test_recursion_wider_than_the_machine() -> None:
    assert rlray.get(fibonacci.remote(6), timeout=60) == 8


@rlray.remote
def nest(depth: int) -> int:
    return 0 if depth == 0 else 1 + rlray.get(nest.remote(depth - 1))


def test_recursion_deeper_than_the_number_of_cpus() -> None:
    assert rlray.get(nest.remote(9), timeout=60) == 9


def test_a_waiting_task_lends_its_cpu_in_wait_too() -> None:
    @rlray.remote
    def outer() -> int:
        inner = [add.remote(i) for i in range(3)]
        ready, _ = rlray.wait(inner, num_returns=3)
        return len(ready)

    assert rlray.get([outer.remote() for _ in range(8)], timeout=60) == [3] * 8


def test_tasks_return_references_of_tasks() -> None:
    @rlray.remote
    def later(value: int) -> Any:
        return [add.remote(value, 1)]

    [ref] = rlray.get(later.remote(4))
    assert rlray.get(ref) == 5
    assert rlray.get(add.remote(ref, ref)) == 10


def test_tasks_submit_tasks_that_outlive_them() -> None:
    @rlray.remote
    class Counter:
        def __init__(self) -> None:
            self.count = 0

        def increment(self) -> None:
            self.count += 1

        def read(self) -> int:
            return self.count

    @rlray.remote
    def tick(counter: Any) -> None:
        time.sleep(0.2)
        rlray.get(counter.increment.remote())

    @rlray.remote
    def fire_and_forget(counter: Any) -> None:
        for _ in range(5):
            tick.remote(counter)

    counter = Counter.remote()
    rlray.get(fire_and_forget.remote(counter))
    assert wait_until(lambda: rlray.get(counter.read.remote()) == 5)


@pytest.mark.parametrize("seed", range(3))
def test_random_graphs_give_what_plain_python_gives(seed: int) -> None:
    """Slow oracle: the same graph computed at once, here."""
    rng = random.Random(seed)
    truth: list[int] = []
    refs: list[rlray.ObjectRef] = []

    @rlray.remote
    def combine(direct: int, boxed: list[rlray.ObjectRef], *more: int) -> int:
        return direct + 2 * sum(rlray.get(boxed)) + 3 * sum(more)

    @rlray.remote
    def spawn(a: int, b: int) -> int:
        return rlray.get(add.remote(a, b)) % 1009

    for index in range(60):
        if index < 5:
            truth.append(index)
            refs.append(rlray.put(index) if index % 2 else add.remote(index))
            continue
        picked = [rng.randrange(index) for _ in range(rng.randint(2, 5))]
        first, second, *rest = picked
        if rng.random() < 0.2:
            truth.append((truth[first] + truth[second]) % 1009)
            refs.append(spawn.remote(refs[first], refs[second]))
        else:
            truth.append((truth[first] + 2 * truth[second] + 3 * sum(truth[i] for i in rest)) % 10**9)
            ref = combine.remote(refs[first], [refs[second]], *[refs[i] for i in rest])
            refs.append(rlray.remote(lambda value: value % 10**9).remote(ref))
    order = rng.sample(range(60), 60)
    assert rlray.get([refs[i] for i in order], timeout=60) == [truth[i] for i in order]
