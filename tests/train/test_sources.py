"""Several sources of experience: groups of simulators that differ, one learner. Real processes, real clocks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlray.config import ConfigError, RunConfig
from rlray.config.schema import LearnerConfig, SimulatorsConfig
from rlray.train.checkpoint import load_checkpoint
from rlray.train.failures import EnvironmentFailed, ResourcesTooSmall
from rlray.train.groups import env_of, spec_of
from rlray.train.pacing import Pace, Paced
from rlray.train.plan import make_plan
from rlray.train.resuming import ResumeRefused, config_to_resume
from rlray.train.run import resolve
from rlray.train.run_folder import RunFolder
from tests.train.conftest import Played, toy_config

Run = Callable[..., Played]

FOREVER = 3600.0  # seconds


def group(name: str, **changes: Any) -> dict[str, Any]:
    """One simulator of four corridors, fragments of ten steps."""
    return {"name": name, "envs": 4, "fragment_length": 10, "num_cpus": 1.0, **changes}


def learned(played: Played) -> dict[str, Any]:
    """The state of the toy's learner at the end."""
    assert played.experiment.last_checkpoint is not None
    state: dict[str, Any] = load_checkpoint(played.experiment.last_checkpoint)["learner"]["learner"]
    return state


def test_a_slow_source_never_holds_up_the_others(run: Run) -> None:
    """Its first step never ends. The run comes to its end all the same, past checkpoints and evaluations."""
    played = run(
        mode="async",
        simulators=[group("stuck", env_settings={"sleep": FOREVER}, count=2), group("quick")],
        stop={"steps": 2000},
        checkpoint={"every": 400},
        eval={"every": 500, "episodes": 2, "final_episodes": 2},
    )
    assert played.experiment.progress.steps == 2000
    assert (played.records[-2]["source/stuck/steps"], played.records[-2]["source/quick/steps"]) == (0.0, 2000.0)
    assert learned(played)["fragments"] == {"2": 50}


def test_a_slow_learner_is_shared_by_all(run: Run) -> None:
    """It is what everybody waits for; each of two sources, and each simulator in them, gets its turn."""
    played = run(
        mode="async",
        simulators=[group("many", count=3, num_cpus=0.1), group("one", num_cpus=0.1)],
        stop={"steps": 40 * 90},
        hyperparameters={"seconds": 0.02},
        checkpoint={"every": 40 * 10, "keep": 9},
    )
    states = [load_checkpoint(path)["learner"]["learner"]["fragments"] for path in sorted(played.folder.iterdir())]
    first, last = next(state for state in states if len(state) == 4), states[-1]  # a process may be late to begin
    took = [last[number] - first[number] for number in ("0", "1", "2", "3")]
    assert min(took[:3]) >= max(took[:3]) / 2, f"the simulators of a group take turns: {took}"
    assert took[3] >= sum(took) / 5, f"of the six fragments that may wait two are of the second group: {took}"


def test_each_group_has_its_own_environment_and_the_evaluator_the_runs(run: Run) -> None:
    """Always straight to the end: every episode has the return that its group's settings say."""
    played = run(
        env_settings={"length": 4},
        hyperparameters={"right": 1.0},
        simulators=[
            group("near"),
            group("far", env_settings={"length": 8, "prize": 3.0}, envs=2),
            group("other", env="tests.train.toys:Counted", fragment_length=6),
        ],
        eval={"every": None, "final_episodes": 2},
    )
    record = played.records[-2]
    found = {
        name: (record[f"source/{name}/return_mean"], record[f"source/{name}/episode_length"])
        for name in ("near", "far", "other")
    }
    assert found == {"near": (1.0, 4.0), "far": (3.0, 8.0), "other": (1.0, 5.0)}, "the third has settings of its own"
    assert record["train/episodes"] == sum(record[f"source/{name}/episodes"] for name in found)
    assert played.records[-1]["eval/episode_length"] == 4


def test_the_metrics_of_every_source(run: Run) -> None:
    """In mode sync what is not under time/ is counted exactly: a round has 40 steps of one and 14 of the other."""
    played = run(
        simulators=[group("wide"), group("narrow", envs=2, fragment_length=7, realtime_hz=1000.0)],
        stop={"steps": 540},
    )
    tags = {"steps", "episodes", "return_mean", "episode_length"}
    times = {"steps_per_second", "env_ms_per_step", "policy_lag"}
    last = played.records[-1]
    assert {tag for tag in last if "/wide/" in tag} == {
        *(f"source/wide/{tag}" for tag in tags),
        *(f"time/source/wide/{tag}" for tag in times),
    }
    assert {tag for tag in last if "/narrow/" in tag} == {
        *(f"source/narrow/{tag}" for tag in tags),
        *(f"time/source/narrow/{tag}" for tag in (*times, "hz", "late_ms")),
    }
    assert [record["source/wide/steps"] for record in played.records] == [40.0 * n for n in range(1, 11)]
    assert [record["source/narrow/steps"] for record in played.records] == [14.0 * n for n in range(1, 11)]
    assert {record["time/source/wide/policy_lag"] for record in played.records} == {0.0}
    assert {record["time/source/narrow/policy_lag"] for record in played.records} == {1.0}
    assert all(0 < record["time/source/narrow/hz"] <= 1000.001 for record in played.records)
    assert all(record["time/source/narrow/late_ms"] >= 0 for record in played.records)


def test_one_mapping_is_not_told_apart_unless_it_is_paced(run: Run) -> None:
    simulators = toy_config()["simulators"]
    assert not any("source/" in tag for record in run().records for tag in record)
    paced = run(simulators={**simulators, "realtime_hz": 1000.0}, stop={"steps": 80})
    assert "time/source/main/hz" in paced.records[-1]


def test_a_paced_source_beside_a_quick_one(run: Run) -> None:
    """The quick one is not slowed down to it, and the paced one keeps its rate, but never a step more."""
    hz, envs = 10.0, 2
    played = run(
        mode="async",
        simulators=[group("robot", realtime_hz=hz, envs=envs, fragment_length=4), group("quick")],
        stop={"steps": 10**9, "minutes": 4 / 60},
    )
    last = played.records[-1]
    ticks, seconds = last["source/robot/steps"] / envs, last["time/seconds"]
    assert ticks <= hz * seconds + 1
    rates = [record["time/source/robot/hz"] for record in played.records if "time/source/robot/hz" in record]
    assert rates
    assert all(rate <= hz + 1e-6 for rate in rates)
    assert max(rates) >= 0.7 * hz
    assert last["source/quick/steps"] > 10 * last["source/robot/steps"]


def test_a_paced_source_does_not_stand_still_for_a_busy_learner(run: Run) -> None:
    """Ten fragments a second are learned from, five are paced, and the others could play any number."""
    played = run(
        mode="async",
        simulators=[
            group("robot", realtime_hz=10.0, fragment_length=2, num_cpus=0.1),
            group("quick", count=5, num_cpus=0.1),
        ],
        hyperparameters={"seconds": 0.1},
        stop={"steps": 10**9, "minutes": 5 / 60},
    )
    rates = [record["time/source/robot/hz"] for record in played.records if "time/source/robot/hz" in record]
    assert sum(rates) / len(rates) >= 7.0


def test_ticks_are_on_a_grid_and_none_is_made_up_for() -> None:
    """However late somebody comes: five steps need the time of at least four ticks, after a pause of at least three."""
    pace, paced, period = Pace(50.0), Paced(), 1 / 50
    begin = time.monotonic()
    for _ in range(5):
        pace.wait(paced)
    assert time.monotonic() - begin >= 4 * period
    assert paced.seconds >= 5 * period - 1e-9, "each stands for a tick of its own"
    time.sleep(20 * period)
    before, begin = paced.seconds, time.monotonic()
    for _ in range(5):
        pace.wait(paced)
    after = time.monotonic()
    assert after - begin >= 3 * period, "no burst: the first at once, the second at its tick, the others after it"
    assert paced.seconds - before >= (20 + 4) * period - 1e-9, "what was missed counts as time that went by"
    assert 0 <= paced.late_seconds <= after - begin + 5 * period + 5


def test_a_killed_simulator_is_replaced_in_its_own_group(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    deadly = {"prize": 3.0, "fail": "die", "fail_at": 34, "once": str(tmp_path / "once")}
    with caplog.at_level(logging.WARNING):
        played = run(
            mode="async",
            hyperparameters={"right": 1.0},
            simulators=[group("safe"), group("deadly", env_settings=deadly)],
            stop={"steps": 4000},
        )
    assert [line for line in caplog.text.splitlines() if "simulator 1 (deadly) died" in line]
    assert played.records[-1]["source/deadly/return_mean"] == 3.0
    assert played.records[-1]["source/safe/return_mean"] == 1.0
    assert sorted(map(int, learned(played)["fragments"])) == [0, 1, 2], "stream 2 is the new life's"


def test_each_group_survives_its_own_failures(run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One failure here and one there is within both limits; a second in the group that may have one ends the run."""
    simulators = [
        group("one", max_env_failures=1, env_settings={"fail": "step", "fail_at": 20, "once": str(tmp_path / "one")}),
        group("two", max_env_failures=1, env_settings={"fail": "step", "fail_at": 20, "once": str(tmp_path / "two")}),
    ]
    assert run(simulators=simulators).experiment.progress.steps >= 800
    assert "life 1 of simulator 1 (two) begins (failure 1, simulators.1.max_env_failures is 1)" in caplog.text
    simulators[1]["env_settings"] = {"fail": "step", "fail_at": 20}
    (tmp_path / "one").unlink()
    with pytest.raises(EnvironmentFailed, match=r"2 failures of environments, simulators\.1\.max_env_failures is 1"):
        run(simulators=simulators)


def test_all_groups_must_have_the_spaces_of_the_run(run: Run) -> None:
    """Every one that differs is named, with both spaces, before anything starts."""
    simulators = [
        group("fits", env_settings={"length": 9}),
        group("cart", env="CartPole-v1"),
        group("misspelt", env="CartPoel-v1"),
    ]
    with pytest.raises(ConfigError, match="unknown environment 'CartPoel-v1'"):
        run(simulators=simulators)
    with pytest.raises(ConfigError) as caught:
        run(simulators=[*simulators[:2], group("pixels", env="rlray/Pong-v0", env_settings={"obs": "pixels"})])
    text = str(caught.value)
    assert "group 'cart' has the observation space Box(" in text
    assert "(CartPole-v1), but the run's env has Box(" in text
    assert "group 'pixels' has the observation space" in text
    assert "group 'pixels' has the action space" in text
    assert "group 'pixels' has the frame stack 4" in text
    assert "fits" not in text.replace("that it fits", "")
    assert "Wrap the environment so that it fits" in text


def test_settings_lie_over_the_runs_where_the_environment_is_the_runs() -> None:
    config, source = resolve(
        RunConfig.from_dict(
            toy_config(
                env_settings={"length": 4, "limit": 9},
                simulators=[group("a"), group("b", env_settings={"limit": 7}), group("c", env="CartPole-v1")],
            )
        )
    )
    settings = [env_of(one, source).settings for one in config.groups]
    assert settings == [{"length": 4, "limit": 9}, {"length": 4, "limit": 7}, {}]
    misspelt = RunConfig.from_dict(toy_config(simulators=[group("a", env_settings={"lenght": 4})]))
    with pytest.raises(ConfigError, match="lenght"):
        spec_of(misspelt, source)


def test_groups_share_the_machine() -> None:
    """Numbers are taken as they are; ``auto`` shares half of what they leave, one CPU at most."""
    groups = [SimulatorsConfig(count=2, num_cpus=0.5), SimulatorsConfig(count=3), SimulatorsConfig(count=1)]
    plan = make_plan(groups, LearnerConfig(), {"CPU": 3.0})
    assert [(share.simulators, share.cpus) for share in plan.groups] == [(2, 0.5), (3, 0.25), (1, 0.25)]
    assert plan.learner_cpus == 1.0
    assert [share.cpus for share in make_plan(groups, LearnerConfig(), {"CPU": 64.0}).groups] == [0.5, 1.0, 1.0]
    with pytest.raises(ResourcesTooSmall, match=r"2 simulator\(s\) × 0.5 CPU \+ 3 simulator\(s\) × "):
        make_plan(groups, LearnerConfig(num_cpus=2.5), {"CPU": 3.0})


def test_a_changed_list_of_groups_is_no_resume(tmp_path: Path) -> None:
    """The keys that differ are named; what actors get of the machine may differ."""
    first = [group("a"), group("b", realtime_hz=30.0)]
    folder = RunFolder.create(RunConfig.from_dict(toy_config(simulators=first, run_dir=str(tmp_path))))
    free = ["simulators.1.num_cpus=0.5", "simulators.0.max_env_failures=9"]
    config, changed = config_to_resume(folder, None, free, anyway=False)
    assert list(changed) == ["simulators.0.max_env_failures", "simulators.1.num_cpus"]
    assert config.groups[1].num_cpus == 0.5
    for simulators, words in (
        ([*first, group("c")], "simulators.2.name: was None, now 'c'"),
        (first[:1], "simulators.1.name: was 'b', now None"),
        (first[::-1], "simulators.0.name: was 'a', now 'b'"),
        ([first[0], {**first[1], "realtime_hz": 60.0}], "simulators.1.realtime_hz: was 30.0, now 60.0"),
    ):
        other = toy_config(simulators=simulators, run_dir=str(tmp_path))
        with pytest.raises(ResumeRefused) as caught:
            config_to_resume(folder, other, (), anyway=False)
        assert words in str(caught.value)
