"""Target networks: copies that follow the network that learns."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


class Target(Generic[M]):
    """A copy of ``followed``, which takes no gradients and moves only when told."""

    def __init__(self, followed: M) -> None:
        self.network: M = copy.deepcopy(followed).requires_grad_(False)
        theirs = followed.state_dict(keep_vars=True)
        self._pairs = [(own, theirs[name]) for name, own in self.network.state_dict(keep_vars=True).items()]

    @torch.no_grad()
    def move(self, tau: float) -> None:
        """Go the part ``tau`` of the way to what is followed; 1 copies it. Whole numbers are always copied."""
        for own, theirs in self._pairs:
            if own.is_floating_point():
                own.lerp_(theirs, tau)
            else:
                own.copy_(theirs)
