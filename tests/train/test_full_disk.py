"""A disk that is full, or refuses: the last good checkpoint stays, the run goes on, and the next try may do."""

from __future__ import annotations

import logging
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlray.algos.types import Metrics
from rlray.train import Experiment, saving
from rlray.train.checkpoint import load_checkpoint
from rlray.train.saving import begin_checkpoint, finish_checkpoint
from tests.support import wait_until
from tests.train.conftest import Played
from tests.train.test_recovery import processes
from tests.train.test_resume import assert_equal, config_of

Run = Callable[..., Played]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small file system needs the right to mount one: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def failures(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]


def test_a_full_disk(run: Run, small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Filled to the last byte after the checkpoint of step 160; freed before that of step 640."""
    folder, filler = small_disk / "checkpoints", small_disk / "filler"
    folder.mkdir()
    seen: dict[float, list[str]] = {}

    def watch(experiment: Experiment, record: Metrics) -> None:
        if record["steps"] == 240:
            assert wait_until(lambda: (folder / "step_000000160").exists())
            with filler.open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(4096))
                except OSError:
                    pass
        if record["steps"] == 560:
            filler.unlink()
        seen[record["steps"]] = sorted(os.listdir(folder))

    config = {**config_of("toy"), "checkpoint": {"every": 160, "keep": 2}}
    played = run(watch, folder=folder, **config)
    assert seen[560] == ["step_000000160"], "the last good one is there, and nothing of those that failed"
    assert load_checkpoint(folder / "step_000000800")["run"]["progress"]["steps"] == 800
    assert sorted(os.listdir(folder)) == ["step_000000640", "step_000000800"]
    assert len(failures(caplog)) == 2
    for line in failures(caplog):
        assert line.startswith(
            "CHECKPOINT FAILED: [Errno 28] no room for a checkpoint: it needs 0.8 MB, 0.0 MB are free."
        )
        assert line.endswith(f"the last one is {folder / 'step_000000160'}")
    assert_equal(run(**config), played)


def test_a_write_that_fails_in_the_middle(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """The learner may write no file beyond 100 KB for a while: the system refuses, half of the draft being written."""
    if not hasattr(resource, "prlimit"):
        pytest.skip("setting a limit of another process needs Linux")

    def watch(experiment: Experiment, record: Metrics) -> None:
        if record["steps"] in (240, 560):
            limit = 100_000 if record["steps"] == 240 else resource.RLIM_INFINITY
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.prlimit(processes("LearnerActor")[0], resource.RLIMIT_FSIZE, (limit, hard))

    config = config_of("toy")
    played = run(watch, **config)
    assert sorted(os.listdir(played.folder)) == ["step_000000160", "step_000000640", "step_000000800"]
    assert ["File too large" in line for line in failures(caplog)] == [True, True]
    assert_equal(run(**config), played)


def test_without_room_for_the_replay_it_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "free_space", lambda folder: 10_000)
    state, replay = {"weights": {"w": np.zeros(100)}}, {"frames": np.zeros(10_000)}
    made: dict[Any, Any] = {}
    for keep in (True, False, "auto"):
        made[keep] = finish_checkpoint(begin_checkpoint(tmp_path / str(keep), state, replay, keep))
    assert [("replay" in load_checkpoint(draft.path)) for draft in made.values()] == [True, False, False]
    assert made["auto"].remark == (
        "the replay is not in it, since the disk has no room for it: after a resume it fills anew"
    )
    small = begin_checkpoint(tmp_path / "small", state, {"frames": np.zeros(100)}, "auto")
    assert small.remark is None
    assert "replay" in load_checkpoint(finish_checkpoint(small).path)
