"""However and whenever a driver ends, nothing of it is left; when a part of the runtime dies, the driver is told."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import REPOSITORY, Driver, assert_nothing_left, children, needs_proc, shared_memory, wait_until

pytestmark = needs_proc
GRACE = 2.0  # seconds: what the runtime promises
PROGRAM = REPOSITORY / "benchmarks" / "driver_states.py"  # a driver that is in the midst of something

VICTIMS = """
import os, signal, threading, time

def children(pid):
    return [int(child) for child in open(f"/proc/{pid}/task/{pid}/children").read().split()]

def victim(which):
    [zygote] = [pid for pid in children(os.getpid()) if b"zygote" in open(f"/proc/{pid}/cmdline", "rb").read()]
    return zygote if which == "zygote" else children(zygote)[0]
"""

STATES = [
    "idle", "wait", "submit", "put", "full", "actors", "call", "map_results", "stream", "awaiting", "awaiting_others",
    "awaiting_group", "thread", "restart",
]  # fmt: skip
ENDINGS = {
    "SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT,
    "os._exit": None, "raise": None, "return": None,
}  # fmt: skip


def end(driver: Driver, number: signal.Signals) -> bool:
    """Send a signal; whether the driver has ended of it. Python swallows a KeyboardInterrupt in a finalizer."""
    driver.process.send_signal(number)
    return wait_until(lambda: driver.process.poll() is not None, 1.0) is True


@pytest.mark.parametrize("state", STATES)
def test_a_driver_that_ends_leaves_nothing(state: str) -> None:
    """Six drivers in the same state, each ended in another way."""
    before = shared_memory()
    with ExitStack() as stack:
        drivers = {
            ending: stack.enter_context(Driver(str(PROGRAM), state, "signal" if number else ending, "0.4", python=()))
            for ending, number in ENDINGS.items()
        }
        for driver in drivers.values():
            driver.expect("READY")
        time.sleep(0.2)
        families = {ending: driver.family() for ending, driver in drivers.items()}
        for ending, number in ENDINGS.items():
            driver = drivers[ending]
            if number:
                assert wait_until(lambda: end(driver, number)), f"{ending}: {driver.output}"  # noqa: B023
            driver.process.wait(20)
            assert_nothing_left(driver, families[ending], before, GRACE)
            codes = {"os._exit": 7, "raise": 1, "return": 0}
            assert driver.process.returncode == codes.get(ending, driver.process.returncode), driver.output
            assert driver.process.returncode or ending == "return", f"{ending}: {driver.output}"


STUBBORN = """
import asyncio, ctypes, multiprocessing, os, signal, subprocess, sys, threading, time
import rlray as ray

@ray.remote(num_cpus=0)
class Holder:
    def start(self, how):
        self.held = {"shell": shell, "processes": processes, "threads": threads, "daemon": daemon}[how]()
        return os.getpid()

def shell():
    return subprocess.Popen("sleep 500 & sleep 500", shell=True)
def processes():
    made = [multiprocessing.get_context(kind).Process(target=time.sleep, args=(500,)) for kind in ("fork", "spawn")]
    for one in made:
        one.start()
    return made
def threads():
    made = [threading.Thread(target=time.sleep, args=(500,)) for _ in range(3)]
    for one in made:
        one.start()
    return made
def daemon():
    subprocess.run("setsid sleep 500 & sleep 0.1", shell=True)

@ray.remote(num_cpus=0)
class Asynchronous:
    async def start(self):
        return asyncio.create_task(asyncio.sleep(500)) and os.getpid()
    async def wait(self):
        await asyncio.sleep(500)

@ray.remote(num_cpus=0)
def ignore():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        time.sleep(500)

@ray.remote(num_cpus=0)
def hold_the_gil():
    ctypes.PyDLL(None).sleep(500)

@ray.remote(num_cpus=0)
def nap():
    time.sleep(500)

ray.init(num_cpus=4)
holders = [Holder.remote() for _ in range(3)]
ray.get([one.start.remote(how) for one, how in zip(holders, ("shell", "processes", "threads"))])
if sys.argv[1] != "zygote":
    outcast = Holder.remote()
    ray.get(outcast.start.remote("daemon"))
Holder.options(name="stays", lifetime="detached").remote()
ray.get(ray.get_actor("stays").start.remote("shell"))
asynchronous = Asynchronous.remote()
ray.get(asynchronous.start.remote())
refs = [asynchronous.wait.remote(), ignore.remote(), hold_the_gil.remote(), nap.remote(), nap.remote()]
stopped = Holder.remote()
os.kill(ray.get(stopped.start.remote("threads")), signal.SIGSTOP)
time.sleep(0.5)
print("READY")
if sys.argv[1] == "return":
    time.sleep(1.5)
else:
    try:
        ray.get(refs)
    except ray.exceptions.RayError as error:
        print("ERROR", error)
"""


def zygote_of(driver: Driver) -> int:
    [zygote] = [child for child in children(driver.pid) if "rlray.core.local.zygote" in child.command]
    return zygote.pid


def node_of(driver: Driver) -> int:
    """The scheduler's process: what the zygote forked first."""
    return min(children(zygote_of(driver)), key=lambda child: (child.start, child.pid)).pid


@pytest.mark.parametrize("victim", ["driver", "return", "node", "zygote"])
def test_stubborn_tasks_end_with_the_run(victim: str) -> None:
    """Tasks with processes and threads of their own, deaf to signals, stuck in C code, or stopped."""
    before = shared_memory()
    with Driver(STUBBORN, victim) as driver:
        driver.expect("READY")
        family = driver.family()
        assert len(family) > 20, sorted(process.command for process in family)
        if victim != "return":
            find = {"driver": lambda driver: driver.pid, "node": node_of, "zygote": zygote_of}[victim]
            os.kill(find(driver), signal.SIGKILL)
        if victim in ("node", "zygote"):
            assert "SIGKILL" in driver.expect("ERROR", GRACE)
        driver.process.wait(20)
        assert_nothing_left(driver, family, before, GRACE)


TOLD = (
    VICTIMS
    + """
import gc, sys
import rlray as ray
sys.path.insert(0, sys.argv[2])
from driver_states import STATES, same, start

def held():
    gc.collect()
    return len(os.listdir("/proc/self/fd")), threading.active_count()

def kill(which):
    global killed
    killed = time.monotonic()
    os.kill(victim(which), signal.SIGKILL)

state = STATES[sys.argv[1]]
start()
same.remote(0).future().result()
ray.shutdown()
before = held()
for which in ("node", "zygote", "node"):
    start()
    ray.get(same.remote(0))
    threading.Timer(0.3, kill, (which,)).start()
    try:
        state()
    except ray.exceptions.RayError as error:
        print("ERROR", which, round(time.monotonic() - killed, 2), error)
    try:
        ray.get(same.remote(1))
    except ray.exceptions.RayChannelError:
        pass
    ray.shutdown()
deadline = time.monotonic() + 3
while held() > before and time.monotonic() < deadline:
    time.sleep(0.02)
print("HELD", before, held())
start()
print("AGAIN", ray.get(same.remote(41)) + 1)
"""
)


@pytest.mark.parametrize("state", [name for name in [*STATES, "get", "group_wait"] if name != "restart"])
def test_the_death_of_node_or_zygote_is_told_and_the_program_can_go_on(state: str) -> None:
    """In whatever the driver was doing: a clear error within two seconds, then `shutdown` and `init` work again."""
    before = shared_memory()
    with Driver(TOLD, state, str(PROGRAM.parent)) as driver:
        for which in ("node", "zygote", "node"):
            name, seconds, text = driver.expect("ERROR").split(" ", 2)
            assert name == which
            assert float(seconds) < GRACE, text
            assert "was killed by SIGKILL" in text
            assert "shutdown()" in text
            assert "init()" in text
        held = driver.expect("HELD")
        numbers = [int(word.strip("(),")) for word in held.split()]
        assert numbers[:2] >= numbers[2:], f"descriptors and threads, before and after: {held}"
        assert driver.expect("AGAIN") == "42"
        family = driver.family()
        driver.process.wait(20)
        assert_nothing_left(driver, family, before, GRACE)


STARTING = (
    VICTIMS
    + """
import sys
from contextlib import suppress
import rlray as ray

def kill(which, delay):
    pid = None
    while pid is None and not over:
        with suppress(ValueError, IndexError, OSError):  # it is not there yet
            pid = victim(which)
    time.sleep(delay)
    with suppress(OSError):
        if not over:
            os.kill(pid, signal.SIGKILL)

same = ray.remote(lambda value: value)
for delay in sys.argv[2:]:
    over = False
    killer = threading.Thread(target=kill, args=(sys.argv[1], float(delay)))
    killer.start()
    begun = time.monotonic()
    try:
        ray.init(num_cpus=2)
        ray.get(same.remote(1))
        outcome = "nothing"
    except ray.exceptions.RayError as error:
        outcome = f"{type(error).__name__}: {error}"
    ray.shutdown()
    over = True
    print("OUTCOME", round(time.monotonic() - begun, 2), outcome.replace(chr(10), " "))
    killer.join()
ray.init(num_cpus=1)
print("AGAIN", ray.get(same.remote(42)))
"""
)


@pytest.mark.parametrize("which", ["node", "zygote"])
def test_a_part_that_dies_in_init_or_shutdown(which: str) -> None:
    """Whenever that happens, `init` and `shutdown` return or say so, and the next `init` works."""
    delays = [f"{0.01 * turn}" for turn in range(20)]
    before = shared_memory()
    with Driver(STARTING, which, *delays) as driver:
        outcomes = []
        for _ in delays:
            seconds, outcome = driver.expect("OUTCOME").split(" ", 1)
            assert float(seconds) < 2 * GRACE, outcome
            outcomes.append(outcome)
        assert any("SIGKILL" in outcome for outcome in outcomes), outcomes
        assert driver.expect("AGAIN") == "42"
        family = driver.family()
        driver.process.wait(20)
        assert_nothing_left(driver, family, before, GRACE)


def test_a_driver_killed_while_the_first_process_imports(tmp_path: Path) -> None:
    """An import that takes long does not keep the zygote from seeing that the driver is dead."""
    (tmp_path / "heavy.py").write_text("import time\nopen(__file__ + '.begun', 'w').close()\ntime.sleep(60)\n")
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import rlray; rlray.init(num_cpus=1, preload=['heavy'])"
    )
    before = shared_memory()
    with Driver(program + "\nwhile True: pass") as driver:
        assert wait_until((tmp_path / "heavy.py.begun").exists, 20)
        family = driver.family()
        driver.process.kill()
        driver.process.wait()
        assert_nothing_left(driver, family, before, GRACE)


def test_a_driver_killed_right_after_it_made_the_runs_directory() -> None:
    """The directory is made only once there is somebody to remove it."""
    program = """
import os
from rlray.core.local.settings import RunSettings
make = RunSettings.make_directories
def make_and_die(self):
    make(self)
    os.kill(os.getpid(), 9)
RunSettings.make_directories = make_and_die
import rlray
rlray.init(num_cpus=1)
"""
    before = shared_memory()
    with Driver(program) as driver:
        assert driver.process.wait(20) == -signal.SIGKILL, driver.output
        assert_nothing_left(driver, [], before, GRACE)
