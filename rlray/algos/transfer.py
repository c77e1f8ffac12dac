"""Batches on their way from a replay to the device that learns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rlray.algos.replay import Batch, NStepReplay


class TensorBatch(NamedTuple):
    """`Batch` as tensors on the learner's device, with the same shapes and dtypes."""

    s_tm1: Tensor
    a_tm1: Tensor
    r_t: Tensor
    discount_t: Tensor
    s_t: Tensor


class BatchLoader:
    """Draws batches into memory that is allocated once.

    On the CPU a batch is valid until the next one is drawn. For a GPU there are two buffers in pinned memory: one is
    filled while the other is on its way, and the batch returned is the GPU's own.
    """

    def __init__(self, replay: NStepReplay, batch_size: int, device: str) -> None:
        self._replay, self._batch_size, self._device = replay, batch_size, torch.device(device)
        self._pinned = self._device.type == "cuda"
        self._buffers = [self._allocate() for _ in range(2 if self._pinned else 1)]
        self._sent: list[torch.cuda.Event | None] = [None] * len(self._buffers)
        self._turn = 0

    def next(self, rng: np.random.Generator) -> TensorBatch:
        """A fresh batch. Raises: ValueError where the replay holds no complete transition yet."""
        turn = self._turn
        self._turn = (turn + 1) % len(self._buffers)
        batch, tensors = self._buffers[turn]
        if (sent := self._sent[turn]) is not None:
            sent.synchronize()
        self._replay.sample(self._batch_size, rng, out=batch)
        if not self._pinned:
            return tensors
        moved = TensorBatch(*(tensor.to(self._device, non_blocking=True) for tensor in tensors))
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self._sent[turn] = event
        return moved

    def _allocate(self) -> tuple[Batch, TensorBatch]:
        """One buffer, as arrays to write to and as the tensors that share their memory."""
        tensors = TensorBatch(*map(torch.from_numpy, vars(self._replay.make_batch(self._batch_size)).values()))
        if self._pinned:
            tensors = TensorBatch(*(tensor.pin_memory() for tensor in tensors))
        return Batch(*(tensor.numpy() for tensor in tensors)), tensors
