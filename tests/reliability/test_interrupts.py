"""Ctrl-C in a driver that goes on: a KeyboardInterrupt in its own code or where it waits, and nothing is lost."""

from __future__ import annotations

import textwrap

import pytest

from tests.support import Driver, needs_proc, run_driver

pytestmark = needs_proc

WORK = """
import faulthandler, itertools, os, random, signal, subprocess, sys, threading, time
import rlray
rlray.init(num_cpus=2)

@rlray.remote
def add(x): return x + 1

@rlray.remote
class Echo:
    def echo(self, x): return x

@rlray.remote
def values():
    yield from range(1000)

@rlray.remote
def rest():
    time.sleep(60)

echo = Echo.remote()
kept = [add.remote(i) for i in range(100)]
"""

KINDS = [
    "rlray.get([add.remote(i) for i in range(50)])",
    "rlray.get(add.remote(1))",
    "for _ in add.map(itertools.repeat(1)): pass",
    "rlray.get([echo.echo.remote(i) for i in range(20)])",
    "rlray.get(rlray.put(b'x' * 200_000))",
    "rlray.wait([add.remote(i) for i in range(10)], num_returns=5)",
    "[add.remote(i) for i in range(1000)]",
    "for ref in values.remote(): rlray.get(ref)",
    "rlray.get(Echo.remote().echo.remote(1))",
    "add.remote(1).future().result()",
]

INTERRUPTED = (
    WORK
    + """
rng = random.Random(0)
for number, kind in enumerate(sys.argv[1:] * 4):
    faulthandler.dump_traceback_later(60, exit=True)
    work = compile(kind, "<kind>", "exec")
    after = 0.01 + 0.05 * rng.random()
    killer = subprocess.Popen(["/bin/sh", "-c", f"sleep {after:.4f}; kill -INT {os.getpid()}"])
    try:
        while True:
            exec(work)
    except KeyboardInterrupt:
        pass
    killer.wait()
    assert rlray.get([add.remote(i) for i in range(100)], timeout=30) == list(range(1, 101)), kind
    assert rlray.get(echo.echo.remote(number), timeout=30) == number, kind
assert rlray.get(kept) == list(range(1, 101))
rlray.shutdown()
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
print("GOOD", number + 1)
"""
)


def test_nothing_is_lost_however_often_a_program_is_interrupted_and_goes_on() -> None:
    with Driver(INTERRUPTED, *KINDS) as driver:
        output = driver.finish(110)
        assert f"GOOD {4 * len(KINDS)}" in output
        assert "Traceback" not in output, "an interrupt was lost in a finalizer"


def test_other_threads_are_not_disturbed() -> None:
    code = (
        WORK
        + """
done, stop = [], threading.Event()
def steadily():
    count = 0
    while not stop.is_set():
        assert rlray.get([add.remote(i) for i in range(20)]) == list(range(1, 21))
        count += 1
    done.append(count)
threads = [threading.Thread(target=steadily) for _ in range(3)]
for thread in threads: thread.start()
slow = rlray.remote(lambda: time.sleep(60)).options(num_cpus=0).remote()
waits = [lambda: rlray.get(slow), lambda: rlray.wait([slow]), lambda: time.sleep(60), lambda: slow.future().result()]
for wait in waits:
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    began = time.monotonic()
    try:
        wait()
    except KeyboardInterrupt:
        print("INTERRUPTED")
    assert time.monotonic() - began < 20
stop.set()
for thread in threads: thread.join(60)
assert len(done) == 3 and all(done)
"""
    )
    assert run_driver(code).count("INTERRUPTED") == 4


@pytest.mark.parametrize(
    "called",
    [
        "class Slow:\n    def __reduce__(self): forever()\nrlray.put(Slow())",
        "class Slow:\n    def __reduce__(self): forever()\nadd.remote(Slow())",
        "list(add.map(forever() for _ in range(2)))",
        "add.remote(1).future().add_done_callback(print); forever()",
        "import asyncio\nasync def main(): await asyncio.sleep(60)\nasyncio.run(main())",
        "import asyncio\nasync def main(): await rest.remote()\nasyncio.run(main())",
    ],
    ids=["pickling for put", "pickling an argument", "items of map", "beside a future", "asyncio", "await"],
)
def test_the_program_s_own_code_is_interrupted_also_when_the_runtime_has_called_it(called: str) -> None:
    code = (
        WORK
        + "def forever(): print('FOREVER'); time.sleep(60)\n"
        + "threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        + "try:\n"
        + textwrap.indent(called, "    ")
        + "\nexcept KeyboardInterrupt:\n    print('INTERRUPTED')\n"
        + "assert rlray.get([*kept, echo.echo.remote(5)], timeout=30)[-1] == 5\n"
    )
    assert "INTERRUPTED" in run_driver(code, timeout=50)


def test_a_program_s_own_handler_is_left_alone() -> None:
    code = """
import os, signal, time, rlray
heard = []
def own(number, frame): heard.append(number)
signal.signal(signal.SIGINT, own)
rlray.init(num_cpus=1)
ref = rlray.remote(lambda: time.sleep(0.5) or 7).remote()
os.kill(os.getpid(), signal.SIGINT)
assert rlray.get(ref) == 7 and heard == [signal.SIGINT]
signal.signal(signal.SIGINT, signal.SIG_IGN)
os.kill(os.getpid(), signal.SIGINT)
assert rlray.get(rlray.put(1)) == 1
rlray.shutdown()
assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
print("GOOD")
"""
    assert "GOOD" in run_driver(code)
