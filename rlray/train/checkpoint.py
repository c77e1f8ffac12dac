"""Checkpoints: folders that are whole or not there, whatever is killed at whatever moment.

A checkpoint holds ``tensors.safetensors`` (all arrays), ``state.json`` (all the rest) and ``manifest.json`` (length
and checksum of both). It is written beside its place, forced to the disk and then renamed, which the file system
does in one piece. Reading one runs no code from it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import shutil
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.numpy
from safetensors import SafetensorError

from rlray.train.state_tree import put_together, take_apart

log = logging.getLogger(__name__)

FORMAT = 1
_STATE, _TENSORS, _MANIFEST = "state.json", "tensors.safetensors", "manifest.json"
_NAME = re.compile(r"step_(\d+)(?:\.(\d+))?")
_TEMPORARY = re.compile(r"\..+\.(\d+)-[0-9a-f]+\.tmp")


class CheckpointError(RuntimeError):
    """A checkpoint cannot be read: it is missing, incomplete, damaged, or from a later version."""


def save_checkpoint(path: str | os.PathLike[str], state: Mapping[str, Any]) -> Path:
    """Write ``state`` to the folder ``path``, which must not exist yet; its parent is made where missing.

    When this returns, the checkpoint is on the disk. When it raises or is killed, ``path`` does not exist, and
    other checkpoints are as they were. `rlray.train.state_tree` says what a state can hold.

    Raises:
        FileExistsError: there is something at ``path``; see `new_checkpoint_path`.
        TypeError: the state holds what cannot be saved; the message says where.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"checkpoint {path} exists already and is never overwritten; choose another path")
    tree, arrays = take_apart(state)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _temporary(path)
    draft.mkdir()
    try:
        safetensors.numpy.save_file(arrays, draft / _TENSORS)
        (draft / _STATE).write_text(json.dumps(tree, allow_nan=False), encoding="ascii")
        files = {name: _fingerprint(draft / name) for name in (_TENSORS, _STATE)}
        (draft / _MANIFEST).write_text(json.dumps({"format": FORMAT, "files": files}), encoding="ascii")
        for written in (*draft.iterdir(), draft):
            _force_to_disk(written)
        draft.rename(path)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    _force_to_disk(path.parent)
    return path


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The state that was saved at ``path``, equal in values, types, dtypes and memory order; tensors on the CPU.

    Raises:
        CheckpointError: it is missing, incomplete, damaged, or from a later version of rlray.
    """
    path = Path(path)
    for name, expected in _manifest(path).items():
        if _fingerprint(path / name) != expected:
            raise CheckpointError(f"checkpoint {path}: {name} is damaged (its checksum differs); use another one")
    try:
        arrays = safetensors.numpy.load_file(path / _TENSORS)
        state = put_together(json.loads((path / _STATE).read_text(encoding="ascii")), arrays)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"checkpoint {path} must hold a dict, but holds a {type(state).__name__}")
    return state


def new_checkpoint_path(folder: str | os.PathLike[str], step: int) -> Path:
    """A free path in ``folder`` for the checkpoint after ``step`` agent steps; the newest for that step sorts last."""
    taken = [number for at, number, _ in _checkpoints(Path(folder)) if at == step]
    return Path(folder) / (f"step_{step:09d}" + (f".{max(taken) + 1}" if taken else ""))


def latest_checkpoint(folder: str | os.PathLike[str]) -> Path | None:
    """The checkpoint of the most steps in ``folder``, None if there is none.

    One with a missing or shortened file is passed over, with a warning in the log.
    """
    for _, _, path in sorted(_checkpoints(Path(folder)), reverse=True):
        try:
            _manifest(path)
        except CheckpointError as error:
            log.warning("passed over: %s", error)
            continue
        return path
    return None


def prune_checkpoints(folder: str | os.PathLike[str], keep: int) -> None:
    """Remove all but the newest ``keep`` checkpoints, and what killed processes left of theirs."""
    if keep < 1:
        raise ValueError(f"keep must be at least 1, got {keep}")
    for _, _, path in sorted(_checkpoints(Path(folder)))[:-keep]:
        doomed = _temporary(path)
        path.rename(doomed)  # so that what is half removed never looks like a checkpoint
        shutil.rmtree(doomed, ignore_errors=True)
    for path in Path(folder).iterdir():
        match = _TEMPORARY.fullmatch(path.name)
        if match and not _alive(int(match[1])):
            shutil.rmtree(path, ignore_errors=True)


def _checkpoints(folder: Path) -> Iterator[tuple[int, int, Path]]:
    """(step, number among those of the step, path) of what is named like a checkpoint, in no order."""
    if folder.is_dir():
        for path in folder.iterdir():
            if (match := _NAME.fullmatch(path.name)) and path.is_dir():
                yield int(match[1]), int(match[2] or 0), path


def _manifest(path: Path) -> dict[str, dict[str, int]]:
    """Length and checksum by file name, once every file has been found to be there in full length."""
    if not path.is_dir():
        raise CheckpointError(f"checkpoint {path} is no folder" if path.exists() else f"no checkpoint at {path}")
    missing = [name for name in (_MANIFEST, _STATE, _TENSORS) if not (path / name).is_file()]
    if missing:
        raise CheckpointError(f"checkpoint {path} is incomplete: {', '.join(missing)} missing")
    try:
        manifest = json.loads((path / _MANIFEST).read_text(encoding="ascii"))
        written, files = manifest["format"], {name: dict(manifest["files"][name]) for name in (_STATE, _TENSORS)}
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"checkpoint {path}: {_MANIFEST} is damaged ({error!r}); use another one") from error
    if written != FORMAT:
        raise CheckpointError(f"checkpoint {path} has format {written}, this version of rlray reads {FORMAT}")
    for name, expected in files.items():
        if (size := (path / name).stat().st_size) != expected.get("bytes"):
            raise CheckpointError(
                f"checkpoint {path}: {name} is damaged ({size} bytes, not {expected.get('bytes')}); use another one"
            )
    return files


def _fingerprint(path: Path) -> dict[str, int]:
    checksum = size = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            checksum = zlib.crc32(chunk, checksum)
            size += len(chunk)
    return {"bytes": size, "crc32": checksum}


def _temporary(path: Path) -> Path:
    """A hidden place beside ``path``; its name says which process it belongs to."""
    return path.parent / f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _force_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
