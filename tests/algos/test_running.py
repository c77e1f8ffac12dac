"""Running moments and scaled rewards against numpy over everything at once."""

from __future__ import annotations

import numpy as np

from rlray.algos.running import RewardScaler, RunningMoments


def test_moments_are_those_of_all_rows_together() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(3, 2, size=(size, 4)) * [1, 10, 100, 0] for size in (1, 0, 7, 300, 2)]
    moments = RunningMoments((4,))
    for part in parts:
        moments.add(part.astype(np.float32))
    whole = np.concatenate(parts).astype(np.float32)
    np.testing.assert_allclose(moments.mean, whole.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(moments.std, whole.std(axis=0), rtol=1e-5)
    again = RunningMoments((4,))
    again.load_state(moments.state())
    np.testing.assert_array_equal(again.std, moments.std)


def test_before_anything_was_seen_the_deviation_is_one() -> None:
    moments = RunningMoments((2,))
    moments.add(np.ones((1, 2)))
    assert moments.std.tolist() == [1, 1]


def test_rewards_are_divided_by_the_deviation_of_the_returns_of_each_episode() -> None:
    """Across fragments of one stream, and from zero after an end."""
    rng = np.random.default_rng(1)
    reward = rng.normal(size=(8, 3)).astype(np.float32)
    last = rng.random((8, 3)) < 0.3
    valid = np.ones((8, 3), np.bool_)
    scaler = RewardScaler(0.9)
    found = [scaler.scaled(5, reward[a:b], last[a:b], valid[a:b]) for a, b in ((0, 3), (3, 8))]
    returns, seen = np.zeros(3), []
    for t in range(8):
        returns = returns * 0.9 + reward[t]
        seen.append(returns)
        returns = np.where(last[t], 0, returns)
    np.testing.assert_allclose(found[1], reward[3:] / np.std(seen), rtol=1e-5)
    np.testing.assert_allclose(found[0], reward[:3] / np.std(seen[:3]), rtol=1e-5)
