"""The loss of PPO, as a pure function of what policy and critic say."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class PPOLoss(NamedTuple):
    """The loss, and what it is made of: scalars, of which only ``total`` carries a gradient."""

    total: Tensor
    policy: Tensor
    value: Tensor
    entropy: Tensor
    approx_kl: Tensor
    clip_fraction: Tensor


def clipped_surrogate(ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """- mean min(ratio A, clip(ratio, 1 - e, 1 + e) A), of [B] ratios and advantages (arXiv 1707.06347, eq. 7)."""
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()


def ppo_loss(
    log_prob: Tensor,
    entropy: Tensor,
    value: Tensor,
    old_log_prob: Tensor,
    old_value: Tensor,
    advantage: Tensor,
    target: Tensor,
    clip: float,
    clip_value: float | None,
    value_coef: float,
    entropy_coef: float,
) -> PPOLoss:
    """The clipped surrogate, the value's squared error and the entropy bonus (arXiv 1707.06347, eq. 7 and 9).

        ratio = pi(a|s) / pi_old(a|s)
        total = - mean min(ratio A, clip(ratio, 1 - e, 1 + e) A) + value_coef mean (V - target)² / 2 - entropy_coef H

    With ``clip_value`` the value's error is the larger one of V and of V kept within that distance of the old value.
    ``approx_kl`` is the mean of ratio - 1 - log ratio (Schulman 2020), which is never negative.

    Args:
        log_prob, entropy, value: [B] of the network that learns.
        old_log_prob, old_value: [B] of the network that acted.
        advantage, target: [B].
    """
    log_ratio = log_prob - old_log_prob
    ratio = log_ratio.exp()
    policy_loss = clipped_surrogate(ratio, advantage, clip)
    error = (value - target).square()
    if clip_value is not None:
        near = old_value + (value - old_value).clamp(-clip_value, clip_value)
        error = torch.maximum(error, (near - target).square())
    value_loss = 0.5 * error.mean()
    bonus = entropy.mean()
    total = policy_loss + value_coef * value_loss - entropy_coef * bonus
    with torch.no_grad():
        kl = (ratio - 1 - log_ratio).mean()
        clipped = ((ratio - 1).abs() > clip).float().mean()
    return PPOLoss(total, policy_loss.detach(), value_loss.detach(), bonus.detach(), kl, clipped)
