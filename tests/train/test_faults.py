"""What breaks is survived, or ends the run with an error that says what and where. Nothing hangs, nothing is left."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlray.config import ConfigError
from rlray.config.schema import Amount, LearnerConfig, SimulatorsConfig
from rlray.exceptions import RayTaskError
from rlray.train.checkpoint import load_checkpoint
from rlray.train.failures import (
    EnvironmentFailed,
    EvaluatorFailed,
    LearnerFailed,
    ResourcesTooSmall,
    SimulatorFailed,
)
from rlray.train.plan import make_plan
from tests.train.conftest import Played

Run = Callable[..., Played]
both_modes = pytest.mark.parametrize("mode", ["sync", "async"])


@both_modes
def test_a_killed_simulator_costs_one_fragment(
    run: Run, mode: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """SIGKILL in step 35 of one simulator, in its fourth fragment: its three stay, the rest comes from a new stream."""
    with caplog.at_level(logging.WARNING):
        played = run(mode=mode, env_settings={"fail": "die", "fail_at": 34, "once": str(tmp_path / "once")})
    state = load_checkpoint(played.experiment.last_checkpoint or "")
    fragments = state["learner"]["learner"]["fragments"]
    assert played.experiment.progress.steps == 800
    assert sum(fragments.values()) == 20
    assert set(fragments) == {"0", "1", "2"}
    assert 3 in (fragments["0"], fragments["1"]), "what it had delivered was learned from"
    lines = [record.getMessage() for record in caplog.records if record.name == "rlray.train.fleet"]
    assert len(lines) == 1
    assert "SIGKILL" in lines[0]
    assert "its fragment is lost, life 1 begins" in lines[0]


def test_a_simulator_that_always_dies_ends_the_run(run: Run) -> None:
    with pytest.raises(SimulatorFailed, match=r"simulator \d \(environment 'tests.*Corridor', seed \d+\) died 3 times"):
        run(mode="async", env_settings={"fail": "die", "fail_at": 3})


@pytest.mark.parametrize(("mode", "where"), [("sync", "reset"), ("async", "step")])
def test_an_environment_that_always_raises_ends_the_run(
    run: Run, mode: str, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The fourth time; the three before are in the log."""
    told = rf"simulator \d: .*'tests.*Corridor'.*seed \d+.*{where}"
    with pytest.raises(EnvironmentFailed, match=told + r".*\(4 failures of environments, .* is 3\)") as caught:
        run(mode=mode, env_settings={"fail": where, "fail_at": 25})
    assert "ZeroDivisionError: the corridor fell in" in caught.value.user_traceback
    assert "in _misbehave" in caught.value.user_traceback
    assert caught.value.__cause__ is not None
    assert len([line for line in warnings_of(caplog) if "failure" in line]) == 3


def test_the_first_failure_can_be_the_last(run: Run) -> None:
    simulators = {"count": 2, "envs": 4, "fragment_length": 10, "num_cpus": 1.0, "max_env_failures": 0}
    with pytest.raises(EnvironmentFailed, match=r"fell in at step$") as caught:
        run(simulators=simulators, env_settings={"fail": "step", "fail_at": 25})
    assert isinstance(caught.value.__cause__, RayTaskError)


@both_modes
def test_an_environment_that_raises_costs_one_fragment(
    run: Run, mode: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Told with its seed, its step and its traceback, and begun anew with other seeds, as another stream."""
    played = run(mode=mode, env_settings={"fail": "step", "fail_at": 34, "once": str(tmp_path / "once")})
    fragments = load_checkpoint(played.experiment.last_checkpoint or "")["learner"]["learner"]["fragments"]
    assert played.experiment.progress.steps == 800
    assert set(fragments) == {"0", "1", "2"}
    assert 3 in (fragments["0"], fragments["1"]), "what it had delivered was learned from"
    (line,) = [line for line in warnings_of(caplog) if "failure" in line]
    assert re.search(r"simulator \d: .*copy \d of 4, seed \d+\) raised ZeroDivisionError in step 35", line)
    assert re.search(r"life 1 of simulator \d begins \(failure 1, simulators.max_env_failures is 3\)", line)
    assert "in _misbehave" in line


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_an_environment_that_cannot_be_made_ends_the_run_before_it_starts(run: Run) -> None:
    with pytest.raises(EnvironmentFailed, match=r"before the run: environment 'tests.train.toys:Impossible'"):
        run(env="tests.train.toys:Impossible")


def test_a_learner_that_raises(run: Run) -> None:
    with pytest.raises(LearnerFailed, match=r"ArithmeticError: this cannot be learned; there is no checkpoint yet"):
        run(hyperparameters={"fail_at": 2})


def test_a_killed_evaluator_is_replaced(run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    played = run(
        hyperparameters={"greedy_once": str(tmp_path / "once")},
        eval={"every": 400, "episodes": 3, "final_episodes": 0},
    )
    assert played.of("eval/return_mean") == [1.0, 1.0]
    assert "the evaluation of step 400 begins again" in caplog.text


def test_an_evaluation_that_always_kills_its_evaluator_is_left_out(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """Three times for each of two evaluations; the training is whole."""
    played = run(hyperparameters={"greedy_dies": True}, eval={"every": 400, "episodes": 3, "final_episodes": 2})
    assert played.of("eval/return_mean") == []
    assert played.experiment.last_evaluation is None
    assert played.experiment.progress.steps == 800
    left_out = [line for line in warnings_of(caplog) if "is left out" in line]
    assert [line.rpartition("of step ")[2] for line in left_out] == ["400 is left out", "800 is left out"]


def test_an_environment_that_raises_in_an_evaluation_costs_that_evaluation(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It raises in the fifth step of a greedy walk of six, once; a simulator never walks that straight."""
    settings = {"length": 30, "limit": 40, "fail": "straight", "fail_at": 29, "once": str(tmp_path / "once")}
    played = run(env_settings=settings, eval={"every": 400, "episodes": 3, "final_episodes": 2})
    assert [record["steps"] for record in played.records if "eval/return_mean" in record] == [800]
    (line,) = [line for line in warnings_of(caplog) if "left out" in line]
    assert "evaluator: " in line
    assert "the evaluation of step 400 is left out (failure 1" in line


def test_an_evaluator_that_raises(run: Run) -> None:
    with pytest.raises(EvaluatorFailed, match="the evaluator raised ValueError: no greedy action today"):
        run(hyperparameters={"greedy_raises": True}, eval={"every": 400, "episodes": 3})


@pytest.mark.parametrize(
    "changes",
    [
        {"simulators": {"count": 5, "num_cpus": 1.0}},
        {"learner": {"num_cpus": 3.0}},
        {"learner": {"num_gpus": 64.0}},
    ],
    ids=str,
)
def test_impossible_requests_are_refused_at_once(run: Run, changes: dict[str, Any]) -> None:
    with pytest.raises(ResourcesTooSmall, match=r"the run asks for .* but there are 4 CPU and \d+ GPU; lower"):
        run(**changes)


@pytest.mark.parametrize("env", ["CartPoel-v1", "rlray/Pnog-v0", "nowhere:Env"])
def test_unknown_environments_are_refused_at_once(run: Run, env: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown environment|no module"):
        run(env=env)


@pytest.mark.parametrize("cpus", [1.0, 2.0, 3.0, 8.0, 64.0, 0.5])
@pytest.mark.parametrize("simulators", [1, 2, 7, 63])
@pytest.mark.parametrize("gpus", [0.0, 1.0])
def test_auto_fits_any_machine_and_uses_it(cpus: float, simulators: int, gpus: float) -> None:
    plan = make_plan([SimulatorsConfig(count=simulators)], LearnerConfig(), {"CPU": cpus, "GPU": gpus})
    (share,) = plan.groups
    assert share.simulators * share.cpus + plan.learner_cpus <= cpus + 1e-9
    assert 0 < share.cpus <= 1
    assert plan.learner_cpus > 0
    assert plan.learner_gpus == gpus
    if cpus >= 2 * simulators:
        assert share.cpus == 1


@pytest.mark.parametrize(
    ("asked", "cpus", "fits"),
    [((1.0, 1.0), 2.0, True), ((1.0, 1.5), 2.0, False), ((0.5, 0.5), 1.0, True), (("auto", 2.0), 2.0, False)],
)
def test_numbers_are_taken_as_they_are(asked: tuple[Amount, Amount], cpus: float, fits: bool) -> None:
    groups, learner = [SimulatorsConfig(num_cpus=asked[0])], LearnerConfig(num_cpus=asked[1], num_gpus=0.0)
    if fits:
        plan = make_plan(groups, learner, {"CPU": cpus})
        assert (plan.groups[0].cpus, plan.learner_cpus) == asked
    else:
        with pytest.raises(ResourcesTooSmall, match="auto' fits any machine"):
            make_plan(groups, learner, {"CPU": cpus})
