"""The losses of SAC, by hand."""

from __future__ import annotations

import torch

from rlray.algos.sac.loss import critic_loss, policy_loss, soft_target, temperature_gradient


def test_the_soft_target_by_hand() -> None:
    """Three transitions: one that goes on or was truncated, one that terminated, one of two steps."""
    target = soft_target(
        r_t=torch.tensor([1.0, 2.0, -1.0]),
        discount_t=torch.tensor([0.9, 0.0, 0.81]),
        q_t=torch.tensor([[5.0, 7.0, 3.0], [4.0, 9.0, 6.0]]),
        log_prob_t=torch.tensor([-2.0, 1.0, 0.5]),
        alpha=torch.tensor(0.1, requires_grad=True),
    )
    torch.testing.assert_close(target, torch.tensor([1 + 0.9 * (4 + 0.2), 2.0, -1 + 0.81 * (3 - 0.05)]))
    assert not target.requires_grad


def test_the_critics_loss_by_hand() -> None:
    q = torch.tensor([[1.0, 2.0], [0.0, 4.0]], requires_grad=True)
    loss, td_error = critic_loss(q, torch.tensor([2.0, 2.0]), torch.tensor([1.0, 0.5]))
    assert loss.item() == 0.5 * (1 + 0) / 2 + 0.5 * (4 + 0.5 * 4) / 2
    assert td_error.tolist() == [[1.0, 0.0], [2.0, -2.0]]
    loss.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(q.grad, -torch.tensor([[1.0, 0.0], [2.0, -1.0]]) / 2)


def test_the_policys_loss_by_hand() -> None:
    q = torch.tensor([[1.0, 5.0], [2.0, 4.0]], requires_grad=True)
    log_prob = torch.tensor([0.5, -1.0], requires_grad=True)
    loss = policy_loss(q, log_prob, torch.tensor(0.2))
    torch.testing.assert_close(loss, torch.tensor((0.1 - 1 + -0.2 - 4) / 2))
    loss.backward()  # type: ignore[no-untyped-call]
    assert q.grad is not None
    assert q.grad.tolist() == [[-0.5, 0.0], [0.0, -0.5]], "of two critics the lower one counts"


def test_the_temperatures_gradient_is_that_of_its_objective() -> None:
    log_alpha = torch.tensor(-0.3, requires_grad=True)
    log_prob = torch.tensor([0.5, -1.0, 2.0])
    (-log_alpha * (log_prob - 2.0)).mean().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(temperature_gradient(log_prob, -2.0), log_alpha.grad)
    assert temperature_gradient(torch.full((4,), -3.0), -2.0) > 0, "too much entropy: alpha shall fall"
    assert temperature_gradient(torch.full((4,), 3.0), -2.0) < 0, "too little: it shall rise"
