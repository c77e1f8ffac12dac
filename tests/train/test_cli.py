"""The command line and library use, as a person meets them: real programs, exit codes, messages."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from rlray import cli
from rlray.config import load_config
from rlray.train.checkpoint import load_checkpoint
from rlray.train.checkpoint_folder import latest_checkpoint
from rlray.train.run_folder import RunFolder
from tests.support import REPOSITORY, Driver, needs_proc, run_driver, still_running
from tests.train.conftest import toy_config

CONFIG = """\
env: tests.train.toys:Corridor
algo: tests.train.toys:ALGORITHM
stop: {steps: 400}
simulators: {count: 1, envs: 4, fragment_length: 10, num_cpus: 0.5}
learner: {num_cpus: 0.5}
eval: {every: 200, episodes: 2, final_episodes: 3}
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with `CONFIG`; runs go to the same folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(REPOSITORY))
    path = tmp_path / "toy.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


def only_run(folder: Path) -> Path:
    (found,) = (folder / "runs").iterdir()
    return found


def test_a_run_that_is_measured_as_it_explores(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--config", str(config), "eval.explore=true", "eval.final_episodes=4"]) == 0
    assert "over 4 episodes, exploring)" in capsys.readouterr().out
    folder = str(only_run(config.parent))
    assert cli.main(["evaluate", "--run", folder]) == cli.main(["evaluate", "--run", folder, "--no-explore"]) == 0
    as_it_says, greedy = capsys.readouterr().out.splitlines()
    assert as_it_says.endswith("over 20 episodes, exploring)")
    assert greedy == "1.00 ± 0.00 (raw return, mean ± std over 20 episodes)"


def test_train_then_evaluate(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In this process: a run folder with everything in it, then mean ± std and an mp4 from its checkpoint."""
    assert cli.main(["train", "--config", str(config), "eval.final_episodes=4"]) == 0
    out = capsys.readouterr().out
    assert "stopped by steps at step 400" in out
    assert "1.00 ± 0.00 (raw return, mean ± std over 4 episodes)" in out
    folder = only_run(config.parent)
    assert {"config.yaml", "metrics.csv", "events", "checkpoints", "logs", "videos"} <= set(os.listdir(folder))
    header, *rows = (folder / "metrics.csv").read_text().splitlines()
    assert {"step", "train/return_mean", "eval/return_mean", "learner/loss"} <= set(header.split(","))
    assert rows[-1].startswith("400,")
    log = (folder / "logs" / "driver.log").read_text()
    assert "checkpoint" in log
    assert re.search(r"memory: .* processes", log)
    assert "0.8 MB of weights" in log
    assert yaml.safe_load((folder / "config.yaml").read_text())["eval"]["final_episodes"] == 4
    pytest.importorskip("imageio_ffmpeg")
    assert cli.main(["evaluate", "--run", str(folder), "--episodes", "7", "--video"]) == 0
    mean, video = capsys.readouterr().out.splitlines()
    assert mean == "1.00 ± 0.00 (raw return, mean ± std over 7 episodes)"
    assert Path(video.removeprefix("video: ")).stat().st_size > 0
    (name,) = os.listdir(folder / "checkpoints")
    assert cli.main(["evaluate", "--run", str(folder), "--checkpoint", name]) == 0
    capsys.readouterr()
    assert cli.main(["evaluate", "--run", str(folder), "--explore"]) == 0
    assert "over 20 episodes, exploring)" in capsys.readouterr().out
    assert cli.main(["evaluate", "--run", str(folder), "--checkpoint", "step_7"]) == 2
    assert "no checkpoint at" in capsys.readouterr().err


def test_print_config_starts_nothing(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "seed=3", "--config", str(config), "mode=sync", "--print-config", "seed=9"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["seed"] == 9
    assert shown["mode"] == "sync"
    assert shown["hyperparameters"]["right"] == 0.5, "defaults are shown"
    assert os.listdir(config.parent) == ["toy.yaml"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stop.stpes=3"], r"override 'stop.stpes=3'.*stpes.*steps"),
        (["stop.steps=many"], r"override 'stop.steps=many'.*steps"),
        (["env=CartPoel-v1"], r"unknown environment 'CartPoel-v1'.*CartPole-v1"),
        (["env=CartPole-v1", "env_settings={size: 3}"], r"size"),
        (["algo=dqm"], r"unknown algorithm 'dqm'.*dqn"),
        (["simulators.num_cpus=1000"], r"asks for .*1000 CPU.*but there are"),
        (["learner.num_gpus=1000"], r"asks for .*1000 GPU.*but there are"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(
    config: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert cli.main(["train", "--config", str(config), *arguments]) == 2
    said = capsys.readouterr().err
    assert re.search(message, said, re.DOTALL), said
    assert "Traceback" not in said
    assert os.listdir(config.parent) == ["toy.yaml"], "nothing was written"


def test_missing_files(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--config", "dqn_pnog.yaml"]) == 2
    assert "Did you mean dqn_pong.yaml" in capsys.readouterr().err
    assert cli.main(["evaluate", "--run", "runs/nothing"]) == 2
    assert "no run folder at runs/nothing" in capsys.readouterr().err


def test_a_run_of_a_class_in_a_script_needs_that_class(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = RunFolder.create(load_config(config, ["env=__main__:Mine"]))
    assert cli.main(["evaluate", "--run", str(folder.path)]) == 2
    assert "Mine" in capsys.readouterr().err


def test_a_failed_run_is_one_message_and_exit_code_1(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["env_settings={fail: step, fail_at: 30}", "simulators.max_env_failures=0"]
    code = cli.main(["train", "--config", str(config), *settings])
    said = capsys.readouterr().err
    assert code == 1
    assert said.startswith("simulator 0: environment 'tests.train.toys:Corridor'")
    assert "ZeroDivisionError: the corridor fell in at step" in said
    assert "toys.py" in said, "the environment's own traceback"
    assert "rlray/train" not in said, "none of ours"


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list"]) == 0
    words = capsys.readouterr().out.split()
    assert {"dqn", "ALE/Pong-v5", "rlray/Pong-v0", "LunarLander-v3", "dqn_pong.yaml"} <= set(words)


@pytest.mark.parametrize("words", [["train", "--config", "a", "--resmue", "b"], ["list", "more"], []], ids=str)
def test_unknown_arguments(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert caught.value.code == 2
    assert "usage: rlray" in capsys.readouterr().err


def test_help_is_quick() -> None:
    """`--help` imports nothing heavy."""
    code = "import sys; from rlray import cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass\n"
    heavy = "assert not {'torch', 'gymnasium', 'numpy', 'pydantic', 'tensorboard'} & set(sys.modules), sys.modules"
    subprocess.run([sys.executable, "-c", code + heavy], check=True, capture_output=True, cwd=REPOSITORY)


@needs_proc
def test_the_first_ctrl_c_saves_and_leaves_cleanly(config: Path) -> None:
    """To the whole process group, as a terminal sends it: a loadable checkpoint, exit code 130, no process left."""
    script = str(REPOSITORY / "scripts" / "train.py")
    arguments = ("--config", str(config), "stop.steps=1e9", "hyperparameters.seconds=0.02")
    with Driver(script, *arguments, python=()) as driver:
        driver.expect("steps ", timeout=60)
        family = driver.family()
        assert len(family) > 3
        os.killpg(driver.pid, signal.SIGINT)
        output = driver.finish(60)
        assert driver.process.returncode == 130, output
        assert "saving a checkpoint; once more to leave at once" in output
        assert "interrupted at step" in output
        assert "Traceback" not in output
        assert not still_running(family, 2.0)
    path = latest_checkpoint(only_run(config.parent) / "checkpoints")
    assert path is not None
    assert load_checkpoint(path)["run"]["progress"]["steps"] > 0


@needs_proc
def test_the_second_signal_leaves_at_once(config: Path) -> None:
    """The learner is busy for a minute; the second signal does not wait for it. SIGTERM is as good as Ctrl-C."""
    script = str(REPOSITORY / "scripts" / "train.py")
    with Driver(script, "--config", str(config), "hyperparameters.seconds=60", python=()) as driver:
        driver.expect("learner: ", timeout=60)
        family = driver.family()
        driver.process.send_signal(signal.SIGTERM)
        driver.expect("saving a checkpoint")
        driver.process.send_signal(signal.SIGTERM)
        driver.finish(10)
        assert driver.process.returncode == 128 + signal.SIGTERM
        assert not still_running(family, 2.0)


LIBRARY = """
import sys
import gymnasium, numpy as np
import rlray
from tests.train.toys import Corridor

class Mine(Corridor):
    '''Defined here and nowhere else.'''

def config(run_dir, **changes):
    from tests.train.conftest import toy_config
    return toy_config(stop={"steps": 160}, simulators={"count": 1, "envs": 2, "fragment_length": 8, "num_cpus": 0.5},
                      learner={"num_cpus": 0.5}, eval={"every": None, "final_episodes": 2}, run_dir=run_dir, **changes)

if __name__ == "__main__":
    folder = sys.argv[1]
    result = rlray.train(config(folder, env_settings={"length": 3}), env=Mine)
    assert not rlray.is_initialized()
    assert result.evaluation.lengths == [3, 3], result
    print(open(result.run_dir + "/config.yaml").read())
    from rlray.train import evaluate
    again = evaluate(result.run_dir, 3, env=Mine)
    assert again.lengths == [3, 3, 3]

    rlray.envs.register("mine", Mine, length=4)
    rlray.init(num_cpus=2, preload=("torch", "gymnasium"))
    second = rlray.train(config(folder), env="mine")
    assert rlray.is_initialized(), "a runtime of the caller's stays"
    assert second.evaluation.lengths == [4, 4], second
    third = rlray.train.train(config(folder), env=lambda length=6: Mine(length=length))
    assert third.evaluation.lengths == [6, 6], third
    rlray.shutdown()
    print("DONE", result.steps, result.updates, result.stopped_by)
"""


def test_library_use_with_a_class_of_the_script(tmp_path: Path) -> None:
    """`rlray.train(config, env=MyEnv)`, a registered name, and a lambda; in a runtime of the caller's or its own."""
    script = tmp_path / "mine.py"
    script.write_text(LIBRARY, encoding="utf-8")
    with Driver(str(script), str(tmp_path / "out"), python=()) as driver:
        output = driver.finish(90)
        assert driver.process.returncode == 0, output
    assert "env: __main__:Mine" in output
    assert "DONE 160 10 steps" in output


def test_the_module_can_be_called_and_imported_from() -> None:
    code = """
import sys, rlray
assert "gymnasium" not in sys.modules
import rlray.train
from rlray.train import Experiment, Result, evaluate, train
assert rlray.train.train is train and rlray.train.Experiment is Experiment and rlray.train.evaluate is evaluate
assert callable(rlray.train)
assert "torch" not in sys.modules
try:
    rlray.train(3)
except TypeError as error:
    print("SAID", error)
try:
    rlray.train({"env": "CartPole-v1"}, env=3)
except TypeError as error:
    print("SAID", error)
"""
    output = run_driver(code)
    assert "a configuration must be a path, a name, a mapping" in output
    assert "env must be an id or something that makes an environment, got 3" in output


def test_overrides_belong_to_files() -> None:
    from rlray.train import train

    with pytest.raises(ValueError, match="overrides are for configurations from a file"):
        train(toy_config(), overrides=["seed=3"])


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_a_result_prints_mean_and_standard_deviation(scale: float) -> None:
    from rlray.train import EvalResult

    returns = [scale * value for value in (1.0, 2.0, 6.0)]
    assert str(EvalResult(returns, [1, 1, 1])).startswith(f"{np.mean(returns):.2f} ± {np.std(returns):.2f} ")
