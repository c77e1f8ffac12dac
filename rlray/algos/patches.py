"""First convolutions over patches: the same numbers from fewer and wider ones.

A first convolution sees one to four channels, and a CPU's matrix units want dozens. Where its stride divides its
kernel, cutting the picture into squares of stride × stride pixels, and making all that lies in a square channels of one
place, turns it into a convolution of stride 1 with a kernel of kernel / stride: Nature's 8×8 of stride 4 over 4
channels becomes 2×2 over 64. It is the same sum, in another order; at most the last pixels, which the convolution
leaves out, are lost.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from rlray.algos.network_config import NetworkConfig

_WORDS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def patch_side(config: NetworkConfig) -> int:
    """The side of the squares that the first convolution of a resolved ``config`` takes; 1: it takes pictures."""
    if config.kind != "conv" or not config.kernels or not config.strides:
        return 1
    kernel, stride = config.kernels[0], config.strides[0]
    return stride if kernel % stride == 0 else 1


def patches(pictures: Tensor, side: int) -> Tensor:
    """``pictures`` [B, C, H, W] as [B, H // side, W // side, C * side * side], contiguous, of the same dtype.

    Row, then column, is what changes fastest in the last axis. What does not fill a square is left out.
    """
    batch, channels, height, width = pictures.shape
    height, width = height // side, width // side
    pictures = pictures[:, :, : height * side, : width * side].contiguous()
    word = _WORDS.get(side * pictures.element_size())
    if word is None:
        cut = pictures.view(batch, channels, height, side, width, side).permute(0, 2, 4, 1, 3, 5)
    else:  # the pixels of a row of a square lie together: moved as one word they cost a fraction
        cut = pictures.view(word).view(batch, channels, height, side, width).permute(0, 2, 4, 1, 3)
    return cut.contiguous().view(pictures.dtype).view(batch, height, width, channels * side * side)


class PatchConv2d(nn.Conv2d):
    """A convolution without padding that takes `patches` of its stride, moved to [B, C * side * side, H, W].

    Its parameters are those of the convolution over pictures.
    """

    def __init__(self, channels: int, filters: int, kernel: int, stride: int) -> None:
        super().__init__(channels, filters, kernel, stride)
        self._side = stride

    def forward(self, input: Tensor) -> Tensor:
        side, (filters, channels, kernel, _) = self._side, self.weight.shape
        across = kernel // side
        weight = self.weight.to(input.dtype).view(filters, channels, across, side, across, side)
        weight = weight.permute(0, 1, 3, 5, 2, 4).reshape(filters, -1, across, across)
        return functional.conv2d(input, weight.contiguous(memory_format=torch.channels_last), self.bias)
