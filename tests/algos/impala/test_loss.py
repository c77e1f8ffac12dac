"""The losses in closed form, also against the gradient that they stand for."""

from __future__ import annotations

import math

import pytest
import torch

from rlray.algos.impala.loss import Acted, explained, policy_gradient
from rlray.algos.ppo.loss import clipped_surrogate


def acted(log_prob: torch.Tensor, old: torch.Tensor, advantage: list[float]) -> Acted:
    log_ratio = log_prob - old
    return Acted(log_prob, log_ratio, log_ratio, torch.tensor(advantage), torch.full((len(old),), math.nan))


def test_the_gradient_of_the_policy_is_weighed_by_the_clipped_ratio() -> None:
    log_prob = torch.tensor([math.log(0.25), math.log(0.8)], requires_grad=True)
    loss = policy_gradient(acted(log_prob, torch.tensor([math.log(0.5), math.log(0.4)]), [3.0, -1.0]), 1.5)
    assert loss.item() == pytest.approx(-(0.5 * 3 * math.log(0.25) + 1.5 * -1 * math.log(0.8)) / 2)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(log_prob.grad, torch.tensor([-0.5 * 3 / 2, 1.5 / 2]))


def test_near_the_policy_that_acted_both_losses_have_the_same_gradient() -> None:
    grads = []
    for clipped in (False, True):
        log_prob = torch.tensor([-1.0, -0.3, -2.0], requires_grad=True)
        given = acted(log_prob, log_prob.detach().clone(), [1.0, -2.0, 0.5])
        ratio = given.since.exp()
        loss = clipped_surrogate(ratio, given.advantage, 0.2) if clipped else policy_gradient(given, 1.0)
        loss.backward()  # type: ignore[no-untyped-call]
        grads.append(log_prob.grad)
    torch.testing.assert_close(*grads)


def test_the_part_of_the_variance_that_is_explained() -> None:
    target = torch.tensor([0.0, 1.0, 2.0, 3.0])
    assert explained(target, target).item() == 1
    assert explained(target + 5, target).item() == 1, "a mean that is off is no matter of variance"
    assert explained(torch.zeros(4), target).item() == 0
    assert explained(-target, target).item() == pytest.approx(-3)
    assert explained(target, torch.ones(4)).item() == 0, "nothing to explain"
