"""What only the Ray engine has: how it is started, and what it says where it is not like the others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import rlray
from rlray.util import state
from rlray.util.placement_group import placement_group
from rlray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from tests.conftest import NO_RAY, STORE
from tests.support import run_driver

HAS_RAY = not NO_RAY.args[0]


@pytest.mark.skipif(HAS_RAY, reason="Ray is installed")
@pytest.mark.parametrize("arguments", [{"address": "auto"}, {"address": "local-ray"}, {"engine": "ray"}])
def test_without_ray_the_remedy_is_named(arguments: dict[str, str]) -> None:
    with pytest.raises(ImportError, match=r'pip install "rlray\[ray\]"'):
        rlray.init(**arguments)
    assert not rlray.is_initialized()


def test_an_address_is_for_ray_alone() -> None:
    for engine in ("local", "inline"):
        with pytest.raises(ValueError, match=f"engine is '{engine}'"):
            rlray.init(engine=engine, address="auto")
    assert not rlray.is_initialized()


@NO_RAY
@pytest.mark.parametrize("name", ["num_cpus", "num_gpus", "memory", "object_store_memory"])
def test_a_cluster_that_is_there_knows_what_it_has(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} of init\(\).*127.0.0.1:1.*local-ray"):
        rlray.init(address="127.0.0.1:1", **{name: 2})
    assert not rlray.is_initialized()


@NO_RAY
def test_ray_is_not_loaded_until_it_is_wanted() -> None:
    run_driver("import sys, rlray\nrlray.init(num_cpus=1)\nrlray.get(rlray.put(1))\nassert 'ray' not in sys.modules")


@pytest.fixture(scope="class")
def on_ray() -> Iterator[None]:
    rlray.init(address="local-ray", num_cpus=2, object_store_memory=STORE["ray"])
    yield
    rlray.shutdown()


@NO_RAY
@pytest.mark.usefixtures("on_ray")
class TestOnRay:
    def test_who_joins_must_have_the_token(self) -> None:
        assert os.environ["RAY_AUTH_MODE"] == "token"

        def address() -> str:
            import ray

            return str(ray.get_runtime_context().gcs_address)

        def stranger(address: str) -> str:
            program = f"import ray\nray.init({address!r}, logging_level='ERROR')\n"
            return run_driver(
                f"import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', {program!r}],"
                "capture_output=True, text=True).stderr)",
                RAY_AUTH_MODE="token",
                RAY_AUTH_TOKEN="0" * 64,
            )

        where = rlray.get(rlray.remote(address).remote())
        assert "AuthenticationError" in stranger(where) or "token" in stranger(where).lower()

    def test_references_that_travelled_are_equal(self) -> None:
        ref = rlray.put(np.arange(100_000))
        same = rlray.get(rlray.remote(lambda box: box).remote([ref]))[0]
        assert same == ref
        assert len({same, ref}) == 1
        assert not rlray.get(same).flags.writeable

    def test_a_value_lives_as_long_as_what_it_is_in(self) -> None:
        box = rlray.put([rlray.put(b"inside" * 100_000)])
        [inner] = rlray.get(box)
        del box
        assert rlray.get(inner) == b"inside" * 100_000

    def test_errors_have_rays_as_their_cause(self) -> None:
        import ray

        def fail() -> None:
            raise KeyError("no")

        with pytest.raises(KeyError) as caught:
            rlray.get(rlray.remote(fail).remote())
        assert isinstance(caught.value, rlray.exceptions.RayTaskError)
        assert not isinstance(caught.value, ray.exceptions.RayError)
        assert isinstance(caught.value.__cause__, KeyError)
        with pytest.raises(rlray.exceptions.GetTimeoutError, match="still missing 1 of 1 values: sleepy") as late:
            rlray.get(rlray.remote(lambda: __import__("time").sleep(3)).options(name="sleepy").remote(), timeout=0.1)
        assert isinstance(late.value.__cause__, ray.exceptions.GetTimeoutError)

    @pytest.mark.parametrize("look", [state.list_tasks, state.list_actors, rlray.timeline])
    def test_what_only_rlrays_engines_tell(self, look: Any) -> None:
        with pytest.raises(NotImplementedError, match=r"ray list tasks"):
            look()

    def test_a_node_of_that_id(self) -> None:
        node = rlray.nodes()[0]["NodeID"]
        here = rlray.remote(lambda: rlray.get_runtime_context().get_node_id())
        assert (
            rlray.get(here.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote())
            == node
        )
        assert (
            rlray.get(here.options(scheduling_strategy=NodeAffinitySchedulingStrategy("ab" * 28, soft=True)).remote())
            == node
        )
        with pytest.raises(rlray.exceptions.TaskUnschedulableError, match="abab"):
            here.options(scheduling_strategy=NodeAffinitySchedulingStrategy("ab" * 28, soft=False)).remote()

    def test_what_one_node_can_never_hold(self) -> None:
        with pytest.raises(ValueError, match="wants 2 nodes"):
            placement_group([{"CPU": 1}, {"CPU": 1}], strategy="STRICT_SPREAD")
