"""`--weights float8`: the weights of a UNet's layers in eight bits, made full again in each layer while it works. Lossy.

Half the memory of half precision. A number keeps its sign, a power of two and three bits behind it (e4m3; Micikevicius et al. 2022,
arXiv 2209.05433): it is off by a sixteenth at most. Where numbers are small the steps between them would be coarse, so each output has a
scale, the power of two that brings its largest weight just below the format's largest number; a power of two rounds nothing itself.

Biases, norms, and what stands before and behind the blocks (the embeddings of time, the first and the last convolution) stay as they are.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.lean_blocks import OverTime

_MOST = torch.finfo(torch.float8_e4m3fn).max
_LEAST_POWER = -14  # of two, that half precision has whole


class StoredLinear(nn.Linear):
    scale: Tensor  # (outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, in_full(self, x), self.bias)


class StoredConv2d(nn.Conv2d):
    scale: Tensor  # (outputs, 1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, in_full(self, x), self.bias)


class StoredConv3d(nn.Conv3d):
    scale: Tensor  # (outputs, 1, 1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, in_full(self, x), self.bias)


class StoredOverTime(OverTime):
    scale: Tensor  # (outputs, 1, 1, 1, 1)

    def flat(self, x: Tensor) -> Tensor:
        return F.conv2d(x, in_full(self, x)[..., 0], self.bias, padding=(self.padding[0], 0))


_STORED: dict[type, type] = {nn.Linear: StoredLinear, nn.Conv2d: StoredConv2d, nn.Conv3d: StoredConv3d, OverTime: StoredOverTime}


def keep_in_float8(unet: nn.Module) -> None:
    """From now on the weights of its blocks' layers, one after the other: there is never more than one of them twice."""
    for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
        for layer in block.modules():
            if type(layer) in _STORED:
                weight, scale = rounded(layer.weight)
                layer.__class__ = _STORED[type(layer)]
                layer.weight = nn.Parameter(weight, requires_grad=False)
                layer.register_buffer("scale", scale, persistent=False)


def rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """In eight bits, and the scales of the outputs in the weight's own precision. Their product is the weight again, but for rounding."""
    largest = weight.abs().float().amax(dim=tuple(range(1, weight.ndim)), keepdim=True)
    power = torch.ceil(torch.log2(largest / _MOST)).clamp(min=_LEAST_POWER)
    scale = torch.exp2(power).to(weight.dtype)
    return (weight / scale).to(torch.float8_e4m3fn), scale


def in_full(layer: nn.Module, like: Tensor) -> Tensor:
    """A layer's weight, however it is kept, in that precision and there."""
    weight = layer.weight.to(like.device, like.dtype)
    scale = getattr(layer, "scale", None)
    return weight if scale is None else weight * scale.to(like.device, like.dtype)
