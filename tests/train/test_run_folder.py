"""Run folders on a real disk."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rlray.config import RunConfig
from rlray.train.run_folder import RunFolder, RunFolderError


def config(folder: Path, name: str = "toy") -> RunConfig:
    values = {"name": name, "env": "CartPole-v1", "algo": "tests.config.toy:ALGORITHM", "stop": {"steps": 10}}
    return RunConfig.from_dict({**values, "run_dir": str(folder)})


def test_a_new_folder_has_all_its_parts(tmp_path: Path) -> None:
    asked = config(tmp_path / "deep" / "runs")
    folder = RunFolder.create(asked)
    assert folder.path.parent == tmp_path / "deep" / "runs"
    assert re.fullmatch(r"toy-\d{8}-\d{6}-[0-9a-f]{4}", folder.path.name)
    assert sorted(p.name for p in folder.path.iterdir()) == ["checkpoints", "config.yaml", "events", "logs", "videos"]
    assert folder.load_config() == asked
    assert folder.load_config(["stop.steps=20"]).stop.steps == 20
    assert RunFolder.open(folder.path) == RunFolder.open(str(folder.path)) == folder


def test_runs_that_begin_together_get_folders_of_their_own(tmp_path: Path) -> None:
    code = "import sys; from tests.train.test_run_folder import *; from pathlib import Path\n"
    code += "for _ in range(60): print(RunFolder.create(config(Path(sys.argv[1]))).path, flush=True)"
    command = [sys.executable, "-c", code, str(tmp_path)]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    made = [path for run in runs for path in run.communicate(timeout=60)[0].split()]
    assert [run.returncode for run in runs] == [0, 0]
    assert len(set(made)) == 120
    assert sorted(made) == sorted(str(path) for path in tmp_path.iterdir())


def test_a_taken_name_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the clock standing still, 200 runs of one second meet in names of four characters, or do not: all differ."""
    monkeypatch.setattr("rlray.train.run_folder.time.strftime", lambda form: "20240101-000000")
    ids = iter(["aaaa", "aaaa", "aaaa", "bbbb"])
    monkeypatch.setattr("rlray.train.run_folder.secrets.token_hex", lambda count: next(ids))
    first, second = RunFolder.create(config(tmp_path)), RunFolder.create(config(tmp_path))
    assert [first.path.name, second.path.name] == ["toy-20240101-000000-aaaa", "toy-20240101-000000-bbbb"]


def test_empty_folders_that_a_copy_lost_come_back(tmp_path: Path) -> None:
    folder = RunFolder.create(config(tmp_path))
    shutil.rmtree(folder.logs)
    shutil.rmtree(folder.videos)
    RunFolder.open(folder.path)
    assert folder.logs.is_dir()
    assert folder.videos.is_dir()


def test_what_is_no_run_folder(tmp_path: Path) -> None:
    folder = RunFolder.create(config(tmp_path))
    with pytest.raises(
        RunFolderError, match=f"no run folder at {tmp_path}/toy: the newest runs there are {folder.path}"
    ):
        RunFolder.open(tmp_path / "toy")
    with pytest.raises(RunFolderError, match=r"is no run folder, it lacks config.yaml, checkpoints/: the newest runs"):
        RunFolder.open(tmp_path)
    shutil.rmtree(folder.checkpoints)
    with pytest.raises(RunFolderError, match="it lacks checkpoints/: give the folder that a training run printed"):
        RunFolder.open(folder.path)
