"""The loss in closed form."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from rlray.algos.ppo.loss import PPOLoss, ppo_loss


def loss(ratio: float, advantage: float, **changed: Any) -> PPOLoss:
    given: dict[str, Any] = {
        "log_prob": torch.tensor([math.log(ratio)], requires_grad=True),
        "entropy": torch.tensor([0.7]), "value": torch.tensor([3.0]),
        "old_log_prob": torch.zeros(1), "old_value": torch.tensor([1.0]),
        "advantage": torch.tensor([advantage]), "target": torch.tensor([2.5]),
        "clip": 0.2, "clip_value": None, "value_coef": 0.5, "entropy_coef": 0.1,
    }  # fmt: skip
    return ppo_loss(**(given | changed))


def test_the_parts_add_up() -> None:
    found = loss(1.1, 2.0)
    assert found.policy.item() == pytest.approx(-1.1 * 2)
    assert found.value.item() == pytest.approx(0.5 * 0.25)
    assert found.total.item() == pytest.approx(-2.2 + 0.5 * 0.125 - 0.1 * 0.7)
    assert found.approx_kl.item() == pytest.approx(1.1 - 1 - math.log(1.1), rel=1e-4)
    assert found.clip_fraction.item() == 0


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected", "flows"),
    [
        (1.5, 1.0, -1.2, False),  # already likelier than allowed, and good: no further
        (1.5, -1.0, 1.5, True),  # likelier and bad: all the way back
        (0.5, 1.0, -0.5, True),
        (0.5, -1.0, 0.8, False),
    ],
)
def test_the_gradient_stops_beyond_the_clip_and_only_there(
    ratio: float, advantage: float, expected: float, flows: bool
) -> None:
    log_prob = torch.tensor([math.log(ratio)], requires_grad=True)
    found = loss(ratio, advantage, log_prob=log_prob)
    assert found.policy.item() == pytest.approx(expected)
    found.total.backward()
    assert log_prob.grad is not None
    assert bool(log_prob.grad.abs() > 0) == flows


def test_values_are_clipped_near_the_old_ones_to_the_worse() -> None:
    """Old 1, new 3, target 2.5: kept within 0.5 it is 1.5, which is further off."""
    assert loss(1.0, 0.0, clip_value=0.5).value.item() == pytest.approx(0.5 * 1.0)
    assert loss(1.0, 0.0, clip_value=5.0).value.item() == pytest.approx(0.5 * 0.25)
