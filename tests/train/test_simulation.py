"""Simulations beside a slow one that steps in a loop; processes that die, environments that raise, Ctrl-C."""

from __future__ import annotations

import io
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rlray
from rlray import cli
from rlray.train import seeds, simulate, simulation_console
from rlray.train.failures import EnvironmentFailed, SimulatorFailed
from rlray.train.random_actions import random_actions
from rlray.train.simulation_console import SimulationConsole
from rlray.train.simulation_report import SimulationReport
from rlray.train.simulation_worker import Share, play
from rlray.train.sources import AlgorithmSource, EnvSource
from tests.support import Driver, needs_proc, still_running
from tests.train.conftest import toy_config
from tests.train.toys import CountingSettings

CORRIDOR = "tests.train.toys:Corridor"
NEXT_STEP = "tests.envs.toys:counting_vector"


def slowly(share: Share) -> tuple[int, list[float], list[float]]:
    """Steps, returns and lengths of a share, counted environment by environment."""
    env = share.env.make(share.envs)
    env_seeds, action_seeds = share.sequences()
    draw = random_actions(env.spec.action_space, share.envs, np.random.default_rng(action_seeds))
    env.reset(seeds.integer(env_seeds))
    steps, returns, lengths = 0, [], []
    reward, length = [0.0] * share.envs, [0] * share.envs
    while steps < share.steps:
        answer = env.step(draw())
        for b in range(share.envs):
            if not answer.valid[b]:
                continue
            steps += 1
            reward[b] += float(answer.reward[b])
            length[b] += 1
            if answer.terminated[b] or answer.truncated[b]:
                returns.append(reward[b])
                lengths.append(float(length[b]))
                reward[b], length[b] = 0.0, 0
    env.close()
    return steps, returns, lengths


@pytest.mark.parametrize(
    ("env", "settings", "envs"),
    [(CORRIDOR, {"length": 4}, 3), (NEXT_STEP, {}, 5), (NEXT_STEP, {"mode": "DISABLED"}, 4), ("rlray/Pong-v0", {}, 64)],
)
def test_the_same_episodes_as_a_slow_loop_plays(env: str, settings: dict[str, Any], envs: int) -> None:
    share = Share(EnvSource.of(env, settings), None, 2, 1, 7, envs, 50_000 if "Pong" in env else 1000, 1.0)
    steps, returns, lengths = slowly(share)
    *_, last = play(share, None)
    assert last.steps == steps >= share.steps
    assert len(returns) > 50
    assert np.array_equal(last.returns.sample, returns)
    assert np.array_equal(last.lengths.sample, lengths)


@pytest.mark.parametrize("env", [CORRIDOR, "tests.train.toys:Together"])
def test_a_policy_that_remembers_is_told_where_episodes_begin(env: str) -> None:
    ageing = AlgorithmSource("tests.train.toys:AGEING", CountingSettings())
    share = Share(EnvSource.of(env, {"length": 6}), ageing, 0, 0, 7, 3, 200, 1.0)
    *_, last = play(share, {"count": np.array(0)})
    assert len(last.lengths.sample) > 20
    assert set(last.lengths.sample) == {6.0}


def test_no_two_lives_share_random_numbers() -> None:
    source = EnvSource.of(CORRIDOR, {})
    shares = [Share(source, None, n, life, seed, 1, 1, 1.0) for n in (0, 1) for life in (0, 1) for seed in (3, 4)]
    drawn = {int(part.generate_state(1)[0]) for share in shares for part in share.sequences()}
    assert len(drawn) == 16


def figures(told: SimulationReport) -> Any:
    """What must not differ between two equal simulations."""
    summaries = [{name: np.array(x).tolist() for name, x in vars(of).items()} for of in (told.returns, told.lengths)]
    return told.steps, summaries, [(one.steps, one.episodes) for one in told.workers]


def test_equal_simulations_play_equal_episodes(runtime: None) -> None:
    settings = {"steps": 3000, "workers": 3, "envs": 8, "env_settings": {"length": 4}}
    one, same, other = (simulate(CORRIDOR, seed=seed, **settings) for seed in (1, 1, 2))
    assert figures(one) == figures(same)
    assert figures(one) != figures(other)
    assert [worker.steps for worker in one.workers] == [1000, 1000, 1000], "whole steps of all environments"
    assert one.ended_by == "steps"
    assert one.episodes == sum(worker.episodes for worker in one.workers) > 200
    assert (one.returns.high, one.lengths.low) == (1.0, 4.0)


def test_a_process_that_dies_is_replaced_and_the_total_reached(
    runtime: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"fail": "die", "fail_at": 300, "once": str(tmp_path / "died"), "sleep": 0.001}
    told = simulate(CORRIDOR, 4000, workers=2, envs=4, env_settings=settings)
    assert sorted(worker.replaced for worker in told.workers) == [0, 1]
    assert all(worker.steps >= 2000 for worker in told.workers)
    assert told.steps <= 4000 + 8
    assert "1 process(es) died and were replaced" in str(told)
    assert "a fresh one plays the" in caplog.text


def test_one_that_dies_again_and_again_ends_it(runtime: None) -> None:
    with pytest.raises(SimulatorFailed, match=r"died 3 times in a row without playing anything; .*SIGKILL"):
        simulate(CORRIDOR, 1000, workers=1, envs=2, env_settings={"fail": "die"})


def test_an_environment_that_raises_ends_it_with_a_report(runtime: None, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    settings = {"fail": "step", "fail_at": 400, "sleep": 0.001, "once": str(tmp_path / "fell")}
    with pytest.raises(EnvironmentFailed, match=r"process [01]: .*Corridor.*fell in at step"):
        simulate(CORRIDOR, 10**8, workers=2, envs=2, env_settings=settings, report=file)
    told = json.loads(file.read_text())
    assert told["ended_by"].startswith("EnvironmentFailed: ")
    assert 0 < told["steps"] < 10**6


def test_the_policy_of_a_run_plays_greedily_on_its_environment(runtime: None, tmp_path: Path) -> None:
    trained = rlray.train(toy_config(run_dir=str(tmp_path), env_settings={"length": 6}))
    told = simulate(None, 600, policy=trained.run_dir, workers=2, envs=5)
    assert told.policy == trained.checkpoint
    assert told.env == CORRIDOR
    assert (told.returns.low, told.lengths.low, told.lengths.high) == (1.0, 6.0, 6.0)
    longer = simulate(CORRIDOR, 600, policy=trained.run_dir, workers=1, env_settings={"length": 9})
    assert (longer.lengths.low, longer.lengths.high) == (9.0, 9.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be a whole number of at least 1, got 0"),
        ({"workers": 1.5}, "workers must be a whole number of at least 1, got 1.5"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"env": None}, "env must be given with policy 'random'"),
        ({"env": "CartPoel-v1"}, "unknown environment 'CartPoel-v1'; did you mean 'CartPole-v1'"),
        ({"env_settings": {"lenght": 3}}, "no setting 'lenght'; did you mean 'length'"),
        ({"report": "/nowhere/at/all.json"}, "report '/nowhere/at/all.json': the folder /nowhere/at is not there"),
        ({"policy": "/nowhere"}, "no run folder at /nowhere"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulate(**{"env": CORRIDOR, "steps": 100, **changes})


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "report.md"
    words = ["simulate", "--env", "rlray/Pong-v0", "--steps", "0.05M", "--env-settings", "max_frames=400"]
    assert cli.main([*words, "frame_skip=2", "--workers", "1", "--envs", "50", "--report", str(file)]) == 0
    out = capsys.readouterr().out
    assert "50,000 steps of rlray/Pong-v0" in out
    assert "250 episodes" in out
    assert "200.0 steps long" in out
    page = file.read_text()
    assert "| lengths | 200 | 0 | 200 | 200 |" in page
    assert "'frame_skip': 2" in page
    assert cli.main([*words[:4], "5", "--env-settings", "obs=stat"]) == 2
    assert "must be 'state' or 'pixels'" in capsys.readouterr().err
    assert cli.main([*words[:4], "5", "--env-settings", "obs"]) == 2
    assert "must have the form key=value" in capsys.readouterr().err


@needs_proc
def test_ctrl_c_leaves_a_report(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    words = ("simulate", "--env", "rlray/Pong-v0", "--steps", "900G", "--workers", "2", "--report", str(file))
    code = "import sys; from rlray.cli import main; from rlray.train import simulation_console as c; c.LINE_SECONDS = 0"
    with Driver(f"{code}\nsys.exit(main())", *words) as driver:
        while driver.expect("steps ", timeout=60).startswith("0 /"):
            pass
        family = driver.family()
        os.killpg(driver.pid, signal.SIGINT)
        output = driver.finish(30)
        assert driver.process.returncode == 130, output
        assert "Traceback" not in output
        assert "ended by: interrupted, of 900,000,000,000 steps asked for" in output
        assert not still_running(family, 2.0)
    told = json.loads(file.read_text())
    assert told["ended_by"] == "interrupted"
    assert told["steps"] == sum(worker["steps"] for worker in told["workers"]) > 0


def test_plain_lines_where_there_is_no_terminal(runtime: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation_console, "LINE_SECONDS", 0.0)
    *_, played = play(Share(EnvSource.of(CORRIDOR, {}), None, 0, 0, 1, 4, 2000, 1.0), None)
    out = io.StringIO()
    with SimulationConsole("corridor", 8000, True, out) as console:
        for _ in range(3):
            console.update([[played], [played]])
            simulation_console.time.sleep(0.21)
    first, *_, last = out.getvalue().splitlines()
    assert first == "steps 4,000 / 8,000  starting"
    assert f"return {played.returns.mean:.2f} over {2 * played.returns.count:,} episodes" in last
    silent = io.StringIO()
    with SimulationConsole("corridor", 8000, False, silent) as console:
        console.update([[played]])
    assert silent.getvalue() == ""
