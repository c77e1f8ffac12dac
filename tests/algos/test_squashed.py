"""The squashed Gaussian against torch's own, against integrals, and between simulator and learner."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.distributions import Normal, TanhTransform, TransformedDistribution

from rlray.algos.squashed import LOG_STD, SquashedGaussian, squash, squashed_gaussian


def test_log_densities_are_torchs() -> None:
    generator = torch.Generator().manual_seed(0)
    outputs = 0.5 * torch.randn(64, 6, generator=generator, dtype=torch.float64)
    noise = torch.randn(64, 3, generator=generator, dtype=torch.float64)
    actions, log_prob = squash(outputs, noise)
    mean, log_std = outputs.chunk(2, dim=1)
    theirs = TransformedDistribution(Normal(mean, log_std.exp()), [TanhTransform()])
    torch.testing.assert_close(actions, (mean + log_std.exp() * noise).tanh())
    torch.testing.assert_close(log_prob, theirs.log_prob(actions).sum(dim=1))


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (0.7, -1.0), (-1.5, 0.4)])
def test_a_density_integrates_to_one(mean: float, log_std: float) -> None:
    """Over the actions themselves, by trapezoids between those of evenly spaced noise."""
    noise = torch.linspace(-8, 8, 20_001, dtype=torch.float64)[:, None]
    actions, log_prob = squash(torch.tensor([[mean, log_std]], dtype=torch.float64).expand(len(noise), 2), noise)
    assert (actions.abs() <= 1).all()
    assert float(torch.trapezoid(log_prob.exp(), actions[:, 0])) == pytest.approx(1, abs=1e-4)


def test_where_tanh_rounds_to_one_the_density_is_still_right() -> None:
    exact = squash(torch.tensor([[30.0, 0.0]], dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64))[1]
    actions, log_prob = squash(torch.tensor([[30.0, 0.0]]), torch.ones(1, 1))
    assert float(actions) == 1.0
    assert float(log_prob) == pytest.approx(float(exact), rel=1e-6)
    assert float(exact) == pytest.approx(-0.5 * np.log(2 * np.pi) - 0.5 - (np.log(4) - 62), rel=1e-6)


def test_deviations_have_bounds() -> None:
    for given, kept in ((-99.0, LOG_STD[0]), (99.0, LOG_STD[1])):
        one = squash(torch.tensor([[0.1, given]]), torch.ones(1, 1))
        other = squash(torch.tensor([[0.1, kept]]), torch.ones(1, 1))
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_gradients_are_those_of_finite_differences() -> None:
    outputs = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    noise = torch.randn(3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: squash(x, noise), (outputs,))  # type: ignore[no-untyped-call]


BOX = spaces.Box(np.array([[0.0, -6.0]], np.float32), np.array([[1.0, 2.0]], np.float32))


def test_actions_for_the_environment_are_within_its_bounds_and_come_back() -> None:
    ours, rng = SquashedGaussian(BOX), np.random.default_rng(0)
    outputs = rng.standard_normal((500, 4)).astype(np.float32) * 3
    for actions in (ours.sample(outputs, rng), ours.best(outputs), ours.random(500, rng), ours.best(outputs * 1e6)):
        assert actions.dtype == np.float32
        assert all(BOX.contains(action) for action in actions)
    unit = ours.unit("cpu")(torch.from_numpy(ours.best(outputs)))
    np.testing.assert_allclose(unit.numpy(), np.tanh(outputs[:, :2]), atol=2e-6)


def test_simulators_sample_what_the_learner_thinks_they_do() -> None:
    """The same moments as `squash` has."""
    ours, rng = SquashedGaussian(BOX), np.random.default_rng(0)
    outputs = np.tile(np.array([[0.5, -1.0, -0.7, 0.3]], np.float32), (40_000, 1))
    sampled = ours.unit("cpu")(torch.from_numpy(ours.sample(outputs, rng)))
    noise = torch.randn(40_000, 2, generator=torch.Generator().manual_seed(0))
    actions, _ = squash(torch.from_numpy(outputs), noise)
    torch.testing.assert_close(sampled.mean(dim=0), actions.mean(dim=0), atol=0.015, rtol=0)
    torch.testing.assert_close(sampled.std(dim=0), actions.std(dim=0), atol=0.015, rtol=0)
    spread = ours.unit("cpu")(torch.from_numpy(ours.random(40_000, rng)))
    torch.testing.assert_close(spread.std(dim=0), torch.full((2,), 3**-0.5), atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Discrete(3), r"sac needs actions that are a Box of floats, but Odd-v0 has Discrete\(3\): choose"),
        (spaces.Box(0, 5, (2,), np.int64), "Box of floats, but Odd-v0 has Box"),
        (spaces.Box(-1, 1, (0,), np.float32), "Box of floats, but Odd-v0 has Box"),
        (spaces.Box(-np.inf, np.inf, (2,), np.float32), "finite bounds, but Odd-v0 has Box.*TransformAction"),
        (spaces.Box(np.zeros(2, np.float32), np.array([1, 0], np.float32)), "low lies below high, but Odd-v0 has Box"),
    ],
)
def test_other_spaces_are_refused(space: spaces.Space, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        squashed_gaussian(space, "sac", "Odd-v0")
