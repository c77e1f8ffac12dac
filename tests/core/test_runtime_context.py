"""What code can ask about where it runs."""

from __future__ import annotations

import os
from typing import Any

import pytest

import rlray

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.every_engine]


def ids() -> dict[str, Any]:
    context = rlray.get_runtime_context()
    return {
        "job": context.get_job_id(),
        "node": context.get_node_id(),
        "worker": context.get_worker_id(),
        "task": context.get_task_id(),
        "actor": context.get_actor_id(),
        "resources": context.get_assigned_resources(),
        "pid": os.getpid(),
        "namespace": context.namespace,
    }


@rlray.remote
class Asker:
    def ask(self) -> dict[str, Any]:
        return ids()

    def name(self) -> str:
        return rlray.get_runtime_context().get_actor_name()

    def reconstructed(self) -> bool:
        return rlray.get_runtime_context().was_current_actor_reconstructed


def test_ids_of_tasks() -> None:
    first, second = rlray.get([rlray.remote(ids).remote() for _ in range(2)])
    assert first["task"] != second["task"]
    assert first["actor"] is None
    assert first["job"] == second["job"] == rlray.get_runtime_context().get_job_id()
    assert first["node"] == second["node"] == rlray.get_runtime_context().get_node_id()
    assert (first["worker"] == second["worker"]) == (first["pid"] == second["pid"])
    for name in ("job", "node", "worker", "task"):
        assert int(first[name], 16) >= 0, f"{name} is not hexadecimal"


def test_ids_of_actors() -> None:
    one, two = Asker.remote(), Asker.remote()
    first, again, other = rlray.get([one.ask.remote(), one.ask.remote(), two.ask.remote()])
    assert first["actor"] == again["actor"] != other["actor"]
    assert first["task"] != again["task"]
    assert first["worker"] == again["worker"] != other["worker"]
    assert rlray.get([one.name.remote(), one.reconstructed.remote()]) == ["", False]


def test_assigned_resources() -> None:
    ask = rlray.remote(ids)
    assert rlray.get(ask.remote())["resources"] == {"CPU": 1.0}
    wish = ask.options(num_cpus=0.5, resources={"special": 1.5})
    assert rlray.get(wish.remote())["resources"] == {"CPU": 0.5, "special": 1.5}


def test_the_driver_is_no_task() -> None:
    context = rlray.get_runtime_context()
    assert context.get_task_id() is None
    assert context.get_actor_id() is None
    assert context.get_worker_id() not in (None, rlray.get(rlray.remote(ids).remote())["worker"])


def test_namespace_is_the_same_everywhere_in_a_run() -> None:
    mine = rlray.get_runtime_context().namespace
    assert mine
    assert rlray.get(rlray.remote(ids).remote())["namespace"] == mine
    assert rlray.get(Asker.remote().ask.remote())["namespace"] == mine


def test_is_initialized_inside_a_worker() -> None:
    assert rlray.get(rlray.remote(lambda: rlray.is_initialized()).remote()) is True


def test_get_gpu_ids_of_the_driver_is_a_list() -> None:
    assert rlray.get_gpu_ids() == []
