from __future__ import annotations

import pytest
import torch

from rlray.algos.dqn.loss import q_learning_loss

A_TM1 = torch.tensor([1, 0])
R_T = torch.tensor([1.0, -3.0])
DISCOUNT_T = torch.tensor([0.5, 0.0])
Q_T_VALUE = torch.tensor([[10.0, 2.0], [7.0, 8.0]])
Q_T_SELECTOR = torch.tensor([[0.0, 1.0], [5.0, 4.0]])


def q_tm1() -> torch.Tensor:
    return torch.tensor([[0.0, 1.6], [2.0, 9.0]], requires_grad=True)


def test_double_q_learning_by_hand() -> None:
    """Targets 1 + 0.5 * 2 = 2 and -3; errors 0.4 and -5."""
    q = q_tm1()
    losses, td_error = q_learning_loss(q, A_TM1, R_T, DISCOUNT_T, Q_T_VALUE, Q_T_SELECTOR, huber_delta=1.0)
    assert td_error.tolist() == pytest.approx([0.4, -5.0])
    assert losses.tolist() == pytest.approx([0.08, 4.5])
    losses.sum().backward()
    assert q.grad is not None
    assert q.grad.flatten().tolist() == pytest.approx([0.0, -0.4, 1.0, 0.0])  # clipped to delta at the second


def test_single_q_learning_takes_the_maximum_of_the_target_network() -> None:
    """Targets 1 + 0.5 * 10 = 6 and -3."""
    _, td_error = q_learning_loss(q_tm1(), A_TM1, R_T, DISCOUNT_T, Q_T_VALUE, Q_T_VALUE)
    assert td_error.tolist() == pytest.approx([4.4, -5.0])


def test_delta_is_where_squares_end() -> None:
    losses, _ = q_learning_loss(q_tm1(), A_TM1, R_T, DISCOUNT_T, Q_T_VALUE, Q_T_SELECTOR, huber_delta=2.0)
    assert losses.tolist() == pytest.approx([0.08, 2 * (5 - 1)])


def test_no_gradient_flows_through_the_target() -> None:
    value, selector = Q_T_VALUE.clone().requires_grad_(), Q_T_SELECTOR.clone().requires_grad_()
    losses, _ = q_learning_loss(q_tm1(), A_TM1, R_T, DISCOUNT_T, value, selector)
    losses.sum().backward()
    assert value.grad is None
    assert selector.grad is None
