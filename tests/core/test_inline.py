"""What is special about the inline engine: where code runs and when, generators on demand, calls that have to wait."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rlray
from rlray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError, TaskCancelledError
from rlray.util import remove_placement_group
from rlray.util.placement_group import placement_group
from rlray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from tests.support import PACKAGE_PARENT, run_driver, wait_until

happened: list[Any] = []
"""What tasks did; they write it down with `note`, since decorated code has copies of its module's globals."""

colour = contextvars.ContextVar("colour", default="none")


def note(value: Any) -> int:
    """Write it down. Called by its name in this module, which exists once; returns the thread."""
    happened.append(value)
    return threading.get_ident()


def runs() -> int:
    note("run")
    return len(happened)


def new_colour(value: str) -> str:
    before = colour.get()
    colour.set(value)
    return before


@pytest.fixture(autouse=True, scope="module")
def _inline() -> Iterator[None]:
    rlray.init(engine="inline", num_cpus=4, num_gpus=2)
    yield
    rlray.shutdown()
    assert not loops(), "an event loop outlived the runtime"


@pytest.fixture(autouse=True)
def _nothing_happened() -> None:
    happened.clear()


def loops() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("rlray-")]


@rlray.remote
class Signal:
    """Others wait for what it is sent."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.inside = 0

    async def wait(self, value: Any = None) -> Any:
        self.inside += 1
        await self.event.wait()
        return value

    async def waiting(self) -> int:
        return self.inside

    async def send(self) -> None:
        self.event.set()


@rlray.remote
class Log:
    def note(self, value: Any, _: Any = None) -> int:
        return note(value)

    def count(self, n: int) -> Iterator[int]:
        for i in range(n):
            note(i)
            yield i

    def note_through(self, handle: Any, value: Any) -> Any:
        ref = handle.note.remote(value)
        note("called")
        return [ref]

    def wait_for_itself(self, handle: Any, how: str) -> Any:
        if how == "next":
            return next(handle.count.options(num_returns="streaming").remote(1))
        return (rlray.get if how == "get" else rlray.wait)([handle.note.remote("after all")])

    def leave(self) -> None:
        rlray.actor.exit_actor()

    def restarted(self) -> bool:
        return rlray.get_runtime_context().was_current_actor_reconstructed


# -- in the calling thread -------------------------------------------------------------------------------------------


def test_a_task_and_an_actor_run_in_the_calling_thread_before_the_call_returns() -> None:
    ref = rlray.remote(lambda: note("ran")).remote()
    assert happened == ["ran"]
    assert rlray.get([ref, Log.remote().note.remote("noted")]) == [threading.get_ident()] * 2


def test_a_tracer_sees_the_lines_of_a_task() -> None:
    def traced(value: int) -> int:
        doubled = 2 * value
        return doubled

    task, seen = rlray.remote(traced), []

    def tracer(frame: Any, event: str, _: Any) -> Any:
        if frame.f_code.co_name == "traced" and event == "return":
            seen.append(dict(frame.f_locals))
        return tracer

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        ref = task.remote(4)
    finally:
        sys.settrace(before)
    assert seen == [{"value": 4, "doubled": 8}]
    assert rlray.get(ref) == 8


def test_pdb_stops_in_a_task_and_in_a_method(tmp_path: Path) -> None:
    script = tmp_path / "debugged.py"
    script.write_text(
        "import rlray\n"
        "@rlray.remote\n"
        "def work(value):\n"
        "    breakpoint()\n"
        "    return value\n"
        "@rlray.remote\n"
        "class Worker:\n"
        "    def work(self, ref):\n"
        "        breakpoint()\n"
        "        return ref\n"
        "rlray.init(engine='inline')\n"
        "print('result', rlray.get(Worker.remote().work.remote(work.remote(6))))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        input="p 'task', value * 7\nc\np 'method', ref * 3\nwhere\nc\n",
        env={"PYTHONPATH": str(PACKAGE_PARENT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "('task', 42)" in done.stdout
    assert "('method', 18)" in done.stdout
    assert "debugged.py(12)<module>" in done.stdout, "the stack goes down to the program"
    assert "result 6" in done.stdout


def test_an_error_is_a_value_whose_traceback_shows_the_users_frames_only() -> None:
    def deep() -> None:
        raise KeyError("the key")

    ref = rlray.remote(lambda: deep()).remote()
    with pytest.raises(KeyError) as caught:
        rlray.get(ref)
    assert isinstance(caught.value, RayTaskError)
    assert "in deep" in caught.value.traceback_str
    assert "rlray/core" not in caught.value.traceback_str


def test_arguments_and_results_are_copies_and_arrays_read_only() -> None:
    box = [[1], np.zeros(10)]

    @rlray.remote
    def change(box: list[Any]) -> Any:
        box[0].append(2)
        return box, box[1].flags.writeable

    ref = change.remote(box)
    (first, writeable), (second, _) = rlray.get(ref), rlray.get(ref)
    assert box[0] == [1]
    assert first[0] == second[0] == [1, 2]
    first[0].append(3)
    assert rlray.get(ref)[0][0] == [1, 2]
    assert not writeable


def test_code_that_travels_by_value_has_globals_of_its_own() -> None:
    output = run_driver(
        "import rlray\n"
        "count = 0\n"
        "@rlray.remote\n"
        "def bump():\n"
        "    global count\n"
        "    count += 1\n"
        "    return count\n"
        "rlray.init(engine='inline')\n"
        "print('SEEN', rlray.get([bump.remote(), bump.remote()]), count)\n"
    )
    assert "SEEN [1, 2] 0" in output


def test_a_task_has_context_variables_of_its_own() -> None:
    token = colour.set("red")
    try:
        assert rlray.get(rlray.remote(lambda: new_colour("blue")).remote()) == "none"
        assert colour.get() == "red"
    finally:
        colour.reset(token)


def test_values_go_with_the_last_reference() -> None:
    inner = rlray.put(np.zeros(100_000))
    outer, inner = rlray.put([inner]), weakref.ref(inner)
    assert rlray.get(outer) == [inner()]
    ref = rlray.remote(lambda box: box).remote([outer])
    del outer
    assert inner() is not None, "the result holds it"
    del ref
    assert inner() is None


def test_a_caught_error_does_not_hold_on_to_its_catcher() -> None:
    def catch() -> weakref.ref[Any]:
        ref = rlray.put(1)
        dead = Log.remote()
        rlray.kill(dead)
        with pytest.raises(ActorDiedError):
            rlray.get(dead.note.remote("no"))
        return weakref.ref(ref)

    assert catch()() is None


# -- calls that have to wait -----------------------------------------------------------------------------------------


def test_a_task_runs_when_its_argument_comes() -> None:
    signal = Signal.remote()
    ref = rlray.remote(lambda value: note(value)).remote(signal.wait.remote("sent"))
    assert rlray.wait([ref], timeout=0.05) == ([], [ref])
    with pytest.raises(rlray.exceptions.GetTimeoutError, match=r"lambda.*waiting for its arguments"):
        rlray.get(ref, timeout=0)
    rlray.get(signal.send.remote())
    assert rlray.get(ref) != threading.get_ident()
    assert happened == ["sent"]


def test_calls_of_an_actor_wait_behind_one_whose_argument_is_late() -> None:
    signal, log = Signal.remote(), Log.remote()
    refs = [log.note.remote("first", signal.wait.remote()), log.note.remote("second")]
    rlray.get(rlray.remote(lambda log: rlray.get(log.note.remote("of another caller"))).remote(log))
    assert happened == ["of another caller"]
    rlray.get(signal.send.remote())
    rlray.get(refs)
    assert happened == ["of another caller", "first", "second"]


def test_a_constructor_waits_for_its_argument() -> None:
    @rlray.remote
    class Late:
        def __init__(self, value: Any) -> None:
            self.value = value

        def read(self) -> Any:
            return self.value

    signal = Signal.remote()
    actor = Late.remote(signal.wait.remote("late"))
    ref = actor.read.remote()
    assert rlray.wait([ref], timeout=0.05) == ([], [ref])
    rlray.get(signal.send.remote())
    assert rlray.get(ref) == "late"


def test_a_call_of_an_actor_to_itself_runs_after_the_call_it_is_in() -> None:
    log = Log.remote()
    [ref] = rlray.get(log.note_through.remote(log, "inner"))
    rlray.get(ref)
    assert happened == ["called", "inner"]


@pytest.mark.parametrize("how", ["get", "wait", "next"])
def test_waiting_for_oneself_is_an_error_and_not_for_ever(how: str) -> None:
    log = Log.remote()
    with pytest.raises(RuntimeError, match=r"for ever: \w+ runs once actor Log has finished"):
        rlray.get(log.wait_for_itself.remote(log, how))
    rlray.get(log.note.remote("alive"))
    assert happened[-1] == "alive"


def test_a_coroutine_may_wait_for_a_task_that_calls_its_actor() -> None:
    """The task runs apart from the loop, which it would hold up."""

    @rlray.remote
    class Both:
        async def outer(self, me: Any) -> Any:
            return await rlray.remote(lambda me: rlray.get(me.inner.remote())).remote(me)

        async def inner(self) -> str:
            return "inner"

    actor = Both.remote()
    assert rlray.get(actor.outer.remote(actor), timeout=20) == "inner"


def test_cancelling_what_waits() -> None:
    signal, log = Signal.remote(), Log.remote()
    late = signal.wait.remote()
    task, call, behind = rlray.remote(note).remote(late), log.note.remote("cancelled", late), log.note.remote("behind")
    with pytest.raises(ValueError, match="force"):
        rlray.cancel(call, force=True)
    for ref in (task, call):
        rlray.cancel(ref)
        with pytest.raises(TaskCancelledError):
            rlray.get(ref)
    rlray.get(behind)
    rlray.cancel(late)
    with pytest.raises(TaskCancelledError):
        rlray.get(late, timeout=20)
    assert happened == ["behind"]


def test_cancelling_a_coroutine_cancels_what_it_has_submitted() -> None:
    @rlray.remote
    class Parent:
        async def submit(self, late: list[Any]) -> None:
            note(rlray.remote(note).remote(late[0]))
            await asyncio.sleep(60)

    signal, parent = Signal.remote(), Parent.remote()
    ref = parent.submit.remote([signal.wait.remote("late")])
    assert wait_until(lambda: happened)
    [child] = happened
    happened.clear()
    rlray.cancel(ref)
    for one in (ref, child):
        with pytest.raises(TaskCancelledError):
            rlray.get(one, timeout=20)
    rlray.get(signal.send.remote())


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


# -- beginning and ending --------------------------------------------------------------------------------------------


def test_an_unknown_engine_is_a_value_error_that_names_both() -> None:
    code = "import rlray; rlray.init(engine='remote')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(PACKAGE_PARENT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "ValueError: engine of init() must be 'local' or 'inline', got 'remote'" in done.stderr


def test_shutdown_and_init_again() -> None:
    run_driver(
        "import rlray, threading, time\n"
        "@rlray.remote\n"
        "class Waits:\n"
        "    async def wait(self):\n"
        "        import asyncio; await asyncio.sleep(60)\n"
        "try: rlray.init(engine='inline', num_cpus=-1)\n"
        "except ValueError as error: assert 'num_cpus' in str(error)\n"
        "try: rlray.init(engine='inline', runtime_env={'env_vars': {'A': '1'}})\n"
        "except ValueError as error: assert 'runtime_env' in str(error)\n"
        "else: raise SystemExit('a runtime_env was accepted')\n"
        "for run in range(2):\n"
        "    assert not rlray.is_initialized()\n"
        "    rlray.init(engine='inline', num_cpus=2, memory=1e9, runtime_env={}, object_store_memory=100_000_000,\n"
        "               object_spilling_directory='nowhere', log_to_driver=False, preload=['json'])\n"
        "    rlray.init(engine='inline', ignore_reinit_error=True)\n"
        "    try: rlray.init()\n"
        "    except RuntimeError: pass\n"
        "    else: raise SystemExit('init twice')\n"
        "    old, actor = rlray.put(1), Waits.remote()\n"
        "    pending = actor.wait.remote()\n"
        "    total = rlray.cluster_resources()\n"
        "    assert (total['CPU'], total['memory']) == (2, 1e9)\n"
        "    rlray.shutdown()\n"
        "    rlray.shutdown()\n"
        "    assert threading.active_count() == 1, threading.enumerate()\n"
        "rlray.init(engine='inline')\n"
        "for use in (lambda: rlray.get(old), lambda: actor.wait.remote()):\n"
        "    try: use()\n"
        "    except ValueError as error: assert 'has ended' in str(error)\n"
        "    else: raise SystemExit('a reference of an old run was accepted')\n"
    )
