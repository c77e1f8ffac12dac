"""Advantages against slow oracles that follow one episode at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlray.algos.advantages import Ends, gae, vtrace


def world(seed: int, steps: int = 9, envs: int = 5) -> dict[str, np.ndarray]:
    """Random steps with all kinds of ends; after an end there may be a dummy step, as with next-step autoreset."""
    rng = np.random.default_rng(seed)
    ended = rng.random((steps, envs)) < 0.25
    terminated = ended & (rng.random((steps, envs)) < 0.5)
    truncated = ended & ~terminated
    valid = np.ones((steps, envs), np.bool_)
    valid[1:] &= ~(ended[:-1] & (rng.random((steps - 1, envs)) < 0.4))
    terminated &= valid
    truncated &= valid
    floats = {name: rng.normal(size=(steps, envs)) for name in ("reward", "v_tm1", "v_t", "log_rho")}
    going = valid[:-1] & ~(terminated | truncated)[:-1]
    floats["v_t"][:-1][going] = floats["v_tm1"][1:][going]  # the next observation is the next row's
    return {"terminated": terminated, "truncated": truncated, "valid": valid, **floats}


def tensors(made: dict[str, np.ndarray]) -> tuple[dict[str, torch.Tensor], Ends]:
    found = {name: torch.from_numpy(array) for name, array in made.items()}
    return found, Ends(found["terminated"], found["truncated"], found["valid"])


def slow_gae(made: dict[str, np.ndarray], discount: float, lambda_: float) -> np.ndarray:
    """The definition: the sum of (discount lambda)^k delta over the rest of the episode."""
    steps, envs = made["reward"].shape
    result = np.zeros((steps, envs))
    for b in range(envs):
        for t in range(steps):
            factor = 1.0
            for k in range(t, steps):
                if not made["valid"][k, b]:
                    break
                bootstrap = 0.0 if made["terminated"][k, b] else made["v_t"][k, b]
                result[t, b] += factor * (made["reward"][k, b] + discount * bootstrap - made["v_tm1"][k, b])
                factor *= discount * lambda_
                if made["terminated"][k, b] or made["truncated"][k, b]:
                    break
    return result


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("lambda_", [0.0, 0.7, 1.0])
def test_gae_is_its_definition(seed: int, lambda_: float) -> None:
    made = world(seed)
    given, ends = tensors(made)
    advantage, target = gae(given["reward"], given["v_tm1"], given["v_t"], ends, 0.9, lambda_)
    expected = slow_gae(made, 0.9, lambda_)
    np.testing.assert_allclose(advantage.numpy(), expected, atol=1e-9)
    np.testing.assert_allclose(target.numpy()[made["valid"]], (expected + made["v_tm1"])[made["valid"]], atol=1e-9)
    assert (advantage.numpy()[~made["valid"]] == 0).all()


def test_with_lambda_one_the_target_is_the_return() -> None:
    """Three steps that terminate: 1 + 0.5 (2 + 0.5 * 4) whatever the critic says; cut short instead, it bootstraps."""
    reward = torch.tensor([[1.0], [2.0], [4.0]])
    value, following = torch.tensor([[7.0], [8.0], [9.0]]), torch.tensor([[8.0], [9.0], [10.0]])
    no, yes = torch.zeros(3, 1, dtype=torch.bool), torch.tensor([[False], [False], [True]])
    _, target = gae(reward, value, following, Ends(yes, no, ~no), 0.5, 1.0)
    assert target[0, 0].item() == pytest.approx(1 + 0.5 * (2 + 0.5 * 4))
    _, target = gae(reward, value, following, Ends(no, yes, ~no), 0.5, 1.0)
    assert target[0, 0].item() == pytest.approx(1 + 0.5 * (2 + 0.5 * (4 + 0.5 * 10)))


def slow_vtrace(
    made: dict[str, np.ndarray], discount: float, lambda_: float, clip_rho: float, clip_c: float
) -> tuple[np.ndarray, ...]:
    """The paper's eq. 1 as a sum, and what follows a step: the next target, mixed with the next value."""
    steps, envs = made["reward"].shape
    target, advantage = made["v_tm1"].copy(), np.zeros((steps, envs))
    rho, c = np.minimum(np.exp(made["log_rho"]), clip_rho), lambda_ * np.minimum(np.exp(made["log_rho"]), clip_c)
    for b in range(envs):
        for t in range(steps):
            factor = 1.0
            for k in range(t, steps):
                if not made["valid"][k, b]:
                    break
                bootstrap = 0.0 if made["terminated"][k, b] else made["v_t"][k, b]
                target[t, b] += factor * rho[k, b] * (made["reward"][k, b] + discount * bootstrap - made["v_tm1"][k, b])
                factor *= discount * c[k, b]
                if made["terminated"][k, b] or made["truncated"][k, b]:
                    break
        for t in range(steps):
            ends = made["terminated"][t, b] or made["truncated"][t, b] or t == steps - 1 or not made["valid"][t, b]
            following = made["v_t"][t, b]
            if made["terminated"][t, b]:
                following = 0.0
            elif not ends:
                following = lambda_ * target[t + 1, b] + (1 - lambda_) * following
            advantage[t, b] = made["reward"][t, b] + discount * following - made["v_tm1"][t, b]
    return target, np.where(made["valid"], advantage, 0.0), rho


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("lambda_", "clip_rho", "clip_c"), [(1.0, 1.0, 1.0), (0.8, 2.0, 0.7), (1.0, 1e9, 1e9), (0.0, 1.0, 1.0)]
)
def test_vtrace_is_its_definition(seed: int, lambda_: float, clip_rho: float, clip_c: float) -> None:
    made = world(seed)
    given, ends = tensors(made)
    found = vtrace(
        given["log_rho"], given["reward"], given["v_tm1"], given["v_t"], ends, 0.9, lambda_, clip_rho, clip_c
    )
    target, advantage, rho = slow_vtrace(made, 0.9, lambda_, clip_rho, clip_c)
    keep = made["valid"]
    np.testing.assert_allclose(found.target.numpy()[keep], target[keep], atol=1e-9)
    np.testing.assert_allclose(found.advantage.numpy(), advantage, atol=1e-9)
    np.testing.assert_allclose(found.rho.numpy(), rho, atol=1e-9)


@pytest.mark.parametrize("lambda_", [0.0, 0.7, 1.0])
def test_vtrace_of_the_policy_that_acted_is_generalised_advantage_estimation(lambda_: float) -> None:
    given, ends = tensors(world(1))
    steps = (given["reward"], given["v_tm1"], given["v_t"], ends, 0.9, lambda_)
    found = vtrace(torch.zeros_like(given["reward"]), *steps)
    advantage, target = gae(*steps)
    torch.testing.assert_close(found.target[ends.valid], target[ends.valid])
    torch.testing.assert_close(found.advantage, advantage)
    assert (found.rho == 1).all()


def test_vtrace_of_the_policy_that_acted_is_the_n_step_return() -> None:
    """Three steps of a fragment that goes on: 1 + 0.5 (2 + 0.5 (4 + 0.5 * 10)), whatever the critic says between."""
    reward = torch.tensor([[1.0], [2.0], [4.0]])
    value, following = torch.tensor([[7.0], [8.0], [9.0]]), torch.tensor([[8.0], [9.0], [10.0]])
    no = torch.zeros(3, 1, dtype=torch.bool)
    found = vtrace(torch.zeros(3, 1), reward, value, following, Ends(no, no, ~no), 0.5)
    n_step = torch.tensor([[1 + 0.5 * (2 + 0.5 * 9)], [2 + 0.5 * 9], [9.0]])
    torch.testing.assert_close(found.target, n_step)
    torch.testing.assert_close(found.advantage, n_step - value)


def test_vtrace_evaluates_the_policy_that_learns() -> None:
    """One state, two actions with rewards 0 and 4, each ends the episode. The one that acted tossed a coin; the one
    that learns takes the second action three times out of four. The mean over all actions of mu is pi's value."""
    mu, pi, reward = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]]), torch.tensor([[0.0, 4.0]])
    yes, no = torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 2, dtype=torch.bool)
    value = torch.full((1, 2), 3.0)  # of pi: what is expected of the targets to stay
    found = vtrace((pi / mu).log(), reward, value, torch.full((1, 2), 99.0), Ends(yes, no, yes), 0.9, clip_rho=2.0)
    assert (mu * found.target).sum().item() == pytest.approx(3.0)
    # With the clip at 1 the fixed point belongs to min(mu, pi), made to sum to one: a third and two thirds (eq. 3).
    value = torch.full((1, 2), 4 * 2 / 3)
    clipped = vtrace((pi / mu).log(), reward, value, torch.full((1, 2), 99.0), Ends(yes, no, yes), 0.9)
    assert (mu * clipped.target).sum().item() == pytest.approx(8 / 3)
