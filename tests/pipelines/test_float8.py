from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from errors import InputError, UnknownNameError
from pipelines.compare import psnr_of
from pipelines.float8 import StoredConv2d, StoredLinear, StoredOverTime, in_full, keep_in_float8, rounded
from pipelines.image_to_video import image_to_video
from pipelines.lean_blocks import slim
from pipelines.lora import Lora, merge
from pipelines.memory import ONE_STAYS, STREAMED, Placement, choose_placement, place
from pipelines.model_files import BUNDLED, DEMO_MOTION, DEMO_STILL
from pipelines.models import Loading, Single, load_denoiser, load_motion, load_still
from pipelines.packing import PackedConv2d, PackedOverTime
from pipelines.parameters import MotionSettings, StillSettings
from pipelines.shelf import bytes_of
from pipelines.text_to_image import text_to_image
from pipelines.values import ModelSource
from tests.conftest import MOTION_NAME, STILL_NAME, TINY_MOTION_UNET

FLOAT8 = choose_placement("cpu", "sdpa", weights="float8")
PLAIN = choose_placement("cpu", "sdpa")
MOTION = MotionSettings(width=64, height=48, frames=3, steps=3, guidance=3.0, seed=5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("spread", [1e-4, 0.02, 1.0, 300.0])
def test_a_weight_is_off_by_a_sixteenth_at_most(dtype: torch.dtype, spread: float) -> None:
    torch.manual_seed(0)
    weight = (spread * torch.randn(64, 32, 3, 3)).to(dtype)
    weight[5] *= 1e-3  # an output of its own size
    weight[6] = 0
    kept, scale = rounded(weight)
    assert (kept.dtype, scale.dtype, scale.shape) == (torch.float8_e4m3fn, dtype, (64, 1, 1, 1))
    found, largest = kept.float() * scale.float(), weight.float().abs().amax(dim=(1, 2, 3), keepdim=True)
    assert found.isfinite().all()
    off = (found - weight.float()).abs()
    least = torch.maximum(largest, torch.tensor(448 * 2.0**-14)) * 2**-18  # below, steps are even
    assert (off <= torch.maximum(weight.float().abs() / 16, 2 * least)).all()
    assert torch.equal(torch.exp2(torch.log2(scale.float()).round()), scale.float())  # powers of two, that round nothing


def test_bytes_are_a_quarter_of_single_precision_and_half_of_half() -> None:
    from diffusers import UNetSpatioTemporalConditionModel

    wide = TINY_MOTION_UNET | {"block_out_channels": [64, 128]}
    with torch.device("meta"):
        unets = [UNetSpatioTemporalConditionModel(**wide).to(dtype) for dtype in (torch.float32, torch.float16)]
    for unet, part in zip(unets, (0.25, 0.5), strict=True):
        placement = Placement(torch.device("meta"), unet.dtype, unet.dtype, "sdpa", "", is_float8=True)
        inside = nn.ModuleList([*unet.down_blocks, unet.mid_block, *unet.up_blocks])
        before = sum(p.nbytes for p in inside.parameters() if p.ndim > 1)
        place(unet, placement)
        assert sum(p.nbytes for p in inside.parameters() if p.ndim > 1) == part * before
        assert {p.dtype for p in inside.parameters() if p.ndim < 2} == {unet.conv_in.weight.dtype}
        assert unet.conv_in.weight.dtype == unet.time_embedding.linear_1.weight.dtype == placement.dtype


def test_what_is_loaded_is_small_and_counted_so(tiny_models: Path) -> None:
    small, usual = (load_motion(tiny_models / "checkpoints" / MOTION_NAME, placement) for placement in (FLOAT8, PLAIN))
    assert bytes_of(Single(small.unet)) < 0.4 * bytes_of(Single(usual.unet))
    assert {p.dtype for model in (small.vae, small.vision) for p in model.parameters()} == {torch.float32}
    kinds = {type(module) for module in small.unet.modules()}
    assert {StoredLinear, StoredConv2d, StoredOverTime} <= kinds
    assert not kinds & {PackedConv2d, PackedOverTime}
    weight, layer = usual.unet.mid_block.attentions[0].proj_in.weight, small.unet.mid_block.attentions[0].proj_in
    assert (in_full(layer, weight) - weight).abs().max() <= weight.abs().max() / 16


@torch.inference_mode()
@pytest.mark.parametrize("residence", ["all", ONE_STAYS, STREAMED])
def test_a_film_is_near_wherever_weights_are(tiny_models: Path, residence: str) -> None:
    path, still = tiny_models / "checkpoints" / MOTION_NAME, np.random.default_rng(1).random((48, 64, 3), np.float32)
    exact = image_to_video(load_motion(path, PLAIN), still, MOTION)
    stays, there = (image_to_video(load_motion(path, FLOAT8, residence=where), still, MOTION) for where in ("all", residence))
    assert 0 < np.abs(stays - exact).mean() < 0.1
    assert np.abs(stays - there).max() < 1e-5


@torch.inference_mode()
def test_each_kind_of_layer_works_with_its_full_weight() -> None:
    torch.manual_seed(0)
    still, moving = torch.randn(2, 8, 5, 4), torch.randn(2, 8, 3, 5, 4)
    cube, over_time = nn.Conv3d(8, 12, 3, padding=1), nn.Conv3d(8, 12, (3, 1, 1), padding=(1, 0, 0))
    pairs = ((nn.Linear(8, 12), torch.randn(2, 8)), (nn.Conv2d(8, 12, 3, padding=1), still), (cube, moving), (over_time, moving))
    for layer, x in pairs:
        unet = nn.Module()
        unet.down_blocks, unet.mid_block, unet.up_blocks = nn.ModuleList([layer]), nn.Module(), nn.ModuleList()
        slim(unet)
        plain = copy.deepcopy(layer)
        keep_in_float8(unet)
        plain.weight = nn.Parameter(in_full(layer, x))
        assert layer.weight.dtype == torch.float8_e4m3fn
        assert torch.equal(layer(x), plain(x))


def test_a_lora_is_merged_before_it_is_rounded(tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.dtype] = []

    def watched(part: str, model: nn.Module, loras: list[Lora]) -> None:
        seen.extend({p.dtype for p in model.parameters()})
        merge(part, model, loras)

    monkeypatch.setattr("pipelines.models.merge", watched)
    denoiser = load_denoiser(ModelSource(tiny_models / "checkpoints" / STILL_NAME, "still"), Loading(FLOAT8))
    assert seen == [torch.float32]
    assert denoiser.unet.mid_block.resnets[0].conv1.weight.dtype == torch.float8_e4m3fn


def test_it_is_said_and_what_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert FLOAT8.describe().items() >= {"dtype": "float32", "weights": "float8"}.items()
    assert "float8, which is lossy" in FLOAT8.describe()["reason"]
    assert "weights" not in PLAIN.describe()
    assert [FLOAT8.item_bytes(part) for part in ("unet", "vae", "vision")] == [1, 4, 4]
    assert PLAIN.item_bytes("unet") == 4
    with pytest.raises(UnknownNameError, match="auto, float8"):
        choose_placement("cpu", weights="float4")
    with pytest.raises(InputError, match="do not go together"):
        choose_placement("cpu", weights="float8", is_compiled=True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(InputError, match="cannot be used on mps"):
        choose_placement("mps", weights="float8")


def test_a_layer_is_kept_once_however_often_it_is_asked_for(tiny_models: Path) -> None:
    unet = load_still(tiny_models / "checkpoints" / STILL_NAME, FLOAT8).unet
    before = unet.mid_block.resnets[0].conv1.weight.data_ptr()
    keep_in_float8(unet)
    assert unet.mid_block.resnets[0].conv1.weight.data_ptr() == before


@pytest.mark.demo
def test_the_demos_still_and_film_stay_near() -> None:
    still_settings = StillSettings(prompt="a red rocket flies over the sea", seed=1, width=96, height=64, steps=8)
    film_settings, made = MotionSettings(width=96, height=64, frames=6, steps=8, seed=2), {}
    for name, placement in (("plain", PLAIN), ("small", FLOAT8)):
        still = text_to_image(load_still(BUNDLED / DEMO_STILL, placement), still_settings)
        made[name] = still, image_to_video(load_motion(BUNDLED / DEMO_MOTION, placement), made.get("plain", [still])[0], film_settings)
    stills, films = zip(made["plain"], made["small"], strict=True)
    psnr = psnr_of(*(still[None] for still in stills))[0], psnr_of(*films)[1]
    assert 32 < psnr[0] < 80
    assert 45 < psnr[1] < 80
