from __future__ import annotations

import numpy as np
import pytest

from rlray.algos.returns import n_step_returns


def slow_return(
    reward: list[float], terminated: list[bool], truncated: list[bool], discount: float
) -> tuple[float, float, int]:
    total = 0.0
    for k in range(len(reward)):
        total += discount**k * reward[k]
        if terminated[k]:
            return total, 0.0, k + 1
        if truncated[k]:
            return total, discount ** (k + 1), k + 1
    return total, discount ** len(reward), len(reward)


@pytest.mark.parametrize("n", [1, 3, 7])
def test_agrees_with_the_definition(n: int) -> None:
    rng = np.random.default_rng(n)
    reward = rng.normal(size=(n, 300))
    terminated, truncated = rng.random((n, 300)) < 0.15, rng.random((n, 300)) < 0.15
    r_t, discount_t, length = n_step_returns(reward, terminated, truncated, 0.9)
    assert (r_t.dtype, discount_t.dtype) == (np.float32, np.float32)
    for b in range(300):
        expected = slow_return(*(list(a[:, b]) for a in (reward, terminated, truncated)), 0.9)
        assert (r_t[b], discount_t[b], length[b]) == pytest.approx(expected, abs=1e-6)


def test_what_follows_an_end_does_not_matter_even_if_it_is_no_number() -> None:
    reward = np.array([[1.0], [np.nan]])
    ended, not_ended = np.array([[True], [False]]), np.zeros((2, 1), np.bool_)
    assert n_step_returns(reward, not_ended, ended, 0.5)[0] == [1.0]
