"""The losses of SAC, as pure functions of what networks put out."""

from __future__ import annotations

import torch
from torch import Tensor


def soft_target(r_t: Tensor, discount_t: Tensor, q_t: Tensor, log_prob_t: Tensor, alpha: Tensor) -> Tensor:
    """What the values at t - 1 shall be, [B] float32 without gradient (arXiv 1812.05905, eq. 2, 3 and 6).

        target = r_t + discount_t * (min_i q_t[i] - alpha log pi(a_t | s_t))

    Of several steps only the last has its entropy counted.

    Args:
        r_t: [B] the (discounted sum of) rewards.
        discount_t: [B] what the value at t is worth: 0 after a termination, but not after a truncation.
        q_t: [N, B] of the target critics, for an action a_t that the policy draws now.
        log_prob_t: [B] its log-density.
        alpha: the temperature, a scalar.
    """
    with torch.no_grad():
        return r_t + discount_t * (q_t.amin(dim=0) - alpha * log_prob_t)


def critic_loss(q_tm1: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Half the squared errors (eq. 5), summed over the critics and weighed over the batch; and td_error [N, B].

    Args:
        q_tm1: [N, B] the values of the actions taken.
        target: [B] as of `soft_target`.
        weight: [B] of each transition.
    """
    td_error = target - q_tm1
    return 0.5 * (weight * td_error.square()).mean(dim=1).sum(), td_error.detach()


def policy_loss(q: Tensor, log_prob: Tensor, alpha: Tensor) -> Tensor:
    """mean alpha log pi(a | s) - min_i q[i] (eq. 7 and 9), for actions that carry the gradient of the policy.

    Args:
        q: [N, B] their values.
        log_prob: [B] their log-densities.
        alpha: the temperature, a scalar without gradient.
    """
    return (alpha * log_prob - q.amin(dim=0)).mean()


def temperature_gradient(log_prob: Tensor, target_entropy: float) -> Tensor:
    """The gradient by log alpha of what tunes it, a scalar: the policy's entropy, minus what it shall be.

    The paper (eq. 18) lowers mean -alpha (log pi + target) by alpha; like its authors' code this lowers the same with
    log alpha in the place of alpha, whose steps are equally large at every temperature. Too much entropy lowers alpha.
    """
    return -log_prob.detach().mean() - target_entropy
