"""What the trainers do to weights: folding, copying, resuming, averaging."""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from training import image_to_video, latents
from training.architecture import make_motion_unet, make_still_unet
from training.evaluate import flicker, held_out_prompts, moves_its_way, psnr
from training.judge import Judge, Verdict, read
from training.text_to_image import weights_at
from training.world import random_scene


def options(runs: Path, minutes: float) -> argparse.Namespace:
    return argparse.Namespace(runs=runs, minutes=minutes, threads=0, device="cpu")


@torch.no_grad()
def test_folding_gives_unit_latents_and_the_same_picture(tiny_vae: AutoencoderKL) -> None:
    x = torch.rand(6, 3, 32, 32) * 2 - 1
    z = tiny_vae.encode(x).latent_dist.mean
    before = tiny_vae.decode(z).sample
    latents.fold(tiny_vae, z.mean((0, 2, 3)), z.std((0, 2, 3)))
    folded = tiny_vae.encode(x).latent_dist.mean
    assert torch.allclose(folded.mul(latents.SCALE).std((0, 2, 3)), torch.ones(4), atol=1e-4)
    assert torch.allclose(folded.mean((0, 2, 3)), torch.zeros(4), atol=1e-4)
    assert torch.allclose(tiny_vae.decode(folded).sample, before, atol=1e-4)


@pytest.fixture
def tiny_vae() -> AutoencoderKL:
    torch.manual_seed(0)
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
    return AutoencoderKL(block_out_channels=[8] * 4, layers_per_block=1, norm_num_groups=4, latent_channels=4, **blocks).eval()


@torch.no_grad()
def test_the_motion_model_starts_as_the_still_model_on_every_frame_alone() -> None:
    torch.manual_seed(0)
    still, motion = make_still_unet().eval(), make_motion_unet().eval()
    image_to_video.start_from_still_model(motion, still)
    for name in ("time_embedding", "add_embedding"):  # of another meaning in the two models: silence both
        for model in (still, motion):
            for parameter in getattr(model, name, torch.nn.Module()).parameters():
                parameter.zero_()
    x, context = torch.randn(1, 3, 4, 16, 16), torch.randn(1, 1, 64)
    shown = torch.cat([x, torch.zeros_like(x)], 2)
    frames = motion(shown, torch.tensor(0.3), context, torch.tensor([[6.0, 127.0, 0.0]])).sample[0]
    alone = still(x[0], torch.tensor(7), context.expand(3, -1, -1)).sample
    assert torch.allclose(frames, alone, atol=1e-4)


def test_small_sizes_are_shown_more_often_at_first() -> None:
    assert weights_at(0.1, ["16x16", "24x24"], [10, 10]) == [40, 10]
    assert weights_at(0.1, ["14x16x16", "14x24x24"], [10, 10]) == [40, 10]
    assert weights_at(0.9, ["16x16", "24x24"], [10, 10]) == [10, 10]


def test_the_judge_reads_any_size() -> None:
    torch.manual_seed(0)
    verdicts = read(Judge(width=8).eval(), [np.zeros((64, 48, 3), np.uint8), np.full((200, 300, 3), 255, np.uint8)])
    assert all(0 <= v.x <= 1 and 0 <= v.y <= 1 and v.side in (1, -1) for v in verdicts)


def test_the_true_ways_of_the_world_count_as_its_ways_and_standing_still_does_not() -> None:
    for scene, _ in held_out_prompts(40):
        way = np.array([scene.position(k / 7) for k in range(14)])
        verdict = Verdict(scene.subject, scene.colour, scene.place, scene.side, *way[0])
        assert moves_its_way(scene, verdict, way), scene
        assert not moves_its_way(scene, verdict, np.repeat(way[:1], 14, 0))
        if scene.subject not in ("ball", "ufo"):
            assert not moves_its_way(scene, verdict, way[::-1])


def test_psnr_and_flicker() -> None:
    picture = random_scene(random.Random(1)).frame(0, 32, 32)
    assert psnr(picture, picture) == float("inf")
    assert abs(psnr(np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8))) < 1e-9
    steady = np.stack([picture // 2 + k for k in range(6)])
    assert flicker(steady) == 0
    blinking = steady.copy()
    blinking[::2] += 20
    assert flicker(blinking) > 30


def test_windows_of_a_film_are_numbered_as_in_the_film() -> None:
    """A whole film's frames 3 to 5, and the same three alone, told that they are 3 to 5, get the same frame embeddings."""
    from diffusers.models.embeddings import Timesteps

    numbers = image_to_video.FrameNumbers(Timesteps(8, True, 0))
    whole = numbers(torch.arange(14))
    numbers.first = torch.tensor([3.0, 5.0])
    windows = numbers(torch.arange(3).repeat(2, 1).reshape(-1))
    assert torch.equal(windows, torch.cat([whole[3:6], whole[5:8]]))
