"""Starting and ending the runtime in a program: `init`, `shutdown`, threads, two drivers at once."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import rlray
from tests.support import Driver, run_driver

pytestmark = pytest.mark.usefixtures("fresh")


def test_init_twice_is_an_error_that_names_the_remedy() -> None:
    rlray.init(num_cpus=1)
    with pytest.raises(RuntimeError, match=r"(?s)ignore_reinit_error.*shutdown|shutdown.*ignore_reinit_error"):
        rlray.init(num_cpus=2)
    rlray.init(num_cpus=2, ignore_reinit_error=True)
    assert rlray.cluster_resources()["CPU"] == 1.0


def test_is_initialized_and_shutdown() -> None:
    assert not rlray.is_initialized()
    rlray.shutdown()
    rlray.init(num_cpus=1)
    assert rlray.is_initialized()
    rlray.shutdown()
    rlray.shutdown()
    assert not rlray.is_initialized()


def test_init_again_with_other_resources() -> None:
    for cpus in (1, 3):
        rlray.init(num_cpus=cpus)
        assert rlray.cluster_resources()["CPU"] == float(cpus)
        assert rlray.get(rlray.remote(lambda x: x + 1).remote(cpus)) == cpus + 1
        rlray.shutdown()


def test_functions_and_classes_outlive_a_shutdown() -> None:
    double = rlray.remote(lambda x: 2 * x)

    @rlray.remote
    class Keeper:
        def get(self) -> str:
            return "kept"

    for _ in range(2):
        rlray.init(num_cpus=1)
        assert rlray.get(double.remote(4)) == 8
        assert rlray.get(Keeper.remote().get.remote()) == "kept"
        rlray.shutdown()


@pytest.mark.parametrize(
    "use",
    [
        "rlray.get(rlray.put(3))",
        "rlray.get(rlray.remote(lambda: 3).remote())",
        "rlray.get(rlray.remote(type('A', (), {'f': lambda self: 3})).remote().f.remote())",
    ],
    ids=["put", "task", "actor"],
)
def test_use_before_init_starts_the_runtime(use: str) -> None:
    run_driver(f"import rlray; assert not rlray.is_initialized(); assert {use} == 3; assert rlray.is_initialized()")


def test_default_number_of_cpus_is_the_machines() -> None:
    rlray.init()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert rlray.cluster_resources()["CPU"] in (float(usable or 1), float(os.cpu_count() or 1))


@pytest.mark.parametrize(
    ("wrong", "kinds", "named"),
    [
        ({"num_cpus": -1}, ValueError, "num_cpus"),
        ({"num_cpus": "4"}, TypeError, "num_cpus"),
        ({"num_gpus": -1}, ValueError, "num_gpus"),
        ({"resources": {"CPU": 1}}, ValueError, "num_cpus"),
        ({"resources": {"x": -1}}, ValueError, "x"),
        ({"object_store_memory": 10}, ValueError, "object_store_memory"),
        ({"num_cpu": 2}, (TypeError, RuntimeError, ValueError), "num_cpu"),
    ],
    ids=str,
)
def test_bad_arguments_are_named_and_start_nothing(wrong: dict[str, Any], kinds: Any, named: str) -> None:
    with pytest.raises(kinds, match=named):
        rlray.init(**wrong)
    assert not rlray.is_initialized()


def test_threads_of_the_driver_share_the_runtime() -> None:
    rlray.init(num_cpus=2)
    square = rlray.remote(lambda x: x * x)
    problems: list[BaseException] = []

    def work(base: int) -> None:
        try:
            refs = [square.remote(base + i) for i in range(40)]
            assert rlray.get(refs) == [(base + i) ** 2 for i in range(40)]
            ready, rest = rlray.wait([rlray.put(base), square.remote(base)], num_returns=2)
            assert rlray.get(ready) == [base, base * base]
            assert rest == []
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(100 * i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not problems
    assert not any(thread.is_alive() for thread in threads)


def test_two_threads_wait_for_one_reference() -> None:
    import time

    rlray.init(num_cpus=1)
    ref = rlray.remote(lambda: time.sleep(0.5) or "slow").remote()
    quick = rlray.put("quick")
    seen: list[Any] = []
    threads = [threading.Thread(target=lambda: seen.append(rlray.get(ref, timeout=30))) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert rlray.get(quick) == "quick", "a waiting thread must not block the others"
    for thread in threads:
        thread.join(30)
    assert seen == ["slow"] * 4


def test_init_and_use_in_a_thread_that_is_not_the_main_one() -> None:
    program = """
import threading, rlray
def work():
    rlray.init(num_cpus=1)
    print("IN THREAD", rlray.get(rlray.remote(lambda: 7).remote()))
thread = threading.Thread(target=work)
thread.start(); thread.join()
print("IN MAIN", rlray.get(rlray.remote(lambda: 8).remote()))
rlray.shutdown()
"""
    output = run_driver(program)
    assert "IN THREAD 7" in output
    assert "IN MAIN 8" in output


def test_a_program_from_standard_input(tmp_path: Path) -> None:
    script = tmp_path / "stdin.py"
    script.write_text("import rlray\nclass P: pass\nprint('GOT', rlray.get(rlray.remote(lambda: P()).remote()))\n")
    code = f"import os, sys; os.dup2(os.open({str(script)!r}, 0), 0); os.execv(sys.executable, [sys.executable, '-'])"
    assert "GOT <__main__.P" in run_driver(code)


def test_two_drivers_at_once_know_nothing_of_each_other(tmp_path: Path) -> None:
    program = """
import sys, time, rlray as ray
ray.init(num_cpus=1)
@ray.remote
class Named:
    def whose(self): return WHOSE
WHOSE = sys.argv[1]
actor = Named.options(name="same name").remote()
ray.get(actor.whose.remote())
print("READY")
while ray.get(ray.put(1)) and not __import__("os").path.exists(sys.argv[2]): time.sleep(0.01)
print("MINE", ray.get(ray.get_actor("same name").whose.remote()), ray.cluster_resources()["CPU"])
"""
    go = tmp_path / "go"
    with Driver(program, "first", str(go)) as first, Driver(program, "second", str(go)) as second:
        first.expect("READY")
        second.expect("READY")
        go.touch()
        assert first.expect("MINE") == "first 1.0"
        first.finish()
        assert second.expect("MINE") == "second 1.0"
        second.finish()


def test_a_driver_started_by_a_worker_has_a_runtime_of_its_own() -> None:
    """Nothing in the environment makes a program started from a task a part of the run."""
    rlray.init(num_cpus=1)

    @rlray.remote
    def start() -> str:
        import subprocess

        code = "import rlray; rlray.init(num_cpus=2); print(rlray.cluster_resources()['CPU'])"
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert rlray.get(start.remote(), timeout=60).split()[-1] == "2.0"


def test_preload_imports_before_the_first_task() -> None:
    rlray.init(num_cpus=1, preload=["wave", "xml.dom.minidom"])

    def loaded() -> list[bool]:
        return [name in sys.modules for name in ("wave", "xml.dom.minidom", "chunk_that_nobody_imports")]

    loaded.__module__ = "__main__"
    assert rlray.get(rlray.remote(loaded).remote()) == [True, True, False]


def test_preload_of_an_unknown_module_says_so() -> None:
    with pytest.raises((ImportError, ValueError, RuntimeError), match="no_such_module_anywhere"):
        rlray.init(num_cpus=1, preload=["no_such_module_anywhere"])
    assert not rlray.is_initialized()


def test_numpy_threads_of_a_worker_follow_its_cpus() -> None:
    program = (
        "import os; os.environ.pop('OMP_NUM_THREADS', None); import rlray; rlray.init(num_cpus=4);"
        "look = rlray.remote(lambda: os.environ.get('OMP_NUM_THREADS')); print('THREADS', rlray.get(look.remote()))"
    )
    assert "THREADS 1" in run_driver(program)
