"""Folders that diffusers itself wrote, from tiny models of the true classes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLTemporalDecoder,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    StableVideoDiffusionPipeline,
    UNet2DConditionModel,
    UNetSpatioTemporalConditionModel,
)
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from errors import CheckpointError
from pipelines import checkpoints, folders
from pipelines.checkpoints import inspect, read_header
from pipelines.doctor import examine
from pipelines.memory import choose_placement
from pipelines.model_files import TOKENIZER, list_checkpoints
from pipelines.models import load_motion, load_still
from tests.conftest import (
    TINY_MOTION_UNET,
    TINY_STILL_UNET,
    TINY_TEXT,
    TINY_VAE,
    TINY_VISION,
    TINY_XL_TEXT,
    TINY_XL_TEXT_2,
    TINY_XL_UNET,
    TINY_XL_VAE,
)

ATTENTIVE_VAE = TINY_VAE | {"mid_block_add_attention": True}
TEMPORAL_VAE = {"block_out_channels": [32, 32, 32, 32], "layers_per_block": 1, "down_block_types": ["DownEncoderBlock2D"] * 4}
CPU = choose_placement("cpu")


@pytest.fixture(scope="module")
def still_pipeline() -> StableDiffusionPipeline:
    torch.manual_seed(3)
    return StableDiffusionPipeline(
        vae=AutoencoderKL(**ATTENTIVE_VAE), unet=UNet2DConditionModel(**TINY_STILL_UNET),
        text_encoder=CLIPTextModel(CLIPTextConfig(**TINY_TEXT)), tokenizer=CLIPTokenizer.from_pretrained(TOKENIZER),
        scheduler=DDIMScheduler(
            beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1, clip_sample=False,
            prediction_type="v_prediction",
        ),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def motion_pipeline() -> StableVideoDiffusionPipeline:
    torch.manual_seed(4)
    return StableVideoDiffusionPipeline(
        vae=AutoencoderKLTemporalDecoder(**TEMPORAL_VAE), unet=UNetSpatioTemporalConditionModel(**TINY_MOTION_UNET),
        image_encoder=CLIPVisionModelWithProjection(CLIPVisionConfig(**TINY_VISION)),
        scheduler=EulerDiscreteScheduler(prediction_type="v_prediction"), feature_extractor=CLIPImageProcessor(),
    )  # fmt: skip


@pytest.fixture
def still_folder(still_pipeline: StableDiffusionPipeline, tmp_path: Path) -> Path:
    still_pipeline.save_pretrained(tmp_path / "tiny-sd")
    return tmp_path / "tiny-sd"


def assert_same(found: nn.Module, wanted: nn.Module) -> None:
    a, b = found.state_dict(), wanted.state_dict()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def assert_same_still(folder: Path, pipeline: StableDiffusionPipeline) -> None:
    models = load_still(folder, CPU)
    for part in ("unet", "vae", "text_encoder"):
        assert_same(getattr(models, part), getattr(pipeline, part))


def test_a_still_model_is_what_diffusers_saved(still_folder: Path, still_pipeline: StableDiffusionPipeline) -> None:
    assert_same_still(still_folder, still_pipeline)
    models = load_still(still_folder, CPU)
    assert models.spacing.prediction_type == "v_prediction"
    assert models.tokenizer.pad_token == "<|endoftext|>"


@pytest.mark.parametrize(("prediction_type", "ends_in_noise"), [("epsilon", False), ("v_prediction", False), ("v_prediction", True)])
def test_an_xl_model_is_what_diffusers_saved(tmp_path: Path, prediction_type: str, ends_in_noise: bool) -> None:
    torch.manual_seed(5)
    scheduler = EulerDiscreteScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type=prediction_type,
        rescale_betas_zero_snr=ends_in_noise,
    )  # fmt: skip
    text_2 = CLIPTextConfig(**TINY_XL_TEXT_2 | {"pad_token_id": 1, "eos_token_id": 2})  # as the published ones say
    pipeline = StableDiffusionXLPipeline(
        vae=AutoencoderKL(**TINY_XL_VAE), unet=UNet2DConditionModel(**TINY_XL_UNET), scheduler=scheduler,
        text_encoder=CLIPTextModel(CLIPTextConfig(**TINY_XL_TEXT)), tokenizer=CLIPTokenizer.from_pretrained(TOKENIZER),
        text_encoder_2=CLIPTextModelWithProjection(text_2), tokenizer_2=CLIPTokenizer.from_pretrained(TOKENIZER, pad_token="!"),
    )  # fmt: skip
    pipeline.save_pretrained(tmp_path / "tiny-xl")
    models = load_still(tmp_path / "tiny-xl", CPU)
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        assert_same(getattr(models, part), getattr(pipeline, part))
    assert (models.tokenizer.pad_token_id, models.tokenizer_2.pad_token_id) == (49407, 0)
    assert (models.spacing.prediction_type, models.spacing.sigma_max > 1000) == (prediction_type, ends_in_noise)
    assert models.vae.config.scaling_factor == 0.13025


def test_a_unet_of_few_steps_stands_in_a_folder_and_not_alone(motion_pipeline: StableVideoDiffusionPipeline, tmp_path: Path) -> None:
    """As AnimateLCM-SVD is published: the UNet alone, named as diffusers names its tensors."""
    motion_pipeline.save_pretrained(tmp_path / "tiny-svd")
    alone, place = tmp_path / "AnimateLCM-SVD-xt-1.1.safetensors", tmp_path / "tiny-svd" / "unet" / "diffusion_pytorch_model.safetensors"
    trained = {name: tensor.to(torch.float16) * 0.5 for name, tensor in motion_pipeline.unet.state_dict().items()}
    save_file(trained, alone)
    with pytest.raises(CheckpointError, match=r"is a UNet alone in diffusers' layout.*unet/diffusion_pytorch_model\.safetensors"):
        inspect(alone)
    shutil.copy(alone, place)
    models = load_motion(tmp_path / "tiny-svd", CPU)
    assert torch.equal(models.unet.conv_in.weight, trained["conv_in.weight"].float())
    assert_same(models.vae, motion_pipeline.vae)


def test_a_motion_model_is_what_diffusers_saved(motion_pipeline: StableVideoDiffusionPipeline, tmp_path: Path) -> None:
    motion_pipeline.save_pretrained(tmp_path / "tiny-svd")
    models = load_motion(tmp_path / "tiny-svd", CPU)
    assert_same(models.unet, motion_pipeline.unet)
    assert_same(models.vae, motion_pipeline.vae)
    assert_same(models.vision, motion_pipeline.image_encoder)


def test_split_and_half_precision_weights_are_read(still_pipeline: StableDiffusionPipeline, tmp_path: Path) -> None:
    still_pipeline.save_pretrained(tmp_path / "split", max_shard_size="100KB")
    assert len(list((tmp_path / "split" / "unet").glob("*.safetensors"))) > 1
    assert_same_still(tmp_path / "split", still_pipeline)
    still_pipeline.save_pretrained(tmp_path / "half", variant="fp16")
    assert not (tmp_path / "half" / "unet" / "diffusion_pytorch_model.safetensors").exists()
    assert_same_still(tmp_path / "half", still_pipeline)


def test_autoencoders_of_2022_are_read(still_folder: Path, still_pipeline: StableDiffusionPipeline) -> None:
    file = still_folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    for old, new in folders._OLD_ATTENTION.items():
        weights = {name.replace(new, old) if ".attentions." in name else name: x for name, x in weights.items()}
    assert any(".proj_attn." in name for name in weights)
    save_file(weights, file)
    assert_same_still(still_folder, still_pipeline)


@pytest.mark.parametrize("prefix", ["text_model.", ""])
def test_text_encoders_of_older_and_newer_transformers_are_read(
    still_folder: Path, still_pipeline: StableDiffusionPipeline, prefix: str
) -> None:
    file = still_folder / "text_encoder" / "model.safetensors"
    save_file({prefix + name.removeprefix("text_model."): x for name, x in load_file(file).items()}, file)
    assert_same_still(still_folder, still_pipeline)


@pytest.mark.parametrize("is_old", [True, False])
def test_prompts_of_stable_diffusion_2_are_filled_up_with_exclamation_marks(still_folder: Path, is_old: bool) -> None:
    """The library of today no longer writes the file in which published folders say so."""
    if is_old:
        (still_folder / "tokenizer" / "special_tokens_map.json").write_text(json.dumps({"pad_token": {"content": "!"}}))
    else:
        CLIPTokenizer.from_pretrained(TOKENIZER, pad_token="!").save_pretrained(still_folder / "tokenizer")
    assert load_still(still_folder, CPU).tokenizer.pad_token == "!"


def test_a_folder_is_listed_as_one_checkpoint(still_folder: Path) -> None:
    models = still_folder.parent / "models"
    (models / "checkpoints").mkdir(parents=True)
    shutil.move(still_folder, models / "checkpoints" / "mine")
    assert next(iter(list_checkpoints(models))) == "mine"
    assert not [name for name in list_checkpoints(models) if name.startswith("mine/")]


def test_pickles_beside_what_is_read_do_not_make_a_folder_bad(still_folder: Path) -> None:
    data_dir = still_folder.parent / "data"
    (data_dir / "models" / "checkpoints").mkdir(parents=True)
    (still_folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x02")
    shutil.move(still_folder, data_dir / "models" / "checkpoints" / "mine")
    found = [finding for finding in examine(data_dir) if finding.subject.startswith("mine")]
    assert [(finding.subject, finding.level) for finding in found] == [("mine", "ok")]


def test_a_folder_for_the_other_stage_is_refused(still_folder: Path) -> None:
    with pytest.raises(CheckpointError, match="tiny-sd makes a still from a prompt, not a film"):
        read_header(still_folder, "motion")


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_what_is_damaged_or_unknown_is_said(still_folder: Path) -> None:
    def refused(says: str) -> None:
        with pytest.raises(CheckpointError, match=says):
            checkpoints.check_complete(inspect(still_folder))

    weights = still_folder / "unet" / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-8])
    refused(r"diffusion_pytorch_model\.safetensors .* truncated")
    weights.unlink()
    refused("tiny-sd/unet holds no weights")
    weights.with_suffix(".bin").write_bytes(b"\x80\x02")
    refused("only as a pickle, diffusion_pytorch_model.bin")
    save_file({"conv_in.weight": torch.zeros(1)}, weights)
    refused("lacks .* tensors of its unet")
    weights.write_bytes(whole)
    checkpoints.check_complete(inspect(still_folder))
    change(still_folder / "scheduler" / "scheduler_config.json", beta_end=0.02)
    refused("another noise schedule: beta_end 0.02")
    (still_folder / "scheduler" / "scheduler_config.json").unlink()
    refused("scheduler/scheduler_config.json is missing")
    change(still_folder / "model_index.json", _class_name="StableDiffusionXLImg2ImgPipeline")
    refused("StableDiffusionXLImg2ImgPipeline, which is not supported")
    change(still_folder / "model_index.json", _class_name="FluxPipeline")
    refused("FluxPipeline, which is not supported")
    (still_folder / "model_index.json").write_text("[")
    refused(r"model_index\.json cannot be read")


def test_an_index_may_not_lead_out_of_the_folder(still_folder: Path) -> None:
    unet = still_folder / "unet"
    (unet / "diffusion_pytorch_model.safetensors").rename(unet / "kept")
    (unet / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": {"conv_in.weight": "../../secret"}}))
    with pytest.raises(CheckpointError, match="names no files beside it"):
        inspect(still_folder)
