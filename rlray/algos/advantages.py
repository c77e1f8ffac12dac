"""Advantages: how much better a step turned out than the critic expected. Pure functions over whole fragments.

Both functions take the value of the *true* next observation of every step: where an episode ended at t, that is the
value of its last observation, not of the first one of the next episode. So a truncated episode bootstraps and a
terminated one does not, and nothing flows from one episode into another.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Ends(NamedTuple):
    """How the steps of a fragment ended, each [T, B] bool."""

    terminated: Tensor
    truncated: Tensor
    valid: Tensor  # False: a dummy reset step, of which nothing is asked

    @property
    def last(self) -> Tensor:
        """Whether nothing of the next step belongs to this one."""
        return self.terminated | self.truncated | ~self.valid


@torch.no_grad()
def gae(r_t: Tensor, v_tm1: Tensor, v_t: Tensor, ends: Ends, discount: float, lambda_: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016, arXiv 1506.02438, eq. 16).

        delta = r_t + discount (1 - terminated) v_t - v_tm1
        advantage = delta + discount lambda (1 - last) advantage'        (' : of the next step)

    Args:
        r_t: [T, B] rewards.
        v_tm1: [T, B] values of the observations that the actions were chosen on.
        v_t: [T, B] values of the true next observations.
        ends: how the steps ended.
        discount: gamma.
        lambda_: lambda.

    Returns:
        advantages [T, B], zero where a step is not valid, and the critic's targets, advantages + v_tm1.
    """
    delta = r_t + discount * v_t.masked_fill(ends.terminated, 0.0) - v_tm1
    decay = (discount * lambda_) * (~ends.last).to(delta.dtype)
    advantage = torch.empty_like(delta)
    following = torch.zeros_like(delta[0])
    for t in range(len(delta) - 1, -1, -1):
        following = torch.addcmul(delta[t], decay[t], following)
        advantage[t] = following
    advantage.masked_fill_(~ends.valid, 0.0)
    return advantage, advantage + v_tm1


class VTrace(NamedTuple):
    """What V-trace gives, each [T, B]."""

    target: Tensor
    """The critic's targets, v_s in the paper."""
    advantage: Tensor
    """How much better the step turned out than the critic expected, zero where it is not valid; rho is not in it."""
    rho: Tensor
    """The clipped ratio that a plain policy gradient multiplies the advantage with."""


@torch.no_grad()
def vtrace(
    log_rho: Tensor,
    r_t: Tensor,
    v_tm1: Tensor,
    v_t: Tensor,
    ends: Ends,
    discount: float,
    lambda_: float = 1.0,
    clip_rho: float = 1.0,
    clip_c: float = 1.0,
) -> VTrace:
    """V-trace (Espeholt et al. 2018, arXiv 1802.01561, eq. 1, remark 2 and section 4.2), for actions of another policy.

        rho = min(clip_rho, pi / mu)          c = lambda min(clip_c, pi / mu)
        delta = rho (r_t + discount (1 - terminated) v_t - v_tm1)
        target - v_tm1 = delta + discount c (1 - last) (target' - v_tm1')
        advantage = r_t + discount (1 - terminated) (v_t + lambda (1 - last) (target' - v_tm1')) - v_tm1

    The last line is the paper's ``r + discount target' - v`` where lambda is 1; with less the next value, not the next
    target, has the rest of the weight. So where both policies are one, targets and advantages are those of `gae`.
    At the last step of a fragment that goes on, ``v_t`` stands for the next target.

    Args:
        log_rho: [T, B] log pi(a|s) - log mu(a|s), of the policy that learns and of the one that acted.
        r_t, v_tm1, v_t, ends, discount: as for `gae`.
        lambda_: lambda, 1 in the paper's experiments.
        clip_rho: decides whose values are learned: pi's where it is large, mu's where it is near zero.
        clip_c: decides how fast, by how far ahead unlikely actions are looked past.
    """
    ratio = log_rho.exp()
    rho, c = ratio.clamp(max=clip_rho), lambda_ * ratio.clamp(max=clip_c)
    on = (~ends.last).to(r_t.dtype)
    error = r_t + discount * v_t.masked_fill(ends.terminated, 0.0) - v_tm1
    delta, decay = rho * error, discount * c * on
    excess = torch.empty_like(delta)  # target - v_tm1
    following = torch.zeros_like(delta[0])
    for t in range(len(delta) - 1, -1, -1):
        following = torch.addcmul(delta[t], decay[t], following)
        excess[t] = following
    advantage = error
    advantage[:-1] += (discount * lambda_) * on[:-1] * excess[1:]
    return VTrace(excess.masked_fill_(~ends.valid, 0.0) + v_tm1, advantage.masked_fill_(~ends.valid, 0.0), rho)
