"""An algorithm, a network and an environment of one's own, in files beside a YAML, as a new user has them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rlray
from rlray.algos import Algorithm, LearnerContext, Settings
from rlray.train.learner import LearnerActor, LearnerSetup
from rlray.train.simulator import Simulator, SimulatorSetup
from rlray.train.sources import AlgorithmSource, EnvSource
from tests.support import REPOSITORY

MODULE = """
import dataclasses
import gymnasium
from torch import nn
from rlray.algos.ppo import ALGORITHM, PPOConfig

class MySettings(PPOConfig):
    mine: int = 0
    "A setting of its own."

class MyNet(nn.Module):
    features = 8

    def __init__(self, spec):
        super().__init__()
        self.layer = nn.Linear(4, 8)

    def forward(self, x):
        return self.layer(x).relu()

class MyEnv(gymnasium.Wrapper):
    def __init__(self):
        super().__init__(gymnasium.make("CartPole-v1"))

MyAlgo = dataclasses.replace(ALGORITHM, name="mine", config=MySettings)
"""
YAML = """
env: {module}:MyEnv
algo: {module}:MyAlgo
hyperparameters: {{network: "{module}:MyNet", shared: true, rollout_steps: 64, minibatch_size: 32, mine: 3}}
simulators: {{count: 1, envs: 4, fragment_length: 8}}
stop: {{steps: 128}}
eval: {{every: null, final_episodes: 1}}
mode: sync
"""


@pytest.fixture
def project(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a folder with a module of that name and ``my.yaml``; returns the latter."""

    def make(module: str) -> Path:
        folder = tmp_path / "project"
        folder.mkdir()
        (folder / f"{module}.py").write_text(MODULE)
        (folder / "my.yaml").write_text(YAML.format(module=module))
        return folder / "my.yaml"

    return make


def cli(folder: Path, *commands: list[str]) -> str:
    """``rlray`` as the installed program runs: without the current folder and that of the tests on its path."""
    program = (
        f"import json, sys; sys.path[0] = {str(REPOSITORY)!r}; from rlray.cli import main\n"
        "if __name__ == '__main__': sys.exit(max(main(command) for command in json.loads(sys.argv[1])))"
    )
    command = [sys.executable, "-c", program, json.dumps(commands)]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_from_the_command_line_it_trains_resumes_and_is_evaluated_from_anywhere(
    project: Callable[[str], Path], tmp_path: Path
) -> None:
    config = project("mine_cli")
    assert "at step 128" in cli(config.parent, ["train", "--config", "my.yaml", f"run_dir={tmp_path}/runs"])
    (run,) = (tmp_path / "runs").iterdir()
    assert f"code: [{config.parent}]" in (run / "config.yaml").read_text()
    resume, evaluate = ["train", "--resume", str(run), "stop.steps=192"], ["evaluate", "--run", str(run)]
    output = cli(Path("/"), resume, [*evaluate, "--episodes", "2"])
    assert "at step 192" in output
    assert "over 2 episodes" in output


@pytest.mark.usefixtures("runtime")
def test_a_runtime_that_was_there_before_finds_it_too(
    project: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    result = rlray.train(project("mine_library"), overrides=[f"run_dir={tmp_path}/runs"])
    assert result.steps == 128
    assert result.evaluation is not None
    del sys.modules["mine_library"]


class Half:
    """Both halves of an algorithm, each with something that is easily forgotten."""

    def __init__(self, *_: Any) -> None:
        pass

    def load(self, weights: Any) -> None:
        pass

    def act(self, obs: Any, step: int, rng: Any) -> Any:
        return np.zeros(len(obs), np.int64)  # no extras

    def learn(self, fragment: Any) -> Any:
        return {"loss": 0.5}  # no updates

    def weights(self) -> Any:
        return {}

    def state(self) -> Any:
        return {}


class Whole(Half):
    def act_greedy(self, obs: Any) -> Any:
        return self.act(obs, 0, None)

    def load_state(self, state: Any) -> None:
        pass


class Forgetful(Half):
    def act_greedy(self, obs: Any) -> Any:
        return self.act(obs, 0, None)

    def begin(self, first: Any) -> None:
        pass


FORGETFUL = Algorithm("forgetful", Settings, make_policy=Forgetful, make_learner=Half)
HALF = Algorithm("half", Settings, make_policy=Half, make_learner=Half)
WHOLE = Algorithm("whole", Settings, make_policy=Whole, make_learner=Whole)


def test_what_was_forgotten_is_told() -> None:
    env, context = EnvSource.of("CartPole-v1", {}), LearnerContext("cpu", 0, 100)
    spec, source = env.spec(), AlgorithmSource(f"{__name__}:HALF", {})
    with pytest.raises(TypeError, match=r"policy of algorithm .*HALF' is a Half without act_greedy: it must have"):
        source.make_policy(spec)
    with pytest.raises(TypeError, match=r"is a Half without load_state: .*see rlray.algos.Learner"):
        source.make_learner(spec, context)
    with pytest.raises(TypeError, match=r"policy of algorithm .*FORGETFUL' is a Forgetful without load_state"):
        AlgorithmSource(f"{__name__}:FORGETFUL", {}).make_policy(spec)
    whole = AlgorithmSource(f"{__name__}:WHOLE", {})
    with pytest.raises(TypeError, match=r"act\(\) must return actions and a dict .* returned array\(\[0, 0\]"):
        Simulator(SimulatorSetup(env, whole, 0, 0, 0, 1, 2, 4, 1)).rollout({}, 0, 0)
    learner = LearnerActor(LearnerSetup(spec, whole, 1, 100, 1, 0))
    learner.start()
    with pytest.raises(TypeError, match=r"learn\(\) must say how many 'updates' it did, .* returned \{'loss': 0.5\}"):
        learner.learn(None, publish=False)  # type: ignore[arg-type]
