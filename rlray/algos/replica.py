"""Networks computed in bfloat16 whose parameters are kept, and learned, in float32."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


class Replica(Generic[M]):
    """A copy of ``kept`` in bfloat16 that stands for it in forward and backward passes.

    Autocast makes such a copy of each weight in every pass, and for large layers and small batches that is a good part
    of the pass. This one lasts until the weights change. ``network`` is the copy, to be called within `autocast`, or
    ``kept`` itself where none is ``wanted``: then nothing here does anything.
    """

    def __init__(self, kept: M, wanted: bool) -> None:
        self.network: M = copy.deepcopy(kept).to(torch.bfloat16) if wanted else kept
        kept_tensors = [tensor for tensor in kept.state_dict(keep_vars=True).values() if tensor.is_floating_point()]
        copied = [tensor for tensor in self.network.state_dict(keep_vars=True).values() if tensor.is_floating_point()]
        self._pairs: list[tuple[Tensor, Tensor]] = list(zip(kept_tensors, copied, strict=True)) if wanted else []

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over weights that have changed."""
        if self._pairs:
            kept, copied = zip(*self._pairs, strict=True)
            torch._foreach_copy_(copied, kept)

    @torch.no_grad()
    def return_gradients(self) -> None:
        """Move the copy's gradients to the parameters that they are for, in float32; to be called once per backward."""
        gradients = [(own, copied, copied.grad) for own, copied in self._pairs if copied.grad is not None]
        if not gradients:
            return
        kept = []
        for own, copied, _ in gradients:
            kept.append(torch.empty_like(own) if own.grad is None else own.grad)
            copied.grad = None
        torch._foreach_copy_(kept, [gradient for *_, gradient in gradients])
        for (own, *_), gradient in zip(gradients, kept, strict=True):
            own.grad = gradient
