"""Stable Video Diffusion's transformers, without what is the same in every call.

They see the still as one token. A query can choose nothing of one token, so what it gets does not depend on it: `to_out(to_v(token))`, one
vector a layer. `told_once` computes the vectors of all layers, and from then on the UNet is handed these instead of the token. They stand
side by side in the tensor that is its `encoder_hidden_states`, a row a film, so the two passes of guidance, several films in a call, and
films that are cut into pieces need nothing else. A narrower tensor is the token itself, and everything is computed as ever.

What a layer is told of the numbers of the frames is the same for a whole job too, and is kept beside its weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel, TransformerTemporalModelOutput
from torch import Tensor, nn

from pipelines.float8 import in_full
from pipelines.lean_blocks import blended, weight_of_time
from pipelines.savings import Savings

_ROWS = 16


class LeanTransformer(TransformerSpatioTemporalModel):
    """`first`: where its vectors begin among those of all. `plain_width`: of the token."""

    first: int
    plain_width: int
    positions: Tensor | None = None  # (frames, width), of the job

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        image_only_indicator: Tensor | None = None,
        return_dict: bool = True,
    ) -> TransformerTemporalModelOutput | tuple[Tensor]:
        frames, (_, _, height, width) = image_only_indicator.shape[-1], hidden_states.shape
        x = self.norm(hidden_states).permute(0, 2, 3, 1).flatten(1, 2)
        x = self.proj_in(x)  # (n * frames, pixels, width)
        positions = self._positions(frames, x)
        tokens = encoder_hidden_states[::frames]  # of each film
        for layer, (block, over_time) in enumerate(zip(self.transformer_blocks, self.temporal_transformer_blocks, strict=True)):
            x = self._in_space(block, x, tokens, layer, frames)
            moved = self._over_time(over_time, x.unflatten(0, (-1, frames)), positions, tokens, layer)
            x = blended(x, moved, weight_of_time(self.time_mixer, x))
        x = self.proj_out(x).unflatten(1, (height, width)).permute(0, 3, 1, 2)
        output = hidden_states + x
        return TransformerTemporalModelOutput(sample=output) if return_dict else (output,)

    def _in_space(self, block: nn.Module, x: Tensor, tokens: Tensor, layer: int, frames: int) -> Tensor:
        attended = block.attn1(block.norm1(x))
        attended += x
        if self._are_folded(tokens):
            attended.unflatten(0, (-1, frames)).add_(self._vector(tokens, 2 * layer)[:, None])
        else:
            attended += block.attn2(block.norm2(attended), encoder_hidden_states=tokens.repeat_interleave(frames, 0))
        out = block.ff(block.norm3(attended))
        out += attended
        return out

    def _over_time(self, block: nn.Module, by_film: Tensor, positions: Tensor, tokens: Tensor, layer: int) -> Tensor:
        """(n, frames, pixels, width), as a view of what stands pixel by pixel."""
        n, _, pixels, _ = by_film.shape
        x = _added(by_film.transpose(1, 2), positions).flatten(0, 1)  # in a function of its own: nothing here holds on to what it makes
        entered = block.ff_in(block.norm_in(x))
        x = entered.add_(x) if block.is_res else entered
        attended = block.attn1(block.norm1(x))
        attended += x
        if self._are_folded(tokens):
            attended.unflatten(0, (n, pixels)).add_(self._vector(tokens, 2 * layer + 1)[:, None])
        else:
            attended += block.attn2(block.norm2(attended), encoder_hidden_states=tokens.repeat_interleave(pixels, 0))
        out = block.ff(block.norm3(attended))
        out = out.add_(attended) if block.is_res else out
        return out.unflatten(0, (n, pixels)).transpose(1, 2)

    def _are_folded(self, tokens: Tensor) -> bool:
        return tokens.shape[-1] > self.plain_width

    def _vector(self, tokens: Tensor, number: int) -> Tensor:
        """(n, 1, width)."""
        begin = self.first + number * self.inner_dim
        return tokens[..., begin : begin + self.inner_dim]

    def _positions(self, frames: int, like: Tensor) -> Tensor:
        kept = self.positions
        if kept is not None and (len(kept), kept.dtype, kept.device) == (frames, like.dtype, like.device):
            return kept
        numbers = self.time_proj(torch.arange(frames, device=like.device)).to(like.dtype)
        return self.time_pos_embed(numbers)


def _added(x: Tensor, positions: Tensor) -> Tensor:
    """Side by side in memory, which the compiler does by itself."""
    into = None if torch.compiler.is_compiling() else x.new_empty(x.shape)
    return torch.add(x, positions, out=into)


def slim_transformers(unet: nn.Module) -> None:
    """Those of a motion UNet; of any other model, none."""
    first = 0
    for module in unet.modules():
        if type(module) is TransformerSpatioTemporalModel:
            module.__class__ = LeanTransformer
            module.first, module.plain_width = first, unet.config.cross_attention_dim
            first += 2 * len(module.transformer_blocks) * module.inner_dim


@torch.inference_mode()
def told_once(unet: nn.Module, token: Tensor, frames: int, savings: Savings) -> Tensor:
    """For a job of so many frames: what the UNet is to be handed as the still's token (n, 1, width), in its precision and on the device
    that it works on. Weights may be elsewhere, they come one by one."""
    transformers = [module for module in unet.modules() if isinstance(module, LeanTransformer)]
    for transformer in transformers:
        transformer.positions = _numbers_told(transformer, frames, token) if savings.keeps_positions else None
    if not savings.folds or not transformers:
        return token
    layers = (blocks for t in transformers for blocks in zip(t.transformer_blocks, t.temporal_transformer_blocks, strict=True))
    vectors = torch.cat([_seen(block.attn2, token) for blocks in layers for block in blocks], dim=-1)
    return F.pad(vectors, (0, max(0, token.shape[-1] + 1 - vectors.shape[-1])))  # wider than the token, to be told from it


def _seen(attention: nn.Module, token: Tensor) -> Tensor:
    """(n, 1, width). The token is repeated as it is in a call: for a few rows kernels sum in another order, and bits would differ,
    as they still may in the last place where several threads share the rows."""
    rows = token.expand(-1, _ROWS, -1)
    return _linear(attention.to_out[0], _linear(attention.to_v, rows))[:, :1]


def _numbers_told(transformer: LeanTransformer, frames: int, like: Tensor) -> Tensor:
    numbers, embed = transformer.time_proj(torch.arange(frames, device=like.device)).to(like.dtype), transformer.time_pos_embed
    return _linear(embed.linear_2, F.silu(_linear(embed.linear_1, numbers)))


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """Past the layer's own call: where layers are streamed, that would bring the next one too, in an order that is learnt."""
    bias = None if layer.bias is None else layer.bias.to(x.device, x.dtype)
    return F.linear(x, in_full(layer, x), bias)
