"""Layers that remember: LSTM and GRU, over many steps of many environments, with a fresh start at each episode."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Course(NamedTuple):
    """What happens along ``T`` steps of ``B`` environments."""

    first: Tensor | None = None
    """[T, B] bool, where an episode begins: nothing from before is remembered there. None: nowhere."""
    begin: Tensor | None = None
    """[B] the step that the memory is from which they begin with; steps before it are nobody's. None: 0."""
    after: Tensor | None = None
    """[K, 2] (t, b) of the steps after which the memory is wanted; None: the last one, of all environments."""


UNDISTURBED = Course()


class Recurrent(nn.Module):
    """One layer of LSTM or GRU cells.

    What it remembers of an environment is one vector of `memory_size` numbers, all zero at the start: the cells'
    output, for LSTM followed by their state. It computes in float32, whatever is around it.

    Recurrent weights begin orthogonal for each gate, the others orthogonal as a whole; biases are zero, but those of
    LSTM's forget gate one, so that it remembers at first (Jozefowicz et al. 2015, section 2.2).
    """

    def __init__(self, inputs: int, cell: str, size: int) -> None:
        super().__init__()
        self._size, self._lstm = size, cell == "lstm"
        self.memory_size = 2 * size if self._lstm else size
        self.cells: nn.RNNBase = (nn.LSTM if self._lstm else nn.GRU)(inputs, size)
        self._begin(dict(self.cells.named_parameters()))

    @torch.no_grad()
    def _begin(self, weights: dict[str, Tensor]) -> None:
        """First weights."""
        nn.init.orthogonal_(weights["weight_ih_l0"])
        for gate in torch.split(weights["weight_hh_l0"], self._size):
            nn.init.orthogonal_(gate)
        for name in ("bias_ih_l0", "bias_hh_l0"):
            nn.init.zeros_(weights[name])
        if self._lstm:
            nn.init.ones_(weights["bias_ih_l0"][self._size : 2 * self._size])

    def forward(self, x: Tensor, memory: Tensor, course: Course = UNDISTURBED) -> tuple[Tensor, Tensor]:
        """Go on by ``T`` steps, ``x`` [T, B, inputs], from ``memory`` [B, memory_size].

        Returns: features [T, B, size], and the memory [K or B, memory_size] after the steps that ``course`` names.
        """
        first, begin, after = course
        # Between two of these moments torch's own loop over time is several times as fast as one step after the other.
        moments = {0, len(x)}
        moments.update([] if first is None else first.any(dim=1).nonzero().flatten().tolist())
        moments.update([] if begin is None else begin.tolist())
        moments.update([] if after is None else (after[:, 0] + 1).tolist())
        order = sorted(moments)
        start = memory = memory.float()
        parts: list[Tensor] = []
        left: list[Tensor] = []
        with torch.autocast(x.device.type, enabled=False):
            for now, then in pairwise(order):
                if begin is not None and now:
                    memory = torch.where((begin == now)[:, None], start, memory)
                if first is not None:
                    memory = memory.masked_fill(first[now][:, None], 0.0)
                part, memory = self._run(x[now:then].float(), memory)
                parts.append(part)
                left.append(memory)
        features = torch.cat(parts) if len(parts) > 1 else parts[0]
        if after is None:
            return features, memory
        place = torch.zeros(len(x) + 1, dtype=torch.int64)
        place[order[1:]] = torch.arange(len(left))
        return features, torch.stack(left)[place.to(x.device)[after[:, 0] + 1], after[:, 1]]

    def _run(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Without a look at episodes."""
        if not self._lstm:
            features, last = self.cells(x, memory[None])
            return features, last[0]
        output, state = torch.split(memory[None], self._size, dim=2)
        features, last = self.cells(x, (output.contiguous(), state.contiguous()))
        return features, torch.cat([part[0] for part in last], dim=1)
