"""Several Ray nodes on this machine: a run is spread over them, loses one in mid-run, and goes on with what is left."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import rlray
from rlray.algos.types import Metrics
from rlray.config import RunConfig
from rlray.train import Experiment, seats
from rlray.train.checkpoint import load_checkpoint
from rlray.train.failures import NoRoom
from rlray.train.groups import spec_of
from rlray.train.run import plan_for, resolve
from tests.conftest import NO_RAY, STORE
from tests.support import wait_until
from tests.train.conftest import toy_config

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


MakeCluster = Callable[..., Any]


@pytest.fixture
def make_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeCluster]:
    """``make_cluster(2, 1, 1)``: a head with two CPUs and two nodes with one each, of this machine.

    Only the driver's end of it is rlray's. Who looks for room is told of after four seconds.
    """
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setattr(seats, "NOTICE_SECONDS", 4.0)
    from ray.cluster_utils import Cluster

    made: list[Any] = []

    def make(head: int, *nodes: int) -> Any:
        arguments = {"num_cpus": head, "object_store_memory": STORE["ray"], "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=arguments)
        made.append(cluster)
        for cpus in nodes:
            cluster.add_node(num_cpus=cpus, object_store_memory=STORE["ray"])
        rlray.init(address=cluster.address)
        return cluster

    try:
        yield make
    finally:
        rlray.shutdown()
        for cluster in made:
            cluster.shutdown()


def home_of(cluster: Any, actor: str) -> Any:
    """A node, not the head, that an actor of that class lives on."""
    import ray

    actors = ray._private.state.actors().values()
    homes = {one["Address"]["NodeID"] for one in actors if one["ActorClassName"] == actor and one["State"] == "ALIVE"}
    found = [node for node in cluster.list_all_nodes() if node is not cluster.head_node and node.node_id in homes]
    assert found, f"{actor}: all on the head"
    return found[0]


def experiment_of(folder: Path, **changes: Any) -> Experiment:
    """Three simulators and a learner with a CPU each, whose fragments take a tenth of a second."""
    simulators = {"count": 3, "envs": 2, "fragment_length": 10, "num_cpus": 1.0}
    toy = toy_config(**{"simulators": simulators, "env_settings": {"sleep": 0.005}, **changes})
    config, source = resolve(RunConfig.from_dict(toy))
    return Experiment(config, source, spec_of(config, source), plan_for(config), folder)


def learned(experiment: Experiment) -> dict[str, int]:
    """How many fragments of which stream the learner of an experiment had in the end."""
    fragments: dict[str, int] = load_checkpoint(experiment.last_checkpoint or "")["learner"]["learner"]["fragments"]
    return fragments


@pytest.mark.timeout(300)
def test_a_run_goes_on_when_a_node_is_killed(
    make_cluster: MakeCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = make_cluster(2, 2, 2)
    assert len(rlray.nodes()) == 3
    config, source = resolve(RunConfig.from_dict(CONFIG))
    spec, plan = spec_of(config, source), plan_for(config)
    killed: list[Metrics] = []
    caplog.set_level(logging.WARNING)
    with Experiment(config, source, spec, plan, tmp_path) as experiment:
        for record in experiment:
            if not killed and record["steps"] >= 1_500:
                killed.append(record)
                cluster.remove_node(home_of(cluster, "Simulator"), allow_graceful=False)
    assert killed[0]["steps"] < 6_000, "it was killed in mid-run"
    assert "died" in caplog.text, "a simulator was lost and replaced, and the run says so"
    assert experiment.progress.steps >= 60_000 - 3 * 4 * 32, "what was lost is fragments, and no more"
    assert experiment.progress.version > 2 * killed[0]["learner/updates"], "learning went on"
    assert wait_until(lambda: sum(node["Alive"] for node in rlray.nodes()) == 2, 60)


@contextmanager
def calling(words: str, call: Callable[[], Any]) -> Iterator[None]:
    """Do something when the run says ``words``, before it goes on: once, and in this thread, as Ray's tools want it."""

    class OnWords(logging.Handler):
        done = False

        def emit(self, record: logging.LogRecord) -> None:
            if words in record.getMessage() and not self.done:
                self.done = True
                call()

    handler, logger = OnWords(), logging.getLogger("rlray.train")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was said of simulators without room."""
    return [one.getMessage() for one in caplog.records if one.getMessage().startswith("no room for")]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_what_a_lost_node_leaves_without_room_is_waited_for_by_nobody(
    mode: str, make_cluster: MakeCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Learner and one simulator stay, the other two have nowhere to go; the run ends at its steps all the same."""
    cluster = make_cluster(2, 2)
    killed_at = 0.0
    with experiment_of(tmp_path, mode=mode, stop={"steps": 1_600}) as experiment:
        for record in experiment:
            if not killed_at and record["steps"] >= 300:
                killed_at = record["steps"]
                cluster.remove_node(home_of(cluster, "Simulator"), allow_graceful=False)
    assert 300 <= killed_at < 800
    assert experiment.progress.steps >= 1_600
    assert experiment.stopped_by == "steps"
    assert set(learned(experiment)) == {"0", "1", "2"}, "of those that came after them nobody has played"
    line = told(caplog)[-1]
    assert re.match(r"no room for 2 simulator\(s\) with 1 CPU each: the cluster has \d node\(s\) with \d CPU", line)
    assert "goes on with 1 of 3" in line


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_simulators_come_and_go_as_nodes_do(
    mode: str, make_cluster: MakeCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A run begins where there is room for one of three; a node brings the others, goes, and another brings them again.

    The learner itself looks whether the fragments of a stream follow each other.
    """
    caplog.set_level(logging.INFO)
    cluster = make_cluster(2)
    node: Any = None
    times, enough = 0, 0.0
    with experiment_of(tmp_path, mode=mode, stop={"steps": 100_000}) as experiment:
        for record in experiment:
            absent = len(experiment._crew.players.absent())
            if node is None and absent == 2 and len(told(caplog)) > times:
                node, times, enough = cluster.add_node(num_cpus=2, object_store_memory=STORE["ray"]), times + 1, 0.0
            elif node is not None and absent == 0 and not enough:
                enough = record["steps"] + 600
            elif node is not None and enough and record["steps"] > enough:
                if times == 2:
                    experiment.stop("seen")
                    continue
                cluster.remove_node(node, allow_graceful=False)
                node = None
    fragments = learned(experiment)
    assert sum(count >= 3 for count in fragments.values()) == 5, f"those who came were learned from: {fragments}"
    assert caplog.text.count("has found room") >= 4


@pytest.mark.timeout(300)
def test_simulators_make_room_for_a_learner_that_has_lost_its_node(
    make_cluster: MakeCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The learner goes on from its checkpoint where they were; they begin anew on a node that joins."""
    cluster = make_cluster(0, 2, 2)
    changes: dict[str, Any] = {
        "simulators": {"count": 2, "envs": 2, "fragment_length": 10, "num_cpus": 1.0},
        "learner": {"num_cpus": 2.0},
        "checkpoint": {"every": 200},
    }
    killed_at = 0.0
    bring = calling(
        "no room for 2 simulator(s)", lambda: cluster.add_node(num_cpus=2, object_store_memory=STORE["ray"])
    )
    with bring, experiment_of(tmp_path, mode="async", stop={"steps": 3_000}, **changes) as experiment:
        for record in experiment:
            if not killed_at and record["steps"] >= 600:
                killed_at = record["steps"]
                cluster.remove_node(home_of(cluster, "LearnerActor"), allow_graceful=False)
    assert experiment.progress.steps >= 3_000
    learner, simulators = told(caplog)
    assert "no room for the learner with 2 CPU: the cluster has" in learner
    assert "no room for 2 simulator(s) with 1 CPU each" in simulators
    assert "goes on from" in caplog.text, "the learner came back from a checkpoint"


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"simulators": {"count": 2, "envs": 2, "fragment_length": 10, "num_cpus": 2.0}}, "no room for 2 simulator"),
        ({"learner": {"num_cpus": 2.0}}, "no room for the learner with 2 CPU"),
    ],
)
def test_a_run_for_which_there_is_no_room_says_so(
    changes: dict[str, Any], match: str, make_cluster: MakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seats, "PATIENCE_SECONDS", 4.0)
    make_cluster(1)
    with pytest.raises(NoRoom, match=match + ".*1 node.*add .*node, or lower"):
        list(experiment_of(tmp_path, **changes))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_replay_goes_on_without_the_fragments_of_a_lost_node(
    mode: str, make_cluster: MakeCluster, tmp_path: Path
) -> None:
    """Fragments of 130 KB lie where they were played; replay and learner look that nothing else is missing."""
    cluster = make_cluster(2, 2)
    changes: dict[str, Any] = {
        "algo": "tests.train.toys:LEDGER",
        "simulators": {"count": 3, "envs": 64, "fragment_length": 50, "num_cpus": 1.0},
        "env_settings": {},
        "checkpoint": {"every": 10_000},
    }
    killed: list[float] = []
    with experiment_of(tmp_path, mode=mode, stop={"steps": 100_000}, **changes) as experiment:
        for record in experiment:
            if len(killed) < 2 and record["steps"] >= 15_000 * (1 + len(killed)):
                killed.append(record["steps"])
                homes = [node for node in cluster.list_all_nodes() if node is not cluster.head_node]
                cluster.remove_node(homes[0], allow_graceful=False)
                cluster.add_node(num_cpus=2, object_store_memory=STORE["ray"])
    assert len(killed) == 2
    assert experiment.progress.steps >= 100_000 - 2 * 3 * 64 * 50, "what was lost is fragments, and no more"
    state = load_checkpoint(experiment.last_checkpoint or "")
    replay, learner = state["drawing"]["state"], state["learner"]["learner"]
    assert replay["steps"] >= experiment.progress.steps
    assert replay["given"] == replay["back"] == learner["count"]
