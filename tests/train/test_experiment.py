"""Whole experiments on real processes: order, counts, limits, evaluations and checkpoints, and that they learn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rlray
from rlray.algos.types import Metrics
from rlray.train import Experiment
from rlray.train.checkpoint import load_checkpoint
from rlray.train.checkpoint_folder import latest_checkpoint
from rlray.train.marks import Marks
from tests.train.conftest import Played

Run = Callable[..., Played]

CARTPOLE: dict[str, Any] = {
    "env": "CartPole-v1",
    "algo": "dqn",
    "hyperparameters": {
        "network": "mlp",
        "batch_size": 64,
        "samples_per_step": 16.0,
        "replay_capacity": 20_000,
        "warmup_steps": 500,
        "learning_rate": 1e-3,
        "target_update_every": 100,
        "epsilon": [[0, 1.0], [2000, 0.05]],
        "n_step": 3,
    },
    "simulators": {"count": 1, "envs": 8, "fragment_length": 8},
}


def final_state(played: Played) -> dict[str, Any]:
    assert played.experiment.last_checkpoint is not None
    return load_checkpoint(played.experiment.last_checkpoint)


def test_two_equal_runs_in_sync_mode_are_equal(run: Run) -> None:
    """DQN on CartPole, two simulators, evaluations on the way: every number and every weight, bit for bit."""
    small = {**CARTPOLE, "simulators": {"count": 2, "envs": 2, "fragment_length": 16}, "stop": {"steps": 600}}
    small["hyperparameters"] = {**CARTPOLE["hyperparameters"], "warmup_steps": 200}
    small["eval"] = {"every": 250, "episodes": 2, "final_episodes": 3}
    one, two = run(**small), run(**small)
    assert one.repeatable() == two.repeatable()
    assert len(one.of("eval/return_mean")) == 3
    assert one.of("learner/loss")
    weights, others = (final_state(played)["weights"] for played in (one, two))
    assert all(np.array_equal(weights[name], others[name]) for name in weights)


def test_another_seed_gives_another_run(run: Run) -> None:
    assert run(seed=1).repeatable() != run(seed=2).repeatable()


def test_sync_mode_takes_turns(run: Run) -> None:
    """In each round both simulators play with the weights of the round before; the learner takes them in order."""
    played = run(mode="sync")
    state = final_state(played)
    assert state["learner"]["version"] == 800 // 40
    assert state["learner"]["learner"]["fragments"] == {"0": 10, "1": 10}
    assert set(played.of("time/policy_lag")) == {0.5}, "0 for the first fragment of a round, 1 for the second"


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_every_step_is_learned_from_once(run: Run, mode: str) -> None:
    played = run(mode=mode)
    state = final_state(played)
    assert played.experiment.progress.steps == 800
    assert played.records[-1]["steps"] == 800
    assert sum(state["learner"]["learner"]["fragments"].values()) == state["learner"]["version"] == 20
    ended = played.experiment.progress.episodes.count
    assert 0 < ended <= 100
    assert state["learner"]["learner"]["reward"] == round(played.of("train/return_mean")[-1] * ended), (
        "1 for each that ended well"
    )


def test_async_simulators_never_run_far_ahead(run: Run) -> None:
    """A slow learner: each fragment was played with weights at most three fragments old; with two simulators."""
    played = run(mode="async", hyperparameters={"seconds": 0.03})
    lags = played.of("time/policy_lag")
    assert max(lags) <= 3
    assert max(lags) >= 1, "the simulators play while the learner learns"


def test_async_simulators_play_while_the_learner_learns(run: Run) -> None:
    """Learner and simulators need 0.1 s a fragment each: side by side that is much less than one after the other."""
    slow = {"env_settings": {"sleep": 0.1 / 40}, "hyperparameters": {"seconds": 0.1}, "stop": {"steps": 400}}
    one = {"simulators": {"count": 1, "envs": 4, "fragment_length": 10}}
    took = {}
    for mode in ("sync", "async"):
        played = run(mode=mode, **slow, **one)
        seconds = played.of("time/seconds")
        took[mode] = seconds[-1] - seconds[0]  # nine fragments
    assert took["sync"] > 9 * 0.2
    assert took["async"] < 0.8 * took["sync"]


def test_a_run_ends_at_its_minutes(run: Run) -> None:
    played = run(mode="async", stop={"steps": 10**9, "minutes": 4 / 60})
    assert played.experiment.stopped_by == "minutes"
    assert played.experiment.progress.steps < 10**9
    assert final_state(played)["run"]["progress"]["steps"] == played.experiment.progress.steps


def test_a_run_ends_when_an_evaluation_is_good_enough(run: Run) -> None:
    stop = {"steps": 10**6, "eval_return": 1.0}
    played = run(stop=stop, eval={"every": 160, "episodes": 2, "final_episodes": 3})
    assert played.experiment.stopped_by == "eval_return"
    assert played.experiment.progress.steps == 160
    assert played.of("eval/return_mean") == [1.0, 1.0]


def test_a_run_ends_when_the_newest_hundred_training_episodes_are_good_enough(run: Run) -> None:
    """At the same step each time, and with the final evaluation."""
    stop = {"steps": 10**6, "train_return": 1.0}
    ended = [run(stop=stop, eval={"every": None, "episodes": 2, "final_episodes": 3}) for _ in range(2)]
    for played in ended:
        assert played.experiment.stopped_by == "train_return"
        assert played.experiment.progress.episodes.count >= 100
        assert played.of("eval/return_mean") == [1.0]
    assert ended[0].experiment.progress.steps == ended[1].experiment.progress.steps < 10**4
    played = run(stop={"steps": ended[0].experiment.progress.steps + 800, "train_return": 1.01}, eval={"every": None})
    assert played.experiment.stopped_by == "steps", "1 is not 1.01"


def test_a_run_ends_when_it_is_asked_to(run: Run) -> None:
    """What has come is saved; the final evaluation is left out."""

    def ask(experiment: Experiment, record: Metrics) -> None:
        if record["steps"] >= 240:
            experiment.stop("enough")

    played = run(ask, mode="async", stop={"steps": 10**6}, eval={"every": None, "final_episodes": 5})
    assert played.experiment.stopped_by == "enough"
    assert played.of("eval/return_mean") == []
    assert final_state(played)["run"]["progress"]["steps"] == played.experiment.progress.steps < 10_000


def test_evaluations_and_checkpoints_at_their_marks(run: Run, tmp_path: Path) -> None:
    played = run(eval={"every": 240, "episodes": 2, "final_episodes": 3}, checkpoint={"every": 160, "keep": 3})
    assert [record["steps"] for record in played.records if "eval/return_mean" in record] == [240, 480, 720, 800]
    assert played.experiment.last_evaluation is not None
    assert len(played.experiment.last_evaluation.returns) == 3
    newest = latest_checkpoint(tmp_path / "checkpoints-0")
    assert str(newest) == played.experiment.last_checkpoint
    assert load_checkpoint(newest or "")["run"]["progress"]["steps"] == 800
    assert len(list((tmp_path / "checkpoints-0").iterdir())) == 3


def test_the_end_is_saved_and_evaluated_once(run: Run, tmp_path: Path) -> None:
    """Both marks fall on the last step."""
    played = run(eval={"every": 400, "episodes": 2, "final_episodes": 3}, checkpoint={"every": 400, "keep": 9})
    assert [record["steps"] for record in played.records if "eval/return_mean" in record] == [400, 800]
    assert sorted(path.name for path in (tmp_path / "checkpoints-0").iterdir()) == ["step_000000400", "step_000000800"]


def test_marks() -> None:
    marks = Marks(100)
    assert [steps for steps in range(0, 701, 30) if marks.passed(steps)] == [120, 210, 300, 420, 510, 600]
    assert marks.passed(5000)
    assert not marks.passed(5099), "several marks at once count as one"
    assert not any(Marks(None).passed(steps) for steps in range(1000))


def test_an_iteration_that_is_left_early_ends_its_actors(run: Run) -> None:
    """The check for processes and CPUs left over is the fixture's."""

    def leave(experiment: Experiment, record: Metrics) -> None:
        raise KeyError("the user's own loop failed")

    with pytest.raises(KeyError, match="the user's own loop failed"):
        run(leave, mode="async", stop={"steps": 10**6})
    assert rlray.is_initialized()


def test_it_learns_cartpole(run: Run) -> None:
    """A random policy balances for 22 steps; untrained greedy ones for 9."""
    played = run(
        **{**CARTPOLE, "mode": "sync"},
        stop={"steps": 12_000, "eval_return": 120},
        eval={"every": 1000, "episodes": 5, "final_episodes": 10},
    )
    assert played.experiment.last_evaluation is not None
    assert played.experiment.last_evaluation.mean >= 80


def test_real_pong_goes_through_all_of_it(run: Run) -> None:
    """The emulator, the preprocessing, stacked frames in the replay, updates, an evaluation, a checkpoint."""
    pytest.importorskip("ale_py")
    played = run(
        env="ALE/Pong-v5",
        env_settings={"max_frames": 400},
        algo="dqn",
        mode="async",
        hyperparameters={
            "network": "small",
            "warmup_steps": 128,
            "replay_capacity": 1000,
            "batch_size": 16,
            "samples_per_step": 1.0,
        },
        stop={"steps": 320},
        simulators={"count": 2, "envs": 2, "fragment_length": 16},
        eval={"every": None, "final_episodes": 2},
    )
    last = [record for record in played.records if "learner/updates" in record][-1]
    assert last["learner/updates"] >= 5
    assert np.isfinite(last["learner/loss"])
    assert last["replay/fill"] > 0.25
    assert played.experiment.last_evaluation is not None
    assert played.experiment.last_evaluation.lengths == [100, 100]
    assert all(-21 <= value <= 0 for value in played.experiment.last_evaluation.returns)
