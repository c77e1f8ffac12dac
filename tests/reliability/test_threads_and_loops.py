"""Programs whose threads, event loops and tracers use the runtime from wherever they are."""

from __future__ import annotations

from tests.support import run_driver


def test_many_threads_start_the_runtime_at_once() -> None:
    """One of them does, the others use it, or are told so."""
    code = """
import threading, rlray
barrier, found, refused = threading.Barrier(8), [], []
def implicitly(i):
    barrier.wait()
    found.append(rlray.get(rlray.remote(lambda: i).remote()))
def explicitly(i):
    barrier.wait()
    try:
        rlray.init(num_cpus=2)
    except RuntimeError as error:
        assert "was called before" in str(error)
        refused.append(i)
    found.append(rlray.get(rlray.put(i)))
threads = [threading.Thread(target=(implicitly, explicitly)[i % 2], args=(i,)) for i in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join(60)
assert sorted(found) == list(range(8)), found
assert 3 <= len(refused) <= 4
print("GOOD")
"""
    assert "GOOD" in run_driver(code)


def test_the_runtime_is_started_while_another_thread_still_imports_it() -> None:
    code = """
import sys, threading, time, rlray
begun = threading.Event()
def slowly(frame, event, argument):
    if frame.f_code.co_filename.endswith("core/engine.py") and not begun.is_set():
        begun.set()
        time.sleep(0.5)
def use():
    sys.settrace(slowly)
    import rlray.core.engine
thread = threading.Thread(target=use)
thread.start()
assert begun.wait(30)
rlray.init(num_cpus=1)
assert rlray.get(rlray.put(1)) == 1
thread.join()
print("GOOD")
"""
    assert "GOOD" in run_driver(code)


def test_a_thread_that_starts_uses_and_ends_the_runtime_again_and_again() -> None:
    code = """
import threading, rlray
def work(i):
    rlray.init(num_cpus=1)
    ref = rlray.put(b"x" * 200_000)
    assert len(rlray.get(rlray.remote(lambda x: x).remote(ref))) == 200_000
    rlray.shutdown()
for i in range(3):
    thread = threading.Thread(target=work, args=(i,))
    thread.start()
    thread.join(60)
    assert not thread.is_alive() and not rlray.is_initialized()
assert threading.active_count() == 1, threading.enumerate()
print("GOOD")
"""
    assert "GOOD" in run_driver(code)


def test_a_thread_that_goes_on_when_the_main_one_has_ended() -> None:
    """Python waits for it, and the runtime ends after it."""
    code = """
import threading, time, rlray
rlray.init(num_cpus=1)
def work():
    time.sleep(0.3)
    print("LATE", rlray.get([rlray.remote(lambda: 5).remote(), rlray.put(6)]))
threading.Thread(target=work).start()
"""
    assert "LATE [5, 6]" in run_driver(code)


def test_a_daemon_thread_in_get_does_not_keep_a_program_from_ending() -> None:
    code = """
import threading, time, rlray
rlray.init(num_cpus=1)
ref = rlray.remote(lambda: time.sleep(100)).remote()
for use in (rlray.get, lambda ref: ref.future().result(), lambda ref: rlray.wait([ref])):
    threading.Thread(target=use, args=(ref,), daemon=True).start()
time.sleep(0.2)
print("GOOD")
"""
    output = run_driver(code)
    assert "GOOD" in output
    assert "Fatal" not in output
    assert "atexit" not in output


def test_asyncio_programs() -> None:
    code = """
import asyncio, rlray
add = rlray.remote(lambda x: x + 1)
fail = rlray.remote(lambda: 1 / 0)

@rlray.remote
def values():
    yield from range(3)

async def main():
    assert await add.remote(1) == 2
    assert await asyncio.gather(*[add.remote(i) for i in range(50)]) == list(range(1, 51))
    assert [await ref async for ref in values.remote()] == [0, 1, 2]
    try:
        await fail.remote()
    except ZeroDivisionError:
        pass
    try:
        async with asyncio.timeout(0.2) if hasattr(asyncio, "timeout") else asyncio.Semaphore():
            await asyncio.wait_for(asyncio.wrap_future(rlray.remote(__import__("time").sleep).remote(5).future()), 0.2)
    except (TimeoutError, asyncio.TimeoutError):
        pass
    assert await asyncio.to_thread(rlray.get, add.remote(5)) == 6
    rlray.shutdown()

rlray.init(num_cpus=2)
asyncio.run(main(), debug=True)
rlray.init(num_cpus=1)
async def again(): return await add.remote(10)
assert asyncio.run(again()) == 11
print("GOOD")
"""
    assert "GOOD" in run_driver(code.replace('(__import__("time").sleep)', "(lambda s: __import__('time').sleep(s))"))


def test_a_tracer_and_a_profiler_in_every_thread() -> None:
    """As debuggers and coverage tools set them; the driver's own code is traced, and everything works."""
    code = """
import sys, threading
lines = set()
def trace(frame, event, argument):
    lines.add((frame.f_code.co_name, event))
    return trace
threading.settrace(trace); sys.settrace(trace)
threading.setprofile(lambda *_: None); sys.setprofile(lambda *_: None)
import rlray
rlray.init(num_cpus=2)

@rlray.remote
def traced(x):
    return x + 1, sys.gettrace() is None

@rlray.remote
class Actor:
    def call(self, x): return x + 1
    async def slow(self, x): return x + 2

actor = Actor.remote()
assert rlray.get([traced.remote(i) for i in range(20)]) == [(i + 1, True) for i in range(20)]
assert rlray.get([actor.call.remote(1), actor.slow.remote(1), rlray.put(b"x" * 200_000)])[:2] == [2, 3]
assert list(map(rlray.get, rlray.remote(lambda x: -x).map(range(50)))) == [-i for i in range(50)]
rlray.shutdown()
assert ("shutdown", "return") in lines
print("GOOD")
"""
    assert "GOOD" in run_driver(code)
