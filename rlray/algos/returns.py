"""Returns: what the rewards after a step add up to. Pure functions over whole batches."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def n_step_returns(
    reward: NDArray[Any], terminated: NDArray[np.bool_], truncated: NDArray[np.bool_], discount: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """The n-step return of windows of ``n`` steps, cut where an episode ends.

    With m <= n the steps up to the first end (or n where there is none), for the target
    ``r_t + discount_t * V(s_t)`` (Sutton and Barto 2018, eq. 7.1), where s_t is the observation m steps later:

        r_t = sum_{k<m} discount^k reward_k,    discount_t = 0 if step m-1 terminated, else discount^m

    So a truncated episode bootstraps from its true last observation and a terminated one does not. What the window
    holds after the first end is ignored. A step that is both terminated and truncated counts as terminated.

    Args:
        reward: [n, B] the rewards that follow each step.
        terminated: [n, B] the episode ended there, in a state of value 0.
        truncated: [n, B] the episode was cut off there.
        discount: gamma.

    Returns:
        ``r_t`` float32 [B], ``discount_t`` float32 [B] and ``m`` int64 [B].
    """
    n, batch = reward.shape
    r_t = np.zeros(batch, np.float64)
    factor = np.ones(batch, np.float64)  # discount^k while the episode lasts, then as it was at its end
    zeroed = np.zeros(batch, np.bool_)
    alive = np.ones(batch, np.bool_)
    length = np.zeros(batch, np.int64)
    for k in range(n):
        r_t += np.where(alive, factor * reward[k], 0.0)
        factor = np.where(alive, factor * discount, factor)
        length += alive
        zeroed |= alive & terminated[k]
        alive &= ~(terminated[k] | truncated[k])
    return r_t.astype(np.float32), np.where(zeroed, 0.0, factor).astype(np.float32), length
