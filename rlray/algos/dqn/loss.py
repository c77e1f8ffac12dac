"""The loss of DQN, as a pure function of action values."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def q_learning_loss(
    q_tm1: Tensor,
    a_tm1: Tensor,
    r_t: Tensor,
    discount_t: Tensor,
    q_t_value: Tensor,
    q_t_selector: Tensor,
    huber_delta: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """The Huber loss of the TD errors, each [B] float32.

        target = r_t + discount_t * q_t_value[argmax_a q_t_selector]      td_error = target - q_tm1[a_tm1]

    Double Q-learning (van Hasselt et al. 2016, arXiv 1509.06461, eq. 4) has the online network's values as
    ``q_t_selector`` and the target network's as ``q_t_value``; plain DQN (Mnih et al. 2015) has the target network's
    as both. No gradient flows through the target. The Huber loss is e²/2 up to ``huber_delta`` d and d (|e| - d/2)
    beyond, which bounds each gradient by d as the paper's error clipping does.

    Args:
        q_tm1: [B, A] values at t - 1 of the network that learns.
        a_tm1: [B] int64, the actions taken.
        r_t: [B] the (discounted sum of) rewards.
        discount_t: [B] what the value at t is worth: 0 after a termination.
        q_t_value: [B, A] values at t that the target is made of.
        q_t_selector: [B, A] values at t that choose the action.
        huber_delta: d.

    Returns:
        losses [B] and td_errors [B]; the latter carry no gradient.
    """
    with torch.no_grad():
        best = q_t_selector.argmax(dim=1, keepdim=True)
        target = r_t + discount_t * q_t_value.gather(1, best).squeeze(1)
    chosen = q_tm1.gather(1, a_tm1[:, None]).squeeze(1)
    losses = functional.huber_loss(chosen, target, reduction="none", delta=huber_delta)
    return losses, target - chosen.detach()
