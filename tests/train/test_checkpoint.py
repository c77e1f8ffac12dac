"""Checkpoints on a real disk: whole or not there, under SIGKILL and damage of every file."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlray.train.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from rlray.train.checkpoint_folder import latest_checkpoint, new_checkpoint_path, prune_checkpoints
from tests.train.test_state_tree import random_tree, same

STATE = {"step": 7, "net": {"w": torch.arange(6.0).reshape(2, 3)}, "replay": {"frames": np.arange(10, dtype=np.uint8)}}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_round_trip_through_files(tmp_path: Path) -> None:
    for seed in range(40):
        state = {"tree": random_tree(random.Random(seed))}
        path = save_checkpoint(tmp_path / "deep" / f"c{seed}", state)
        assert names(path) == ["manifest.json", "state.json", "tensors.safetensors"]
        assert same(state, load_checkpoint(path)), f"seed {seed}"


def test_loaded_arrays_can_be_written_to(tmp_path: Path) -> None:
    state = load_checkpoint(save_checkpoint(tmp_path / "c", STATE))
    state["replay"]["frames"][0] = 9
    state["net"]["w"].add_(1.0)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", STATE)
    with pytest.raises(FileExistsError, match="never overwritten"):
        save_checkpoint(tmp_path / "c", {"step": 8})
    assert load_checkpoint(tmp_path / "c")["step"] == 7


def test_a_save_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="state at 'bad': cannot save"):
        save_checkpoint(tmp_path / "c", {**STATE, "bad": object()})
    with pytest.raises(ValueError, match="limit"):  # found only while the files are being written
        save_checkpoint(tmp_path / "c", {**STATE, "bad": 10**5000})
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: [file.unlink() for file in path.iterdir()], "incomplete: manifest.json, state.json, tensors"),
        (lambda path: (path / "state.json").unlink(), "incomplete: state.json missing"),
        (lambda path: os.truncate(path / "tensors.safetensors", 50), r"tensors.safetensors is damaged \(50 bytes, not"),
        (lambda path: flip(path / "tensors.safetensors", -1), "tensors.safetensors is damaged .its checksum differs"),
        (lambda path: flip(path / "state.json", 10), "state.json is damaged .its checksum differs"),
        (lambda path: (path / "manifest.json").write_text("{"), "manifest.json is damaged"),
        (lambda path: (path / "manifest.json").write_text("{}"), "manifest.json is damaged"),
        (lambda path: (path / "manifest.json").write_text('{"format": 1, "files": {}}'), "manifest.json is damaged"),
        (lambda path: set_format(path / "manifest.json", 9), "has format 9, this version of rlray reads 1"),
    ],
)
def test_damage_is_noticed(tmp_path: Path, damage: Any, message: str) -> None:
    path = save_checkpoint(tmp_path / "step_000000001", STATE)
    damage(path)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def set_format(path: Path, number: int) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": number}))


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="is no folder"):
        load_checkpoint(tmp_path / "file")


def test_the_latest_and_the_oldest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert latest_checkpoint(tmp_path / "none") is None
    paths = {}
    for step in (500, 1000, 99):
        paths[step] = save_checkpoint(new_checkpoint_path(tmp_path, step), {"step": step})
    again = save_checkpoint(new_checkpoint_path(tmp_path, 1000), {"step": 1000})
    assert again.name == "step_000001000.1"
    (tmp_path / "step_999999999").write_text("a file")
    (tmp_path / "other").mkdir()
    assert latest_checkpoint(tmp_path) == again
    os.truncate(again / "state.json", 3)
    with caplog.at_level(logging.WARNING):
        assert latest_checkpoint(tmp_path) == paths[1000]
    assert "passed over: checkpoint" in caplog.text
    assert new_checkpoint_path(tmp_path, 1000).name == "step_000001000.2"
    prune_checkpoints(tmp_path, keep=2)
    assert names(tmp_path) == ["other", "step_000001000", "step_000001000.1", "step_999999999"]
    prune_checkpoints(tmp_path, keep=1)
    assert names(tmp_path) == ["other", "step_000001000.1", "step_999999999"]
    with pytest.raises(ValueError, match="keep must be at least 1, got 0"):
        prune_checkpoints(tmp_path, keep=0)


SAVER = """
import sys
import numpy as np
from rlray.train.checkpoint import save_checkpoint
from rlray.train.checkpoint_folder import new_checkpoint_path, prune_checkpoints
folder, step = sys.argv[1], int(sys.argv[2])
while True:
    step += 1
    frames = np.full(2_000_000, step % 256, np.uint8)
    save_checkpoint(new_checkpoint_path(folder, step), {"step": step, "frames": frames, "rng": 2**100 + step})
    print(step, flush=True)
    prune_checkpoints(folder, keep=2)
"""


def test_the_last_good_one_survives_sigkill_at_any_moment(tmp_path: Path) -> None:
    """What a process reported as saved is there, whole, after it was killed in whatever it did next."""
    rng = random.Random(0)
    step = drafts = 0
    for _ in range(12):
        command = [sys.executable, "-c", SAVER, str(tmp_path), str(step)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as saver:
            assert saver.stdout is not None
            reported = int(saver.stdout.readline())
            time.sleep(rng.uniform(0, 0.05))
            saver.send_signal(signal.SIGKILL)
            reported = max([reported, *map(int, saver.stdout.read().split())])
        latest = latest_checkpoint(tmp_path)
        assert latest is not None
        state = load_checkpoint(latest)
        step = state["step"]
        assert step in (reported, reported + 1)
        assert (state["rng"], state["frames"].shape) == (2**100 + step, (2_000_000,))
        assert (state["frames"] == step % 256).all()
        for path in tmp_path.glob("step_*"):
            load_checkpoint(path)
        drafts += any(path.name.startswith(".") for path in tmp_path.iterdir())
    assert drafts, "no kill came in the middle of a save"
    prune_checkpoints(tmp_path, keep=1)
    assert names(tmp_path) == [latest.name]


def test_drafts_of_living_processes_stay(tmp_path: Path) -> None:
    mine = tmp_path / f".step_000000001.{os.getpid()}-0a.tmp"
    mine.mkdir()
    prune_checkpoints(tmp_path, keep=1)
    assert mine.exists()
