"""What travels between the replay and the learner of Ape-X."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlray.algos.replay import Batch


@dataclass
class Drawn:
    """``K`` batches, drawn by the same priorities."""

    batches: Batch  # arrays [K, B, ...]
    steps: int  # agent steps taken in before
    beta: float
    frames: NDArray[Any] | None = None  # with the first batches ever: what the input's normalisation is measured on


@dataclass
class Returned:
    """The priorities that the updates found."""

    index: NDArray[np.int64]  # [K, B] as in the batches
    priority: NDArray[np.float32]  # [K, B]
