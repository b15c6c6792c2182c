"""A UNet's deep features, used again: DeepCache (Ma, Fang, Wang 2023, arXiv 2312.00858). Lossy.

From one call to the next little changes deep down. So of `every` calls one is whole. In the calls between only the outermost layers are
computed, the first on the way down and the last on the way up; what came up to these in the last whole call is used again. Of the last two
whole calls, where there were two: it goes on changing as it did between them, as far as the calls have gone on (as Liu et al. 2025, arXiv
2503.06923, expand features in a series). That was measured to be worth 1 to 13 dB with most samplers, also with those that add noise.

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
Features = tuple[int, Tensor]  # the number of the call, and what came up in it
_LAYERS = 2  # of the last block that are computed in every call; their skips come from the first convolution and all but one of as many
_UNSTEADY = ("euler_ancestral", "lcm")  # so much noise is new before every call that going on costs 1 to 4 dB
_STREAMED = "No features were reused: layers that come to the device one by one have to come in the same order in every call."


class Reuse:
    """The calls of a UNet in one run of a sampler. With `every` 1 all are whole, and this is nothing but the UNet. `sampler` is its
    name."""

    def __init__(self, unet: nn.Module, every: int = 1, sampler: str = "euler") -> None:
        self.unet, self.every, self.goes_on = unet, every, sampler not in _UNSTEADY
        self._number, self._whole = -1, ()
        self._kept: dict[str, list[Features]] = {}  # of each pass those of the last whole calls, two at most
        self._outer: nn.Module | None = None

    def begin_call(self) -> None:
        """The sampler asks anew. What is tried again for want of memory is the same call."""
        self._number += 1

    def __call__(self, passes: tuple[str, ...], *given: Any, **more: Any) -> Tensor:
        """What the UNet predicts of these passes, which lie one after the other in the batch."""
        if self._number % self.every and not is_streamed(self.unet) and all(name in self._kept for name in passes):
            self._outer = self._outer or outermost(self.unet)
            self._outer.mid_block.features = torch.cat([self._expected(name) for name in passes])
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
            for name, part in zip(self._whole, features, strict=True):
                before = [one for one in self._kept.get(name, ()) if one[0] != self._number]  # not of a try that failed
                self._kept[name] = [*before[-1:], (self._number, part.clone())] if self.goes_on else [(self._number, part.clone())]

    def _expected(self, name: str) -> Tensor:
        """What would come up in this call."""
        *before, (last, features) = self._kept[name]
        if not before:
            return features
        ((first, earlier),) = before
        return torch.lerp(earlier, features, (self._number - first) / (last - first))


class Deep(nn.Module):
    """In the place of all that lies below the outermost layers."""

    features: Tensor | None = None  # of the next call

    def forward(self, *given: Any, **more: Any) -> Tensor:
        features, self.features = self.features, None
        return features


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
