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


def slow_vtrace(made: dict[str, np.ndarray], discount: float, clip_rho: float, clip_c: float) -> tuple[np.ndarray, ...]:
    """The paper's eq. 1 as a sum, and the policy gradient's factor from the next target."""
    steps, envs = made["reward"].shape
    target, advantage = made["v_tm1"].copy(), np.zeros((steps, envs))
    rho, c = np.minimum(np.exp(made["log_rho"]), clip_rho), np.minimum(np.exp(made["log_rho"]), clip_c)
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
            following = made["v_t"][t, b] if ends else target[t + 1, b]
            if made["terminated"][t, b]:
                following = 0.0
            advantage[t, b] = rho[t, b] * (made["reward"][t, b] + discount * following - made["v_tm1"][t, b])
    return target, np.where(made["valid"], advantage, 0.0)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("clip_rho", "clip_c"), [(1.0, 1.0), (2.0, 0.7), (1e9, 1e9)])
def test_vtrace_is_its_definition(seed: int, clip_rho: float, clip_c: float) -> None:
    made = world(seed)
    given, ends = tensors(made)
    found = vtrace(
        given["log_rho"], given["reward"], given["v_tm1"], given["v_t"], ends, 0.9, clip_rho=clip_rho, clip_c=clip_c
    )
    target, advantage = slow_vtrace(made, 0.9, clip_rho, clip_c)
    keep = made["valid"]
    np.testing.assert_allclose(found.target.numpy()[keep], target[keep], atol=1e-9)
    np.testing.assert_allclose(found.advantage.numpy(), advantage, atol=1e-9)


def test_vtrace_of_the_same_policy_is_the_return() -> None:
    """Without clipping and with ratios of one it is GAE with lambda 1."""
    given, ends = tensors(world(1))
    found = vtrace(torch.zeros_like(given["reward"]), given["reward"], given["v_tm1"], given["v_t"], ends, 0.9)
    _, target = gae(given["reward"], given["v_tm1"], given["v_t"], ends, 0.9, 1.0)
    torch.testing.assert_close(found.target[ends.valid], target[ends.valid])
