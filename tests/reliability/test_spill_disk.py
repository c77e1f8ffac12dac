"""The disk that values are spilled to fills up, becomes read-only, or loses its folder: an error, and nothing is lost.

A real file system of 20 MB, mounted for these tests. Where that is not allowed, `tests/core/test_spilling.py` still has
a limit on the size of files.
"""

from __future__ import annotations

import gc
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rlray
from rlray.core.local import allocation
from rlray.exceptions import ObjectLostError, ObjectStoreFullError
from tests.support import wait_until

MB = 1_000_000
CAPACITY = 80 * MB


def _mount(*arguments: str) -> bool:
    mount = shutil.which("mount")
    return mount is not None and subprocess.run([mount, *arguments], capture_output=True, check=False).returncode == 0


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small disk that the runtime spills to; the runtime is up."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not _mount("-t", "tmpfs", "-o", "size=20m", "none", str(folder)):
        pytest.skip("no file system can be mounted here: that takes root and Linux")
    try:
        monkeypatch.setattr(allocation, "_PATIENCE", 0.5)
        rlray.init(num_cpus=2, object_store_memory=CAPACITY, object_spilling_directory=folder)
        try:
            yield folder
        finally:
            rlray.shutdown()
            assert not list(folder.iterdir()), "files were left behind"
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def block(i: int, size: int = 8 * MB) -> np.ndarray[Any, Any]:
    return np.full(size, i % 251, dtype=np.uint8)


def holds(ref: Any, i: int) -> bool:
    return bool((rlray.get(ref) == i % 251).all())


def files(disk: Path) -> list[Path]:
    return [path for path in disk.rglob("*") if path.is_file()]


def fill() -> tuple[list[Any], ObjectStoreFullError]:
    """Puts values until there is no room, not on disk either; in any process."""
    allocation._PATIENCE = 0.5
    refs: list[Any] = []
    while len(refs) < 30:
        try:
            refs.append(rlray.put(block(len(refs))))
        except ObjectStoreFullError as full:
            return refs, full.with_traceback(None)  # whose frames would keep the references
    raise AssertionError("the store is never full")


def test_a_full_disk(disk: Path) -> None:
    refs, full = fill()
    assert "No space left on device" in str(full)
    assert str(disk) in str(full)
    assert "that the disk does not take" in str(full)
    assert len(refs) == 11, "nine in memory, two on disk"
    assert [path.stat().st_size for path in files(disk)] == [8 * MB] * 2, "what did not fit is not left in pieces"
    assert all(holds(ref, i) for i, ref in enumerate(refs))
    del refs[:3]
    gc.collect()
    refs += [rlray.put(block(i)) for i in (11, 12)]
    assert all(holds(ref, i) for i, ref in enumerate(refs, 3))
    del refs
    gc.collect()
    assert wait_until(lambda: not files(disk)), "the disk is empty again"
    assert holds(rlray.put(block(7, 70 * MB)), 7)


def test_a_disk_that_gets_room_again(disk: Path) -> None:
    refs, _ = fill()
    assert _mount("-o", "remount,size=100m", str(disk))
    refs += [rlray.put(block(i)) for i in range(len(refs), len(refs) + 5)]
    assert all(holds(ref, i) for i, ref in enumerate(refs))
    arrays = rlray.get(refs)
    with pytest.raises(ObjectStoreFullError) as full:
        rlray.put(block(0, 70 * MB))
    assert "in arrays that it has read" in str(full.value)
    assert "No space left" not in str(full.value), "that is over"
    del arrays


def test_results_when_the_disk_is_full(disk: Path) -> None:
    """The task that finds no room fails and says why; those before it and after it are as they should be."""

    def impatient(i: int) -> Any:
        allocation._PATIENCE = 0.5
        return block(i)

    make = rlray.remote(impatient)
    refs, _ = fill()
    with pytest.raises(ObjectStoreFullError, match=r"No space left on device|being written there at this moment"):
        rlray.get(make.remote(1))  # half a second may be too short to hear of the disk
    del refs[4:]
    gc.collect()
    assert holds(make.remote(2), 2)
    assert all(holds(ref, i) for i, ref in enumerate(refs))


def test_values_of_an_actor_when_the_disk_is_full(disk: Path) -> None:
    @rlray.remote
    class Owner:
        def __init__(self) -> None:
            self.refs, self.full = fill()

        def said(self) -> str:
            return str(self.full)

        def check(self) -> bool:
            return all(holds(ref, i) for i, ref in enumerate(self.refs))

    owner = Owner.remote()
    assert "actor Owner (pid" in rlray.get(owner.said.remote(), timeout=60)
    with pytest.raises(ObjectStoreFullError, match=r"actor Owner \(pid \d+\): \d+\.\d MB that the disk does not take"):
        rlray.put(block(1))
    assert rlray.get(owner.check.remote(), timeout=60)


def test_a_disk_that_becomes_read_only(disk: Path) -> None:
    refs = [rlray.put(block(i)) for i in range(9)]
    assert _mount("-o", "remount,ro", str(disk))
    try:
        more, full = fill()
        assert not more
        assert "Read-only file system" in str(full)
        assert all(holds(ref, i) for i, ref in enumerate(refs))
    finally:
        assert _mount("-o", "remount,rw", str(disk))
    refs.append(rlray.put(block(9)))
    assert all(holds(ref, i) for i, ref in enumerate(refs))


def test_a_folder_that_is_removed(disk: Path) -> None:
    """What was there is lost, and said to be; what comes later is spilled as before."""
    refs = [rlray.put(block(i)) for i in range(11)]
    [folder] = disk.iterdir()
    spilled = len(files(disk))
    assert spilled == 2
    shutil.rmtree(folder)
    said = []
    for i, ref in enumerate(refs):
        try:
            assert holds(ref, i)
        except ObjectLostError as error:
            said.append(str(error))
    assert len(said) == spilled
    assert all(str(folder) in one for one in said)
    again = [rlray.put(block(i)) for i in range(11, 13)]
    assert len(files(disk)) == 2
    assert all(holds(ref, i) for i, ref in enumerate(again, 11))


def test_a_file_in_the_folders_place(disk: Path) -> None:
    refs = [rlray.put(block(i)) for i in range(9)]
    [folder] = [*disk.iterdir()] or [disk / f"spilled-{rlray.get_runtime_context().get_job_id()}"]
    folder.write_text("in the way")
    more, full = fill()
    assert not more
    assert "exists" in str(full)
    folder.unlink()
    refs.append(rlray.put(block(9)))
    assert all(holds(ref, i) for i, ref in enumerate(refs))
