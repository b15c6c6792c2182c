"""Loaded models with random weights, made in memory: of the full architectures, or of tiny ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipelines.checkpoints import CheckpointFile, build
from pipelines.memory import Placement, place
from pipelines.models import MotionModels, StillModels, tokenizers_of
from pipelines.schedules import ContinuousSigmas, DiscreteSigmas

CONFIGS = Path(__file__).parent.parent / "assets" / "configs"
_TINY_VAE = {
    "block_out_channels": [8, 8, 8, 8], "layers_per_block": 1, "norm_num_groups": 4, "mid_block_add_attention": False,
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
}  # fmt: skip
_TINY: dict[str, dict[str, dict[str, Any]]] = {
    "sd1": {
        "unet": {
            "block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 8, "cross_attention_dim": 8, "attention_head_dim": 2,
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"], "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
        },
        "vae": _TINY_VAE,
        "text_encoder": {
            "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": 8,
        },
    },
    "svd": {
        "unet": {
            "block_out_channels": [32, 64], "layers_per_block": 1, "cross_attention_dim": 8, "num_attention_heads": [2, 2],
            "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 24, "transformer_layers_per_block": 1,
            "down_block_types": ["DownBlockSpatioTemporal", "CrossAttnDownBlockSpatioTemporal"],
            "up_block_types": ["CrossAttnUpBlockSpatioTemporal", "UpBlockSpatioTemporal"],
        },
        "vae": _TINY_VAE,
        "vision": {
            "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "projection_dim": 8,
            "patch_size": 56,
        },
    },
}  # fmt: skip


def random_still(placement: Placement, *, is_tiny: bool = False) -> StillModels:
    header = described("sd1", is_tiny=is_tiny)
    parts = {part: _filled(header, part, placement) for part in ("unet", "vae", "text_encoder")}
    return StillModels(name="random", spacing=DiscreteSigmas(), placement=placement, **parts, **tokenizers_of(header))


def random_motion(placement: Placement, *, is_tiny: bool = False) -> MotionModels:
    header = described("svd", is_tiny=is_tiny)
    parts = {part: _filled(header, part, placement) for part in ("unet", "vae", "vision")}
    return MotionModels(name="random", spacing=ContinuousSigmas(), placement=placement, **parts)


def described(family: str, *, is_tiny: bool, is_temporal: bool = False) -> CheckpointFile:
    """A checkpoint's header, without a file; `is_temporal`: with the decoder of Stable Video Diffusion, which mixes frames."""
    told = json.loads((CONFIGS / f"{family}.json").read_text())
    changes = _TINY[family] if is_tiny else {}
    components = {part: config | changes.get(part, {}) for part, config in told["components"].items()}
    temporal = components.pop("vae_temporal", None)  # what published checkpoints have
    if temporal and is_temporal:
        components["vae"] = temporal
    return CheckpointFile(Path("random"), told["kind"], "random", told["sampling"], components)


def _filled(header: CheckpointFile, part: str, placement: Placement) -> nn.Module:
    """Spread so that activations stay finite through all layers."""
    dtype = placement.vae_dtype if part == "vae" else placement.dtype
    model = build(header, part)
    if dtype != torch.float32:
        model = model.to(dtype)
    model = model.to_empty(device=placement.device)
    generator = torch.Generator(placement.device).manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                spread = 0.8 * (3 / weight[0].numel()) ** 0.5  # a residual branch adds less than there is
                weight.uniform_(-spread, spread, generator=generator)
            else:
                weight.fill_(float(name.endswith("weight")))
        for name, buffer in model.named_buffers():
            if name.endswith("position_ids"):
                buffer.copy_(torch.arange(buffer.shape[-1]))
    return place(model, placement)
