"""Projections against slow oracles that follow the papers line by line, and what must hold of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rlray.algos.projections import categorical_projection, quantile_huber_loss


def slow_projection(p: np.ndarray, r: float, discount: float, v_min: float, v_max: float) -> np.ndarray:
    """Algorithm 1 of arXiv 1707.06887 for one transition, with what it forgets: an atom hit exactly."""
    count = len(p)
    gap = (v_max - v_min) / (count - 1)
    m = np.zeros(count)
    for j in range(count):
        moved = min(max(r + discount * (v_min + j * gap), v_min), v_max)
        b = (moved - v_min) / gap
        lower, upper = math.floor(b), math.ceil(b)
        if lower == upper:
            m[lower] += p[j]
        else:
            m[lower] += p[j] * (upper - b)
            m[upper] += p[j] * (b - lower)
    return m


@pytest.mark.parametrize("atoms", [2, 5, 51])
def test_the_categorical_projection_agrees_with_algorithm_1(atoms: int) -> None:
    rng = np.random.default_rng(atoms)
    p = rng.dirichlet(np.ones(atoms), 200).astype(np.float32)
    r = rng.normal(0, 3, 200).astype(np.float32)
    r[:40] = rng.integers(-2, 3, 40)  # atoms that are hit exactly
    discount = np.where(rng.random(200) < 0.2, 0, rng.choice([0.5, 0.9, 1.0], 200)).astype(np.float32)
    got = categorical_projection(*map(torch.from_numpy, (p, r, discount)), -2.0, 2.0).numpy()
    expected = [slow_projection(*each, -2.0, 2.0) for each in zip(p, r.tolist(), discount.tolist(), strict=True)]
    np.testing.assert_allclose(got, expected, atol=2e-5)
    np.testing.assert_allclose(got.sum(axis=1), 1, atol=1e-5)


def test_the_mean_is_kept_within_the_support_and_held_at_its_ends() -> None:
    atoms = torch.linspace(-10, 10, 51)
    p = torch.from_numpy(np.random.default_rng(0).dirichlet(np.ones(51), 64)).float()
    r, discount = torch.linspace(-4, 4, 64), torch.full((64,), 0.5)
    inside = categorical_projection(p, r, discount, -10.0, 10.0)
    torch.testing.assert_close(inside @ atoms, r + 0.5 * (p @ atoms), atol=1e-4, rtol=1e-4)
    outside = categorical_projection(p, torch.full((64,), 100.0), discount, -10.0, 10.0)
    torch.testing.assert_close(outside @ atoms, torch.full((64,), 10.0))


def slow_quantile_loss(quantiles: np.ndarray, targets: np.ndarray, kappa: float) -> float:
    """Algorithm 1 of arXiv 1710.10044 for one transition."""
    total = 0.0
    for i, own in enumerate(quantiles):
        tau = (2 * i + 1) / (2 * len(quantiles))
        for target in targets:
            u = target - own
            huber = 0.5 * u * u if abs(u) <= kappa else kappa * (abs(u) - 0.5 * kappa)
            total += abs(tau - (u < 0)) * huber / kappa / len(targets)
    return total


@pytest.mark.parametrize("kappa", [0.5, 1.0])
def test_the_quantile_loss_agrees_with_the_oracle(kappa: float) -> None:
    rng = np.random.default_rng(1)
    quantiles, targets = (rng.normal(0, 2, (30, n)).astype(np.float32) for n in (7, 4))
    got = quantile_huber_loss(torch.from_numpy(quantiles), torch.from_numpy(targets), kappa).numpy()
    expected = [slow_quantile_loss(*each, kappa) for each in zip(quantiles, targets, strict=True)]
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_it_is_least_at_the_quantiles_of_the_targets() -> None:
    """With a small kappa: those of a thousand samples, at the midpoints of five parts."""
    rng = np.random.default_rng(2)
    samples = torch.from_numpy(rng.exponential(1.0, (1, 1000))).float()
    quantiles = torch.zeros(1, 5, requires_grad=True)
    optimizer = torch.optim.Adam([quantiles], lr=0.02)
    for _ in range(600):
        optimizer.zero_grad()
        quantile_huber_loss(quantiles, samples, kappa=0.01).sum().backward()
        optimizer.step()
    expected = np.quantile(samples.numpy(), [0.1, 0.3, 0.5, 0.7, 0.9])
    np.testing.assert_allclose(quantiles.detach().numpy()[0], expected, atol=0.05)
