"""The single-file layout of Stable Diffusion as renames: where in a file each tensor of a diffusers or transformers model is.

The layout is that of CompVis' latent-diffusion ("LDM") and Stability's generative-models. Its UNet numbers the blocks through, in the
order in which they are built; its autoencoder counts the decoder's levels from the fine end; its OpenCLIP towers keep queries, keys and
values in one matrix. The weights themselves are the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import NamedTuple

import torch
from torch import Tensor

from pipelines.families import CLIP_TEXT, OPEN_CLIP_TEXT, UNET, VAE, VISION, XL_CLIP_TEXT, XL_OPEN_CLIP_TEXT

CONDITIONING_VAE = "conditioner.embedders.3.encoder."  # Stable Video Diffusion's own encoder for the still


def whole(x: Tensor) -> Tensor:
    return x


def transposed(x: Tensor) -> Tensor:
    return x.T


def as_linear(x: Tensor) -> Tensor:
    """A convolution of one pixel, (out, in, 1, 1), is a linear layer, (out, in)."""
    return x.flatten(1)


def queries(x: Tensor) -> Tensor:
    return x.tensor_split(3)[0]


def keys(x: Tensor) -> Tensor:
    return x.tensor_split(3)[1]


def values(x: Tensor) -> Tensor:
    return x.tensor_split(3)[2]


def identity_kernel(bias: Tensor) -> Tensor:
    """The convolution of one pixel that changes nothing, for as many channels as the bias has."""
    return torch.eye(bias.shape[0], dtype=bias.dtype, device=bias.device)[:, :, None, None]


class Source(NamedTuple):
    """The tensor's name in the file, and what is done to it."""

    name: str
    take: Callable[[Tensor], Tensor] = whole


def locate(family: str, part: str, names: Collection[str], in_file: Collection[str]) -> dict[str, Source]:
    """Where each of a model's tensors comes from. `part`: unet, vae, text_encoder, text_encoder_2 or vision; `names`: all of that model's
    tensors."""
    return _PARTS[family][part](names, in_file)


def _swap(name: str, beginnings: dict[str, str]) -> str:
    """The name with the first of these beginnings that it has replaced."""
    for ours, theirs in beginnings.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def _count(names: Collection[str], pattern: str) -> int:
    """How many numbers stand in the place of the pattern's group."""
    return len({match[1] for name in names if (match := re.match(pattern, name))})


# The UNets of all families.

_UNET_ENDS = {
    "conv_in.": "input_blocks.0.0.",
    "time_embedding.linear_1.": "time_embed.0.",
    "time_embedding.linear_2.": "time_embed.2.",
    "add_embedding.linear_1.": "label_emb.0.0.",
    "add_embedding.linear_2.": "label_emb.0.2.",
    "conv_norm_out.": "out.0.",
    "conv_out.": "out.2.",
}
_RESNET = {
    "norm1.": "in_layers.0.",
    "conv1.": "in_layers.2.",
    "time_emb_proj.": "emb_layers.1.",
    "norm2.": "out_layers.0.",
    "conv2.": "out_layers.3.",
    "conv_shortcut.": "skip_connection.",
}
_ATTENTION = {
    "temporal_transformer_blocks.": "time_stack.",
    "time_pos_embed.linear_1.": "time_pos_embed.0.",
    "time_pos_embed.linear_2.": "time_pos_embed.2.",
}


def _unet(names: Collection[str], in_file: Collection[str]) -> dict[str, Source]:
    return {name: Source(UNET + theirs) for name, theirs in unet_names(names).items()}


def unet_names(names: Collection[str]) -> dict[str, str]:
    """What the layout calls each of a UNet's tensors, without the prefix. `names`: those of all its layers, to know how they are built."""
    layers = _count(names, r"down_blocks\.0\.resnets\.(\d+)\.")
    attends = {match[1] for name in names if (match := re.match(r"up_blocks\.(\d+)\.attentions\.", name))}
    return {name: _unet_name(name, layers, attends) for name in names}


def _unet_name(name: str, layers: int, attends: set[str]) -> str:
    """A level is `layers` pairs of resnet and attention going down and one more going up; then the change of size, which going down is a
    block of its own and going up is the last module of the level's last block."""
    block = re.fullmatch(r"(down_blocks|up_blocks)\.(\d+)\.(\w+)\.(\d+)\.(.+)", name)
    if block:
        side, level, what, index, rest = block.groups()
        first = int(level) * (layers + 1)
        if what == "downsamplers":
            return f"input_blocks.{first + layers + 1}.0.{_swap(rest, {'conv.': 'op.'})}"
        if what == "upsamplers":
            return f"output_blocks.{first + layers}.{2 if level in attends else 1}.{rest}"
        number = first + int(index)
        place = f"input_blocks.{number + 1}" if side == "down_blocks" else f"output_blocks.{number}"
        return f"{place}.{1 if what == 'attentions' else 0}.{_layer(what, rest)}"
    middle = re.fullmatch(r"mid_block\.(\w+)\.(\d+)\.(.+)", name)
    if middle:
        what, index, rest = middle.groups()
        return f"middle_block.{1 if what == 'attentions' else 2 * int(index)}.{_layer(what, rest)}"
    return _swap(name, _UNET_ENDS)


def _layer(what: str, rest: str) -> str:
    return _swap(rest, _ATTENTION) if what == "attentions" else _resnet(rest)


def _resnet(name: str) -> str:
    """A video model's resnet is one for each frame, one over time, and a `time_mixer` of the two that is called the same."""
    if name.startswith("temporal_res_block."):
        return "time_stack." + _swap(name.removeprefix("temporal_res_block."), _RESNET)
    return _swap(name.removeprefix("spatial_res_block."), _RESNET)


# The autoencoders of all families, with an image or a temporal decoder.

_VAE_ATTENTION = {"group_norm.": "norm.", "to_q.": "q.", "to_k.": "k.", "to_v.": "v.", "to_out.0.": "proj_out."}
_VAE_ENDS = {"conv_norm_out.": "norm_out.", "time_conv_out.": "conv_out.time_mix_conv."}


def _vae(names: Collection[str], in_file: Collection[str]) -> dict[str, Source]:
    """The encoder is taken with its quant_conv. A file that has none anywhere has it folded into the encoder's last layer."""
    levels = _count(names, r"encoder\.down_blocks\.(\d+)\.")
    encoder = CONDITIONING_VAE if f"{CONDITIONING_VAE}quant_conv.weight" in in_file else VAE
    found = {}
    for name in names:
        side, rest = name.split(".", 1)
        prefix = encoder if side in ("encoder", "quant_conv") else VAE
        if side in ("encoder", "decoder"):
            is_attention = ".attentions." in name and name.endswith(".weight") and ".group_norm." not in name
            found[name] = Source(f"{prefix}{side}.{_vae_name(rest, levels)}", as_linear if is_attention else whole)
        else:
            found[name] = Source(prefix + name)
    if f"{encoder}quant_conv.weight" not in in_file:
        last = f"{encoder}encoder.conv_out.bias"
        found |= {"quant_conv.weight": Source(last, identity_kernel), "quant_conv.bias": Source(last, torch.zeros_like)}
    return found


def _vae_name(name: str, levels: int) -> str:
    block = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", name)
    if block:
        side, level, what, index, rest = block.groups()
        place = f"{side}.{level if side == 'down' else levels - 1 - int(level)}."
        return place + (f"block.{index}.{_vae_resnet(rest)}" if what == "resnets" else f"{side}sample.{rest}")
    middle = re.fullmatch(r"mid_block\.(\w+)\.(\d+)\.(.+)", name)
    if middle:
        what, index, rest = middle.groups()
        number = int(index) + 1
        return f"mid.block_{number}.{_vae_resnet(rest)}" if what == "resnets" else f"mid.attn_{number}.{_swap(rest, _VAE_ATTENTION)}"
    return _swap(name, _VAE_ENDS)


def _vae_resnet(name: str) -> str:
    """The resnet over time is named as in the UNets."""
    if name.startswith("temporal_res_block."):
        return _resnet(name)
    return _swap(name, {"spatial_res_block.": "", "time_mixer.": ""}).replace("conv_shortcut.", "nin_shortcut.")


# Text and image encoders.

_OPEN_CLIP = {
    "layer_norm1.": "ln_1.",
    "layer_norm2.": "ln_2.",
    "mlp.fc1.": "mlp.c_fc.",
    "mlp.fc2.": "mlp.c_proj.",
    "self_attn.out_proj.": "attn.out_proj.",
    "self_attn.q_proj.": "attn.in_proj_",
    "self_attn.k_proj.": "attn.in_proj_",
    "self_attn.v_proj.": "attn.in_proj_",
}
_FUSED = {"self_attn.q_proj.": queries, "self_attn.k_proj.": keys, "self_attn.v_proj.": values}
_OPEN_CLIP_TEXT_ENDS = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.": "ln_final.",
}
_OPEN_CLIP_VISION_ENDS = {
    "vision_model.embeddings.class_embedding": "class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "positional_embedding",
    "vision_model.pre_layrnorm.": "ln_pre.",  # transformers' spelling
    "vision_model.post_layernorm.": "ln_post.",
    "visual_projection.weight": "proj",
}


def _clip_text(names: Collection[str], in_file: Collection[str]) -> dict[str, Source]:
    """Files of 2022 and of today differ by a `text_model.` in between."""
    inner = f"{CLIP_TEXT}text_model."
    prefix = inner if any(name.startswith(inner) for name in in_file) else CLIP_TEXT
    return {name: Source(prefix + name) for name in names}


def _open_clip_text(names: Collection[str], in_file: Collection[str]) -> dict[str, Source]:
    """Its last layer is not in the model: Stable Diffusion 2 reads the last but one, normed by `ln_final`."""
    return {name: _open_clip(name, OPEN_CLIP_TEXT, _OPEN_CLIP_TEXT_ENDS) for name in names}


def _xl_clip_text(names: Collection[str], in_file: Collection[str]) -> dict[str, Source]:
    return {name: Source(XL_CLIP_TEXT + name) for name in names}


def _xl_open_clip_text(names: Collection[str], in_file: Collection[str]) -> dict[str, Source]:
    """Whole, with its last layer and the projection of what is read at the end token."""
    found = {name: _open_clip(name.removeprefix("text_model."), XL_OPEN_CLIP_TEXT, _OPEN_CLIP_TEXT_ENDS) for name in names}
    as_layer = f"{XL_OPEN_CLIP_TEXT}text_projection.weight"  # as some that were converted from diffusers' layout have it
    projection = Source(as_layer) if as_layer in in_file else Source(as_layer.removesuffix(".weight"), transposed)
    return found | {"text_projection.weight": projection}


def _open_clip_vision(names: Collection[str], in_file: Collection[str]) -> dict[str, Source]:
    found = {name: _open_clip(name, VISION, _OPEN_CLIP_VISION_ENDS) for name in names}
    return found | {"visual_projection.weight": Source(f"{VISION}proj", transposed)}


def _open_clip(name: str, prefix: str, ends: dict[str, str]) -> Source:
    layer = re.fullmatch(r"(?:vision_model\.)?encoder\.layers\.(\d+)\.(.+)", name)
    if not layer:
        return Source(prefix + _swap(name, ends))
    take = next((take for beginning, take in _FUSED.items() if layer[2].startswith(beginning)), whole)
    return Source(f"{prefix}transformer.resblocks.{layer[1]}.{_swap(layer[2], _OPEN_CLIP)}", take)


_PARTS = {
    "sd1": {"unet": _unet, "vae": _vae, "text_encoder": _clip_text},
    "sd2": {"unet": _unet, "vae": _vae, "text_encoder": _open_clip_text},
    "sdxl": {"unet": _unet, "vae": _vae, "text_encoder": _xl_clip_text, "text_encoder_2": _xl_open_clip_text},
    "vae": {"vae": _vae},
    "svd": {"unet": _unet, "vae": _vae, "vision": _open_clip_vision},
}
