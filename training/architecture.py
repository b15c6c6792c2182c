"""The demo models: the true classes of Stable Diffusion and Stable Video Diffusion, only smaller.

Both UNets have the same widths, so that the motion model starts from the still model's weights, as Stable Video Diffusion
itself did. Together about 57 MB in half precision, of which 6 MB are CLIP's full vocabulary.
"""

from __future__ import annotations

from diffusers import AutoencoderKL, UNet2DConditionModel, UNetSpatioTemporalConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

WIDTHS, HEADS, CONTEXT = [64, 96, 160], [2, 3, 5], 64

VAE = {
    "in_channels": 3, "out_channels": 3, "latent_channels": 4, "block_out_channels": [32, 48, 64, 96], "layers_per_block": 1,
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4, "norm_num_groups": 8,
    "mid_block_add_attention": False, "sample_size": 192, "scaling_factor": 0.18215,
}  # fmt: skip
TEXT = {
    "vocab_size": 49408, "hidden_size": CONTEXT, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4,
    "max_position_embeddings": 77, "projection_dim": CONTEXT, "hidden_act": "quick_gelu",
    "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407,
}  # fmt: skip
STILL_UNET = {
    "sample_size": 24, "in_channels": 4, "out_channels": 4, "block_out_channels": WIDTHS, "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "cross_attention_dim": CONTEXT, "attention_head_dim": HEADS,  # this class means heads by it
    "use_linear_projection": True, "norm_num_groups": 32,
}  # fmt: skip
MOTION_UNET = {
    "sample_size": 24, "in_channels": 8, "out_channels": 4, "block_out_channels": WIDTHS, "layers_per_block": 1,
    "down_block_types": ["DownBlockSpatioTemporal", "CrossAttnDownBlockSpatioTemporal", "CrossAttnDownBlockSpatioTemporal"],
    "up_block_types": ["CrossAttnUpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal", "UpBlockSpatioTemporal"],
    "cross_attention_dim": CONTEXT, "num_attention_heads": HEADS, "num_frames": 14,
    "addition_time_embed_dim": 32, "projection_class_embeddings_input_dim": 96,
}  # fmt: skip
VISION = {
    "hidden_size": CONTEXT, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4, "projection_dim": CONTEXT,
    "image_size": 224, "patch_size": 28, "hidden_act": "quick_gelu",
}  # fmt: skip


def make_vae() -> AutoencoderKL:
    return AutoencoderKL(**VAE)


def make_text_encoder() -> CLIPTextModel:
    return CLIPTextModel(CLIPTextConfig(**TEXT))


def make_still_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(**STILL_UNET)


def make_motion_unet() -> UNetSpatioTemporalConditionModel:
    return UNetSpatioTemporalConditionModel(**MOTION_UNET)


def make_vision() -> CLIPVisionModelWithProjection:
    return CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION))
