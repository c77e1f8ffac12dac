"""Simulators that are killed at random moments, over and over: the run learns all the same."""

from __future__ import annotations

import itertools
import logging
import os
import random
import signal
from collections.abc import Callable

import pytest

from rlray.algos.types import Metrics
from rlray.train import Experiment
from rlray.train.fleet import MAX_DEATHS
from tests.train.conftest import Played
from tests.train.test_recovery import processes
from tests.train.test_resume import DQN

Run = Callable[..., Played]

CORRIDOR = {
    "algo": "dqn",
    "hyperparameters": {
        **DQN["hyperparameters"],
        "replay_capacity": 5000,
        "samples_per_step": 8.0,
        "epsilon": 0.5,
        "discount": 0.8,
    },
    "env_settings": {"length": 6, "limit": 12},
    "simulators": {"count": 2, "envs": 4, "fragment_length": 10},
    "eval": {"every": None, "final_episodes": 4},
}


def test_a_run_whose_simulators_are_killed_at_random_learns(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """One of them at every fourth record, but none three times before it has played.

    Straight to the end of the corridor is what there is to learn.
    """
    rng, killed, count = random.Random(0), set[int](), itertools.count(1)

    def kill(experiment: Experiment, record: Metrics) -> None:
        playing = processes("Simulator")
        slots = experiment._crew.players._slots  # type: ignore[attr-defined]
        survives = all(slot.deaths_in_row < MAX_DEATHS - 1 for slot in slots)  # a fresh one may be slow to begin
        due = record["steps"] < 3200 and next(count) % 4 == 0 and survives
        if due and playing:
            victim = rng.choice(playing)
            killed.add(victim)
            os.kill(victim, signal.SIGKILL)

    with caplog.at_level(logging.WARNING):
        played = run(kill, mode="async", stop={"steps": 4000}, **CORRIDOR)
    assert len(killed) >= 4
    told = [line for line in caplog.text.splitlines() if "its fragment is lost" in line]
    assert len(killed) - 1 <= len(told) <= len(killed), "each is noticed; the last one only if there was more to play"
    assert played.experiment.progress.steps == 4000
    assert played.experiment.last_evaluation is not None
    assert played.experiment.last_evaluation.lengths == [6] * 4
