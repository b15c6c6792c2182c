"""On a CPU: convolutions whose weights lie in the order in which oneDNN's kernels read them.

In PyTorch's own order they are rearranged in every call. Where a layer has many weights and few pixels to look at, that takes as long as
the convolution itself, or longer. The right order depends on the size of what is seen, and in a wrong one a call is ten times slower: so a
layer is packed for a size when it meets it twice in a row, and unpacked when it meets another. Packing costs about as much as two calls.

The kernel may then be another one, which sums in another order: results differ by rounding alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pipelines.lean_blocks import OverTime

_LEAST_WEIGHTS = 3_000_000  # with fewer nothing is gained
_MOST_PIXELS = 2048  # of all pictures together; with more the convolution itself is what takes long


class PackedConv2d(nn.Conv2d):
    """While it is packed, `weight` is opaque: it counts and says where it is, but has no storage to look into."""

    met: tuple[int, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        return _convolved(self, x, super().forward)


class PackedOverTime(OverTime):
    met: tuple[int, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(3)
        return _convolved(self, flat, super().flat).unflatten(3, x.shape[3:])


_PACKED: dict[type, type] = {nn.Conv2d: PackedConv2d, OverTime: PackedOverTime}


def allow_packing(model: nn.Module) -> None:
    """From now on the large convolutions of a model in float32 on the CPU may be packed. It is not to be moved or saved any more."""
    if not torch.backends.mkldnn.is_available():
        return
    for module in model.modules():
        if type(module) in _PACKED and _gains(module):
            module.__class__ = _PACKED[type(module)]


def _gains(conv: nn.Conv2d | OverTime) -> bool:
    weight = conv.weight
    is_plain = weight.device.type == "cpu" and weight.dtype == torch.float32 and conv.padding_mode == "zeros"
    return is_plain and not isinstance(conv.padding, str) and weight.numel() >= _LEAST_WEIGHTS


def _convolved(conv: PackedConv2d | PackedOverTime, x: Tensor, plainly: Callable[[Tensor], Tensor]) -> Tensor:
    size, is_again = tuple(x.shape), conv.met == tuple(x.shape)
    conv.met = size
    if conv.weight.is_mkldnn and not is_again:
        dense = conv.weight.to_dense()
        conv.weight = _weight(dense if isinstance(conv, nn.Conv2d) else dense[..., None])
    elif is_again and not conv.weight.is_mkldnn and x.numel() // x.shape[1] <= _MOST_PIXELS:
        dense = conv.weight.detach()
        dense = dense if isinstance(conv, nn.Conv2d) else dense[..., 0].contiguous()
        conv.weight = _weight(torch.ops.mkldnn._reorder_convolution_weight(dense, *_steps(conv), list(size)))
    if not conv.weight.is_mkldnn:
        return plainly(x)
    return torch.ops.mkldnn._convolution_pointwise(x, conv.weight, conv.bias, *_steps(conv), "none", [], "").contiguous()


def _weight(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)


def _steps(conv: nn.Conv2d | OverTime) -> tuple[list[int], list[int], list[int], int]:
    """Padding, stride, dilation and groups, over rows and columns."""
    return list(conv.padding[:2]), list(conv.stride[:2]), list(conv.dilation[:2]), conv.groups
