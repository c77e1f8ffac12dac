"""The sum tree against a list that is summed from the left."""

from __future__ import annotations

import numpy as np
import pytest

from rlray.algos.replay import SumTree


class NaiveSumTree:
    def __init__(self, capacity: int) -> None:
        self.numbers = [0.0] * capacity

    def set(self, index: int, value: float) -> None:
        self.numbers[index] = value

    def total(self) -> float:
        return sum(self.numbers)

    def find(self, prefix: float) -> int:
        running = 0.0
        for index, number in enumerate(self.numbers):
            running += number
            if running > prefix:
                return index
        return max(index for index, number in enumerate(self.numbers) if number > 0)


@pytest.mark.parametrize("capacity", [1, 2, 3, 7, 64, 100])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_agrees_with_the_oracle(capacity: int, seed: int) -> None:
    """Whole numbers, so that the oracle's sums are exact too and every prefix has one right answer."""
    rng = np.random.default_rng(seed)
    tree, naive = SumTree(capacity), NaiveSumTree(capacity)
    for _ in range(60):
        index = rng.integers(0, capacity, rng.integers(0, 20))  # with repetitions
        values = rng.integers(0, 4, len(index)).astype(np.float64)
        tree.set(index, values)
        for i, value in zip(index, values, strict=True):
            naive.set(int(i), float(value))
        assert tree.values.tolist() == naive.numbers
        assert tree.total == naive.total()
        if tree.total:
            prefix = np.concatenate([rng.random(30) * tree.total, np.arange(tree.total + 1)])
            assert tree.find(prefix).tolist() == [naive.find(p) for p in prefix]


def test_rounding_does_not_pile_up_and_the_way_there_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    walked, loaded = SumTree(1000), SumTree(1000)
    for _ in range(300):
        walked.set(rng.integers(0, 1000, 50), 10.0 ** rng.uniform(-9, 9, 50))
    loaded.load(walked.values[:990].copy())
    loaded.set(np.arange(990, 1000), walked.values[990:].copy())
    assert np.array_equal(walked._nodes, loaded._nodes)
    assert walked.total == pytest.approx(walked.values.sum(), rel=1e-12)


def test_what_is_zero_is_never_found() -> None:
    """Not even where rounding leaves a prefix beyond what its subtree holds."""
    rng = np.random.default_rng(1)
    tree = SumTree(512)
    for _ in range(50):
        tree.load(np.where(rng.random(512) < 0.9, 0.0, 10.0 ** rng.uniform(-12, 3, 512)))
        found = tree.find(np.concatenate([rng.random(200) * tree.total, np.full(5, tree.total)]))
        assert (tree.values[found] > 0).all()


def test_each_is_found_in_proportion() -> None:
    tree = SumTree(4)
    tree.load(np.array([1.0, 0.0, 2.0, 5.0]))
    found = tree.find((np.arange(8000) + 0.5) / 8000 * tree.total)
    assert np.bincount(found, minlength=4).tolist() == [1000, 0, 2000, 5000]


def test_there_is_nothing_to_find_in_nothing() -> None:
    with pytest.raises(ValueError, match="numbers are all 0"):
        SumTree(3).find(np.zeros(1))
