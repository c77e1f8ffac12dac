"""Runs whose rounds are played by tasks: real processes, real kills."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlray.algos.types import Metrics
from rlray.train import Experiment
from rlray.train.failures import EnvironmentFailed, NotFiniteFound, SimulatorFailed
from rlray.util.state import list_tasks
from tests.train.conftest import Played
from tests.train.test_recovery import processes
from tests.train.test_resume import ES, assert_equal, everything, leave_at

Run = Callable[..., Played]

CORRIDOR: dict[str, Any] = {**ES, "env": "tests.train.toys:Corridor", "eval": {"every": None, "final_episodes": 2}}


def busy() -> list[int]:
    """The workers that play at the moment."""
    return [task["worker_pid"] for task in list_tasks() if task["name"] == "play_trials" and task["state"] == "RUNNING"]


def weights_of(played: Played) -> Any:
    return everything(played.experiment.last_checkpoint or "")["weights"]


class Killer(threading.Thread):
    """Kills a worker in the midst of a task, again and again, until it is told to stop."""

    def __init__(self, most: int) -> None:
        super().__init__(daemon=True)
        self.killed: list[int] = []
        self.most, self.over = most, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.1) and len(self.killed) < self.most:
            for pid in busy()[:1]:
                os.kill(pid, signal.SIGKILL)
                self.killed.append(pid)

    def __enter__(self) -> Killer:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.join()


def test_workers_that_are_killed_change_nothing(run: Run) -> None:
    """In the midst of their tasks, in mode sync: records, weights and all the rest are those of a quiet run."""
    config = {**CORRIDOR, "env_settings": {"sleep": 0.002}, "stop": {"steps": 800}}
    with Killer(most=4) as killer:
        played = run(**config)
    assert len(set(killer.killed)) >= 3
    assert_equal(run(**config), played)


def test_how_many_tasks_and_cpus_there_are_changes_nothing(run: Run) -> None:
    """But for what is counted by tasks."""
    one, other = (
        run(**{**CORRIDOR, "simulators": {"count": count, "envs": envs, "num_cpus": cpus}})
        for count, envs, cpus in ((1, 8, 3.0), (100, 1, 0.5))
    )
    assert len(one.experiment._crew.players) == 1
    assert len(other.experiment._crew.players) == 4, "one for each pair"
    assert str(weights_of(one)) == str(weights_of(other))
    assert one.of("train/return_mean") == other.of("train/return_mean")
    assert one.of("learner/grad_norm") == other.of("learner/grad_norm")


def test_in_mode_async_it_learns_and_resumes(run: Run) -> None:
    """Also where workers and the learner are killed, and with tasks that overlap generations."""
    killed: list[int] = []

    def kill(experiment: Experiment, record: Metrics) -> None:
        if len(killed) == 3 and experiment.last_checkpoint:
            killed.append(processes("LearnerActor")[0])
            os.kill(killed[-1], signal.SIGKILL)
        elif len(killed) < 3 and (pids := busy()):
            killed.append(pids[0])
            os.kill(pids[0], signal.SIGKILL)

    config = {**CORRIDOR, "mode": "async", "env_settings": {"sleep": 0.001}, "checkpoint": {"every": 400}}
    played = run(kill, **{**config, "stop": {"steps": 3000}})
    assert len(killed) == 4
    resumed = run(resume=played, **{**config, "stop": {"steps": 4000}})
    steps = [record["steps"] for record in resumed.records if "learner/updates" in record]
    assert steps == sorted(set(steps))
    assert resumed.experiment.progress.steps >= 4000
    state = everything(resumed.experiment.last_checkpoint or "")
    assert state["learner"]["learner"]["updates"] == resumed.experiment.progress.version


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_an_environment_that_raises_once_costs_one_attempt(
    run: Run, mode: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"fail": "step", "fail_at": 90, "once": str(tmp_path / "once")}
    with caplog.at_level(logging.WARNING):
        played = run(**{**CORRIDOR, "mode": mode, "env_settings": settings})
    assert played.experiment.progress.steps >= CORRIDOR["stop"]["steps"]
    assert (
        caplog.text.count("the task is run again with other seeds (failure 1, simulators.max_env_failures is 3)") == 1
    )
    assert "ZeroDivisionError: the corridor fell in at step" in caplog.text


def test_an_environment_that_always_raises_ends_the_run(run: Run) -> None:
    with pytest.raises(EnvironmentFailed, match=r"task \d of round 0: .*Corridor.*fell in at reset \(4 failures of"):
        run(**{**CORRIDOR, "env_settings": {"fail": "reset"}})


def test_an_environment_that_always_kills_its_process_ends_the_run(run: Run) -> None:
    with pytest.raises(
        SimulatorFailed, match=r"task \d of round 0 \(environment '.*Corridor'\) killed 4 workers in a row"
    ):
        run(**{**CORRIDOR, "env_settings": {"fail": "die"}})


def test_a_number_that_is_none_ends_the_run(run: Run) -> None:
    with pytest.raises(NotFiniteFound, match="gave an observation that is infinite or not a number"):
        run(**{**CORRIDOR, "env_settings": {"fail": "obs"}})


def test_tasks_end_with_the_run(run: Run) -> None:
    """Left while they play: nothing goes on, and the table of noise is given back."""
    config = {**CORRIDOR, "mode": "async", "env_settings": {"sleep": 0.05}, "stop": {"steps": 10_000}}
    run(leave_at(1, saved=False), **config)
    deadline = time.monotonic() + 20
    while busy() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not busy()
    assert not processes("LearnerActor")
