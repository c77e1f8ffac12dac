"""Checkpoints: folders that are whole or not there, whatever is killed at whatever moment.

A checkpoint is a dict; each of its entries is a part, and each part has files of its own: ``<part>.safetensors`` (its
arrays), ``<part>.json`` (all the rest). ``manifest.json`` has length and checksum of every file. A checkpoint is
written beside its place, forced to the disk and then renamed, which the file system does in one piece. Reading one runs
no code from it.

Writing has two halves, so that whoever owns the arrays need not wait for the disk: `write_draft` hands them over to the
system, `finish_draft` checks, forces and renames, from any process.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rlray.train.state_tree import Arrays, put_together, take_apart
from rlray.train.tensor_file import read_tensors, write_tensors

FORMAT = 2
_MANIFEST = "manifest.json"
_ROOM_FOR_THE_REST = 1 << 20
"""Bytes kept free beside the arrays: for what has no arrays, and for others."""


class CheckpointError(RuntimeError):
    """A checkpoint cannot be read: it is missing, incomplete, damaged, or from another version."""


class OtherVersionError(CheckpointError):
    """A checkpoint was written by a version of rlray that lays them out in another way."""


def save_checkpoint(path: str | os.PathLike[str], state: Mapping[str, Any]) -> Path:
    """Write ``state`` to the folder ``path``, which must not exist yet; its parent is made where missing.

    When this returns, the checkpoint is on the disk. When it raises or is killed, ``path`` does not exist, and
    other checkpoints are as they were. `rlray.train.state_tree` says what a state can hold.

    Raises:
        FileExistsError: there is something at ``path``; see `new_checkpoint_path`.
        TypeError: the state holds what cannot be saved; the message says where.
        OSError: there is no room for it.
    """
    return finish_draft(write_draft(path, state), path)


def write_draft(path: str | os.PathLike[str], state: Mapping[str, Any]) -> Path:
    """The first half of `save_checkpoint`: returns a hidden folder beside ``path`` that holds all of ``state``.

    ``state`` may change once this has returned.

    Raises: as `save_checkpoint`; nothing is left then.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"checkpoint {path} exists already and is never overwritten; choose another path")
    draft = temporary(path)
    draft.mkdir(parents=True)
    try:
        add_parts(draft, state)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return draft


def add_parts(draft: Path, state: Mapping[str, Any]) -> None:
    """Write more parts to a draft. Raises: as `save_checkpoint`; what was written by then is not whole."""
    parts = {name: take_apart({name: part}) for name, part in state.items()}
    _check_room(draft.parent, (arrays for _, arrays in parts.values()))
    for name, (tree, arrays) in parts.items():
        (draft / f"{name}.json").write_text(json.dumps(tree, allow_nan=False), encoding="ascii")
        if arrays:
            write_tensors(draft / f"{name}.safetensors", arrays)


def finish_draft(draft: Path, path: str | os.PathLike[str]) -> Path:
    """The second half: when this returns, the draft is the checkpoint ``path``, on the disk.

    Raises: OSError where the disk failed; nothing is left then.
    """
    path = Path(path)
    try:
        files = {file.name: _fingerprint(file) for file in draft.iterdir()}
        (draft / _MANIFEST).write_text(json.dumps({"format": FORMAT, "files": files}), encoding="ascii")
        for written in (*draft.iterdir(), draft):
            _force_to_disk(written)
        draft.rename(path)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    _force_to_disk(path.parent)
    return path


def load_checkpoint(path: str | os.PathLike[str], parts: Iterable[str] | None = None) -> dict[str, Any]:
    """The state that was saved at ``path``, equal in values, types, dtypes and memory order; tensors on the CPU.

    Args:
        parts: only these entries; one that was not saved is left out. None is all of them.

    Raises:
        CheckpointError: it is missing, incomplete, damaged, or from another version of rlray.
    """
    path = Path(path)
    manifest = checked_manifest(path)
    saved = [name.removesuffix(".json") for name in manifest if name.endswith(".json")]
    wanted = saved if parts is None else [name for name in parts if name in saved]
    state: dict[str, Any] = {}
    for part in wanted:
        tensors = f"{part}.safetensors"
        for name in (f"{part}.json", tensors):
            if name in manifest and _fingerprint(path / name) != manifest[name]:
                raise CheckpointError(f"checkpoint {path}: {name} is damaged (its checksum differs); use another one")
        try:
            arrays = read_tensors(path / tensors) if tensors in manifest else {}
            tree = json.loads((path / f"{part}.json").read_text(encoding="ascii"))
            state[part] = put_together(tree, arrays)[part]
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"checkpoint {path} cannot be read: {error}") from error
    return state


def verify_checkpoint(path: str | os.PathLike[str]) -> None:
    """Read every file of a checkpoint once. Raises: CheckpointError as `load_checkpoint`."""
    path = Path(path)
    for name, expected in checked_manifest(path).items():
        if _fingerprint(path / name) != expected:
            raise CheckpointError(f"checkpoint {path}: {name} is damaged (its checksum differs); use another one")


def checked_manifest(path: Path) -> dict[str, dict[str, int]]:
    """Length and checksum by file name, once every file has been found to be there in full length.

    Raises: CheckpointError where one is not, or where the checkpoint is of another version.
    """
    if not path.is_dir():
        raise CheckpointError(f"checkpoint {path} is no folder" if path.exists() else f"no checkpoint at {path}")
    if not (path / _MANIFEST).is_file():
        raise CheckpointError(f"checkpoint {path} is incomplete: {_MANIFEST} missing")
    try:
        manifest = json.loads((path / _MANIFEST).read_text(encoding="ascii"))
        written, files = manifest["format"], {str(name): dict(entry) for name, entry in manifest["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"checkpoint {path}: {_MANIFEST} is damaged ({error!r}); use another one") from error
    if written != FORMAT:
        raise OtherVersionError(
            f"checkpoint {path} has format {written}, this version of rlray reads {FORMAT}: use the version of rlray "
            "that wrote it, or train again"
        )
    if missing := sorted(name for name in files if not (path / name).is_file()):
        raise CheckpointError(f"checkpoint {path} is incomplete: {', '.join(missing)} missing")
    for name, expected in files.items():
        if (size := (path / name).stat().st_size) != expected.get("bytes"):
            raise CheckpointError(
                f"checkpoint {path}: {name} is damaged ({size} bytes, not {expected.get('bytes')}); use another one"
            )
    return files


def size_of(arrays: Arrays) -> int:
    """Bytes that ``arrays`` take."""
    return sum(array.nbytes for array in arrays.values())


def free_space(folder: Path) -> int:
    """Bytes that a checkpoint in ``folder`` may take."""
    return shutil.disk_usage(folder).free - _ROOM_FOR_THE_REST


def temporary(path: Path) -> Path:
    """A hidden place beside ``path``; its name says which process it belongs to."""
    return path.parent / f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"


def _check_room(folder: Path, parts: Iterable[Arrays]) -> None:
    needed, free = sum(map(size_of, parts)), free_space(folder)
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"no room for a checkpoint: it needs {needed / 1e6:,.1f} MB, {max(free, 0) / 1e6:,.1f} MB are free",
        )


def _fingerprint(path: Path) -> dict[str, int]:
    checksum = size = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            checksum = zlib.crc32(chunk, checksum)
            size += len(chunk)
    return {"bytes": size, "crc32": checksum}


def _force_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
