"""Random actions lie in their space, fill it evenly, and follow from the random numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from rlray.train.random_actions import random_actions

INFINITE = np.inf
SPACES = [
    spaces.Discrete(6),
    spaces.Discrete(3, start=-1),
    spaces.MultiDiscrete([2, 5]),
    spaces.MultiBinary((2, 3)),
    spaces.Box(-2.0, 3.0, (2, 2), np.float32),
    spaces.Box(np.array([-1.0, -INFINITE, 4.0, -INFINITE]), np.array([1.0, INFINITE, INFINITE, 7.0]), dtype=np.float64),
    spaces.Box(0, 255, (4,), np.uint8),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_batch_of_the_space(space: spaces.Space[Any]) -> None:
    draw = random_actions(space, 500, np.random.default_rng(1))
    first, second = draw(), draw()
    assert first.shape == (500, *(space.shape or ()))
    assert all(space.contains(np.asarray(action, space.dtype)) for action in first)
    assert first.dtype == space.dtype or isinstance(space, spaces.Discrete)
    assert not np.array_equal(first, second)
    again = random_actions(space, 500, np.random.default_rng(1))
    assert np.array_equal(again(), first)
    assert np.array_equal(again(), second)


@pytest.mark.parametrize("space", SPACES[:3], ids=str)
def test_every_action_is_equally_likely(space: spaces.Space[Any]) -> None:
    actions = random_actions(space, 60_000, np.random.default_rng(2))()
    for column in actions.reshape(60_000, -1).T:
        counts = np.unique(column, return_counts=True)[1]
        assert np.abs(counts * len(counts) / 60_000 - 1).max() < 0.05
    assert actions.min() == np.min(getattr(space, "start", 0))


def test_a_box_is_filled_to_its_bounds_and_no_further() -> None:
    actions = random_actions(SPACES[5], 20_000, np.random.default_rng(3))()
    low, high = actions.min(0), actions.max(0)
    assert (low[0], high[0]) == (pytest.approx(-1, abs=0.01), pytest.approx(1, abs=0.01))
    assert low[1] < -3
    assert high[1] > 3
    assert 4 <= low[2] < 4.01
    assert 6.99 < high[3] <= 7


def test_other_spaces_are_refused() -> None:
    with pytest.raises(TypeError, match="random actions need a space of arrays"):
        random_actions(spaces.Text(3), 2, np.random.default_rng(0))
