"""Distributions of returns: moved onto a fixed support (C51), and compared as quantiles (QR-DQN). Pure functions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def categorical_projection(p_t: Tensor, r_t: Tensor, discount_t: Tensor, v_min: float, v_max: float) -> Tensor:
    """The distribution of ``r_t + discount_t * Z`` on the support of ``Z`` (Bellemare et al. 2017, arXiv 1707.06887).

    Their eq. 7 and algorithm 1: each atom z_j moves to r_t + discount_t z_j, is held within the support, and its
    probability is shared by the two neighbours there, in proportion to how near they are. The mean is kept, unless
    an atom had to be held back.

    Args:
        p_t: [B, N] probabilities on the N >= 2 atoms that lie evenly in v_min ... v_max.
        r_t: [B]
        discount_t: [B]

    Returns:
        [B, N] probabilities on the same atoms.
    """
    last = p_t.shape[1] - 1
    gap = (v_max - v_min) / last
    atoms = torch.linspace(v_min, v_max, last + 1, device=p_t.device)
    place = (r_t[:, None] + discount_t[:, None] * atoms - v_min) / gap  # in atoms from the lowest
    place = place.clamp(0, last)
    below = place.floor()
    to_upper = p_t * (place - below)
    lower = below.long()
    projected = torch.zeros_like(p_t).scatter_add_(1, lower, p_t - to_upper)
    return projected.scatter_add_(1, (lower + 1).clamp_(max=last), to_upper)


def quantile_huber_loss(quantiles: Tensor, targets: Tensor, kappa: float = 1.0) -> Tensor:
    """The quantile Huber loss [B] (Dabney et al. 2018, arXiv 1710.10044, eq. 9 and 10).

        sum_i mean_j |tau_i - 1{u_ij < 0}| L_kappa(u_ij) / kappa        u_ij = targets_j - quantiles_i

    with tau_i = (i + 1/2) / N, the midpoints, and L the Huber loss; with the division by kappa (as Dabney et al. 2018b
    write it, arXiv 1806.06923, eq. 3) large errors count as in plain quantile regression, whatever kappa is.

    Args:
        quantiles: [B, N] that learn.
        targets: [B, M] samples or quantiles of what they should become; no gradient flows there.
        kappa: errors beyond it count linearly.
    """
    count = quantiles.shape[1]
    tau = (torch.arange(count, device=quantiles.device) + 0.5) / count
    error = targets.detach()[:, None, :] - quantiles[:, :, None]
    huber = functional.huber_loss(error, torch.zeros_like(error), reduction="none", delta=kappa) / kappa
    slope = (tau[None, :, None] - (error.detach() < 0).to(tau.dtype)).abs()
    return (slope * huber).mean(dim=2).sum(dim=1)
