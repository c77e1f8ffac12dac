"""The learner actor's class, called directly: versions, published weights, checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlray.algos.dqn import DQNConfig
from rlray.algos.types import Fragment
from rlray.core.resources import count_cpus
from rlray.train.checkpoint import CheckpointError, load_checkpoint
from rlray.train.learner import LearnerActor, LearnerSetup
from rlray.train.saving import finish_checkpoint
from rlray.train.simulator import Simulator, SimulatorSetup
from rlray.train.sources import AlgorithmSource, EnvSource

CARTPOLE = EnvSource.of("CartPole-v1", {})
DQN = AlgorithmSource("dqn", DQNConfig(network="mlp", warmup_steps=64, batch_size=16, replay_capacity=1000))


def make(num_cpus: float = 1, num_gpus: float = 0, **more: Any) -> LearnerActor:
    learner = LearnerActor(LearnerSetup(CARTPOLE.spec(), DQN, 1, 1000, num_cpus, num_gpus, **more))
    learner.start()
    return learner


@pytest.fixture(scope="module")
def fragments() -> list[Fragment]:
    """Five of 64 steps each: the first fills the warm-up, each of the others is worth 32 updates."""
    simulator = Simulator(SimulatorSetup(CARTPOLE, DQN, 0, 0, 0, 1, 4, 16, 1))
    weights, _ = make().weights()
    return [simulator.rollout(weights, 0, 0)[0] for _ in range(5)]


def test_the_version_counts_gradient_steps(fragments: list[Fragment]) -> None:
    learner = make()
    assert learner.weights()[1] == 0
    version = 0
    for fragment in fragments:
        report, _ = learner.learn(fragment, publish=False)
        version += report.updates
        assert report.version == version
        assert "updates" not in report.metrics
        assert report.busy_seconds > 0
        assert report.idle_seconds >= 0
    assert version > 100
    assert learner.weights()[1] == version


def test_weights_are_published_when_asked_for_and_new(fragments: list[Fragment]) -> None:
    learner = make()
    first, _ = learner.weights()
    report, weights = learner.learn(fragments[0], publish=False)
    assert not report.published
    assert weights is None
    report, weights = learner.learn(fragments[1], publish=True)
    assert report.published
    assert weights is not None
    assert any(not np.array_equal(weights[name], first[name]) for name in first)
    kept = {name: array.copy() for name, array in weights.items()}
    learner.learn(fragments[2], publish=False)
    assert all(np.array_equal(weights[name], kept[name]) for name in kept), "later updates do not change them"


def test_unchanged_weights_are_not_published_again(fragments: list[Fragment]) -> None:
    warm_up_only = AlgorithmSource("dqn", DQNConfig(network="mlp"))
    learner = LearnerActor(LearnerSetup(CARTPOLE.spec(), warm_up_only, 1, 1000, 1, 0))
    learner.start()
    learner.weights()
    report, weights = learner.learn(fragments[0], publish=True)
    assert (report.published, weights, report.updates) == (False, None, 0)


def test_a_checkpoint_holds_all_that_evaluation_and_training_need(fragments: list[Fragment], tmp_path: Path) -> None:
    learner = make()
    for fragment in fragments:
        learner.learn(fragment, publish=False)
    simulator = {"obs": np.arange(3.0)}
    draft = learner.save(str(tmp_path / "step_5"), {"steps": 320, "episodes": 7}, None, simulator, None)
    assert not (tmp_path / "step_5").exists()
    path = finish_checkpoint(draft).path
    weights, version = learner.weights()
    saved = load_checkpoint(path)
    assert saved["run"] == {"steps": 320, "episodes": 7}
    assert saved.keys() == {"run", "weights", "learner", "replay", "simulator_0"}
    assert saved["simulator_0"]["obs"].tolist() == [0, 1, 2]
    assert saved["weights"].keys() == weights.keys()
    assert all(np.array_equal(saved["weights"][name], weights[name]) for name in weights)
    fresh = make()
    assert fresh.load(path) is True, "with its replay"
    again, same_version = fresh.weights()
    assert same_version == version > 0
    assert all(np.array_equal(again[name], weights[name]) for name in weights)
    for fragment in fragments:
        one, two = learner.learn(fragment, publish=False)[0], fresh.learn(fragment, publish=False)[0]
        assert (one.metrics, one.updates, one.version) == (two.metrics, two.updates, two.version)


def test_the_replay_may_be_left_out(fragments: list[Fragment], tmp_path: Path) -> None:
    learner = make(keep_replay=False)
    for fragment in fragments:
        learner.learn(fragment, publish=False)
    path = finish_checkpoint(learner.save(str(tmp_path / "step_5"), {}, None)).path
    assert load_checkpoint(path).keys() == {"run", "weights", "learner"}
    fresh = make()
    assert fresh.load(path) is False
    assert fresh.learn(fragments[0], publish=False)[0].updates == 32, "64 observations are the warm-up"


def test_the_weights_of_an_evaluation_under_way_are_kept(fragments: list[Fragment], tmp_path: Path) -> None:
    learner = make()
    then, _ = learner.weights()
    for fragment in fragments:
        learner.learn(fragment, publish=False)
    saved = load_checkpoint(finish_checkpoint(learner.save(str(tmp_path / "c"), {}, then)).path)
    assert all(np.array_equal(saved["evaluated"][name], then[name]) for name in then)
    assert any(not np.array_equal(saved["weights"][name], then[name]) for name in then)


def test_a_missing_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        make().load(str(tmp_path / "nothing"))


def test_same_setup_same_bits(fragments: list[Fragment]) -> None:
    one, two = make(), make()
    for fragment in fragments:
        left, right = one.learn(fragment, publish=False)[0], two.learn(fragment, publish=False)[0]
        assert left.metrics == right.metrics
    weights, others = one.weights()[0], two.weights()[0]
    assert all(np.array_equal(weights[name], others[name]) for name in weights)


@pytest.mark.parametrize(("cpus", "threads"), [(0.5, 1), (1, 1), (2, min(2, count_cpus())), (1000, count_cpus())])
def test_threads_follow_from_the_cpus(cpus: float, threads: int) -> None:
    before = torch.get_num_threads()
    try:
        learner = LearnerActor(LearnerSetup(CARTPOLE.spec(), DQN, 1, 1000, cpus, 0))
        assert learner.start().startswith(f"learner: cpu, {threads} thread(s), ")
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_it_takes_a_gpu_if_there_is_one() -> None:
    line = LearnerActor(LearnerSetup(CARTPOLE.spec(), DQN, 1, 1000, 1, 1)).start()
    assert line.startswith("learner: cuda" if torch.cuda.is_available() else "learner: cpu")
