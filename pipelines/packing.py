"""On a CPU: convolutions whose weights lie in the order in which oneDNN's kernels read them.

In PyTorch's own order they are rearranged in every call. Where a layer has more weights than it has pixels to look at, that takes longer
than the convolution itself. The kernel may then be another one, which sums in another order: results differ by rounding alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipelines.lean_blocks import OverTime

_LEAST_WEIGHTS = 3_000_000  # with fewer nothing is gained
_TYPICAL_SIDE = 16  # of the latents that large layers see; the order that suits them suits others too


class PackedConv2d(nn.Conv2d):
    """`weight` is opaque: it counts and says where it is, but has no storage to look into."""

    def forward(self, x: Tensor) -> Tensor:
        return _convolved(x, self)


class PackedOverTime(OverTime):
    def forward(self, x: Tensor) -> Tensor:
        return _convolved(x.flatten(3), self).unflatten(3, x.shape[3:])


_PACKED: dict[type, type] = {nn.Conv2d: PackedConv2d, OverTime: PackedOverTime}


def pack(model: nn.Module) -> None:
    """The large convolutions of a model in float32 on the CPU. It cannot be moved or saved afterwards."""
    if not torch.backends.mkldnn.is_available():
        return
    for module in model.modules():
        if type(module) in _PACKED and _gains(module):
            module.weight = nn.Parameter(_reordered(module), requires_grad=False)
            module.__class__ = _PACKED[type(module)]


def _gains(conv: nn.Conv2d | OverTime) -> bool:
    weight = conv.weight
    is_plain = weight.device.type == "cpu" and weight.dtype == torch.float32 and conv.padding_mode == "zeros"
    return is_plain and not isinstance(conv.padding, str) and weight.numel() >= _LEAST_WEIGHTS


def _reordered(conv: nn.Conv2d | OverTime) -> Tensor:
    size = [2, conv.in_channels, _TYPICAL_SIDE, _TYPICAL_SIDE]
    weight = conv.weight.detach()[:, :, :, :, 0] if isinstance(conv, OverTime) else conv.weight.detach()
    return torch.ops.mkldnn._reorder_convolution_weight(weight.contiguous(), *_steps(conv), size)


def _convolved(x: Tensor, conv: nn.Conv2d | OverTime) -> Tensor:
    return torch.ops.mkldnn._convolution_pointwise(x, conv.weight, conv.bias, *_steps(conv), "none", [], "").contiguous()


def _steps(conv: nn.Conv2d | OverTime) -> tuple[list[int], list[int], list[int], int]:
    """Padding, stride, dilation and groups, over rows and columns."""
    return list(conv.padding[:2]), list(conv.stride[:2]), list(conv.dilation[:2]), conv.groups
