"""Checks of what callers pass in, shared by the vectorised environments."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def check_discrete(actions: NDArray[Any], num_envs: int, count: int, env_id: str) -> NDArray[np.int64]:
    """``actions`` as int64 [num_envs], each from 0 to ``count - 1``.

    Raises: TypeError if they are no integers, ValueError for another shape or range.
    """
    actions = np.asarray(actions)
    if actions.shape != (num_envs,):
        raise ValueError(
            f"actions for environment {env_id!r}, {num_envs} copies, must have shape ({num_envs},), got {actions.shape}"
        )
    if actions.dtype.kind not in "iu":
        raise TypeError(f"actions for environment {env_id!r} must be integers, got dtype {actions.dtype}")
    actions = np.ascontiguousarray(actions, np.int64)
    # Read without their sign, negative numbers are the largest of all: one comparison finds both kinds.
    if (actions.view(np.uint64) >= count).any():
        bad = int(actions[(actions < 0) | (actions >= count)][0])
        raise ValueError(f"actions for environment {env_id!r} must be from 0 to {count - 1}, got {bad}")
    return actions
