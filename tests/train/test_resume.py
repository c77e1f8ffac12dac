"""A resume is a resume: a run that was left, killed or interrupted ends in the same bits as one that was not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlray.algos.types import Metrics
from rlray.train import Experiment
from rlray.train.checkpoint import load_checkpoint
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
PIXELS = {**DQN["hyperparameters"], "network": "small", "replay_capacity": 200, "samples_per_step": 1.0}
CASES: dict[str, dict[str, Any]] = {
    "toy": {"env_settings": {"limit": 9}},
    "toy, episodes cut": {"checkpoint": {"every": EVERY, "episodes": "cut", "keep": 9}},
    "toy without a state": {"env": "tests.train.toys:Together"},
    "dqn on CartPole": {**DQN, "env": "CartPole-v1"},
    "dqn on LunarLander": {
        **DQN,
        "env": "LunarLander-v3",
        "simulators": {"count": 1, "envs": 4, "fragment_length": 10},
    },
    "dqn on the bundled Pong": {**DQN, "env": "rlray/Pong-v0"},
    "dqn on pixels": {**DQN, "hyperparameters": PIXELS, "env": "rlray/Pong-v0", "env_settings": {"obs": "pixels"}},
    "dqn on Atari": {**DQN, "hyperparameters": PIXELS, "env": "ALE/Pong-v5"},
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


def leave_at(steps: int) -> Callable[[Experiment, Metrics], None]:
    def watch(experiment: Experiment, record: Metrics) -> None:
        if record["steps"] >= steps:
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
    """Left twice: at a step that is no checkpoint's, and before the first checkpoint of the second part."""
    config = config_of(case)
    whole = run(**config)
    part = run(leave_at(400), **config)
    assert list(part.folder.iterdir()), "there must be a checkpoint to go on from"
    again = run(leave_at(440), resume=part, **config)
    resumed = run(resume=again, **config)
    assert_equal(whole, resumed)


def test_a_run_left_before_its_first_checkpoint_begins_again(run: Run) -> None:
    config = config_of("toy")
    part = run(leave_at(80), **config)
    assert not list(part.folder.iterdir())
    assert_equal(run(**config), run(resume=part, **config))
