"""Fixtures of all tests. No test may leave a process, shared memory or a resource behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from types import ModuleType

import pytest

import rlray
from rlray.util import state
from tests import support


def _holdings() -> set[str]:
    """Children of this process and files in /dev/shm. Python's own resource tracker lives as long as we do."""
    found = {f"process {child.pid} {child.command}" for child in support.children(os.getpid()) if child.stat()}
    found = {line for line in found if "multiprocessing.resource_tracker" not in line}
    return found | {f"/dev/shm/{name}" for name in support.shared_memory()}


def _assert_nothing_new(before: set[str], who: str) -> None:
    support.wait_until(lambda: _holdings() <= before, 2.0)
    left = _holdings() - before
    assert not left, f"{who} left behind: {left}"


@pytest.fixture(autouse=True, scope="module")
def _module_leaves_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    """After a module, and after its `cluster` was shut down, nothing of it is left."""
    if not os.path.isdir("/proc/self"):
        yield
        return
    before = _holdings()
    yield
    assert not rlray.is_initialized(), f"{request.node.name} left the runtime running"
    _assert_nothing_new(before, request.node.name)


@pytest.fixture(autouse=True)
def _test_leaves_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    """After a test either the runtime still runs and every CPU and GPU is free again, or nothing of it is left."""
    if not os.path.isdir("/proc/self"):
        yield
        return
    before = _holdings()
    yield
    if not rlray.is_initialized():
        _assert_nothing_new(before, request.node.name)
        return

    def busy() -> dict[str, tuple[float, float]]:
        free = rlray.available_resources()
        total = {name: amount for name, amount in rlray.cluster_resources().items() if "memory" not in name}
        return {
            name: (free.get(name, 0.0), amount)
            for name, amount in total.items()
            if abs(free.get(name, 0.0) - amount) > 1e-6
        }

    support.wait_until(lambda: not busy(), 20.0)
    if left := busy():
        holders: object = "somebody"
        with suppress(NotImplementedError):  # Ray has tools of its own
            holders = [worker for worker in state.list_workers() if worker.resources]
        pytest.fail(f"{request.node.name} left resources taken, (free, total): {left}, by {holders}")


NO_RAY = pytest.mark.skipif(find_spec("ray") is None, reason='Ray is not installed: pip install "rlray[ray]"')
ENGINES = ("local", "inline", pytest.param("ray", marks=NO_RAY))
_told: set[ModuleType] = set()
"""Modules of which one skipped test says that there is no Ray: one line for each is enough."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests of modules marked ``every_engine`` run on each engine; those marked ``processes`` not on the inline one.

    The latter kill a process, tell processes apart, or need tasks that run while the driver does something else.
    """
    if "engine" in metafunc.fixturenames and metafunc.definition.get_closest_marker("every_engine"):
        processes = metafunc.definition.get_closest_marker("processes")
        engines = [one for one in ENGINES if not (processes and one == "inline")]
        if NO_RAY.args[0] and metafunc.module in _told:
            engines = engines[:-1]
        _told.add(metafunc.module)
        metafunc.parametrize("engine", engines, indirect=True, scope="module")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that differ on an engine, as their mark says, are skipped there with its reason."""
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        for mark in item.iter_markers("differs"):
            if parameters.get("engine") == mark.args[0]:
                item.add_marker(pytest.mark.skip(reason=f"differs on {mark.args[0]}: {mark.args[1]}"))


STORE = {"ray": 200_000_000}  # bytes; Ray sets all of it aside


@pytest.fixture(scope="module")
def engine(request: pytest.FixtureRequest) -> str:
    """The engine that a test runs on."""
    return str(getattr(request, "param", "local"))


@pytest.fixture(scope="module")
def cluster(engine: str) -> Iterator[None]:
    """A runtime with four CPUs and the custom resource ``special`` (2), shared by the tests of a module."""
    rlray.init(num_cpus=4, resources={"special": 2}, engine=engine, object_store_memory=STORE.get(engine))
    yield
    rlray.shutdown()


@pytest.fixture
def fresh() -> Iterator[None]:
    """Whatever runtime the test starts is shut down after it."""
    yield
    rlray.shutdown()
