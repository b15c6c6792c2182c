"""Tiny random models of the true classes, as checkpoint files, and a data directory that holds them."""

from __future__ import annotations

import gc
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as cores: with more threads they wait for each other most of the time
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_finish() -> None:
    """What was imported stays, and need not be looked at whenever memory is to be given back: that is most of what the collector does."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The slow ones last, so that a mistake shows early; but first where several processes share the files, which must end together."""
    is_shared = hasattr(config, "workerinput")
    items.sort(key=lambda item: (item.get_closest_marker("demo") is not None) != is_shared)


TINY_VAE = {
    "in_channels": 3, "out_channels": 3, "latent_channels": 4, "block_out_channels": [8, 8, 8, 8], "layers_per_block": 1,
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4, "norm_num_groups": 4,
    "mid_block_add_attention": False, "scaling_factor": 0.18215,
}  # fmt: skip
TINY_TEXT = {
    "vocab_size": 49408, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": 8,
    "max_position_embeddings": 77, "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407,
}  # fmt: skip
TINY_STILL_UNET = {
    "sample_size": 8, "block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 8, "cross_attention_dim": 8,
    "attention_head_dim": 2, "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
}  # fmt: skip
TINY_MOTION_UNET = {
    "sample_size": 8, "in_channels": 8, "out_channels": 4, "block_out_channels": [32, 64], "layers_per_block": 1, "num_frames": 4,
    "cross_attention_dim": 8, "num_attention_heads": [2, 2], "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 24,
    "down_block_types": ["DownBlockSpatioTemporal", "CrossAttnDownBlockSpatioTemporal"],
    "up_block_types": ["CrossAttnUpBlockSpatioTemporal", "UpBlockSpatioTemporal"],
}  # fmt: skip
TINY_VISION = {
    "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "projection_dim": 8,
    "image_size": 224, "patch_size": 56,
}  # fmt: skip
TINY_XL_TEXT = TINY_TEXT | {"num_hidden_layers": 3}
TINY_XL_TEXT_2 = TINY_XL_TEXT | {"hidden_size": 12, "projection_dim": 10, "hidden_act": "gelu", "pad_token_id": 0}
TINY_XL_UNET = {
    "sample_size": 8, "block_out_channels": [32, 64, 64], "layers_per_block": 2, "cross_attention_dim": 20, "attention_head_dim": [2, 4, 4],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], "transformer_layers_per_block": [1, 1, 2],
    "use_linear_projection": True, "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 10 + 6 * 8,
}  # fmt: skip
TINY_XL_VAE = TINY_VAE | {"mid_block_add_attention": True, "layers_per_block": 2, "scaling_factor": 0.13025}
STILL_NAME, MOTION_NAME = "tiny_still.safetensors", "tiny_motion.safetensors"


def write_checkpoint(path: Path, kind: str, sampling: dict, parts: dict) -> None:
    """`parts`: name to (model, config)."""
    from safetensors.torch import save_file

    described = {"kind": kind, "name": "tiny", "sampling": sampling, "components": {name: config for name, (_, config) in parts.items()}}
    tensors = {f"{name}.{key}": value.contiguous() for name, (model, _) in parts.items() for key, value in model.state_dict().items()}
    save_file(tensors, path, metadata={"stillmotion": json.dumps(described)})


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models directory with `checkpoints/tiny_still.safetensors` and `checkpoints/tiny_motion.safetensors`."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel, UNetSpatioTemporalConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    (folder / "checkpoints").mkdir()
    vae = AutoencoderKL(**TINY_VAE)
    still = {
        "unet": (UNet2DConditionModel(**TINY_STILL_UNET), TINY_STILL_UNET),
        "vae": (vae, TINY_VAE),
        "text_encoder": (CLIPTextModel(CLIPTextConfig(**TINY_TEXT)), TINY_TEXT),
    }
    motion = {
        "unet": (UNetSpatioTemporalConditionModel(**TINY_MOTION_UNET), TINY_MOTION_UNET),
        "vae": (vae, TINY_VAE),
        "vision": (CLIPVisionModelWithProjection(CLIPVisionConfig(**TINY_VISION)), TINY_VISION),
    }
    write_checkpoint(folder / "checkpoints" / STILL_NAME, "still", {"prediction_type": "epsilon"}, still)
    write_checkpoint(folder / "checkpoints" / MOTION_NAME, "motion", {"sigma_min": 0.002, "sigma_max": 700.0}, motion)
    return folder


@pytest.fixture(scope="session")
def tiny_xl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A still checkpoint of Stable Diffusion XL's kind that carries its architecture."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(1)
    parts = {
        "unet": (UNet2DConditionModel(**TINY_XL_UNET), TINY_XL_UNET),
        "vae": (AutoencoderKL(**TINY_XL_VAE), TINY_XL_VAE),
        "text_encoder": (CLIPTextModel(CLIPTextConfig(**TINY_XL_TEXT)), TINY_XL_TEXT),
        "text_encoder_2": (CLIPTextModelWithProjection(CLIPTextConfig(**TINY_XL_TEXT_2)), TINY_XL_TEXT_2),
    }
    path = tmp_path_factory.mktemp("xl") / "tiny_xl.safetensors"
    write_checkpoint(path, "still", {"prediction_type": "epsilon"}, parts)
    return path


@pytest.fixture(scope="session")
def _place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("place") / "data"


@pytest.fixture
def data_dir(_place: Path, tiny_models: Path) -> Iterator[Path]:
    """A fresh data directory with the tiny checkpoints in its models folder. What a test puts beside them is that test's alone.

    It is always at the same place: a shelf that tests share knows the models again."""
    checkpoints = _place / "models" / "checkpoints"
    checkpoints.mkdir(parents=True)
    for path in (tiny_models / "checkpoints").iterdir():
        (checkpoints / path.name).symlink_to(path)
    yield _place
    shutil.rmtree(_place)
