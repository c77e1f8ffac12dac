"""Making a checkpoint, in two processes: the learner hands its arrays to the system, a task waits for the disk."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rlray.train.checkpoint import add_parts, finish_draft, free_space, size_of, write_draft
from rlray.train.state_tree import take_apart

KeepReplay = bool | Literal["auto"]


@dataclass
class Draft:
    """What became of the first half, and then of the second."""

    path: str  # where the checkpoint is to be
    folder: str | None = None  # where it lies meanwhile; None if that failed
    failure: str | None = None  # what the disk said
    remark: str | None = None  # what is not in it
    bytes: int = 0
    seconds: float = 0.0  # for which learning stood still


def begin_checkpoint(path: Path, state: Mapping[str, Any], replay: Any, keep_replay: KeepReplay) -> Draft:
    """Hand ``state`` over to the system; a disk that is full or fails is told in the result.

    Args:
        replay: what the learner's replay holds, None if it has none.
        keep_replay: whether it is saved; ``auto`` leaves it out where there is no room for it.
    """
    draft = Draft(str(path))
    try:
        draft.folder = str(write_draft(path, _with_replay(draft, state, replay, keep_replay)))
    except OSError as error:
        draft.failure = str(error)
        return draft
    draft.bytes = _size(draft.folder)
    return draft


def add_to_checkpoint(draft: Draft, state: Mapping[str, Any], replay: Any, keep_replay: KeepReplay) -> Draft:
    """`begin_checkpoint` for the parts of another process; where they fail, the draft is gone."""
    if draft.folder is None:
        return draft
    begin = time.perf_counter()
    try:
        add_parts(Path(draft.folder), _with_replay(draft, state, replay, keep_replay))
    except OSError as error:
        shutil.rmtree(draft.folder, ignore_errors=True)
        draft.folder, draft.failure = None, str(error)
        return draft
    draft.bytes = _size(draft.folder)
    draft.seconds += time.perf_counter() - begin
    return draft


def finish_checkpoint(draft: Draft) -> Draft:
    """Wait for the disk, and make the draft a checkpoint. For a task of its own."""
    if draft.folder is not None:
        try:
            finish_draft(Path(draft.folder), draft.path)
        except OSError as error:
            draft.failure = str(error)
    return draft


def _with_replay(draft: Draft, state: Mapping[str, Any], replay: Any, keep_replay: KeepReplay) -> Mapping[str, Any]:
    """``state``, with the replay where it is to be kept; else the draft says why it is not."""
    if replay is None or keep_replay is False:
        return state
    if keep_replay == "auto" and not _has_room(Path(draft.path).parent, {**state, "replay": replay}):
        draft.remark = "the replay is not in it, since the disk has no room for it: after a resume it fills anew"
        return state
    return {**state, "replay": replay}


def _size(folder: str) -> int:
    return sum(file.stat().st_size for file in Path(folder).iterdir())


def _has_room(folder: Path, state: Mapping[str, Any]) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    return size_of(take_apart(state)[1]) <= free_space(folder)
