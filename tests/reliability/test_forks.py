"""Processes that a program forks or starts with `multiprocessing`: with a runtime of their own, or a clear error."""

from __future__ import annotations

import os

import pytest

from tests.support import Driver, needs_proc, run_driver, still_running

pytestmark = needs_proc

SETTING = """
import gc, os, sys, threading, time, traceback
import rlray

@rlray.remote
def add(x): return x + 1

@rlray.remote
class Counter:
    def __init__(self): self.n = 0
    def add(self): self.n += 1; return self.n

@rlray.remote
def many():
    yield from range(3)

def in_child(what, within=30):
    '''Runs ``what`` in a forked child, whose exit it tells.'''
    child = os.fork()
    if child == 0:
        code = 1
        try:
            what()
            code = 0
        except SystemExit:
            raise
        except BaseException as error:
            print("CHILD", type(error).__name__, error, flush=True)
        os._exit(code)
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return "hung"

def raises(kind, words, what):
    try:
        what()
    except kind as error:
        assert words in str(error), error
    else:
        raise AssertionError(f"no {kind}")
"""

FORKING = (
    SETTING
    + """
rlray.init(num_cpus=2)
counter = Counter.remote()
slow = rlray.remote(lambda: time.sleep(2) or "slow").remote()
inline, large, done = rlray.put(1), rlray.put(b"x" * 1_000_000), add.remote(1)
kept = rlray.empty(100_000)
kept[:] = 7
read = rlray.get(large)
values = many.remote()
rlray.get([done, counter.add.remote()])

def leave(): pass
def leave_with_atexit(): sys.exit(0)
def drop():
    global slow, inline, large, done, kept, values, counter
    del slow, inline, large, done, kept, values, counter
    gc.collect()
    os.close(os.open(os.devnull, 0))
def see():
    assert not rlray.is_initialized()
    assert len(read) == 1_000_000 and kept.sum() == 700_000
def shut_down(): rlray.shutdown()
def use_what_was_inherited():
    for ref in (inline, large, done, slow):
        raises(ValueError, "the process that this one was forked from", lambda: rlray.get(ref, timeout=5))
        raises(RuntimeError, "this process was forked from one in which rlray runs", ref.future)
    raises(ValueError, "was forked from", lambda: rlray.get(add.remote(large), timeout=5))
    raises(ValueError, "was forked from", lambda: counter.add.remote())
    raises(RuntimeError, "this process was forked from", lambda: next(values))
    rlray.shutdown()
def run_its_own():
    assert rlray.init(num_cpus=1).job_id != JOB
    assert rlray.get([add.remote(i) for i in range(20)]) == list(range(1, 21))
    assert rlray.get(Counter.remote().add.remote()) == 1
    assert rlray.cluster_resources()["CPU"] == 1
    rlray.shutdown()
def run_its_own_unasked(): assert rlray.get(add.remote(1)) == 2  # and ends without a word
def fork_again(): assert in_child(run_its_own) == 0
def await_it():
    import asyncio
    async def main(): return await add.remote(1)
    assert asyncio.run(main()) == 2

JOB = rlray.get_runtime_context().get_job_id()
for number, what in enumerate([leave, leave_with_atexit, drop, see, shut_down, use_what_was_inherited, run_its_own,
                               run_its_own_unasked, fork_again, await_it]):
    assert in_child(what) == 0, what.__name__
    assert rlray.get([add.remote(i) for i in range(20)], timeout=30) == list(range(1, 21)), what.__name__
    assert rlray.get(counter.add.remote(), timeout=30) == number + 2
assert rlray.get([slow, inline], timeout=30) == ["slow", 1] and len(rlray.get(large)) == 1_000_000
assert [rlray.get(ref) for ref in values] == [0, 1, 2]
print("GOOD")
"""
)


def test_a_driver_forks_and_the_child_does_all_kinds_of_things() -> None:
    """The parent goes on as if nothing had been, whatever the child does with what it has inherited."""
    with Driver(FORKING, python=("-X", "dev", "-c")) as driver:
        output = driver.finish(100)
        assert "GOOD" in output
        assert "Warning" not in output
        assert "CHILD" not in output


IN_WORKERS = (
    SETTING
    + """
import asyncio
rlray.init(num_cpus=3)
big = rlray.put(b"x" * 1_000_000)

def children(ref):
    def use(): raises(ValueError, "was forked from", lambda: rlray.get(ref, timeout=5))
    def own(): assert rlray.get(add.remote(1)) == 2; rlray.shutdown()
    return [in_child(what) for what in (lambda: None, use, own)]

@rlray.remote
def task(box): return children(box[0]), rlray.get(add.remote(1)), len(rlray.get(box[0]))

@rlray.remote
class Plain:
    def run(self, box): return children(box[0]), rlray.get(add.remote(1)), len(rlray.get(box[0]))

@rlray.remote
class Asynchronous:
    async def run(self, box): return children(box[0]), await add.remote(1), len(await box[0])

@rlray.remote
def pool():
    import multiprocessing
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(abs, range(-4, 0))

runs = [task.remote([big]), Plain.remote().run.remote([big]), Asynchronous.remote().run.remote([big]),
        Plain.options(max_concurrency=2).remote().run.remote([big])]
for ref in runs:
    assert rlray.get(ref, timeout=60) == ([0, 0, 0], 2, 1_000_000)
assert rlray.get(pool.remote(), timeout=60) == [4, 3, 2, 1]
print("GOOD")
"""
)


def test_tasks_and_actors_of_every_kind_fork() -> None:
    assert "GOOD" in run_driver(IN_WORKERS, timeout=100)


BUSY = (
    SETTING
    + """
rlray.init(num_cpus=2)
stop, done = threading.Event(), []
def work():
    count = 0
    while not stop.is_set():
        assert rlray.get([add.remote(i) for i in range(30)]) == list(range(1, 31))
        big = rlray.put(b"x" * 200_000)
        assert len(rlray.get(big)) == 200_000
        count += 1
    done.append(count)
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
ref, values = rlray.put(1), many.remote()
def look():
    global ref, values
    assert not rlray.is_initialized()
    raises(RuntimeError, "forked", ref.future)
    raises(RuntimeError, "forked", lambda: next(values))
    del ref, values
for _ in range(60):
    assert in_child(look, within=10) == 0
stop.set()
for thread in threads: thread.join(60)
assert len(done) == 4 and all(done), done
print("GOOD")
"""
)


def test_forks_while_threads_are_in_the_middle_of_everything() -> None:
    """A child inherits locks as they are at that moment, also those that nobody is there to release."""
    assert "GOOD" in run_driver(BUSY, timeout=100)


def test_a_child_that_lives_on_keeps_nothing_of_a_driver_that_is_killed() -> None:
    code = """
import os, sys, time
import rlray
rlray.init(num_cpus=1)
rlray.get(rlray.remote(lambda: 1).remote())
if os.fork() == 0:
    os.write(1, b"CHILD %d\\n" % os.getpid())
    time.sleep(60)
sys.stdin.read()
"""
    with Driver(code, listens=True) as driver:
        child = int(driver.expect("CHILD"))
        run = {process for process in driver.family() if process.pid not in (child, driver.pid)}
        assert len(run) >= 3
        driver.process.kill()
        assert still_running(run, 2.0) == []
        os.kill(child, 9)


STARTED = """
import multiprocessing, os, sys
from concurrent.futures import ProcessPoolExecutor
import rlray

@rlray.remote
def add(x): return x + 1

def work(n):
    rlray.init(num_cpus=1, ignore_reinit_error=True)
    return sum(rlray.get([add.remote(i) for i in range(n)])), rlray.get_runtime_context().get_job_id()

def child(n, queue):
    queue.put(work(n))

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    jobs = set()
    for running in (False, True):  # before and after the program has a runtime itself
        if running:
            jobs.add(rlray.init(num_cpus=1).job_id)
        queue = context.SimpleQueue()
        processes = [context.Process(target=child, args=(10, queue)) for _ in range(2)]
        for process in processes: process.start()
        for process in processes:
            total, job = queue.get()
            assert total == 55 and job not in jobs
            jobs.add(job)
        for process in processes: process.join()
        assert [process.exitcode for process in processes] == [0, 0]
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            assert pool.submit(work, 5).result(60)[0] == 15
            assert pool.submit(work, 6).result(60)[0] == 21
    assert rlray.get(add.remote(1)) == 2
    print("GOOD", len(jobs))
"""


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_processes_of_multiprocessing_and_of_executors(method: str, tmp_path: object) -> None:
    script = f"{tmp_path}/program.py"
    with open(script, "w") as file:
        file.write(STARTED)
    with Driver(script, method, python=()) as driver:
        family = driver.family()
        output = driver.finish(100)
        assert "GOOD 5" in output
        assert driver.process.returncode == 0
        assert still_running(driver.family() | family, 2.0) == []
