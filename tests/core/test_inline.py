"""What is special about the inline engine: where code runs and when, generators on demand, calls that have to wait."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rlray
from rlray.exceptions import ActorDiedError, RayTaskError, TaskCancelledError
from tests.core.inline_support import Log, Signal, _inline, _nothing_happened, colour, happened, new_colour, note  # noqa: F401 -- fixtures of every test here
from tests.support import PACKAGE_PARENT, run_driver, wait_until

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
    with pytest.raises(RuntimeError, match=r"for ever: Log.\w+ runs once actor Log has finished"):
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


# -- beginning and ending --------------------------------------------------------------------------------------------


def test_an_unknown_engine_is_a_value_error_that_names_them() -> None:
    code = "import rlray; rlray.init(engine='remote')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(PACKAGE_PARENT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "ValueError: engine of init() must be 'local', 'inline' or 'ray', got 'remote'" in done.stderr


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
