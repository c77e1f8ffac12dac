"""Making a checkpoint, in two processes: the learner hands its arrays to the system, a task waits for the disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rlray.train.checkpoint import finish_draft, free_space, size_of, write_draft
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
        if replay is not None and keep_replay is not False:
            if keep_replay == "auto" and not _has_room(path.parent, {**state, "replay": replay}):
                draft.remark = (
                    "the replay is not in it, since the disk has no room for it: after a resume it fills anew"
                )
            else:
                state = {**state, "replay": replay}
        draft.folder = str(write_draft(path, state))
    except OSError as error:
        draft.failure = str(error)
        return draft
    draft.bytes = sum(file.stat().st_size for file in Path(draft.folder).iterdir())
    return draft


def finish_checkpoint(draft: Draft) -> Draft:
    """Wait for the disk, and make the draft a checkpoint. For a task of its own."""
    if draft.folder is not None:
        try:
            finish_draft(Path(draft.folder), draft.path)
        except OSError as error:
            draft.failure = str(error)
    return draft


def _has_room(folder: Path, state: Mapping[str, Any]) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    return size_of(take_apart(state)[1]) <= free_space(folder)
