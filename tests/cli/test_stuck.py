"""Processes that do not answer: one that holds the interpreter in C, one that is stopped, and the driver itself."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator

import pytest

from rlray.core.stacks import users_part_of_dump
from tests.cli.inside_support import STUCK, Inside, driver
from tests.support import needs_proc

pytestmark = needs_proc


@pytest.fixture(scope="module")
def stuck() -> Iterator[Inside]:
    """The driver and its actor search for a pattern, in C, without end; a worker is idle."""
    with driver(STUCK) as inside:
        yield inside


def states(stuck: Inside) -> dict[int, tuple[bool, bool]]:
    """By pid: whether it answers, whether it is stopped."""
    rows = json.loads(stuck.run("status", "--json"))["processes"]
    return {row["pid"]: (row["answers"], row["stopped"]) for row in rows}


def test_status_tells_who_does_not_answer(stuck: Inside) -> None:
    told = states(stuck)
    assert told.pop(stuck.driver.pid) == (False, False)
    assert told.pop(stuck.keeper) == (False, False)
    assert told
    assert set(told.values()) == {(True, False)}
    lines = [" ".join(line.split()) for line in stuck.run("status").splitlines()]
    assert f"{stuck.driver.pid} driver does not answer" in lines
    assert f"{stuck.keeper} actor Keeper 'the keeper' does not answer" in lines


def test_one_that_is_stopped(stuck: Inside) -> None:
    told = states(stuck)
    idle = next(pid for pid, (answers, _) in told.items() if answers)
    os.kill(idle, signal.SIGSTOP)
    try:
        assert states(stuck)[idle] == (False, True)
        assert re.search(rf"{idle} +worker +does not answer \(stopped\)", stuck.run("status"))
        assert f"worker, pid {idle}\n  does not answer: it is stopped" in stuck.run("stack")
        assert f"worker, pid {idle} (stopped)" in stuck.run("memory")
    finally:
        os.kill(idle, signal.SIGCONT)
    assert states(stuck)[idle] == (True, False)


def test_stack_shows_where_they_hang(stuck: Inside) -> None:
    out = stuck.run("stack")
    for head, line in (
        (f"driver, pid {stuck.driver.pid}", "in <module>"),
        (f"actor Keeper 'the keeper', pid {stuck.keeper}", "in hang"),
    ):
        block = out[out.index(head) :].split("\n\n")[0]
        assert "did not answer: it had not let go of the interpreter for a second" in block
        assert "in match" in block
        assert line in block
        assert "_stand_in" not in block
        assert "executor.py" not in block


def test_memory_and_metrics_come_too(stuck: Inside) -> None:
    out = stuck.run("memory")
    assert f"driver, pid {stuck.driver.pid} (does not answer)" in out
    assert "24 MB" in out, "what the node knows"
    assert "rlray_processes_silent 2\n" in stuck.run("metrics")


def test_the_driver_lives_on_and_can_be_ended(stuck: Inside) -> None:
    """What was asked of it has not ended it; a run that it starts after its end is not disturbed either."""
    assert stuck.driver.process.poll() is None
    from tests.support import run_driver

    code = """
import os, rlray
from rlray.core.local import stuck
for _ in range(2):
    rlray.init(num_cpus=1)
    os.kill(os.getpid(), stuck.SIGNAL)
    assert rlray.get(rlray.remote(lambda: 1).remote()) == 1
    rlray.shutdown()
import signal
assert signal.getsignal(stuck.SIGNAL) == signal.SIG_DFL
signal.signal(stuck.SIGNAL, lambda *_: print("MINE"))
rlray.init(num_cpus=1)
os.kill(os.getpid(), stuck.SIGNAL)
rlray.shutdown()
"""
    assert run_driver(code).count("MINE") == 1, "a program that uses the signal keeps it"


DUMP = """Thread 0x1 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 327 in wait
  File "{core}/local/loop.py", line 303 in _stand_in

Current thread 0x2 (most recent call first):
  File "/usr/lib/re/__init__.py", line 166 in match
  File "/home/me/program.py", line 17 in hang
  File "{core}/local/executor.py", line 259 in perform
  File "{core}/local/zygote.py", line 270 in main
  File "<string>", line 1 in <module>

Thread 0x3 (most recent call first):
  File "{core}/api.py", line 81 in get
  File "/home/me/program.py", line 20 in waits
"""


def test_of_a_dump_the_users_part_is_shown() -> None:
    from rlray.core import stacks

    core = os.path.dirname(stacks.__file__)
    library = os.path.dirname(os.__file__)
    shown = users_part_of_dump(DUMP.format(core=core).replace("/usr/lib/python3.11", library))
    assert [line.split()[-1] for line in shown.splitlines() if "File" in line] == ["match", "hang", "get", "waits"]
    assert "Thread 0x1" not in shown
