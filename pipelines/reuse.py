"""A UNet's deep features, used again: DeepCache (Ma, Fang, Wang 2023, arXiv 2312.00858). Lossy.

From one call to the next little changes deep down. So of `every` calls one is whole. In the calls between only the outermost layers are
computed, the first on the way down and the last on the way up; what came up to these in the last whole call is used again.

Calls are counted, whichever step of a sampler they belong to: what matters is how far the noise has fallen since the last whole one, and
a second call of a step is about as far on as the next step's first. With and without what guides are two passes of the same call, and
each has features of its own, so it does not matter whether they go together.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pipelines.memory import is_streamed

if TYPE_CHECKING:
    from pipelines.pieces import Relief

WITHOUT, WITH = "without", "with"  # what guides
BOTH = (WITHOUT, WITH)
_LAYERS = 2  # of the last block that are computed in every call; their skips come from the first convolution and all but one of as many
_STREAMED = "No features were reused: layers that come to the device one by one have to come in the same order in every call."


class Reuse:
    """The calls of a UNet in one run of a sampler. With `every` 1 all are whole, and this is nothing but the UNet."""

    def __init__(self, unet: nn.Module, every: int = 1) -> None:
        self.unet, self.every = unet, every
        self._number, self._whole = -1, ()
        self._kept: dict[str, Tensor] = {}  # by pass
        self._outer: nn.Module | None = None

    def begin_call(self) -> None:
        """The sampler asks anew. What is tried again for want of memory is the same call."""
        self._number += 1

    def __call__(self, passes: tuple[str, ...], *given: Any, **more: Any) -> Tensor:
        """What the UNet predicts of these passes, which lie one after the other in the batch."""
        if self._number % self.every and not is_streamed(self.unet) and all(name in self._kept for name in passes):
            self._outer = self._outer or outermost(self.unet)
            self._outer.mid_block.features = _together([self._kept[name] for name in passes])
            return self._outer(*given, **more).sample
        self._whole = passes
        try:
            return self.unet(*given, **more).sample
        finally:
            self._whole = ()

    @contextmanager
    def listening(self, relief: Relief) -> Iterator[None]:
        """For the length of the run. Nothing is kept after it."""
        if self.every == 1:
            yield
            return
        last = self.unet.up_blocks[-1]
        compiled, last._compiled_call_impl = last._compiled_call_impl, None  # what is compiled does not hear of hooks
        hook = last.resnets[-_layers_of(last)].register_forward_pre_hook(self._keep)
        try:
            yield
        finally:
            hook.remove()
            self._kept, self._outer = {}, None
            if not is_streamed(self.unet):
                last._compiled_call_impl = compiled
        if is_streamed(self.unet):
            relief.has_seams = True  # not what was asked for: it is not kept for others
            relief.notes.append(_STREAMED)

    def _keep(self, layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        """The layer sees what came up, and beside it a skip as wide as the first convolution."""
        if self._whole:
            features = given[0][:, : -self.unet.conv_in.out_channels].chunk(len(self._whole))
            self._kept |= {name: part.clone() for name, part in zip(self._whole, features, strict=True)}


class Deep(nn.Module):
    """In the place of all that lies below the outermost layers."""

    features: Tensor

    def forward(self, *given: Any, **more: Any) -> Tensor:
        return self.features


def outermost(unet: nn.Module) -> nn.Module:
    """A UNet of the same modules, which goes no deeper than its outermost layers."""
    outer, first, last = _twin(unet), _twin(unet.down_blocks[0]), _twin(unet.up_blocks[-1])
    layers = _layers_of(last)
    _choose(first, slice(0, layers - 1))
    _choose(last, slice(-layers, None))
    first.downsamplers = None
    outer.down_blocks, outer.mid_block, outer.up_blocks = nn.ModuleList([first]), Deep(), nn.ModuleList([last])
    return outer


def _layers_of(last: nn.Module) -> int:
    return min(_LAYERS, len(last.resnets))


def _twin(module: nn.Module) -> nn.Module:
    """The same, with a list of its own of what it is made of."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    twin._compiled_call_impl = None
    return twin


def _choose(block: nn.Module, layers: slice) -> None:
    for name in ("resnets", "attentions"):
        if hasattr(block, name):
            setattr(block, name, nn.ModuleList(list(getattr(block, name))[layers]))


def _together(features: list[Tensor]) -> Tensor:
    return features[0] if len(features) == 1 else torch.cat(features)
