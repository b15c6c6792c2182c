"""The blocks that diffusers' models are built of, computed without what changes nothing.

Each class here is a diffusers class with another `forward`: `slim` gives a loaded model's modules these classes, so weights, names and
configuration stay what they are. Left out are divisions by 1, sums into new memory where the old is free, and copies that only reorder
frames: where two things are added anyway, one of them is read in the other's order.

Equal to the bit, but for the mixing of space and time: a + w (b - a) in one pass instead of (1 - w) a + w b in three rounds otherwise, by
about one unit in the last place.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.models.activations import GEGLU
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import AlphaBlender, ResnetBlock2D, SpatioTemporalResBlock, TemporalResnetBlock
from torch import Tensor, nn


class LeanResnet(ResnetBlock2D):
    def forward(self, input_tensor: Tensor, temb: Tensor | None) -> Tensor:
        x = F.silu(self.norm1(input_tensor), inplace=True)
        x = self.conv1(x)
        if temb is not None:
            x += self.time_emb_proj(F.silu(temb))[:, :, None, None]
        x = self.conv2(F.silu(self.norm2(x), inplace=True))
        x += input_tensor if self.conv_shortcut is None else self.conv_shortcut(input_tensor)
        return x


class LeanTemporalResnet(TemporalResnetBlock):
    """Over time: (n, channels, frames, height, width)."""

    def forward(self, input_tensor: Tensor, temb: Tensor | None) -> Tensor:
        x = self.conv1(F.silu(self.norm1(input_tensor), inplace=True))
        if temb is not None:  # (n, frames, width)
            x += self.time_emb_proj(F.silu(temb))[:, :, :, None, None].transpose(1, 2)
        x = self.conv2(F.silu(self.norm2(x), inplace=True))
        x += input_tensor if self.conv_shortcut is None else self.conv_shortcut(input_tensor)
        return x


class LeanSpatioTemporalResnet(SpatioTemporalResBlock):
    def forward(self, hidden_states: Tensor, temb: Tensor | None = None, image_only_indicator: Tensor | None = None) -> Tensor:
        frames = image_only_indicator.shape[-1]
        x = self.spatial_res_block(hidden_states, temb)
        by_film = x.unflatten(0, (-1, frames))  # (n, frames, channels, height, width)
        told = None if temb is None else temb.unflatten(0, (-1, frames))
        over_time = self.temporal_res_block(by_film.transpose(1, 2), told)
        return blended(x, over_time.transpose(1, 2), weight_of_time(self.time_mixer, x))


class OverTime(nn.Conv3d):
    """A kernel over 3 frames and 1 x 1 pixels is one over 3 rows and 1 column, if all pixels stand in a row."""

    def forward(self, x: Tensor) -> Tensor:
        return self.flat(x.flatten(3)).unflatten(3, x.shape[3:])

    def flat(self, x: Tensor) -> Tensor:
        """(n, channels, frames, pixels)."""
        return F.conv2d(x, self.weight[..., 0], self.bias, padding=(self.padding[0], 0))


class LeanGeglu(GEGLU):
    def forward(self, hidden_states: Tensor) -> Tensor:
        x, gate = self.proj(hidden_states).chunk(2, dim=-1)
        return F.gelu(gate).mul_(x)


class LeanAttention:
    """A processor for PyTorch's attention, of what the UNets need: tokens in, tokens out."""

    def __call__(
        self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, attention_mask: None = None
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        tokens = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        query, key, value = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in tokens)  # (n, heads, tokens, width)
        return attn.to_out[0](F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


def blended(x: Tensor, over_time: Tensor, weight: Tensor) -> Tensor:
    """The frames of films (n * frames, ...) and what was computed of them over time (n, frames, ...): in place, or where it is compiled,
    which cannot see through views that are written to, in new memory that the compiler saves again."""
    by_film = x.unflatten(0, over_time.shape[:2])
    if torch.compiler.is_compiling():
        return torch.lerp(by_film, over_time, weight).flatten(0, 1)
    by_film.lerp_(over_time, weight)
    return x


def weight_of_time(mixer: AlphaBlender, like: Tensor) -> Tensor:
    """What part of a mix comes from the temporal side, one number, for films: none of the frames is a picture of its own."""
    told = mixer.mix_factor if mixer.merge_strategy == "fixed" else torch.sigmoid(mixer.mix_factor)
    alpha = told.to(like.dtype)
    return alpha if mixer.switch_spatial_to_temporal_mix else 1 - alpha


_LEAN: dict[type, type] = {
    ResnetBlock2D: LeanResnet, TemporalResnetBlock: LeanTemporalResnet, SpatioTemporalResBlock: LeanSpatioTemporalResnet, GEGLU: LeanGeglu,
}  # fmt: skip


def slim(model: nn.Module) -> None:
    """A model of diffusers' computes without what changes nothing from now on."""
    for module in model.modules():
        if type(module) in _LEAN and _is_usual(module):
            module.__class__ = _LEAN[type(module)]
        elif type(module) is nn.Conv3d and _is_over_time(module):
            module.__class__ = OverTime


def _is_usual(module: nn.Module) -> bool:
    """Of residual blocks there are other kinds, which stay as they are."""
    if not isinstance(module, ResnetBlock2D):
        return True
    changes_size = module.upsample is not None or module.downsample is not None
    is_plain = module.time_embedding_norm == "default" and not module.skip_time_act and isinstance(module.nonlinearity, nn.SiLU)
    return is_plain and not changes_size and module.output_scale_factor == 1


def _is_over_time(conv: nn.Conv3d) -> bool:
    same_frames = (*conv.stride, *conv.dilation, conv.groups) == (1,) * 7 and conv.padding_mode == "zeros"
    return same_frames and conv.kernel_size[1:] == (1, 1) and tuple(conv.padding)[1:] == (0, 0)
