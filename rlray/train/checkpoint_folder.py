"""The checkpoints of one run: names, the newest good one, and which of them stay."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from rlray.train.checkpoint import CheckpointError, OtherVersionError, checked_manifest, temporary, verify_checkpoint

log = logging.getLogger(__name__)

_NAME = re.compile(r"step_(\d+)(?:\.(\d+))?")
_TEMPORARY = re.compile(r"\..+\.(\d+)-[0-9a-f]+\.tmp")


def new_checkpoint_path(folder: str | os.PathLike[str], step: int) -> Path:
    """A free path in ``folder`` for the checkpoint after ``step`` agent steps; the newest for that step sorts last."""
    taken = [number for at, number, _ in _checkpoints(Path(folder)) if at == step]
    return Path(folder) / (f"step_{step:09d}" + (f".{max(taken) + 1}" if taken else ""))


def latest_checkpoint(folder: str | os.PathLike[str]) -> Path | None:
    """The checkpoint of the most steps in ``folder``, None if there is none.

    One with a missing or shortened file is passed over, with a warning in the log. A checkpoint of another version is
    an error: CheckpointError.
    """
    return _newest(Path(folder), checked_manifest)


def checkpoint_to_resume(folder: str | os.PathLike[str]) -> Path | None:
    """The newest checkpoint in ``folder`` of which every byte is as it was written, None if there is none.

    Damaged ones that are newer are passed over with a warning, and set aside under the name ``….damaged``: they neither
    count as checkpoints any more, nor stand in the way of the run that goes on. What killed processes left is removed.

    Raises: CheckpointError where all are damaged, or where one is of another version.
    """
    folder = Path(folder)
    _remove_drafts(folder)
    found = sorted(_checkpoints(folder), reverse=True)
    newest = _newest(folder, verify_checkpoint)
    if found and newest is None:
        raise CheckpointError(f"none of the {len(found)} checkpoint(s) in {folder} can be read; the log says why")
    for _, _, path in found:
        if path == newest:
            break
        path.rename(_unused(path.with_name(f"{path.name}.damaged")))
    return newest


def prune_checkpoints(folder: str | os.PathLike[str], keep: int) -> None:
    """Remove all but the newest ``keep`` checkpoints, and what killed processes left of theirs."""
    if keep < 1:
        raise ValueError(f"keep must be at least 1, got {keep}")
    for _, _, path in sorted(_checkpoints(Path(folder)))[:-keep]:
        doomed = temporary(path)
        path.rename(doomed)  # so that what is half removed never looks like a checkpoint
        shutil.rmtree(doomed, ignore_errors=True)
    _remove_drafts(Path(folder))


def _newest(folder: Path, check: Callable[[Path], object]) -> Path | None:
    """The newest checkpoint that passes ``check``."""
    for _, _, path in sorted(_checkpoints(folder), reverse=True):
        try:
            check(path)
        except OtherVersionError:
            raise
        except CheckpointError as error:
            log.warning("passed over: %s", error)
            continue
        return path
    return None


def _remove_drafts(folder: Path) -> None:
    """Remove what processes that are gone have not finished."""
    for path in folder.iterdir() if folder.is_dir() else ():
        match = _TEMPORARY.fullmatch(path.name)
        if match and not _alive(int(match[1])):
            shutil.rmtree(path, ignore_errors=True)


def _unused(path: Path) -> Path:
    number = 1
    while path.exists():
        number += 1
        path = path.with_name(f"{path.name.partition('.damaged')[0]}.damaged{number}")
    return path


def _checkpoints(folder: Path) -> Iterator[tuple[int, int, Path]]:
    """(step, number among those of the step, path) of what is named like a checkpoint, in no order."""
    if folder.is_dir():
        for path in folder.iterdir():
            if (match := _NAME.fullmatch(path.name)) and path.is_dir():
                yield int(match[1]), int(match[2] or 0), path


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
