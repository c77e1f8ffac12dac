"""Several Ray nodes on this machine: a run is spread over them, loses one in mid-run, and goes on with what is left."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rlray
from rlray.algos.types import Metrics
from rlray.config import RunConfig
from rlray.train import Experiment
from rlray.train.groups import spec_of
from rlray.train.run import plan_for, resolve
from tests.conftest import NO_RAY, STORE
from tests.support import wait_until

pytestmark = NO_RAY

CONFIG: dict[str, Any] = {
    "env": "LunarLander-v3",
    "algo": "ppo",
    "hyperparameters": {
        "network": {"kind": "mlp", "hidden": [32, 32]},
        "rollout_steps": 512,
        "minibatch_size": 128,
        "epochs": 2,
    },
    "mode": "async",
    "simulators": {"count": 3, "envs": 4, "fragment_length": 32, "num_cpus": 1},
    "learner": {"num_cpus": 1},
    "stop": {"steps": 60_000},
    "eval": {"every": None, "final_episodes": 0},
    "checkpoint": {"every": None},
}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head with two CPUs and two nodes with two each, of this machine; only the driver's end of it is rlray's."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    from ray.cluster_utils import Cluster

    ray_cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 2, "object_store_memory": STORE["ray"], "include_dashboard": False},
    )
    try:
        for _ in range(2):
            ray_cluster.add_node(num_cpus=2, object_store_memory=STORE["ray"])
        rlray.init(address=ray_cluster.address)
        yield ray_cluster
    finally:
        rlray.shutdown()
        ray_cluster.shutdown()


def played_on(cluster: Any) -> Any:
    """A node, not the head, that a simulator lives on."""
    import ray

    actors = ray._private.state.actors().values()
    homes = {
        one["Address"]["NodeID"] for one in actors if one["ActorClassName"] == "Simulator" and one["State"] == "ALIVE"
    }
    found = [node for node in cluster.list_all_nodes() if node is not cluster.head_node and node.node_id in homes]
    assert found, "all simulators are on the head"
    return found[0]


@pytest.mark.timeout(300)
def test_a_run_goes_on_when_a_node_is_killed(cluster: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert len(rlray.nodes()) == 3
    config, source = resolve(RunConfig.from_dict(CONFIG))
    spec, plan = spec_of(config, source), plan_for(config)
    killed: list[Metrics] = []
    caplog.set_level(logging.WARNING)
    with Experiment(config, source, spec, plan, tmp_path) as experiment:
        for record in experiment:
            if not killed and record["steps"] >= 1_500:
                killed.append(record)
                cluster.remove_node(played_on(cluster), allow_graceful=False)
    assert killed[0]["steps"] < 6_000, "it was killed in mid-run"
    assert "died" in caplog.text, "a simulator was lost and replaced, and the run says so"
    assert experiment.progress.steps >= 60_000 - 3 * 4 * 32, "what was lost is fragments, and no more"
    assert experiment.progress.version > 2 * killed[0]["learner/updates"], "learning went on"
    assert wait_until(lambda: sum(node["Alive"] for node in rlray.nodes()) == 2, 60)
