"""Ranks against a slow oracle, the gradient against what calculus says."""

from __future__ import annotations

import numpy as np
import pytest

from rlray.algos.es.gradient import centred_ranks, estimate


def slow_ranks(values: list[float]) -> list[float]:
    """By comparing each with each: the mean place of those that are equal, on a scale from -0.5 to 0.5."""
    n = len(values)
    places = [sum(b < a for b in values) + (sum(b == a for b in values) - 1) / 2 for a in values]
    return [place / (n - 1) - 0.5 if n > 1 else 0.0 for place in places]


def test_ranks_are_those_of_a_slow_oracle() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 10, 57):
        for spread in (1, 3, 1000):
            values = rng.integers(0, spread, n).astype(np.float64)
            np.testing.assert_allclose(centred_ranks(values), slow_ranks(values.tolist()), atol=1e-12)
    assert centred_ranks(np.array([-1e30, 5.0, 5.5])).tolist() == [-0.5, 0.0, 0.5], "only their order counts"


def pairs(count: int, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A table of noise, offsets in it, and the pieces of noise that begin there [count, size]."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal(1_000_000, np.float32)
    offsets = rng.integers(len(noise) - size + 1, size=count)
    return noise, offsets, np.stack([noise[at : at + size] for at in offsets]).astype(np.float64)


def test_the_sum_is_that_of_the_formula() -> None:
    noise, offsets, eps = pairs(150, 7)  # two whole blocks and a part
    gains = np.random.default_rng(1).standard_normal(150)
    expected = sum(gain * piece for gain, piece in zip(gains, eps, strict=True)) / (2 * 150 * 0.3)
    found = estimate(noise, offsets, gains, 7, 0.3)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.02, 1.0])
def test_of_a_linear_function_it_is_the_slope(sigma: float) -> None:
    slope, theta = np.array([2.0, -1.0, 0.5, 0.0]), np.ones(4)
    noise, offsets, eps = pairs(40_000, 4)
    gains = (theta + sigma * eps) @ slope - (theta - sigma * eps) @ slope
    np.testing.assert_allclose(estimate(noise, offsets, gains, 4, sigma), slope, atol=0.05)


def test_of_a_quadratic_function_it_is_the_gradient_and_mirrored_pairs_cancel_the_curvature() -> None:
    """F = -theta' A theta / 2: the gradient of its smoothed form is -A theta, whatever sigma is."""
    curvature, theta, sigma = np.diag([1.0, 4.0, 0.5]), np.array([1.0, -0.5, 2.0]), 0.5

    def fitness(x: np.ndarray) -> np.ndarray:
        return -0.5 * np.einsum("ni,ij,nj->n", x, curvature, x)

    noise, offsets, eps = pairs(40_000, 3)
    gains = fitness(theta + sigma * eps) - fitness(theta - sigma * eps)
    np.testing.assert_allclose(estimate(noise, offsets, gains, 3, sigma), -curvature @ theta, atol=0.05)
    at_the_top = fitness(sigma * eps) - fitness(-sigma * eps)
    assert np.abs(estimate(noise, offsets, at_the_top, 3, sigma)).max() < 1e-5, "no pair says where to go, exactly"
