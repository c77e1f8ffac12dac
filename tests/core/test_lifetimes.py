"""However a driver ends, nothing of it is left two seconds later: no process, no shared memory, no files."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from pathlib import Path

import pytest

import rlray
from rlray.exceptions import RayError
from tests.support import (
    PACKAGE_PARENT,
    Driver,
    assert_nothing_left,
    descendants,
    marked,
    needs_proc,
    shared_memory,
    still_running,
    wait_until,
)

pytestmark = needs_proc
GRACE = 2.0  # seconds that the runtime has to vanish after its driver

PROGRAM = """
import os, signal, sys, time
import numpy as np
import rlray as ray

@ray.remote
class Holder:
    def take(self, box):
        self.box = box
        self.array = ray.get(box[0])

@ray.remote
def sleeper(seconds):
    time.sleep(seconds)

@ray.remote
def parent():
    ray.get(sleeper.remote(600))

ray.init(num_cpus=3)
holder = Holder.remote()
array = np.ones(2_000_000)
ray.get(holder.take.remote([ray.put(array)]))
ray.get(sleeper.remote(0))
busy = [sleeper.remote(600), parent.remote(), sleeper.remote(600), sleeper.remote(600)]
time.sleep(0.5)
print("READY")
ending = sys.argv[1]
if ending == "return":
    pass
elif ending == "shutdown":
    ray.shutdown()
elif ending == "raise":
    raise RuntimeError("uncaught")
elif ending == "sys.exit":
    sys.exit(5)
elif ending == "os._exit":
    os._exit(6)
elif ending == "segfault":
    os.kill(os.getpid(), signal.SIGSEGV)
else:
    ray.get(busy)
"""


def assert_vanishes(driver: Driver, end: signal.Signals | None, group: bool = False) -> None:
    """Let ``driver`` end, by a signal if one is given, and look for what it leaves."""
    before = shared_memory()
    driver.expect("READY")
    family = driver.family()
    if end is not None:
        assert len(family) >= 4, f"a driver and three busy workers at least: {family}"
        time.sleep(0.2)
        if group:
            os.killpg(driver.pid, end)
        else:
            os.kill(driver.pid, end)
    driver.process.wait(20)
    assert_nothing_left(driver, family, before, GRACE)


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("return", 0),
        ("shutdown", 0),
        ("raise", 1),
        ("sys.exit", 5),
        ("os._exit", 6),
        ("segfault", -signal.SIGSEGV),
    ],
)
def test_ends_by_itself(ending: str, code: int) -> None:
    with Driver(PROGRAM, ending) as driver:
        assert_vanishes(driver, None)
        assert driver.process.returncode == code, driver.output


@pytest.mark.parametrize("group", [False, True], ids=["driver", "group"])
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_ended_by_a_signal_while_it_waits(end: signal.Signals, group: bool) -> None:
    with Driver(PROGRAM, "wait") as driver:
        assert_vanishes(driver, end, group)
        assert driver.process.returncode != 0
        if end == signal.SIGINT:
            assert "KeyboardInterrupt" in driver.output


def test_killed_in_the_middle_of_init() -> None:
    """At any moment of the start, processes already begun end too."""
    for delay in (0.05, 0.15, 0.3, 0.6):
        with Driver("print('READY'); import rlray; rlray.init(num_cpus=2)\nwhile True: pass") as driver:
            driver.expect("READY")
            time.sleep(delay)
            family = driver.family()
            driver.process.kill()
            driver.process.wait()
            family |= marked(driver.mark)
            assert not still_running(family, GRACE)
            assert not [process for process in marked(driver.mark) if process.running]


SLOW = """
import importlib, os, sys
if "rlray.core.local.zygote" in sys.orig_argv[-1]:
    open(os.environ["SLOW"], "w").close()
    for number in range(200):
        importlib.import_module(f"slow_{number}")
"""


def slow_modules(folder: Path, name: str, after: str) -> dict[str, str]:
    """A module that takes 20 seconds to import in a process of the runtime; the environment in which it is found."""
    for number in range(200):
        (folder / f"slow_{number}.py").write_text("import time; time.sleep(0.1)")
    (folder / f"{name}.py").write_text(SLOW + after)
    return {"PYTHONPATH": os.pathsep.join([str(PACKAGE_PARENT), str(folder)]), "SLOW": str(folder / "began")}


REAL = """
sys.path.remove(os.path.dirname(__file__))
del sys.modules["cloudpickle"]
importlib.import_module("cloudpickle")
"""


@pytest.mark.parametrize("knows", [False, True], ids=["before it knows the run", "with the run's folder there"])
def test_killed_while_the_first_process_imports(knows: bool, tmp_path: Path) -> None:
    """It looks at its line to the driver before each module."""
    environment = slow_modules(tmp_path, "cloudpickle", REAL)
    start = "import rlray; rlray.init()" if knows else "from rlray.core.local.spawn import Spawned; it = Spawned()"
    shared = shared_memory()
    with Driver(f"{start}\nimport time; time.sleep(60)", **environment) as driver:
        assert wait_until((tmp_path / "began").exists, 20)
        assert not knows or wait_until(lambda: list(driver.folder.glob("rlray-*/run.json")), 20)
        family = driver.family()
        driver.process.kill()
        driver.process.wait()
        assert_nothing_left(driver, family, shared, GRACE)


def test_killed_while_modules_are_preloaded(tmp_path: Path) -> None:
    environment = slow_modules(tmp_path, "slow", "")
    shared = shared_memory()
    with Driver("import rlray; rlray.init(num_cpus=1, preload=['slow'])\nwhile True: pass", **environment) as driver:
        assert wait_until((tmp_path / "began").exists, 20)
        family = driver.family()
        driver.process.kill()
        driver.process.wait()
        assert_nothing_left(driver, family, shared, GRACE)


ALREADY_OVER = """
import os, signal, sys, threading, time
import rlray

def children(pid):
    return [int(child) for child in open(f"/proc/{pid}/task/{pid}/children").read().split()]

def is_zygote(pid):
    return b"zygote" in open(f"/proc/{pid}/cmdline", "rb").read()

rlray.init(num_cpus=2, preload=["late"])
[zygote] = filter(is_zygote, children(os.getpid()))
while len(children(zygote)) < 3:
    time.sleep(0.01)
os.kill(zygote, signal.SIGSTOP)  # it is slow to see the node's end
os.kill(children(zygote)[0], signal.SIGKILL)
time.sleep(1.5)
os.kill(zygote, signal.SIGCONT)
rlray.shutdown()
print("OVER")
"""


def test_a_worker_that_comes_when_all_is_over_says_nothing(tmp_path: Path) -> None:
    """On a busy machine a short program ends before the workers that were forked in advance are there."""
    (tmp_path / "late.py").write_text("import os, time; os.register_at_fork(after_in_child=lambda: time.sleep(0.7))")
    with Driver(ALREADY_OVER, PYTHONPATH=os.pathsep.join([str(PACKAGE_PARENT), str(tmp_path)])) as driver:
        driver.expect("OVER")
        driver.process.wait(20)
        assert "Traceback" not in driver.output


def test_processes_started_by_tasks_end_with_them_or_are_the_users() -> None:
    """A worker's own children are the user's, but the runtime must not wait for them or leave their pipes open."""
    program = (
        "import rlray, subprocess; rlray.init(num_cpus=1);"
        "start = rlray.remote(lambda: subprocess.Popen(['sleep', '3'], stdout=-3, stderr=-3).pid);"
        "print('CHILD', rlray.get(start.remote()))"
    )
    with Driver(program) as driver:
        begun = time.monotonic()
        driver.expect("CHILD")
        driver.process.wait(20)
        assert time.monotonic() - begun < 20


SURVIVOR = """
import sys, time
import rlray as ray
ray.init(num_cpus=2)
nap = ray.remote(lambda seconds: time.sleep(seconds) or "value")
ray.get([nap.remote(0) for _ in range(4)])
ref = nap.remote(1.5)
time.sleep(0.3)
print("READY")
def attempt(word, make):
    try:
        answer = ray.get(make(), timeout=20)
    except ray.exceptions.RayError as error:
        answer = type(error).__name__
    sys.stdout.write(f"{word} {answer}\\n")
while True:
    try:
        open(sys.argv[1]).close()
        break
    except FileNotFoundError:
        time.sleep(0.01)
begun = time.monotonic()
attempt("RUNNING", lambda: ref)
attempt("NEXT", lambda: nap.remote(0))
print("SECONDS", time.monotonic() - begun)
ray.shutdown()
print("DOWN")
"""


@pytest.mark.timeout(300)  # one driver for each process of a run
def test_the_death_of_a_part_of_the_runtime_is_an_error_not_a_hang(tmp_path: Path) -> None:
    """Kill, one run each, every process below the driver: its gets raise soon or are served all the same."""
    outcomes: list[str] = []
    index = 0
    while True:
        go = tmp_path / f"go{index}"
        with Driver(SURVIVOR, str(go)) as driver:
            driver.expect("READY")
            parts = sorted(part for part in descendants(driver.pid) if part.running)
            if index >= len(parts):
                break
            family = driver.family()
            os.kill(parts[index].pid, signal.SIGKILL)
            go.touch()
            answers = [driver.expect("RUNNING"), driver.expect("NEXT")]
            assert "GetTimeoutError" not in answers, f"a hang after the death of {parts[index].command!r}"
            assert float(driver.expect("SECONDS")) < 1.5 + 2 * GRACE
            driver.expect("DOWN")
            driver.process.wait(20)
            assert not still_running(family, GRACE)
        outcomes.append(" ".join(answers))
        index += 1
    assert len(outcomes) >= 3, "two workers and whoever starts them at least"
    assert any("Error" in outcome for outcome in outcomes), "nothing that was killed was needed"
    assert "value value" in outcomes, "the death of a worker is survived"


def test_init_and_shutdown_many_times_leave_no_descriptor_thread_or_mapping() -> None:
    def cycle() -> None:
        rlray.init(num_cpus=2, log_to_driver=False)
        ref = rlray.put(bytes(3_000_000))
        assert rlray.get(rlray.remote(lambda x: len(x)).remote(ref)) == 3_000_000
        rlray.shutdown()

    def holdings() -> tuple[int, int, int]:
        gc.collect()
        maps = Path("/proc/self/maps").read_text().count("memfd:")
        return len(os.listdir("/proc/self/fd")), threading.active_count(), maps

    cycle()
    before = holdings()
    for _ in range(4):
        cycle()
    assert wait_until(lambda: holdings() <= before, 2.0), (before, holdings())


def test_an_array_stays_valid_after_shutdown() -> None:
    import numpy as np

    rlray.init(num_cpus=1)
    array = rlray.get(rlray.put(np.arange(1_000_000)))
    rlray.shutdown()
    assert int(array.sum()) == 499_999_500_000


def test_references_and_handles_of_an_ended_run_are_refused() -> None:
    rlray.init(num_cpus=1)
    ref = rlray.put("old")
    actor = rlray.remote(type("Old", (), {"call": lambda self: 1})).remote()
    rlray.get(actor.call.remote())
    captured = rlray.put("captured")
    reader = rlray.remote(lambda: rlray.get(captured))
    assert rlray.get(reader.remote()) == "captured"
    rlray.shutdown()
    rlray.init(num_cpus=1)
    try:
        with pytest.raises((RayError, ValueError, RuntimeError)):
            rlray.get(ref, timeout=5)
        with pytest.raises((RayError, ValueError, RuntimeError)):
            rlray.get(actor.call.remote(), timeout=5)
        with pytest.raises(ValueError, match="belongs to a run that has ended"):
            reader.remote()
        del ref, actor, reader
        gc.collect()
        assert rlray.get(rlray.put("new")) == "new"
    finally:
        rlray.shutdown()
