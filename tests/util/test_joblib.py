"""The joblib backend, under real joblib."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import joblib
import numpy as np
import pytest

import rlray
from rlray.util.joblib import register_ray, register_rlray

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(autouse=True)
def _registered() -> None:
    register_rlray()


@pytest.fixture
def backend() -> Iterator[None]:
    with joblib.parallel_backend("rlray"):
        yield


def square(value: int) -> int:
    return value * value


def not_three(value: int) -> int:
    if value == 3:
        raise ValueError("three")
    return value


@pytest.mark.parametrize("name", ["rlray", "ray"])
def test_parallel_under_both_names(name: str) -> None:
    register_ray()
    with joblib.parallel_backend(name, n_jobs=2):
        assert joblib.Parallel()(joblib.delayed(square)(value) for value in range(50)) == [v * v for v in range(50)]
    with joblib.parallel_config(backend=name):
        assert joblib.Parallel(n_jobs=2)(joblib.delayed(lambda value: -value)(v) for v in range(3)) == [0, -1, -2]


@pytest.mark.usefixtures("backend")
def test_work_is_done_by_workers_of_the_runtime() -> None:
    def who(_: int) -> tuple[str, int]:
        time.sleep(0.01)
        return rlray.get_runtime_context().get_job_id(), os.getpid()

    found = joblib.Parallel(n_jobs=2, batch_size=1)(joblib.delayed(who)(index) for index in range(10))
    assert {job for job, _ in found} == {rlray.get_runtime_context().get_job_id()}
    assert os.getpid() not in {pid for _, pid in found}
    assert len({pid for _, pid in found}) == 2


@pytest.mark.usefixtures("backend")
def test_minus_one_is_all_cpus_of_the_runtime() -> None:
    assert joblib.effective_n_jobs(-1) == 4
    assert joblib.effective_n_jobs(-2) == 3
    assert joblib.effective_n_jobs(None) == 4  # parallel_backend() asks for -1 unless told otherwise
    assert joblib.effective_n_jobs(7) == 7
    with pytest.raises(ValueError, match="n_jobs must not be 0"):
        joblib.effective_n_jobs(0)


@pytest.mark.usefixtures("backend")
def test_one_job_runs_here() -> None:
    assert joblib.Parallel(n_jobs=1)([joblib.delayed(os.getpid)()]) == [os.getpid()]


@pytest.mark.usefixtures("backend")
def test_an_error_keeps_its_class_and_the_next_call_works() -> None:
    with pytest.raises(ValueError, match="three"):
        joblib.Parallel(n_jobs=2)(joblib.delayed(not_three)(value) for value in range(6))
    with joblib.Parallel(n_jobs=2) as parallel:  # processes are kept inside, also after an error
        with pytest.raises(ValueError, match="three"):
            parallel(joblib.delayed(not_three)(value) for value in range(6))
        assert parallel(joblib.delayed(square)(value) for value in range(4)) == [0, 1, 4, 9]


@pytest.mark.usefixtures("backend")
def test_a_timeout_and_a_generator() -> None:
    with pytest.raises(multiprocessing.TimeoutError):
        joblib.Parallel(n_jobs=2, timeout=0.1)(joblib.delayed(time.sleep)(100) for _ in range(2))
    results = joblib.Parallel(n_jobs=2, return_as="generator")(joblib.delayed(square)(value) for value in range(5))
    assert list(results) == [0, 1, 4, 9, 16]


@pytest.mark.usefixtures("backend")
def test_nested_calls_and_arrays() -> None:
    def inner(array: np.ndarray) -> float:
        halves = joblib.Parallel(n_jobs=2)(joblib.delayed(np.sum)(half) for half in np.split(array, 2))
        return float(sum(halves))

    arrays = [np.full(100_000, value) for value in range(3)]
    assert joblib.Parallel(n_jobs=2)(joblib.delayed(inner)(array) for array in arrays) == [0, 1e5, 2e5]


def test_options_of_the_actors() -> None:
    def free() -> float:
        return rlray.available_resources()["CPU"]

    with joblib.parallel_backend("rlray", ray_remote_args={"num_cpus": 1}):
        assert joblib.Parallel(n_jobs=2)(joblib.delayed(free)() for _ in range(2)) == [2, 2]
    with joblib.parallel_backend("rlray", ray_remote_args={"num_cpus": 2}):
        assert joblib.effective_n_jobs(-1) == 2


def test_without_joblib_the_error_has_the_pip_line() -> None:
    code = "import sys; sys.modules['joblib'] = None; import rlray.util; rlray.util.joblib"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert answer.stderr.strip().endswith("ImportError: rlray.util.joblib needs joblib: pip install joblib")
    code = (
        "import sys, rlray.util.queue, rlray.util.multiprocessing; rlray.util.Executor; print('joblib' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout.strip() == "False"
