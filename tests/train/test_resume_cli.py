"""Going on with a run as people do it: `--resume`, after Ctrl-C and after SIGKILL of everything, in the same folder."""

from __future__ import annotations

import csv
import os
import random
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rlray import cli
from rlray.config import RunConfig, load_config
from rlray.train import train
from rlray.train.checkpoint_folder import latest_checkpoint
from rlray.train.run_folder import RunFolder, RunFolderError
from tests.support import REPOSITORY, Driver, needs_proc, still_running
from tests.train.test_resume import everything
from tests.train.test_state_tree import same

TOY = """\
env: tests.train.toys:Corridor
algo: tests.train.toys:ALGORITHM
hyperparameters: {seconds: 0.01}
mode: sync
stop: {steps: 6400}
simulators: {count: 2, envs: 4, fragment_length: 10, num_cpus: 0.5}
learner: {num_cpus: 0.5}
eval: {every: 1600, episodes: 2, final_episodes: 3}
checkpoint: {every: 800}
"""
DQN = """\
env: CartPole-v1
algo: dqn
hyperparameters:
  {network: mlp, batch_size: 32, samples_per_step: 8, replay_capacity: 600, warmup_steps: 100, n_step: 2,
   learning_rate: {points: [[0, 1e-3], [1, 1e-4]], of: run}, target_update_every: 20, epsilon: 0.3}
mode: sync
stop: {steps: 3200}
simulators: {count: 2, envs: 4, fragment_length: 10, num_cpus: 0.5}
learner: {num_cpus: 0.5}
eval: {every: 1600, episodes: 2, final_episodes: 2}
checkpoint: {every: 400}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, where configurations find our toys."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(REPOSITORY))
    return tmp_path


def only_run(folder: Path) -> Path:
    (found,) = (folder / "runs").iterdir()
    return found


def start(*arguments: str) -> Driver:
    return Driver(str(REPOSITORY / "scripts" / "train.py"), *arguments, python=())


def table(run: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv, without what depends on the clock."""
    with (run / "metrics.csv").open(newline="") as file:
        return [{tag: v for tag, v in row.items() if not tag.startswith("time")} for row in csv.DictReader(file)]


def curve(run: Path, tag: str) -> list[tuple[int, float]]:
    """The same as TensorBoard shows it."""
    reader = EventAccumulator(str(run / "events"), size_guidance={"scalars": 0})
    reader.Reload()
    return [(event.step, event.value) for event in reader.Scalars(tag)]


def assert_equal(one: Path, two: Path) -> None:
    assert table(one) == table(two)
    for tag in ("learner/loss", "train/episodes", "eval/return_mean"):
        assert curve(one, tag) == curve(two, tag)
        steps = [step for step, _ in curve(two, tag)]
        assert steps == sorted(set(steps)), "no step twice"
    left, right = (everything(latest_checkpoint(run / "checkpoints") or "") for run in (one, two))
    assert left.keys() == right.keys()
    for part in left:
        assert same(left[part], right[part]), f"{part} differs"


@needs_proc
@pytest.mark.timeout(300)
@pytest.mark.parametrize("text", [TOY, DQN], ids=["toy", "dqn"])
def test_sigkill_at_random_moments(here: Path, text: str) -> None:
    """Twice, in whatever the run does then; at last it ends in the bits of one that nobody killed."""
    (here / "whole.yaml").write_text(text)
    (here / "killed.yaml").write_text(text + "run_dir: killed\n")
    with start("--config", "whole.yaml") as driver:
        driver.finish(120)
        assert driver.process.returncode == 0
    rng = random.Random(7)
    arguments: tuple[str, ...] = ("--config", "killed.yaml")
    for _ in range(2):
        with start(*arguments) as driver:
            driver.expect("learner: ", timeout=60)
            time.sleep(rng.uniform(0.3, 4))
            family = driver.family()
            driver.process.kill()
            driver.process.wait()
            assert not still_running(family, 10.0)
        (run,) = (here / "killed").iterdir()
        arguments = ("--resume", str(run))
    with start(*arguments) as driver:
        output = driver.finish(120)
        assert driver.process.returncode == 0, output
    assert_equal(only_run(here), run)


@needs_proc
@pytest.mark.timeout(300)
def test_ctrl_c_saves_and_resume_continues_exactly(here: Path) -> None:
    (here / "whole.yaml").write_text(TOY)
    (here / "left.yaml").write_text(TOY + "run_dir: left\n")
    with start("--config", "whole.yaml") as driver:
        driver.finish(120)
    with start("--config", "left.yaml") as driver:
        driver.expect("steps ", timeout=60)
        os.killpg(driver.pid, signal.SIGINT)
        output = driver.finish(60)
        assert driver.process.returncode == 130, output
    (run,) = (here / "left").iterdir()
    left_at = int(re.search(r"interrupted at step ([\d,]+)", output)[1].replace(",", ""))  # type: ignore[index]
    with start("--resume", str(run)) as driver:
        output = driver.finish(120)
        assert driver.process.returncode == 0, output
        assert f"goes on from {run}/checkpoints/step_{left_at:09d}" in output
    assert_equal(only_run(here), run)


@needs_proc
def test_a_run_that_goes_on_is_not_resumed_beside_itself(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "toy.yaml").write_text(TOY)
    with start("--config", "toy.yaml", "stop.steps=1e9") as driver:
        driver.expect("steps ", timeout=60)
        assert cli.main(["train", "--resume", str(only_run(here))]) == 2
        assert "is being trained by another process; end that one first" in capsys.readouterr().err


def toy(here: Path, **changes: Any) -> dict[str, Any]:
    (here / "toy.yaml").write_text(TOY)
    config = load_config(here / "toy.yaml", ["stop.steps=800", "checkpoint.every=400", "eval.every=null"])
    return {**config.model_dump(), **changes}


def test_a_finished_run_can_be_extended(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """800 steps, then 800 more by an override: in the same folder, and in the end as if it had been 1600 at once."""
    first = train(toy(here))
    assert cli.main(["train", "--resume", first.run_dir, "stop.steps=1600"]) == 0
    assert "stop.steps is now 1600, was 800" in capsys.readouterr().out
    assert load_config(Path(first.run_dir) / "config.yaml").stop.steps == 1600
    assert load_config(Path(first.run_dir) / "config-1.yaml").stop.steps == 800
    whole = train(toy(here, stop={"steps": 1600}, run_dir="whole"))
    assert_equal(Path(whole.run_dir), Path(first.run_dir))


def test_a_finished_run_that_is_resumed_is_finished(here: Path) -> None:
    first = train(toy(here))
    before = table(Path(first.run_dir))
    again = train(resume=first.run_dir)
    assert (again.run_dir, again.steps, again.episodes, again.updates) == (
        *(first.run_dir, first.steps, first.episodes, first.updates),
    )
    assert again.evaluation == first.evaluation
    assert again.seconds >= 2
    assert table(Path(first.run_dir)) == before


def test_minutes_count_on(here: Path) -> None:
    """What the first part has taken counts; more minutes let it go on."""
    first = train(toy(here, stop={"steps": 10**9, "minutes": 2 / 60}))
    assert first.stopped_by == "minutes"
    again = train(resume=first.run_dir)
    assert (again.stopped_by, again.steps) == ("minutes", first.steps)
    assert again.seconds >= 2
    more = train(resume=first.run_dir, overrides=["stop.minutes=60", f"stop.steps={first.steps + 80}"])
    assert (more.stopped_by, more.steps) == ("steps", first.steps + 80)
    assert more.seconds >= 2


def test_another_configuration_is_refused_with_the_keys_that_differ(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = train(toy(here))
    overrides = ["seed=2", "hyperparameters.right=0.75", "simulators.envs=2", "stop.steps=1200", "learner.num_cpus=1"]
    assert cli.main(["train", "--resume", first.run_dir, *overrides]) == 2
    said = capsys.readouterr().err
    assert "seed: was 1, now 2\n" in said
    assert "hyperparameters.right: was 0.5, now 0.75\n" in said
    assert "simulators.envs: was 4, now 2\n" in said
    assert "stop.steps" not in said
    assert "num_cpus" not in said
    assert "--resume-anyway" in said
    assert load_config(Path(first.run_dir) / "config.yaml").seed == 1
    # The same by a file: here everything that the file leaves to its defaults counts, too.
    (here / "other.yaml").write_text(TOY.replace("mode: sync", "mode: async"))
    assert cli.main(["train", "--resume", first.run_dir, "--config", "other.yaml"]) == 2
    assert "mode: was 'sync', now 'async'" in capsys.readouterr().err
    changed = ["--resume-anyway", "hyperparameters.right=0.75", "stop.steps=1200"]
    assert cli.main(["train", "--resume", first.run_dir, *changed]) == 0
    said = capsys.readouterr().out
    assert "goes on although these keys differ:" in said
    assert "hyperparameters.right: was 0.5, now 0.75" in said
    assert "stopped by steps at step 1,200" in said


def test_what_cannot_be_resumed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train"]) == 2
    assert "give --config NAME|PATH, or --resume RUN" in capsys.readouterr().err
    assert cli.main(["train", "--resume", "runs/none"]) == 2
    assert "no run folder at runs/none" in capsys.readouterr().err
    with pytest.raises(TypeError, match="train needs a configuration, or resume=FOLDER"):
        train()
    with pytest.raises(RunFolderError, match="no run folder at"):
        train(resume=here / "nothing")


def test_a_run_without_a_checkpoint_begins_at_the_beginning(here: Path) -> None:
    """As after a SIGKILL in its first seconds: what it had recorded is withdrawn."""
    folder = RunFolder.create(RunConfig.from_dict(toy(here)))
    folder.metrics_file.write_text("step,time,learner/loss\n80,1.0,3.0\n")
    result = train(resume=folder.path)
    whole = train(toy(here, run_dir="whole"))
    assert result.run_dir == str(folder.path)
    assert_equal(Path(whole.run_dir), folder.path)


def test_the_configuration_can_be_shown(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = train(toy(here))
    capsys.readouterr()
    assert cli.main(["train", "--resume", first.run_dir, "--print-config", "stop.steps=900"]) == 0
    assert "steps: 900" in capsys.readouterr().out
    assert load_config(Path(first.run_dir) / "config.yaml").stop.steps == 800


def test_eval_is_evaluate(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = train(toy(here))
    capsys.readouterr()
    assert cli.main(["eval", "--run", first.run_dir, "--episodes", "3"]) == 0
    assert "over 3 episodes" in capsys.readouterr().out
