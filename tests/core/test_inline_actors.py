"""Generators and actors on the inline engine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rlray
from rlray.exceptions import ActorDiedError, ActorUnavailableError, TaskCancelledError
from rlray.util import remove_placement_group
from rlray.util.placement_group import placement_group
from rlray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from tests.core.inline_support import Log, Signal, _inline, _nothing_happened, happened, loops, note, runs  # noqa: F401 -- fixtures of every test here
from tests.support import wait_until

# -- generators ------------------------------------------------------------------------------------------------------


@rlray.remote(num_returns="streaming")
def count(n: int, last: str = "") -> Iterator[int]:
    try:
        for i in range(n):
            note(i)
            yield i
        if last:
            raise ValueError(last)
    finally:
        note("closed")


def test_a_generator_runs_as_its_values_are_asked_for() -> None:
    values = count.remote(3)
    assert happened == []
    for i in range(3):
        assert rlray.get(next(values)) == i
        assert happened == list(range(i + 1))
    assert not values.is_finished()
    assert list(values) == []
    assert values.is_finished()
    assert happened[-1] == "closed"


def test_a_generator_is_ready_for_wait_and_its_end_can_be_waited_for() -> None:
    values = count.remote(3)
    assert values.next_ready()
    assert rlray.wait([values], timeout=0) == ([values], [])
    assert happened == [0]
    end = values.completed()
    assert happened == [0], "nobody has waited yet"
    assert rlray.get(end) is None
    assert happened == [0, 1, 2, "closed"]
    assert [rlray.get(ref) for ref in values] == [0, 1, 2]


def test_a_program_with_an_event_loop_reads_generators_and_awaits() -> None:
    async def main() -> list[int]:
        return [await ref async for ref in count.remote(3)]

    assert asyncio.run(main()) == [0, 1, 2]
    assert happened == [0, 1, 2, "closed"]


def test_the_error_of_a_generator_is_its_last_value() -> None:
    first, last = count.remote(1, "at the end")
    assert rlray.get(first) == 0
    with pytest.raises(ValueError, match="at the end"):
        rlray.get(last)
    [wrong] = rlray.remote(num_returns="streaming")(lambda: 5).remote()
    with pytest.raises(TypeError, match="streaming"):
        rlray.get(wrong)


def test_an_endless_generator_is_closed_when_nobody_reads_on() -> None:
    values = count.remote(10**9)
    rlray.get(next(values))
    del values
    assert happened == [0, "closed"]
    cancelled = count.remote(10**9)
    rlray.get(next(cancelled))
    rlray.cancel(cancelled)
    with pytest.raises(TaskCancelledError):
        rlray.get(next(cancelled))
    assert list(cancelled) == []
    assert happened == [0, "closed"] * 2


def test_a_generator_of_an_actor_ends_before_the_actors_next_call() -> None:
    log = Log.remote()
    values = log.count.options(num_returns="streaming").remote(3)
    assert rlray.get(next(values)) == 0
    assert happened == [0]
    rlray.get(log.note.remote("call"))
    assert happened == [0, 1, 2, "call"]
    assert [rlray.get(ref) for ref in values] == [1, 2]


def test_an_unread_generator_does_not_keep_its_actor() -> None:
    actor = Log.options(name="with a generator").remote()
    values = actor.count.options(num_returns="streaming").remote(3)
    del actor
    assert rlray.get(next(values)) == 0
    del values
    with pytest.raises(ValueError, match="with a generator"):
        rlray.get_actor("with a generator")


def test_a_repeated_generator_loses_and_repeats_nothing() -> None:
    @rlray.remote(num_returns="streaming", max_retries=1, retry_exceptions=True)
    def shaky() -> Iterator[int]:
        run = runs()
        yield 1
        yield 2
        if run == 1:
            raise ValueError("first run")
        yield 3

    assert [rlray.get(ref) for ref in shaky.remote()] == [1, 2, 3]
    assert happened == ["run", "run"]


def test_a_generator_that_had_to_wait_runs_ahead() -> None:
    signal = Signal.remote()
    values = count.remote(signal.wait.remote(3))
    assert not values.next_ready()
    rlray.get(signal.send.remote())
    assert [rlray.get(ref) for ref in values] == [0, 1, 2]


def test_generators_of_an_async_actor_run_ahead_as_far_as_they_may() -> None:
    @rlray.remote
    class Source:
        async def numbers(self, n: int) -> AsyncIterator[int]:
            for i in range(n):
                note(i)
                yield i

    source = Source.remote()
    free = source.numbers.options(num_returns="streaming").remote(5)
    rlray.get(free.completed(), timeout=20)
    assert [rlray.get(ref) for ref in free] == list(range(5))
    happened.clear()
    held = source.numbers.options(num_returns="streaming", _generator_backpressure_num_objects=2).remote(5)
    assert wait_until(lambda: happened == [0, 1])
    assert rlray.wait([held.completed()], timeout=0.1)[0] == []
    assert [rlray.get(ref) for ref in held] == list(range(5))


# -- actors ----------------------------------------------------------------------------------------------------------


def test_exceptions_are_retried_as_often_as_allowed() -> None:
    def attempt(succeeds_at: int) -> int:
        run = runs()
        if run < succeeds_at:
            raise KeyError("not yet")
        return run

    class Tries:
        def attempt(self, succeeds_at: int) -> int:
            return attempt(succeeds_at)

    task, actor = rlray.remote(attempt), rlray.remote(Tries).remote()
    for call, option in ((task, "max_retries"), (actor.attempt, "max_task_retries")):
        happened.clear()
        assert rlray.get(call.options(**{option: 2, "retry_exceptions": [KeyError]}).remote(3)) == 3
        happened.clear()
        with pytest.raises(KeyError):
            rlray.get(call.options(**{option: 1, "retry_exceptions": True}).remote(3))
        assert len(happened) == 2
        happened.clear()
        with pytest.raises(KeyError):
            rlray.get(call.options(**{option: 5, "retry_exceptions": [ValueError]}).remote(3))
        assert len(happened) == 1


def test_leaving_and_ending_from_inside() -> None:
    actor = Log.remote()
    assert rlray.get(actor.__ray_ready__.remote()) is True
    with pytest.raises(ActorDiedError, match="exit_actor"):
        rlray.get(actor.leave.remote())
    with pytest.raises(ActorDiedError, match="exit_actor"):
        rlray.get(actor.note.remote("no"))
    other = Log.remote()
    assert rlray.get(other.__ray_call__.remote(lambda self, x: (type(self).__name__, x), 1)) == ("Log", 1)
    with pytest.raises(ActorDiedError, match="__ray_terminate__"):
        rlray.get(other.__ray_terminate__.remote())
    with pytest.raises(ActorDiedError, match="__ray_terminate__"):
        rlray.get(other.note.remote("no"))
    assert happened == []


def test_no_call_begins_while_an_actor_that_leaves_waits_for_those_under_way(tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    @rlray.remote(max_concurrency=4)
    class Leaver:
        def hold(self) -> str:
            assert wait_until(gate.exists, 30)
            return "held"

        def leave(self) -> None:
            rlray.actor.exit_actor()

        def note(self) -> None:
            note("begun")

    actor = Leaver.remote()
    held, leaving = actor.hold.remote(), actor.leave.remote()
    life: Any = actor._life
    assert wait_until(lambda: life.actor._departure is not None, 20)
    assert rlray.wait([leaving], timeout=0) == ([], [leaving])
    behind = actor.note.remote()
    gate.touch()
    assert rlray.get(held, timeout=20) == "held"
    for ref in (leaving, behind):
        with pytest.raises(ActorDiedError, match="exit_actor"):
            rlray.get(ref, timeout=20)
    assert happened == []


def test_kill_with_a_restart_gives_a_fresh_instance() -> None:
    @rlray.remote(max_restarts=1)
    class Counter:
        def __init__(self, start: int) -> None:
            self.value = start

        def add(self) -> tuple[int, bool]:
            self.value += 1
            return self.value, rlray.get_runtime_context().was_current_actor_reconstructed

    actor = Counter.remote(5)
    assert rlray.get([actor.add.remote(), actor.add.remote()]) == [(6, False), (7, False)]
    rlray.kill(actor, no_restart=False)
    assert rlray.get(actor.add.remote()) == (6, True)
    rlray.kill(actor, no_restart=False)
    with pytest.raises(ActorDiedError):
        rlray.get(actor.add.remote())


def test_coroutines_under_way_at_a_restart_fail_or_begin_anew() -> None:
    signal = Signal.options(max_restarts=1).remote()
    lost = signal.wait.remote("lost")
    kept = signal.wait.options(max_task_retries=1).remote("kept")
    assert wait_until(lambda: rlray.get(signal.waiting.remote()) == 2)
    rlray.kill(signal, no_restart=False)
    with pytest.raises(ActorUnavailableError):
        rlray.get(lost, timeout=20)
    assert wait_until(lambda: rlray.get(signal.waiting.remote()) == 1)
    rlray.get(signal.send.remote())
    assert rlray.get(kept, timeout=20) == "kept"


def test_event_loops_end_with_their_actors() -> None:
    dropped, killed = Signal.remote(), Signal.remote()
    ref = killed.wait.remote()
    rlray.get([dropped.waiting.remote(), killed.waiting.remote()])
    assert len(loops()) >= 2
    rlray.kill(killed)
    with pytest.raises(ActorDiedError):
        rlray.get(ref)
    del dropped
    assert wait_until(lambda: not loops()), loops()


def test_threads_of_an_actor_may_wait_for_each_other() -> None:
    @rlray.remote(concurrency_groups={"waiting": 2})
    class Meeting:
        def __init__(self) -> None:
            self.came = threading.Event()

        @rlray.method(concurrency_group="waiting")
        def wait(self) -> bool:
            return self.came.wait(20)

        def come(self) -> None:
            self.came.set()

    actor = Meeting.remote()
    refs = [actor.wait.remote() for _ in range(3)]
    rlray.get(actor.come.remote())
    assert rlray.get(refs, timeout=30) == [True] * 3
    with pytest.raises(ValueError, match=r"'unheard of'.*'waiting'"):
        actor.come.options(concurrency_group="unheard of").remote()


def test_resources_are_held_while_running_and_lent_while_waiting() -> None:
    def free() -> float:
        return rlray.available_resources()["CPU"]

    outer = rlray.remote(num_cpus=3)(lambda: (free(), rlray.get(rlray.remote(num_cpus=2)(free).remote()), free()))
    assert rlray.get(outer.remote()) == (1.0, 2.0, 1.0)
    actor = Log.options(num_cpus=1, num_gpus=1).remote()
    assert (free(), rlray.available_resources()["GPU"]) == (3.0, 1.0)
    del actor
    assert (free(), rlray.available_resources()["GPU"]) == (4.0, 2.0)


def test_gpus_are_given_out_and_shared_when_taken() -> None:
    @rlray.remote
    class Gpu:
        def ids(self) -> Any:
            return rlray.get_gpu_ids()

    one, two = (Gpu.options(num_gpus=1).remote() for _ in range(2))
    assert sorted(rlray.get([one.ids.remote(), two.ids.remote()])) == [[0], [1]]
    third = Gpu.options(num_gpus=2).remote()
    assert sorted(rlray.get(third.ids.remote())) == [0, 1]
    del one, two, third
    assert rlray.get(rlray.remote(num_gpus=0.5)(rlray.get_gpu_ids).remote()) in ([0], [1])


def test_an_array_of_empty_is_read_only_once_it_is_given_away() -> None:
    for give in (rlray.put, lambda array: rlray.remote(lambda x: x).remote({"array": array.T})):
        array = rlray.empty((300, 300), np.int64)
        array[...] = 7
        small = rlray.empty(10)
        ref = give(array)
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 8
        rlray.put(small)
        assert small.flags.writeable, "an ordinary array, as documented"
        del array
        value = rlray.get(ref)
        value = value["array"] if isinstance(value, dict) else value
        assert value.shape == (300, 300)
        assert (value == 7).all()
        assert not value.flags.writeable
    part = rlray.empty((300, 300))
    rlray.put(part[1:])
    assert part.flags.writeable, "only part of it was given away"


def test_arguments_of_empty_are_checked() -> None:
    with pytest.raises(TypeError, match="object"):
        rlray.empty(10, object)
    with pytest.raises(ValueError, match="order"):
        rlray.empty(10, order="K")  # type: ignore[arg-type]


def test_a_runtime_env_is_refused() -> None:
    environment = {"env_vars": {"A": "1"}}
    for what, start in (
        ("task 'runs'", rlray.remote(runs).options(runtime_env=environment).remote),
        ("actor 'Log'", Log.options(runtime_env=environment).remote),
    ):
        with pytest.raises(ValueError, match=rf"{what} has a runtime_env.*engine='local'"):
            start()
    assert happened == []
    assert rlray.get(rlray.remote(runs).options(runtime_env={}).remote()) == 1
    assert rlray.get_runtime_context().runtime_env == {}


def test_memory_is_booked() -> None:
    def free() -> float:
        return rlray.available_resources()["memory"]

    total = rlray.cluster_resources()["memory"]
    assert rlray.get(rlray.remote(memory=1e9)(free).remote()) == total - 1e9
    with pytest.raises(rlray.exceptions.TaskUnschedulableError, match="memory"):
        rlray.remote(memory=2 * total)(free).remote()


def test_removing_a_group_fails_what_is_in_it() -> None:
    group = placement_group([{"CPU": 2, "GPU": 1}])
    inside = {"scheduling_strategy": PlacementGroupSchedulingStrategy(group)}
    assert (rlray.available_resources()["CPU"], rlray.available_resources()["GPU"]) == (2.0, 1.0)
    assert rlray.get(rlray.remote(num_gpus=1)(rlray.get_gpu_ids).options(**inside).remote()) in ([0], [1])

    @rlray.remote
    def numbers() -> Iterator[int]:
        yield 1
        note("went on")
        yield 2

    gate = Signal.remote()
    waiting = rlray.remote(note).options(**inside).remote(gate.wait.remote("ran"))
    log = Log.options(num_cpus=1, **inside).remote()
    assert rlray.get(log.__ray_ready__.remote())
    generator = numbers.options(**inside).remote()
    assert rlray.get(next(generator)) == 1
    remove_placement_group(group)
    assert (rlray.available_resources()["CPU"], rlray.available_resources()["GPU"]) == (4.0, 2.0)
    for ref, error in (
        (waiting, rlray.exceptions.TaskPlacementGroupRemoved),
        (next(generator), rlray.exceptions.TaskPlacementGroupRemoved),
        (log.note.remote("no"), ActorDiedError),
        (rlray.remote(runs).options(**inside).remote(), rlray.exceptions.TaskPlacementGroupRemoved),
        (Log.options(**inside).remote().note.remote("no"), rlray.exceptions.ActorPlacementGroupRemoved),
    ):
        with pytest.raises(error):
            rlray.get(ref, timeout=20)
    with pytest.raises(StopIteration):
        next(generator)
    rlray.get(gate.send.remote())
    assert happened == []


def test_bundles_give_out_their_own_gpus() -> None:
    group = placement_group([{"CPU": 1, "GPU": 1}, {"CPU": 1, "GPU": 1}])

    @rlray.remote(num_gpus=1)
    class Gpu:
        def ids(self) -> Any:
            return rlray.get_gpu_ids()

    where = [PlacementGroupSchedulingStrategy(group, index) for index in (0, 1, 0)]
    held = [Gpu.options(scheduling_strategy=one).remote() for one in where]
    first, second, third = rlray.get([one.ids.remote() for one in held])
    assert sorted([first, second]) == [[0], [1]]
    assert third == first, "shared, since nothing waits"
    remove_placement_group(group)
