"""A learner that dies: the run goes on from its last checkpoint by itself. Real processes, SIGKILL."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from rlray.algos.types import Metrics
from rlray.train import Experiment
from rlray.train.failures import LearnerFailed
from rlray.util.state import list_actors
from tests.train.conftest import Played
from tests.train.test_resume import assert_equal, config_of

Run = Callable[..., Played]


def processes(kind: str) -> list[int]:
    """The processes of the living actors of a class."""
    return [actor["pid"] for actor in list_actors() if actor["class_name"] == kind and actor["state"] == "ALIVE"]


@pytest.mark.parametrize("case", ["toy", "toy, episodes cut", "dqn on CartPole", "apex on CartPole"])
def test_in_mode_sync_nothing_shows_it(run: Run, case: str, caplog: pytest.LogCaptureFixture) -> None:
    """Killed twice, with a checkpoint between: records, weights and all the rest are those of a run without deaths."""
    config = config_of(case)
    killed: list[int] = []

    def kill(experiment: Experiment, record: Metrics) -> None:
        if len(killed) < 2 and record["steps"] == (400, 560)[len(killed)]:
            (pid,) = processes("LearnerActor")
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)

    with caplog.at_level(logging.INFO, "rlray.train"):
        played = run(kill, **config)
    assert len(set(killed)) == 2
    assert_equal(run(**config), played)
    assert caplog.text.count("a fresh one goes on from /") == 2


def test_simulators_go_on_in_mode_async(run: Run) -> None:
    """Their processes stay, the counters fall back to the checkpoint, and no step is recorded twice."""
    seen: list[list[int]] = []
    fell_back: list[float] = []

    def kill(experiment: Experiment, record: Metrics) -> None:
        seen.append(sorted(processes("Simulator")))
        if record["steps"] >= 600 and len(fell_back) == 0:
            fell_back.append(record["steps"])
            os.kill(processes("LearnerActor")[0], signal.SIGKILL)

    played = run(kill, mode="async", checkpoint={"every": 200}, hyperparameters={"seconds": 0.02}, stop={"steps": 2000})
    assert fell_back
    assert seen[0] == seen[-1]
    assert len(seen[0]) == 2
    steps = played.of("steps")
    assert steps == sorted(set(steps))
    assert steps[-1] == played.experiment.progress.steps == 2000


def test_before_the_first_checkpoint_it_begins_again(run: Run, tmp_path: Path) -> None:
    config = config_of("toy")
    once = {"die_at": 3, "once": str(tmp_path / "once")}
    assert_equal(run(**config), run(**config_of("toy", hyperparameters=once)))
    assert (tmp_path / "once").exists()


@pytest.mark.parametrize(("every", "kept"), [(160, "the last checkpoint is .*step_000000160"), (None, "there is no")])
def test_one_that_dies_again_and_again_ends_the_run(run: Run, every: int | None, kept: str) -> None:
    message = rf"the learner died .*SIGKILL.*, 3 times in a row without a checkpoint between; {kept}"
    with pytest.raises(LearnerFailed, match=message):
        run(hyperparameters={"die_at": 6}, checkpoint={"every": every})


def test_its_death_at_the_end_costs_no_result(run: Run) -> None:
    """Killed with the last record, before the last checkpoint and the final evaluation."""
    killed: list[int] = []

    def kill(experiment: Experiment, record: Metrics) -> None:
        if record["steps"] == 800 and not killed:
            killed.extend(processes("LearnerActor"))
            os.kill(killed[0], signal.SIGKILL)

    config = config_of("toy")
    played = run(kill, **config)
    assert killed
    assert_equal(run(**config), played)
