from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from errors import Canceled, UnknownNameError
from pipelines.image_to_video import (
    augmentation_noise,
    clip_pixels,
    condition,
    crop_and_resize,
    draw_of_still,
    guidance_scale,
    guided,
    image_to_video,
    predict,
)
from pipelines.memory import choose_placement
from pipelines.models import MotionModels, load_motion
from pipelines.parameters import MotionSettings, StillSettings
from pipelines.progress import Progress
from pipelines.sampling import initial_noise
from pipelines.savings import ALL
from pipelines.schedules import make_sigmas
from pipelines.text_to_image import decode
from pipelines.values import Latents, Pictures

DATA = Path(__file__).parent.parent / "data"
SETTINGS = MotionSettings(width=64, height=48, frames=4, steps=3, guidance=3.0, seed=5)


@pytest.fixture(scope="module")
def models(tiny_models: Path) -> MotionModels:
    return load_motion(tiny_models / "checkpoints" / "tiny_motion.safetensors", choose_placement("cpu"))


def unscaled(x: torch.Tensor) -> Latents:
    return Latents((x / 0.18215).numpy())


@pytest.fixture(scope="module")
def still() -> np.ndarray:
    return np.random.default_rng(1).random((60, 80, 3), np.float32)


def test_a_film_has_the_frames_and_the_size_asked_for(models: MotionModels, still: np.ndarray) -> None:
    frames = image_to_video(models, still, SETTINGS)
    assert frames.shape == (4, 48, 64, 3)
    assert 0 <= frames.min() < frames.max() <= 1


def test_same_seed_same_film_other_seed_other_film(models: MotionModels, still: np.ndarray) -> None:
    noisy = dataclasses.replace(SETTINGS, augmentation_level=0.2)
    first = image_to_video(models, still, noisy)
    torch.rand(7)  # whatever else draws from the global generator
    assert np.array_equal(first, image_to_video(models, still, noisy))
    assert not np.array_equal(first, image_to_video(models, still, dataclasses.replace(noisy, seed=6)))


@pytest.mark.parametrize(
    "change",
    [
        {"motion_bucket_id": 200},
        {"fps": 15},
        {"augmentation_level": 0.1},
        {"guidance": 1.0},
        {"min_guidance": 2.0},
        {"guidance_shape": "triangle"},
        {"sampler": "dpmpp_2m"},
        {"schedule": "normal"},
    ],
)
def test_every_setting_matters(models: MotionModels, still: np.ndarray, change: dict) -> None:
    usual = image_to_video(models, still, SETTINGS)
    assert not np.array_equal(usual, image_to_video(models, still, dataclasses.replace(SETTINGS, **change)))


@torch.inference_mode()
def test_euler_by_hand_gives_the_same_film(models: MotionModels, still: np.ndarray) -> None:
    """The whole stage against the formulas: v-prediction, concatenated latent, fps - 1, guidance growing over the frames."""
    still48 = still[6:54, 8:72]  # already of the film's size: no resizing, and CLIP's crop is computed from it
    pixels = torch.from_numpy(still48.copy()).permute(2, 0, 1)[None]
    latent = models.vae.encode(pixels * 2 - 1).latent_dist.mean
    embedding = models.vision(clip_pixels(pixels)).image_embeds[:, None]
    ids = torch.tensor([[6.0, 90.0, 0.0]])
    sigmas = make_sigmas("karras", 3, models.spacing)
    x = initial_noise((4, 4, 6, 8), 5) * (sigmas[0] ** 2 + 1).sqrt()
    scale = torch.tensor([1.0, 1 + 2 / 3, 1 + 4 / 3, 3.0]).view(4, 1, 1, 1)
    for here, there in itertools.pairwise(sigmas):
        shown, t = x / (here**2 + 1).sqrt(), 0.25 * here.log()

        def velocity(latent: torch.Tensor, embedding: torch.Tensor, shown: torch.Tensor = shown, t: torch.Tensor = t) -> torch.Tensor:
            concatenated = torch.cat([shown, latent.expand(4, -1, -1, -1)], 1)[None]
            return models.unet(concatenated, t, embedding, ids).sample[0]

        cond, uncond = velocity(latent, embedding), velocity(torch.zeros_like(latent), torch.zeros_like(embedding))
        v = uncond + scale * (cond - uncond)
        denoised = x / (here**2 + 1) - v * here / (here**2 + 1).sqrt()
        x = x + (x - denoised) / here * (there - here)
    expected = decode(models.vae, unscaled(x))
    assert np.abs(image_to_video(models, still48, SETTINGS) - expected).max() < 1e-4


def test_augmentation_noise_is_what_comfyui_draws_after_the_still() -> None:
    """Recorded from ComfyUI 0.3.64: a still of 64x64 with this seed, then a film of 64x64 with augmentation."""
    recorded = np.load(DATA / "comfyui_augmentation_noise.npy")  # (64, 64, 3)
    ours = augmentation_noise(
        MotionSettings(width=64, height=64), draw_of_still(StillSettings(prompt="", seed=367490676387803, width=64, height=64))
    )
    assert np.array_equal(ours[0].permute(1, 2, 0).numpy(), recorded)


def test_augmentation_noise_of_a_given_picture_is_not_the_noise_that_sampling_starts_from() -> None:
    noise = augmentation_noise(SETTINGS, None).contiguous().flatten()
    start = initial_noise((4, 4, 6, 8), SETTINGS.seed).flatten()
    assert len(np.intersect1d(noise.numpy(), start.numpy())) < 3


@pytest.mark.parametrize(("size", "film"), [((30, 30), (1024, 16)), ((30, 30), (16, 2048)), ((1, 1), (64, 64)), ((1, 99), (64, 64))])
def test_cropping_never_cuts_everything(size: tuple[int, int], film: tuple[int, int]) -> None:
    assert crop_and_resize(torch.zeros(1, 3, *size), *film).shape == (1, 3, film[1], film[0])


def test_guidance_grows_over_the_frames_or_rises_and_falls() -> None:
    linear = guidance_scale(1.0, 3.0, 5)
    assert linear.flatten().tolist() == [1.0, 1.5, 2.0, 2.5, 3.0]
    triangle = guidance_scale(1.0, 3.0, 5, "triangle")
    assert triangle.flatten().tolist() == [1.0, 2.0, 3.0, 2.0, 1.0]
    assert guidance_scale(1.0, 3.0, 1).flatten().tolist() == [1.0]
    with pytest.raises(UnknownNameError, match="linear, triangle"):
        guidance_scale(1.0, 3.0, 5, "square")


@torch.inference_mode()
def test_without_guidance_the_model_is_asked_once(models: MotionModels, still: np.ndarray) -> None:
    told, x = condition(models.vision, models.vae, Pictures(still[None]), SETTINGS), initial_noise((4, 4, 6, 8), 1)
    alone = predict(models, x[None], 2.0, told)[0]
    assert torch.equal(guided(models, x, 2.0, told, told.without_still(), torch.ones(4, 1, 1, 1)), alone)


@torch.inference_mode()
def test_one_pass_at_a_time_gives_what_both_give_together(models: MotionModels, still: np.ndarray) -> None:
    told, x = condition(models.vision, models.vae, Pictures(still[None]), SETTINGS), initial_noise((4, 4, 6, 8), 1)
    asked, scale = [], guidance_scale(1.0, 3.0, 4)
    both = guided(models, x, 2.0, told, told.without_still(), scale)
    alone = guided(models, x, 2.0, told, told.without_still(), scale, lambda: asked.append(True), is_batched=False)
    assert (both - alone).abs().max() < 1e-5
    assert asked == [True]


def test_a_still_of_another_shape_is_cropped_in_the_middle() -> None:
    picture = torch.zeros(1, 3, 40, 100)
    picture[..., 40:60] = 1  # a white bar in the middle
    cropped = crop_and_resize(picture, 40, 40)
    assert cropped.shape == (1, 3, 40, 40)
    assert cropped[0, 0, 20, 10:30].min() == 1
    assert cropped[0, 0, 20, :10].max() == 0
    assert torch.equal(crop_and_resize(picture, 100, 40), picture)


def test_clip_sees_the_centre_square_at_224_pixels_in_8_bit() -> None:
    pixels = clip_pixels(torch.full((1, 3, 100, 300), 0.5003))
    assert pixels.shape == (1, 3, 224, 224)
    mean, std = 0.48145466, 0.26862954
    assert abs(pixels[0, 0, 0, 0].item() - (128 / 255 - mean) / std) < 1e-5


def test_progress_counts_model_calls_then_decoded_frames(models: MotionModels, still: np.ndarray) -> None:
    told: list[Progress] = []
    image_to_video(models, still, SETTINGS, report=told.append)
    assert [(p.stage, p.step) for p in told] == [("motion", k) for k in (0, 0, 1, 2, 3)] + [("decoding", k) for k in range(5)]


@pytest.mark.parametrize("calls", [0, 2, 6])  # before sampling, between steps, between decoded frames
def test_cancel_stops_before_the_next_step(models: MotionModels, still: np.ndarray, calls: int) -> None:
    told: list[Progress] = []
    with pytest.raises(Canceled):
        image_to_video(models, still, SETTINGS, report=told.append, is_canceled=lambda: len(told) == calls)
    assert len(told) == calls


@torch.inference_mode()
@pytest.mark.parametrize("saving", ["folds", "keeps_positions", "spares_copies", "packs_weights"])
@pytest.mark.parametrize("change", [{}, {"guidance": 1.0, "sampler": "euler_ancestral"}], ids=str)
def test_a_film_is_the_same_with_and_without_each_saving(tiny_models: Path, still: np.ndarray, saving: str, change: dict) -> None:
    settings, path = dataclasses.replace(SETTINGS, **change), tiny_models / "checkpoints" / "tiny_motion.safetensors"
    placement = choose_placement("cpu", savings=dataclasses.replace(ALL, **{saving: False}))
    usual, plain = (image_to_video(load_motion(path, place), still, settings) for place in (choose_placement("cpu"), placement))
    is_exact = saving != "spares_copies"  # which mixes space and time in one rounding instead of three
    assert np.array_equal(usual, plain) if is_exact else np.abs(usual - plain).max() < 1e-4


def test_where_guidance_is_1_the_other_pass_is_left_out_unless_it_is_to_be_measured(tiny_models: Path, still: np.ndarray) -> None:
    path, calls = tiny_models / "checkpoints" / "tiny_motion.safetensors", {}
    for skips in (True, False):
        models = load_motion(path, choose_placement("cpu", savings=dataclasses.replace(ALL, skips_unconditional=skips)))
        rows = calls.setdefault(skips, [])
        models.unet.register_forward_pre_hook(lambda _, arguments, rows=rows: rows.append(len(arguments[0])))
        frames = image_to_video(models, still, dataclasses.replace(SETTINGS, guidance=1.0))
        calls[skips, "frames"] = frames
    assert (set(calls[True]), set(calls[False])) == ({1}, {2})
    assert np.abs(calls[True, "frames"] - calls[False, "frames"]).max() < 1e-4  # u + (c - u) rounds
