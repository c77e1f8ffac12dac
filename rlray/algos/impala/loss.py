"""The losses of policies that learn from the actions of other policies, as pure functions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Acted(NamedTuple):
    """What a policy's loss is made of: steps of another policy, each [N]."""

    log_prob: Tensor
    """Of the policy that learns; carries the gradient."""
    log_ratio: Tensor
    """``log_prob`` minus that of the policy that acted; carries the gradient."""
    since: Tensor
    """``log_prob`` minus that by the weights that V-trace was worked out with; carries the gradient."""
    advantage: Tensor
    rho: Tensor
    """V-trace's clipped ratio of the weights that it was worked out with to the policy that acted."""


def policy_gradient(acted: Acted, clip_rho: float) -> Tensor:
    """- mean rho A log pi(a|s)  (arXiv 1802.01561, section 4.2), with the rho of the policy that learns; the gradient
    goes through the last factor only."""
    rho = acted.log_ratio.detach().exp().clamp(max=clip_rho)
    return -(rho * acted.advantage * acted.log_prob).mean()


def explained(value: Tensor, target: Tensor) -> Tensor:
    """The part of the variance of ``target`` [N] that ``value`` [N] explains; 0 where there is none."""
    variance = target.var(correction=0)
    left = (target - value).var(correction=0)
    return torch.where(variance > 0, 1 - left / variance, torch.zeros_like(variance))
