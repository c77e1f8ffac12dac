"""Batches on their way from a replay to the device that learns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlray.algos.replay import Batch, NStepReplay

Index = NDArray[np.int64]


class TensorBatch(NamedTuple):
    """`Batch` as tensors on the learner's device, with the same shapes and dtypes; its index stays behind."""

    s_tm1: Tensor
    a_tm1: Tensor
    r_t: Tensor
    discount_t: Tensor
    s_t: Tensor
    weight: Tensor


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

    def next(self, rng: np.random.Generator, beta: float = 1.0) -> tuple[TensorBatch, Index]:
        """A fresh batch, and what the replay knows its transitions by (a copy).

        Raises: ValueError where the replay holds no complete transition yet.
        """
        turn = self._turn
        self._turn = (turn + 1) % len(self._buffers)
        batch, tensors = self._buffers[turn]
        if (sent := self._sent[turn]) is not None:
            sent.synchronize()
        self._replay.sample(self._batch_size, rng, batch, beta)
        if not self._pinned:
            return tensors, batch.index.copy()
        moved = TensorBatch(*(tensor.to(self._device, non_blocking=True) for tensor in tensors))
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self._sent[turn] = event
        return moved, batch.index.copy()

    def _allocate(self) -> tuple[Batch, TensorBatch]:
        """One buffer, as arrays to write to and as the tensors that share their memory."""
        arrays = dict(vars(self._replay.make_batch(self._batch_size)))
        tensors = TensorBatch(*(torch.from_numpy(arrays[name]) for name in TensorBatch._fields))
        if self._pinned:
            tensors = TensorBatch(*(tensor.pin_memory() for tensor in tensors))
            arrays |= {name: tensor.numpy() for name, tensor in tensors._asdict().items()}
        return Batch(**arrays), tensors


class PriorityReturn:
    """Takes new priorities back to a replay.

    From the CPU at once. From a GPU those of an update arrive when the next one has been asked for, so that nothing
    waits for the GPU meanwhile, and always the same late.
    """

    def __init__(self, replay: NStepReplay) -> None:
        self._replay = replay
        self._under_way: tuple[Index, Tensor, torch.cuda.Event] | None = None

    def give(self, index: Index, priority: Tensor) -> None:
        """``priority`` [B] is that of the transitions which the replay knows by ``index``."""
        arriving = priority.to("cpu", non_blocking=True)  # into pinned memory
        if priority.device.type == "cpu":
            self._arrived(index, arriving)
            return
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self.settle()
        self._under_way = (index, arriving, event)

    def settle(self) -> None:
        """Wait for what is under way."""
        if self._under_way is not None:
            index, arriving, event = self._under_way
            self._under_way = None
            event.synchronize()
            self._arrived(index, arriving)

    def _arrived(self, index: Index, priority: Tensor) -> None:
        """Those of a loss that is no number are left behind: whoever looks at the loss will say so."""
        if bool(torch.isfinite(priority).all()):
            self._replay.update(index, priority.numpy())
