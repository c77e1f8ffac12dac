"""A replay in an actor of its own: nothing is lost or taken twice on any of its ways, whoever is killed."""

from __future__ import annotations

import logging
import os
import random
import signal
from collections.abc import Callable
from typing import Any

import pytest

from rlray.algos.types import Metrics
from rlray.train import Experiment
from rlray.train.checkpoint import load_checkpoint
from rlray.train.failures import LearnerFailed, TrainingError
from tests.train.conftest import Played
from tests.train.test_recovery import processes
from tests.train.test_resume import assert_equal, config_of, leave_at

Run = Callable[..., Played]
LEDGER: dict[str, Any] = {"algo": "tests.train.toys:LEDGER", "checkpoint": {"every": 160, "keep": 9}}
both_modes = pytest.mark.parametrize("mode", ["sync", "async"])


def counts(played: Played) -> tuple[dict[str, Any], int]:
    """What the replay and the learner counted, in the last checkpoint."""
    state = load_checkpoint(played.experiment.last_checkpoint or "")
    assert "replay" in state
    return state["drawing"]["state"], state["learner"]["learner"]["count"]


@both_modes
def test_every_fragment_goes_in_once_and_every_update_is_done_and_comes_back(run: Run, mode: str) -> None:
    """800 steps are 20 fragments of 40; the actors themselves check the order."""
    played = run(mode=mode, **LEDGER)
    replay, learned = counts(played)
    assert played.experiment.progress.steps == replay["steps"] == 800
    assert replay["given"] == replay["back"] == learned == played.experiment.progress.version == 20 * 5
    assert played.of("replay/fill")[-1] == 0.5
    assert replay["numbers"] == list(range(-8007, -7999)), "each policy knew its place, and completed its fragments"


def test_in_mode_sync_equal_runs_are_equal_also_when_resumed(run: Run) -> None:
    config = {**config_of("toy"), **LEDGER}
    whole, part = run(**config), run(leave_at(400), **config)
    assert_equal(whole, run(**config))
    assert_equal(whole, run(resume=part, **config))


def test_without_a_ratio_the_learner_goes_on_by_itself(run: Run) -> None:
    """Slow simulators: far more updates than fragments; checkpoints and the end do not wait for ever."""
    settings = {"due": None, "seconds": 0.002}
    played = run(mode="async", hyperparameters=settings, env_settings={"sleep": 0.002}, **LEDGER)
    replay, learned = counts(played)
    assert replay["steps"] == played.experiment.progress.steps == 800
    assert replay["given"] == replay["back"] == learned > 200


def test_mode_sync_needs_a_ratio(run: Run) -> None:
    with pytest.raises(
        TrainingError, match=r"mode: sync needs a fixed number .* set hyperparameters\.samples_per_step"
    ):
        run(mode="sync", hyperparameters={"due": None}, **LEDGER)


@pytest.mark.parametrize("victim", ["ReplayActor", "LearnerActor"])
def test_in_mode_sync_no_death_shows(run: Run, victim: str, caplog: pytest.LogCaptureFixture) -> None:
    """SIGKILL of either at step 400: both begin anew from the checkpoint, in the bits of a run without."""
    config, killed = {**config_of("toy"), **LEDGER}, list[int]()

    def kill(experiment: Experiment, record: Metrics) -> None:
        if record["steps"] == 400 and not killed:
            killed.extend(processes(victim))
            os.kill(killed[0], signal.SIGKILL)

    with caplog.at_level(logging.INFO, "rlray.train"):
        played = run(kill, **config)
    assert len(killed) == 1
    assert f"the {'replay' if victim == 'ReplayActor' else 'learner'} died" in caplog.text
    assert caplog.text.count("a fresh one goes on from /") == 1
    assert_equal(run(**config), played)


def test_whoever_is_killed_in_mode_async_the_books_are_right(run: Run) -> None:
    """Simulators, replay and learner by turns, at random records."""
    rng, victims = random.Random(1), ["Simulator", "ReplayActor", "LearnerActor", "Simulator", "ReplayActor"]

    def kill(experiment: Experiment, record: Metrics) -> None:
        if victims and experiment.last_checkpoint and rng.random() < 0.3 and (living := processes(victims[0])):
            victims.pop(0)
            os.kill(rng.choice(living), signal.SIGKILL)

    settings = {"seconds": 0.005}
    played = run(kill, mode="async", stop={"steps": 2400}, hyperparameters=settings, **LEDGER)
    replay, learned = counts(played)
    assert not victims
    assert played.experiment.progress.steps == replay["steps"] == 2400
    assert replay["given"] == replay["back"] == learned == 60 * 5


def test_a_replay_that_dies_again_and_again_ends_the_run(run: Run) -> None:
    def kill(experiment: Experiment, record: Metrics) -> None:
        for pid in processes("ReplayActor"):
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(LearnerFailed, match=r"the replay died .*SIGKILL.*, 3 times in a row .*there is no checkpoint"):
        run(kill, **{**LEDGER, "checkpoint": {"every": None}})


def test_a_checkpoint_may_leave_out_what_the_replay_holds(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    config = config_of("apex on CartPole", checkpoint={"every": 160, "replay": False})
    part = run(leave_at(400), **config)
    with caplog.at_level(logging.INFO, "rlray.train"):
        resumed = run(resume=part, **config)
    assert "which holds no replay: it fills anew" in caplog.text
    assert resumed.experiment.progress.steps == 640
