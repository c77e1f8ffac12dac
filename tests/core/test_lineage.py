"""Lineage: a large result whose file on disk is gone is made again, with all that it was made from.

The store of these tests holds 80 MB; enough blocks are put into it for the value in question to go to disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rlray
from rlray.exceptions import ObjectLostError
from tests.support import wait_until

MB = 1_000_000


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where values are spilled to; the runtime is up."""
    folder = tmp_path_factory.mktemp("disk")
    rlray.init(num_cpus=2, object_store_memory=80 * MB, object_spilling_directory=folder)
    yield folder
    rlray.shutdown()


def lose(disk: Path, ref: rlray.ObjectRef) -> None:
    """Let the value go to disk, and its file vanish."""
    rlray.wait([ref])
    fill = [rlray.put(np.zeros(8 * MB, np.uint8)) for _ in range(12)]
    files = [path for path in disk.rglob("*") if path.is_file()]
    assert files
    for path in files:
        path.unlink()
    del fill


def runs(log: Path) -> list[str]:
    return log.read_text().split() if log.exists() else []


@rlray.remote
def start(log: Path, value: int) -> np.ndarray[Any, Any]:
    with log.open("a") as file:
        file.write("start\n")
    return np.full(8 * MB, value, np.uint8)


@rlray.remote
def add(log: Path, array: np.ndarray[Any, Any], value: int) -> np.ndarray[Any, Any]:
    with log.open("a") as file:
        file.write("add\n")
    return array + np.uint8(value)


def test_what_a_lost_value_was_made_from_is_made_again_too(disk: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    first = start.remote(log, 3)
    second = add.remote(log, first, 4)
    rlray.wait([second])
    del first  # its memory is free: remembering how to make it does not keep it
    lose(disk, second)
    assert (rlray.get(second) == 7).all()
    assert runs(log) == ["start", "add", "start", "add"]


def test_what_is_still_there_is_not_made_again(disk: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    first = start.remote(log, 1)
    pinned = rlray.get(first)  # a value that is read stays in memory
    second = add.remote(log, first, 1)
    lose(disk, second)
    assert (rlray.get(second) == 2).all()
    assert runs(log) == ["start", "add", "add"]
    assert (pinned == 1).all()


def test_a_task_that_must_not_run_twice_does_not(disk: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    ref = start.options(max_retries=0).remote(log, 1)
    lose(disk, ref)
    with pytest.raises(ObjectLostError):
        rlray.get(ref)
    assert runs(log) == ["start"]


def test_arguments_are_not_kept_for_the_sake_of_lineage(disk: Path, tmp_path: Path) -> None:
    """A loop of large values, each made from the last, must not fill memory or disk."""
    log = tmp_path / "log"
    value = start.remote(log, 0)
    for _ in range(30):  # 240 MB in all
        value = add.remote(log, value, 1)
    assert (rlray.get(value) == 30).all()
    assert wait_until(lambda: not [path for path in disk.rglob("*") if path.is_file()])
