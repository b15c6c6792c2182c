from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderKLTemporalDecoder, UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from pipelines.lean_blocks import LeanAttention, LeanResnet
from pipelines.memory import choose_placement, place
from pipelines.savings import ALL, NONE

CPU = choose_placement("cpu", "sdpa")
STILL = {
    "block_out_channels": (8, 16), "norm_num_groups": 4, "cross_attention_dim": 8, "attention_head_dim": 2, "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}  # fmt: skip


@torch.inference_mode()
def test_a_stills_unet_gives_the_same_to_the_bit() -> None:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**STILL).eval()
    given = torch.randn(2, 4, 8, 8), torch.tensor(5.0), torch.randn(2, 7, 8)
    before = unet(*given).sample
    place(unet, CPU)
    assert torch.equal(unet(*given).sample, before)
    assert {type(processor) for processor in unet.attn_processors.values()} == {LeanAttention}
    assert any(isinstance(module, LeanResnet) for module in unet.modules())


@torch.inference_mode()
def test_an_autoencoder_gives_the_same_to_the_bit() -> None:
    torch.manual_seed(0)
    vae = AutoencoderKL(block_out_channels=(8, 16), norm_num_groups=4, down_block_types=["DownEncoderBlock2D"] * 2,
                        up_block_types=["UpDecoderBlock2D"] * 2).eval()  # fmt: skip
    picture, latent = torch.randn(1, 3, 16, 16), torch.randn(1, 4, 8, 8)
    before = vae.encode(picture).latent_dist.mean, vae.decode(latent).sample
    place(vae, CPU)
    assert torch.equal(vae.encode(picture).latent_dist.mean, before[0])
    assert torch.equal(vae.decode(latent).sample, before[1])


@torch.inference_mode()
def test_a_temporal_decoder_gives_the_same_but_for_rounding() -> None:
    torch.manual_seed(0)
    vae = AutoencoderKLTemporalDecoder(block_out_channels=(32, 32), down_block_types=["DownEncoderBlock2D"] * 2).eval()
    latents = torch.randn(3, 4, 6, 6)
    before = vae.decode(latents, num_frames=3).sample
    place(vae, CPU)
    assert (vae.decode(latents, num_frames=3).sample - before).abs().max() < 1e-5


def test_what_goes_in_is_left_as_it_is() -> None:
    block, x, temb = place(ResnetBlock2D(in_channels=32, temb_channels=8), CPU), torch.randn(2, 32, 4, 4), torch.randn(2, 8)
    kept = x.clone(), temb.clone()
    block(x, temb)
    assert torch.equal(x, kept[0])
    assert torch.equal(temb, kept[1])


@pytest.mark.parametrize(
    "kind", [{"output_scale_factor": 2.0}, {"time_embedding_norm": "scale_shift"}, {"up": True}, {"non_linearity": "gelu"}], ids=str
)
@torch.inference_mode()
def test_other_kinds_of_blocks_stay_as_they_are(kind: dict) -> None:
    torch.manual_seed(0)
    block, x, temb = ResnetBlock2D(in_channels=32, temb_channels=8, **kind).eval(), torch.randn(2, 32, 4, 4), torch.randn(2, 8)
    before = block(x, temb)
    place(block, CPU)
    assert type(block) is ResnetBlock2D
    assert torch.equal(block(x, temb), before)


def test_each_saving_can_be_left_out() -> None:
    plain = UNet2DConditionModel(**STILL)
    for savings in (NONE, dataclasses.replace(ALL, spares_copies=False)):
        unet = place(copy.deepcopy(plain), choose_placement("cpu", "sdpa", savings=savings))
        assert not any(isinstance(module, LeanResnet) for module in unet.modules())


def test_models_of_other_libraries_are_left_alone() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Conv3d(2, 2, 3))
    assert [type(module) for module in place(model, CPU)] == [nn.Linear, nn.Conv3d]
