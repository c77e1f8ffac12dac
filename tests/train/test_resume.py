"""A resume is a resume: a run that was left, killed or interrupted ends in the same bits as one that was not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlray.algos.types import Metrics
from rlray.train import Experiment
from rlray.train.checkpoint import load_checkpoint
from rlray.train.checkpoint_folder import latest_checkpoint
from tests.train.conftest import Leave, Played
from tests.train.test_state_tree import same

Run = Callable[..., Played]

EVERY = 160  # steps between checkpoints
DQN: dict[str, Any] = {
    "algo": "dqn",
    "hyperparameters": {
        "network": "mlp",
        "batch_size": 16,
        "samples_per_step": 2.0,
        "replay_capacity": 400,
        "warmup_steps": 60,
        "learning_rate": {"points": [[0, 1e-3], [1, 1e-4]], "of": "run"},
        "target_update_every": 10,
        "epsilon": [[0, 1.0], [400, 0.05]],
        "n_step": 3,
    },
    "simulators": {"count": 2, "envs": 2, "fragment_length": 10},
    "stop": {"steps": 640},
}
PIXELS = {**DQN["hyperparameters"], "network": "small", "replay_capacity": 200, "samples_per_step": 0.5}
RAINBOW = {
    **{name: value for name, value in DQN["hyperparameters"].items() if name != "epsilon"},
    "network": {"kind": "mlp", "hidden": [16], "dueling": True, "noisy": True},
    "distribution": "categorical",
    "v_min": -10.0,
    "v_max": 60.0,
    "prioritized": True,
    "epsilon": 0.0,
}
APEX = {
    **{name: value for name, value in DQN["hyperparameters"].items() if name != "epsilon"},
    "batches_per_draw": 3,
    "samples_per_step": 4.0,
}
PPO: dict[str, Any] = {
    "algo": "ppo",
    "hyperparameters": {"rollout_steps": 200, "minibatch_size": 50, "normalize_reward": True, "normalize_obs": True},
    "simulators": {"count": 2, "envs": 2, "fragment_length": 10},
    "stop": {"steps": 640},
}
ES: dict[str, Any] = {
    "algo": "es",
    "hyperparameters": {
        "hidden": [8],
        "population": 8,
        "episodes": 2,
        "normalize_obs": True,
        "noise_size": 50_000,
        "learning_rate": {"points": [[0, 0.1], [1, 0.01]], "of": "run"},
    },
    "simulators": {"count": 3, "envs": 2},
    "stop": {"steps": 1600},
}
PQN: dict[str, Any] = {
    "algo": "pqn",
    "hyperparameters": {"rollout_steps": 200, "minibatch_size": 50, "epsilon": [[0, 1.0], [400, 0.1]]},
    "simulators": {"count": 2, "envs": 2, "fragment_length": 10},
    "stop": {"steps": 640},
}
SAC: dict[str, Any] = {
    "algo": "sac",
    "env": "Pendulum-v1",
    "hyperparameters": {
        "network": {"kind": "mlp", "hidden": [16, 16]},
        "batch_size": 16,
        "samples_per_step": 4.0,
        "replay_capacity": 400,
        "warmup_steps": 60,
        "random_steps": 200,
        "learning_rate": {"points": [[0, 1e-3], [1, 1e-4]], "of": "run"},
        "n_step": 3,
        "policy_every": 2,
    },
    "simulators": {"count": 2, "envs": 2, "fragment_length": 10},
    "stop": {"steps": 640},
}
SOURCES = [  # of different T and B
    {"name": "wide", "count": 2, "envs": 2, "fragment_length": 10},
    {"name": "long", "envs": 3, "fragment_length": 17, "env_settings": {"sutton_barto_reward": True}},
]
CASES: dict[str, dict[str, Any]] = {
    "toy": {"env_settings": {"limit": 9}},
    "toy, episodes cut": {"checkpoint": {"every": EVERY, "episodes": "cut", "keep": 9}},
    "toy without a state": {"env": "tests.train.toys:Together"},
    "dqn on CartPole": {**DQN, "env": "CartPole-v1"},
    "rainbow on CartPole": {**DQN, "hyperparameters": RAINBOW, "env": "CartPole-v1"},
    "apex on CartPole": {**DQN, "algo": "apex", "hyperparameters": APEX, "env": "CartPole-v1"},
    "ppo on CartPole": {**PPO, "env": "CartPole-v1"},
    "impala on two sources": {
        **PPO,
        "algo": "impala",
        "hyperparameters": {
            "rollout_steps": 200,
            "minibatch_size": 50,
            "normalize_reward": True,
            "optimizer": "rmsprop",
        },
        "env": "CartPole-v1",
        "simulators": SOURCES,
    },
    "appo on CartPole": {**PPO, "algo": "appo", "env": "CartPole-v1"},
    "ppo with a memory": {
        **PPO,
        "hyperparameters": {**PPO["hyperparameters"], "network": {"recurrent": "lstm", "recurrent_size": 8}},
        "env": "CartPole-v1",
    },
    "impala with a memory": {
        **PPO,
        "algo": "impala",
        "hyperparameters": {"rollout_steps": 200, "minibatch_size": 50, "network": {"recurrent": "gru"}},
        "env": "CartPole-v1",
        "simulators": SOURCES,
    },
    "pqn on CartPole": {**PQN, "env": "CartPole-v1"},
    "es on CartPole": {**ES, "env": "CartPole-v1"},
    "dqn on two sources": {**DQN, "env": "CartPole-v1", "simulators": SOURCES},
    "ppo on two sources": {**PPO, "env": "CartPole-v1", "simulators": SOURCES},
    "ppo on the bundled Pong's pixels": {
        **PPO,
        "hyperparameters": {"rollout_steps": 200, "minibatch_size": 50, "normalize_value": True, "network": "small"},
        "env": "rlray/Pong-v0",
        "env_settings": {"obs": "pixels"},
    },
    "sac on Pendulum": SAC,
    "dqn on LunarLander": {
        **DQN,
        "env": "LunarLander-v3",
        "simulators": {"count": 1, "envs": 4, "fragment_length": 10},
    },
    "dqn on the bundled Pong": {**DQN, "env": "rlray/Pong-v0"},
    "dqn on pixels": {**DQN, "hyperparameters": PIXELS, "env": "rlray/Pong-v0", "env_settings": {"obs": "pixels"}},
    "dqn on Atari": {
        **DQN,
        "hyperparameters": PIXELS,
        "env": "ALE/Pong-v5",
        "env_settings": {"img_height": 42, "img_width": 42},
    },
}


def config_of(case: str, **changes: Any) -> dict[str, Any]:
    common = {
        "checkpoint": {"every": EVERY, "keep": 9},
        "eval": {"every": 240, "episodes": 2, "final_episodes": 2},
        "mode": "sync",
    }
    if "Atari" in case:
        pytest.importorskip("ale_py")
    if "Pong" in case or "pixels" in case or "Atari" in case:
        common["eval"]["every"] = None  # type: ignore[index]
        common["eval"]["final_episodes"] = 0  # type: ignore[index]
    return {**common, **CASES[case], **changes}


def leave_at(steps: int, saved: bool = True) -> Callable[[Experiment, Metrics], None]:
    """Leave after ``steps``, and if ``saved`` not before a checkpoint is whole."""

    def watch(experiment: Experiment, record: Metrics) -> None:
        if record["steps"] >= steps and (experiment.last_checkpoint is not None or not saved):
            raise Leave

    return watch


def everything(path: str | Path) -> dict[str, Any]:
    """All that a checkpoint holds, but for what the clock had to do with, and where the records end in files."""
    state = load_checkpoint(path)
    progress = state["run"]["progress"]
    for timed in (progress, *progress["reports"], *progress["stats"]):
        for name in [name for name in timed if name.endswith("seconds")]:
            del timed[name]
    state["run"].pop("records")
    return state


def assert_equal(one: Played, two: Played) -> None:
    assert one.repeatable() == two.repeatable()
    last = [played.experiment.last_checkpoint for played in (one, two)]
    assert None not in last
    (left, right) = (everything(path or "") for path in last)
    assert left.keys() == right.keys()
    for part in left:
        assert same(left[part], right[part]), f"{part} differs"
    assert one.experiment.last_evaluation == two.experiment.last_evaluation


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_was_left_and_resumed_equals_one_that_was_not(run: Run, case: str) -> None:
    """Left at a step that is no checkpoint's."""
    config = config_of(case)
    part = run(leave_at(400), **config)
    assert list(part.folder.iterdir()), "there must be a checkpoint to go on from"
    assert_equal(run(**config), run(resume=part, **config))


def test_a_run_that_was_left_twice(run: Run) -> None:
    """The second time before the first checkpoint of its second part."""
    config = config_of("toy")
    again = run(leave_at(440), resume=run(leave_at(400), **config), **config)
    assert_equal(run(**config), run(resume=again, **config))


def test_a_run_left_before_its_first_checkpoint_begins_again(run: Run) -> None:
    config = config_of("toy")
    part = run(leave_at(80, saved=False), **config)
    assert not list(part.folder.iterdir())
    assert_equal(run(**config), run(resume=part, **config))


def test_in_mode_async_a_resume_is_a_resume(run: Run) -> None:
    """Learner, replay and counters go on; simulators begin a life of their own; no step is recorded twice."""
    config = config_of("toy", mode="async", stop={"steps": 1600}, hyperparameters={"seconds": 0.01})
    part = run(leave_at(800), **config)
    left = everything(latest_checkpoint(part.folder) or "")
    resumed = run(resume=part, **config)
    state = everything(resumed.experiment.last_checkpoint or "")
    then, now = left["learner"]["learner"], state["learner"]["learner"]
    assert now["count"] == state["learner"]["version"] == 1600 // 40
    assert {stream: now["fragments"][stream] for stream in then["fragments"]} == then["fragments"], (
        "their streams ended"
    )
    assert len(now["fragments"]) == len(then["fragments"]) + 2
    assert state["run"]["fleet"]["lives"] == [1, 1]
    steps = [record["steps"] for record in resumed.records if "learner/updates" in record]
    assert steps == sorted(set(steps))
    evaluated = [record["steps"] for record in resumed.records if "eval/return_mean" in record]
    assert len(evaluated) == len(set(evaluated))
    episodes = resumed.of("train/episodes")
    assert episodes == sorted(episodes)


def test_an_evaluation_under_way_is_not_lost(run: Run) -> None:
    """Left with a checkpoint that was made while it went on: the resumed run has its result, once, for its step."""
    config = config_of(
        "toy",
        mode="async",
        stop={"steps": 1200},
        env_settings={"length": 10, "slow_walk": 1.0},
        hyperparameters={"seconds": 0.02},
        eval={"every": 240, "episodes": 1, "final_episodes": 0},
    )
    found: list[dict[str, Any]] = []

    def leave(experiment: Experiment, record: Metrics) -> None:
        if experiment.last_checkpoint and (saved := everything(experiment.last_checkpoint))["run"]["evaluating"]:
            found.append(saved)
            raise Leave

    part = run(leave, **config)
    (saved,) = found
    asked = saved["run"]["evaluating"]
    assert "evaluated" in saved
    results = [record for record in run(resume=part, **config).records if "eval/return_mean" in record]
    assert [record["eval/return_mean"] for record in results if record["steps"] == asked["step"]] == [1.0]


def test_an_environment_that_does_not_come_back_begins_anew(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """It counts its episodes, which no seed brings back: the run says so, and nothing wrong is learned."""
    config = config_of("toy", env="tests.train.toys:Counted")
    part = run(leave_at(400), **config)
    with caplog.at_level(logging.WARNING):
        resumed = run(resume=part, **config)
    lines = [record.getMessage() for record in caplog.records if "did not come back" in record.getMessage()]
    assert [line[:12] for line in lines] == ["simulator 0:", "simulator 1:"]
    assert all("checkpoint.episodes: cut makes a resume exact" in line for line in lines)
    fragments = everything(resumed.experiment.last_checkpoint or "")["learner"]["learner"]["fragments"]
    assert len(fragments) == 4, "two streams before, two after"
    assert resumed.experiment.progress.steps == 800


def test_cutting_makes_that_exact(run: Run) -> None:
    config = config_of("toy, episodes cut", env="tests.train.toys:Counted")
    assert_equal(run(**config), run(resume=run(leave_at(400), **config), **config))


def test_without_the_replay_the_run_says_so(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    config = config_of("dqn on CartPole", checkpoint={"every": EVERY, "replay": False})
    part = run(leave_at(400), **config)
    with caplog.at_level(logging.INFO, "rlray.train"):
        resumed = run(resume=part, **config)
    assert "which holds no replay: it fills anew" in caplog.text
    assert resumed.experiment.progress.steps == 640
