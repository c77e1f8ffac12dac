"""Statistics of numbers that keep coming, beside numpy's of all of them."""

from __future__ import annotations

import numpy as np
import pytest

from rlray.train.tally import BLOCK, SAMPLE, Summary, Tally, merged


def given(numbers: np.ndarray, cuts: list[int]) -> Summary:
    """The summary of ``numbers``, handed over in pieces; somebody looks after each."""
    tally = Tally()
    for piece in np.split(numbers, cuts):
        tally.add(piece)
        tally.summary()
    return tally.summary()


def same(one: Summary, other: Summary) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(vars(one).values(), vars(other).values(), strict=True))


@pytest.mark.parametrize("count", [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 17, SAMPLE + 1, 5 * SAMPLE + 3])
def test_what_numpy_says(count: int) -> None:
    rng = np.random.default_rng(count)
    numbers = rng.normal(1e6, 3.0, count)  # a mean that sums of squares would not survive
    found = given(numbers, sorted(rng.integers(0, count, 9)))
    assert (found.count, found.low, found.high) == (count, numbers.min(), numbers.max())
    assert found.mean == pytest.approx(numbers.mean(), rel=1e-14)
    assert found.std == pytest.approx(numbers.std(), rel=1e-9)
    assert np.array_equal(found.sample, numbers[:: found.stride])
    assert SAMPLE / 2 < found.sample.size <= SAMPLE or found.stride == 1
    assert found.quantile(0.9) == np.quantile(numbers[:: found.stride], 0.9)


def test_pieces_make_no_difference() -> None:
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=4 * SAMPLE + 5)
    whole = given(numbers, [])
    for _ in range(3):
        assert same(given(numbers, sorted(rng.integers(0, numbers.size, 40))), whole)


def test_blocks_of_odd_sizes() -> None:
    numbers = np.random.default_rng(2).normal(size=3 * SAMPLE)
    found = Summary()
    for piece in np.split(numbers, range(0, numbers.size, 777)[1:]):
        found = found.plus(piece)
    assert found.stride == 4
    assert np.array_equal(found.sample, numbers[::4])


def test_several_together() -> None:
    rng = np.random.default_rng(1)
    parts = [rng.normal(place, 2.0, count) for place, count in ((0, 3 * SAMPLE), (5, 10), (9, SAMPLE))]
    numbers = np.concatenate(parts)
    found = merged([given(part, []) for part in parts])
    assert (found.count, found.low, found.high) == (numbers.size, numbers.min(), numbers.max())
    assert (found.mean, found.std) == (pytest.approx(numbers.mean()), pytest.approx(numbers.std()))
    assert found.quantile(0.5) == pytest.approx(np.quantile(numbers, 0.5), abs=0.1)
    assert same(merged([given(parts[0], [])]), given(parts[0], []))


def test_nothing() -> None:
    for found in (Tally().summary(), merged([]), merged([Summary(), Summary()])):
        assert found.count == 0
        assert np.isnan(found.std)
        assert np.isnan(found.quantile(0.5))
