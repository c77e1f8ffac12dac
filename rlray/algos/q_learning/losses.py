"""The losses of Q-learning, as pure functions of what networks put out."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from rlray.algos.projections import categorical_projection, quantile_huber_loss


def q_learning_loss(
    q_tm1: Tensor, a_tm1: Tensor, r_t: Tensor, discount_t: Tensor, q_t: Tensor, a_t: Tensor, huber_delta: float = 1.0
) -> tuple[Tensor, Tensor]:
    """The Huber loss of the TD errors, each [B] float32.

        target = r_t + discount_t * q_t[a_t]      td_error = target - q_tm1[a_tm1]

    with ``q_t`` of the target network. Plain DQN (Mnih et al. 2015) has ``a_t = argmax_a q_t``; double Q-learning (van
    Hasselt et al. 2016, arXiv 1509.06461, eq. 4) the best action in the online network's eyes. No gradient flows
    through the target. The Huber loss is e²/2 up to ``huber_delta`` d and d (|e| - d/2) beyond, which bounds each
    gradient by d as the paper's error clipping does.

    Args:
        q_tm1: [B, A] values at t - 1 of the network that learns.
        a_tm1: [B] int64, the actions taken.
        r_t: [B] the (discounted sum of) rewards.
        discount_t: [B] what the value at t is worth: 0 after a termination.
        q_t: [B, A] values at t that the target is made of.
        a_t: [B] int64, the actions whose values those are.
        huber_delta: d.

    Returns:
        losses [B] and td_errors [B]; the latter carry no gradient.
    """
    with torch.no_grad():
        target = r_t + discount_t * of_action(q_t, a_t)
    chosen = of_action(q_tm1, a_tm1)
    losses = functional.huber_loss(chosen, target, reduction="none", delta=huber_delta)
    return losses, target - chosen.detach()


def categorical_loss(
    logits_tm1: Tensor,
    a_tm1: Tensor,
    r_t: Tensor,
    discount_t: Tensor,
    logits_t: Tensor,
    a_t: Tensor,
    v_min: float,
    v_max: float,
) -> tuple[Tensor, Tensor]:
    """The cross-entropy to the projected target distribution (arXiv 1707.06887, algorithm 1), each [B] float32.

    Arguments as of `q_learning_loss`, with logits [B, A, N] of N atoms for values.

    Returns:
        losses [B], and without gradient the Kullback-Leibler divergences [B], which differ by the target's entropy: by
        them Rainbow ranks its replay (Hessel et al. 2018, arXiv 1710.02298).
    """
    with torch.no_grad():
        p_t = torch.softmax(of_action(logits_t, a_t), dim=1)
        target = categorical_projection(p_t, r_t, discount_t, v_min, v_max)
        entropy = -torch.xlogy(target, target).sum(dim=1)
    losses = -(target * torch.log_softmax(of_action(logits_tm1, a_tm1), dim=1)).sum(dim=1)
    return losses, (losses.detach() - entropy).clamp_(min=0)


def quantile_loss(
    quantiles_tm1: Tensor,
    a_tm1: Tensor,
    r_t: Tensor,
    discount_t: Tensor,
    quantiles_t: Tensor,
    a_t: Tensor,
    kappa: float = 1.0,
) -> Tensor:
    """The quantile Huber loss [B] to the quantiles of the target (Dabney et al. 2018, arXiv 1710.10044, algorithm 1).

    Arguments as of `q_learning_loss`, with N quantiles [B, A, N] for values.
    """
    targets = r_t[:, None] + discount_t[:, None] * of_action(quantiles_t, a_t)
    return quantile_huber_loss(of_action(quantiles_tm1, a_tm1), targets.detach(), kappa)


def of_action(values: Tensor, action: Tensor) -> Tensor:
    """What [B, A, ...] has for the actions [B]."""
    return values[torch.arange(len(action), device=values.device), action]
