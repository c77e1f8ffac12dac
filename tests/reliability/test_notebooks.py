"""Programs in a notebook: a real Jupyter kernel, whose cells define, fail, are interrupted, and started anew."""

from __future__ import annotations

from pathlib import Path

from tests.support import Driver, Process, marked, needs_proc, still_running

pytestmark = needs_proc

NOTEBOOK = '''
import os, sys, threading, time
from jupyter_client.manager import KernelManager

here = sys.argv[1]
manager = KernelManager(transport="ipc", ip=f"{here}/kernel")  # no TCP port
manager.start_kernel()
client = manager.blocking_client()
client.start_channels()
client.wait_for_ready(timeout=60)


class Cell:
    """What has come of a cell: its result, what was shown, and its error."""

    def __init__(self, code, within=60):
        self.shown, self.result, self.error = "", None, None
        answer = client.execute_interactive(code, timeout=within, output_hook=self.hear, store_history=False)
        assert (answer["content"]["status"] == "error") == (self.error is not None)

    def hear(self, message):
        content = message["content"]
        match message["header"]["msg_type"]:
            case "stream": self.shown += content["text"]
            case "execute_result": self.result = content["data"]["text/plain"]
            case "error": self.error = (content["ename"], content["evalue"], "\\n".join(content["traceback"]))


def interrupt_soon():
    threading.Timer(0.5, manager.interrupt_kernel).start()


def tell(*words):
    print(*words, flush=True)
'''

CELLS = (
    NOTEBOOK
    + r'''
assert Cell("import rlray, os, time; context = rlray.init(num_cpus=2)").error is None
assert Cell("""
@rlray.remote
def where(x):
    return x, "IPython" in __import__("sys").modules, os.getpid()
value, ipython, pid = rlray.get(where.remote(1))
(value, ipython, pid != os.getpid())
""").result == "(1, False, True)"

# classes and functions of cells, used by later cells, and defined anew
assert Cell("""
class Point:
    scale = 1
    def __init__(self, x): self.x = x
    def size(self): return self.x * self.scale
def helper(point): return point.size()
@rlray.remote
def measure(point): return helper(point)
@rlray.remote
class Keeper:
    def keep(self, x): return x + 1
keeper = Keeper.remote()
rlray.get([measure.remote(Point(2)), keeper.keep.remote(1)])
""").result == "[2, 2]"
assert Cell("""
class Point:
    scale = 10
    def __init__(self, x): self.x = x
    def size(self): return self.x * self.scale
def helper(point): return point.size() + 0.5
@rlray.remote
def measure(point): return helper(point)
rlray.get(measure.remote(Point(2)))
""").result == "20.5"
assert Cell("""
old = keeper
@rlray.remote
class Keeper:
    def keep(self, x): return x + 100
keeper = Keeper.remote()
rlray.get([old.keep.remote(1), keeper.keep.remote(1)])
""").result == "[2, 101]"
Cell("made = rlray.get(rlray.remote(lambda: Point(3)).remote())")
assert Cell("type(made) is Point").result == "True"

# errors
kind, what, trace = Cell("""
@rlray.remote
def fail(): raise KeyError("the key")
rlray.get(fail.remote())
""").error
assert "KeyError" in kind and "the key" in what and "in fail" in what, (kind, what)
assert Cell("rlray.get(measure.remote(Point(1)))").result == "10.5"

# a cell that waits is interrupted, and the notebook goes on
Cell("slow = rlray.remote(lambda: time.sleep(60)).remote()")
endless = "for _ in measure.map(map(Point, iter(int, 1))): pass"
for wait in ("rlray.get(slow)", "rlray.wait([slow])", "slow.future().result()", endless):
    print(wait, flush=True)
    interrupt_soon()
    began = time.monotonic()
    error = Cell(wait).error
    assert error is not None and error[0] == "KeyboardInterrupt", (wait, error)
    assert time.monotonic() - began < 30
    assert Cell("rlray.get(measure.remote(Point(1)))").result == "10.5", wait
Cell("rlray.cancel(slow)")

# coroutines at the top level; what workers print
assert Cell("await measure.remote(Point(4))").result == "40.5"
assert Cell("""
@rlray.remote
def speak(): print("a line of a worker")
rlray.get(speak.remote())
time.sleep(1)
""").shown.count("a line of a worker") == 1
'''
)


def environment(folder: Path) -> dict[str, str]:
    """Nothing of this user's Jupyter and IPython."""
    names = ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR")
    return {**dict.fromkeys(names, str(folder)), "PYDEVD_DISABLE_FILE_VALIDATION": "1"}


def run_of(driver: Driver) -> set[Process]:
    return {process for process in marked(driver.mark) if "zygote" in process.command}


def test_cells(tmp_path: Path) -> None:
    with Driver(CELLS + 'tell("GOOD")\n', str(tmp_path), **environment(tmp_path)) as driver:
        try:
            driver.expect("GOOD", timeout=100)
        finally:
            everything = marked(driver.mark)
    assert len(everything) > 3


def test_a_kernel_that_is_restarted_shut_down_or_killed_leaves_nothing(tmp_path: Path) -> None:
    code = (
        NOTEBOOK
        + """
USE = '''
import rlray, time
assert not rlray.is_initialized()
rlray.init(num_cpus=2, ignore_reinit_error=True)
actor = rlray.remote(type("A", (), {"f": lambda self: 1})).remote()
busy = rlray.remote(lambda: time.sleep(100)).remote()
rlray.get([actor.f.remote(), rlray.put(b"x" * 200_000)])[0]
'''
assert Cell(USE).result == "1"
tell("FIRST")
input()
manager.restart_kernel(now=False)
client.wait_for_ready(timeout=60)
tell("RESTARTED")
input()
assert Cell(USE).result == "1"
tell("SECOND")
input()
os.kill(manager.provisioner.process.pid, 9)
tell("KILLED")
input()
manager.restart_kernel(now=True)
client.wait_for_ready(timeout=60)
assert Cell(USE).result == "1"
tell("THIRD")
input()
manager.shutdown_kernel(now=False)
tell("DOWN")
input()
"""
    )
    with Driver(code, str(tmp_path), listens=True, **environment(tmp_path)) as driver:
        for begun, ended in (("FIRST", "RESTARTED"), ("SECOND", "KILLED"), ("THIRD", "DOWN")):
            driver.expect(begun, timeout=60)
            run = run_of(driver)
            assert len(run) >= 3
            driver.say("go on")
            driver.expect(ended, timeout=60)
            assert still_running(run, 2.0) == [], begun
            driver.say("go on")
        driver.finish()
        assert not list(driver.folder.glob("rlray-*"))
