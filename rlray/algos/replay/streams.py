"""Where the fragments of one simulator life left off, so that the next one is linked to them and to nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass
class Stream:
    """Where the columns of one simulator life left off. Positions count all slots ever written."""

    sequence: int  # of its last fragment
    tail: NDArray[np.int64]  # [B] position of the last step, -1 where the next observation starts an episode
    age: NDArray[np.int64]  # [B] of the last step
    whole: NDArray[np.bool_]  # [B] of the last step
    pending: NDArray[np.int64]  # [P] positions of steps whose n-step window is not complete
    end: int  # position after its last slot

    @classmethod
    def blank(cls, columns: int) -> Stream:
        """Of a first fragment, or of one before which others are missing."""
        nowhere = np.full(columns, -1, np.int64)
        return cls(-1, nowhere, np.zeros_like(nowhere), np.zeros(columns, np.bool_), nowhere[:0], 0)


def ages(
    before: NDArray[np.int64], starts: NDArray[np.bool_], stream: Stream
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """For each step [T, B]: how many frames before it are linked, and whether they reach its episode's start.

    Args:
        before: [T, B] position of the frame before it in its episode, -1 where there is none.
        starts: [T, B] its episode starts there.
        stream: what the first row goes on from.
    """
    steps = np.arange(len(before))[:, None]
    root = np.maximum.accumulate(np.where(before < 0, steps, -1), axis=0)
    whole = np.where(root >= 0, np.take_along_axis(starts, np.maximum(root, 0), axis=0), stream.whole)
    return np.where(root >= 0, steps - root, steps + 1 + stream.age), whole
