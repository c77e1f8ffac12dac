"""A pool starts the runtime if there is none, and survives its end without hanging."""

from __future__ import annotations

import time

import pytest

import rlray
from rlray.exceptions import RayChannelError
from rlray.util import Executor
from rlray.util.multiprocessing import Pool

pytestmark = pytest.mark.usefixtures("fresh")


def test_the_runtime_is_started_with_as_many_cpus() -> None:
    with Pool(3) as pool:
        assert rlray.cluster_resources()["CPU"] == 3
        assert pool.map(abs, [-1, -2]) == [1, 2]


def test_by_default_there_are_as_many_processes_as_cpus() -> None:
    rlray.init(num_cpus=3)
    read = 0

    def items() -> object:
        nonlocal read
        for read in range(1, 100):  # noqa: UP028
            yield read

    with Pool() as pool:
        pool.imap(abs, items())  # type: ignore[arg-type]
        assert read == 6


def test_results_that_are_lost_with_the_runtime_say_so() -> None:
    rlray.init(num_cpus=1)
    result = Pool(1).apply_async(time.sleep, (1000,))
    executor = Executor()
    futures = [executor.submit(time.sleep, 1000) for _ in range(2)]
    rlray.shutdown()
    for get in (result.get, futures[0].result, futures[1].result):
        with pytest.raises((RuntimeError, RayChannelError), match=r"rlray was shut down|node process"):
            get()  # the second is what the runtime itself says, if it gets round to it before it ends
    assert not rlray.is_initialized()
