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

from rlray.train import checkpoint
from rlray.train.checkpoint import (
    CheckpointError,
    finish_draft,
    load_checkpoint,
    save_checkpoint,
    verify_checkpoint,
    write_draft,
)
from rlray.train.checkpoint_folder import (
    checkpoint_to_resume,
    latest_checkpoint,
    new_checkpoint_path,
    prune_checkpoints,
)
from tests.train.test_state_tree import random_tree, same

STATE = {"step": 7, "net": {"w": torch.arange(6.0).reshape(2, 3)}, "replay": {"frames": np.arange(10, dtype=np.uint8)}}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_round_trip_through_files(tmp_path: Path) -> None:
    for seed in range(40):
        state = {"tree": random_tree(random.Random(seed))}
        path = save_checkpoint(tmp_path / "deep" / f"c{seed}", state)
        assert {"manifest.json", "tree.json"} <= set(names(path)) <= {"manifest.json", "tree.json", "tree.safetensors"}
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
        (lambda path: [file.unlink() for file in path.iterdir()], "incomplete: manifest.json missing"),
        (lambda path: (path / "net.json").unlink(), "incomplete: net.json missing"),
        (lambda path: os.truncate(path / "net.safetensors", 50), r"net.safetensors is damaged \(50 bytes, not"),
        (lambda path: flip(path / "replay.safetensors", -1), "replay.safetensors is damaged .its checksum differs"),
        (lambda path: flip(path / "net.json", 10), "net.json is damaged .its checksum differs"),
        (lambda path: (path / "manifest.json").write_text("{"), "manifest.json is damaged"),
        (lambda path: (path / "manifest.json").write_text("{}"), "manifest.json is damaged"),
        (lambda path: (path / "manifest.json").write_text('{"format": 2, "files": 3}'), "manifest.json is damaged"),
        (lambda path: set_format(path / "manifest.json", 1), "has format 1, this version of rlray reads 2: use the"),
    ],
)
def test_damage_is_noticed(tmp_path: Path, damage: Any, message: str) -> None:
    path = save_checkpoint(tmp_path / "step_000000001", STATE)
    damage(path)
    for read in (load_checkpoint, verify_checkpoint):
        with pytest.raises(CheckpointError, match=message) as caught:
            read(path)
        assert str(path) in str(caught.value)


def test_a_part_is_read_without_the_others(tmp_path: Path) -> None:
    """`rlray evaluate` wants the weights and no gigabytes of replay; so what is damaged there is not seen."""
    path = save_checkpoint(tmp_path / "c", STATE)
    flip(path / "replay.safetensors", -1)
    assert same(load_checkpoint(path, ["net", "none"]), {"net": STATE["net"]})


def test_a_draft_holds_the_state_as_it_was(tmp_path: Path) -> None:
    """What changes between the two halves is not in the checkpoint."""
    frames = np.arange(10)
    draft = write_draft(tmp_path / "c", {"frames": frames})
    frames[:] = 0
    assert latest_checkpoint(tmp_path) is None
    finish_draft(draft, tmp_path / "c")
    assert load_checkpoint(tmp_path / "c")["frames"].tolist() == list(range(10))
    assert names(tmp_path) == ["c"]


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
    os.truncate(again / "step.json", 3)
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


def test_a_damaged_newest_one_falls_back_to_the_one_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One bit of the newest is wrong, which its lengths do not show: it is set aside, and the one before is taken."""
    paths = [save_checkpoint(tmp_path / f"step_{step:09d}", STATE) for step in (100, 200, 300)]
    for path in paths[1:]:
        flip(path / "replay.safetensors", -1)
    with caplog.at_level(logging.WARNING):
        assert checkpoint_to_resume(tmp_path) == paths[0]
    assert [f"passed over: checkpoint {path}" in caplog.text for path in paths] == [False, True, True]
    assert names(tmp_path) == ["step_000000100", "step_000000200.damaged", "step_000000300.damaged"]
    flip(paths[0] / "net.json", 3)
    with pytest.raises(CheckpointError, match=r"none of the 1 checkpoint\(s\) in .* can be read"):
        checkpoint_to_resume(tmp_path)
    assert checkpoint_to_resume(tmp_path / "logs") is None


def test_a_checkpoint_of_another_version_is_said_to_be_one(tmp_path: Path) -> None:
    set_format(save_checkpoint(tmp_path / "step_000000100", STATE) / "manifest.json", 1)
    for find in (latest_checkpoint, checkpoint_to_resume):
        with pytest.raises(CheckpointError, match="has format 1, this version of rlray reads 2"):
            find(tmp_path)


def test_what_would_not_fit_is_not_begun(tmp_path: Path) -> None:
    """A view of one byte that stands for more than any disk holds."""
    enormous = np.broadcast_to(np.zeros(1, np.uint8), (10**15,))
    with pytest.raises(OSError, match=r"no room for a checkpoint: it needs 1,000,000,000.0 MB, [\d,.]+ MB are free"):
        checkpoint._check_room(tmp_path, [{"a": enormous}])
