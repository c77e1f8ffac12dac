"""The losses by hand, and against slow oracles written after the papers' algorithms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlray.algos.q_learning.losses import categorical_loss, q_learning_loss, quantile_loss

A_TM1 = torch.tensor([1, 0])
R_T = torch.tensor([1.0, -3.0])
DISCOUNT_T = torch.tensor([0.5, 0.0])
Q_T = torch.tensor([[10.0, 2.0], [7.0, 8.0]])
A_T = torch.tensor([1, 0])


def q_tm1() -> torch.Tensor:
    return torch.tensor([[0.0, 1.6], [2.0, 9.0]], requires_grad=True)


def test_q_learning_by_hand() -> None:
    """Targets 1 + 0.5 * 2 = 2 and -3; errors 0.4 and -5."""
    q = q_tm1()
    losses, td_error = q_learning_loss(q, A_TM1, R_T, DISCOUNT_T, Q_T, A_T, huber_delta=1.0)
    assert td_error.tolist() == pytest.approx([0.4, -5.0])
    assert losses.tolist() == pytest.approx([0.08, 4.5])
    losses.sum().backward()
    assert q.grad is not None
    assert q.grad.flatten().tolist() == pytest.approx([0.0, -0.4, 1.0, 0.0])  # clipped to delta at the second


def test_the_target_takes_the_action_that_it_is_given() -> None:
    """Target 1 + 0.5 * 10 = 6 for the other action."""
    _, td_error = q_learning_loss(q_tm1(), A_TM1, R_T, DISCOUNT_T, Q_T, torch.tensor([0, 0]))
    assert td_error.tolist() == pytest.approx([4.4, -5.0])


def test_delta_is_where_squares_end() -> None:
    losses, _ = q_learning_loss(q_tm1(), A_TM1, R_T, DISCOUNT_T, Q_T, A_T, huber_delta=2.0)
    assert losses.tolist() == pytest.approx([0.08, 2 * (5 - 1)])


def test_no_gradient_flows_through_the_target() -> None:
    for count, loss in (
        (1, lambda now, then: q_learning_loss(now[:, :, 0], A_TM1, R_T, DISCOUNT_T, then[:, :, 0], A_T)[0]),
        (3, lambda now, then: categorical_loss(now, A_TM1, R_T, DISCOUNT_T, then, A_T, -1.0, 1.0)[0]),
        (3, lambda now, then: quantile_loss(now, A_TM1, R_T, DISCOUNT_T, then, A_T)),
    ):
        now, then = (torch.randn(2, 2, count, requires_grad=True) for _ in range(2))
        loss(now, then).sum().backward()
        assert then.grad is None
        assert now.grad is not None
        assert now.grad[0, 1].any()
        assert not now.grad[0, 0].any()  # the action that was not taken


def test_the_categorical_loss_by_hand() -> None:
    """Three atoms -1, 0, 1. A target of r = 0.5 after a termination lies half on 0 and half on 1."""
    logits_tm1 = torch.log(torch.tensor([[[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]]]))
    zero, one = torch.tensor([0]), torch.tensor([1])
    r_t, discount_t = torch.tensor([0.5]), torch.tensor([0.0])
    losses, divergence = categorical_loss(logits_tm1, one, r_t, discount_t, torch.randn(1, 2, 3), zero, -1.0, 1.0)
    by_hand = -0.5 * np.log(0.2) - 0.5 * np.log(0.6)
    assert losses.item() == pytest.approx(by_hand)
    assert divergence.item() == pytest.approx(by_hand - np.log(2))  # less the target's own entropy


def test_nothing_is_left_to_learn_where_the_target_is_reached() -> None:
    """r = 0 and no discounting: the target is the distribution itself."""
    logits = torch.randn(1, 2, 5)
    same = torch.tensor([1])
    _, divergence = categorical_loss(logits, same, torch.zeros(1), torch.ones(1), logits, same, -2.0, 2.0)
    assert divergence.item() == pytest.approx(0.0, abs=1e-6)
    moved = torch.full((1,), 0.3)
    assert categorical_loss(logits, same, moved, torch.ones(1), logits, same, -2.0, 2.0)[1].item() > 1e-3


def test_the_quantile_loss_by_hand() -> None:
    """One sample at 2 against quantiles 0 and 3 (tau 1/4 and 3/4): errors 2 and -1, Huber 1.5 and 0.5."""
    quantiles = torch.tensor([[[0.0, 3.0]]])
    zero = torch.tensor([0])
    loss = quantile_loss(quantiles, zero, torch.tensor([2.0]), torch.tensor([0.0]), torch.randn(1, 1, 2), zero)
    assert loss.item() == pytest.approx(0.25 * 1.5 + 0.25 * 0.5)
    discounted = quantile_loss(
        quantiles, zero, torch.tensor([1.0]), torch.tensor([0.5]), torch.full((1, 1, 2), 2.0), zero
    )
    assert discounted.item() == pytest.approx(loss.item())
