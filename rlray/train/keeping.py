"""The checkpoints of a run, seen from the driver: one is made at a time, beside the training; old ones go."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import rlray
from rlray import ObjectRef
from rlray.exceptions import RayError
from rlray.train.checkpoint_folder import new_checkpoint_path, prune_checkpoints
from rlray.train.saving import Draft, finish_checkpoint

log = logging.getLogger(__name__)


class Keeper:
    """Guarantees: at most one checkpoint is being made; of finished ones the newest ``keep`` stay; one that fails, for
    lack of room say, is told in the log, and neither the run nor older checkpoints suffer.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder = folder
        self._keep = keep
        self._making: tuple[ObjectRef, ObjectRef] | None = None  # the draft, and the checkpoint
        self.last: str | None = None  # the newest that is whole

    @property
    def busy(self) -> bool:
        """Whether one is being made."""
        return self._making is not None

    @property
    def under_way(self) -> ObjectRef | None:
        """The reference to wait for."""
        return None if self._making is None else self._making[1]

    def make(self, steps: int, begin: Callable[[str], ObjectRef]) -> None:
        """Make one; ``begin`` has the learner write its draft to a path."""
        assert self._making is None
        draft = begin(str(new_checkpoint_path(self._folder, steps)))
        finish = rlray.remote(finish_checkpoint).options(num_cpus=0, max_retries=0)
        self._making = draft, finish.remote(draft)

    def settle(self, from_learner: Callable[[ObjectRef], Draft]) -> bool:
        """Wait for the one that is being made, if any; returns whether there is a new one.

        Raises: what ``from_learner`` raises where the learner broke while it wrote the draft.
        """
        if self._making is None:
            return False
        (draft, finished), self._making = self._making, None
        try:
            from_learner(draft)
            made: Draft = rlray.get(finished)
        except RayError as error:  # on a cluster a node may have taken along what was to be in it
            made = Draft("", failure=str(error))
        if made.failure is not None:
            kept = f"the last one is {self.last}" if self.last else "there is none before it"
            log.error(
                "CHECKPOINT FAILED: %s. The run goes on and tries again when the next is due; %s", made.failure, kept
            )
            return False
        self.last = made.path
        log.info(
            "checkpoint %s: %.1f MB, learning stood still for %.2f s%s",
            *(made.path, made.bytes / 1e6, made.seconds, f"; {made.remark}" if made.remark else ""),
        )
        prune_checkpoints(self._folder, self._keep)
        return True
