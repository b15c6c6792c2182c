from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from errors import Canceled
from pipelines import prompt
from pipelines.latents import empty
from pipelines.memory import choose_placement
from pipelines.models import StillModels, load_still
from pipelines.parameters import StillSettings
from pipelines.pieces import Plan, Relief
from pipelines.progress import Progress
from pipelines.sampling import initial_noise
from pipelines.schedules import make_sigmas
from pipelines.text_to_image import decode, encode_prompt, for_sampling, guided, in_tiles, predict, text_to_image
from pipelines.values import Conditioning, Latents

SETTINGS = StillSettings(prompt="a (red:1.3) boat", negative_prompt="rain", width=64, height=48, steps=3, guidance=4.0, seed=5)


@pytest.fixture(scope="module")
def models(tiny_models: Path) -> StillModels:
    return load_still(tiny_models / "checkpoints" / "tiny_still.safetensors", choose_placement("cpu"))


def told(models: StillModels, text: str) -> Conditioning:
    return for_sampling(encode_prompt(models.encoders(), text), empty(64, 48), torch.device("cpu"))


def test_a_still_has_the_size_asked_for_and_colours_in_range(models: StillModels) -> None:
    still = text_to_image(models, SETTINGS)
    assert still.shape == (48, 64, 3)
    assert still.dtype == np.float32
    assert 0 <= still.min() < still.max() <= 1


def test_same_seed_same_still_other_seed_other_still(models: StillModels) -> None:
    first = text_to_image(models, SETTINGS)
    assert np.array_equal(first, text_to_image(models, SETTINGS))
    assert not np.array_equal(first, text_to_image(models, dataclasses.replace(SETTINGS, seed=6)))


def test_the_global_random_state_is_left_alone(models: StillModels) -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    text_to_image(models, dataclasses.replace(SETTINGS, sampler="euler_ancestral"))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("change", [{"prompt": "a blue car"}, {"negative_prompt": ""}, {"guidance": 1.0}, {"sampler": "euler"}])
def test_every_setting_matters(models: StillModels, change: dict) -> None:
    assert not np.array_equal(text_to_image(models, SETTINGS), text_to_image(models, dataclasses.replace(SETTINGS, **change)))


@torch.inference_mode()
def test_euler_by_hand_gives_the_same_still(models: StillModels) -> None:
    """The whole stage, written out against the formulas: eps-prediction, guidance, Euler steps in sigma."""
    settings = dataclasses.replace(SETTINGS, sampler="euler", schedule="karras")
    cond, uncond = (prompt.encode(models.text_encoder, models.tokenizer, text) for text in (settings.prompt, settings.negative_prompt))
    sigmas = make_sigmas("karras", 3, models.spacing, sampler="euler")
    x = initial_noise((1, 4, 6, 8), 5) * (sigmas[0] ** 2 + 1).sqrt()
    alphas = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0)
    table = ((1 - alphas) / alphas).sqrt()
    for here, there in itertools.pairwise(sigmas):
        t = (table.log() - here.double().log()).abs().argmin()
        shown = x / (here**2 + 1).sqrt()
        noise_cond, noise_uncond = models.unet(shown, t, cond).sample, models.unet(shown, t, uncond).sample
        x = x + (noise_uncond + 4.0 * (noise_cond - noise_uncond)) * (there - here)
    expected = decode(models.vae, Latents((x / 0.18215).numpy()))[0]
    assert np.abs(text_to_image(models, settings) - expected).max() < 1e-4


@torch.inference_mode()
def test_guidance_one_does_not_look_at_the_negative_prompt(models: StillModels) -> None:
    cond, other = (told(models, text) for text in ("a boat", "a car"))
    x = initial_noise((1, 4, 8, 8), 1)
    assert torch.equal(guided(models, x, 2.0, cond, other, 1.0), predict(models, x, 2.0, cond))


def test_long_prompts_work_beside_short_negative_prompts(models: StillModels) -> None:
    long = dataclasses.replace(SETTINGS, prompt=", ".join(["a red boat on the sea"] * 20))
    assert not np.array_equal(text_to_image(models, long), text_to_image(models, SETTINGS))


def test_progress_counts_every_model_call(models: StillModels) -> None:
    told: list[Progress] = []
    text_to_image(models, dataclasses.replace(SETTINGS, sampler="heun"), report=told.append)
    assert [p.step for p in told] == [0, 0, 1, 2, 3, 4, 5]  # heun calls the model twice a step, but for the last
    assert {(p.stage, p.total) for p in told} == {("still", 5)}


def test_cancel_stops_before_the_next_model_call(models: StillModels) -> None:
    told: list[Progress] = []
    with pytest.raises(Canceled):
        text_to_image(models, SETTINGS, report=told.append, is_canceled=lambda: len(told) == 2)
    assert len(told) == 2


@torch.inference_mode()
def test_pictures_are_decoded_each_alone(models: StillModels) -> None:
    latents = initial_noise((5, 4, 4, 4), 3)
    together = models.vae.decode(latents / 0.18215).sample.add(1).div(2).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    assert np.abs(decode(models.vae, Latents((latents / 0.18215).numpy())) - together).max() < 1e-5


def test_stable_diffusion_xl_makes_the_same_still_in_one_pass_and_streamed(tiny_xl: Path) -> None:
    """Both text encoders come and go, and each pass has its own pooled vector."""
    stills = []
    for plan in (Plan(), Plan("one", is_batched=False), Plan("streamed", is_batched=False)):
        models = load_still(tiny_xl, choose_placement("cpu"), residence=plan.residence)
        stills.append(text_to_image(models, SETTINGS, relief=Relief(plan, torch.device("cpu"))))
    assert all(np.abs(still - stills[0]).max() < 1e-5 for still in stills)
    assert stills[0].std() > 0.01
    other = text_to_image(models, dataclasses.replace(SETTINGS, negative_prompt="snow"))
    assert not np.array_equal(other, stills[-1])


@torch.inference_mode()
def test_one_pass_at_a_time_gives_what_both_give_together(models: StillModels) -> None:
    cond, uncond = (told(models, text) for text in ("a boat", ""))
    x, asked = initial_noise((1, 4, 6, 8), 1), []
    both = guided(models, x, 2.0, cond, uncond, 3.0)
    alone = guided(models, x, 2.0, cond, uncond, 3.0, lambda: asked.append(True), is_batched=False)
    assert (both - alone).abs().max() < 1e-5
    assert asked == [True]


@pytest.mark.parametrize("size", [(16, 16), (20, 44), (64, 17)])
def test_tiles_put_a_picture_together_again(size: tuple[int, int]) -> None:
    """A decoder that only enlarges: every tile says the same of a pixel, so the seams must vanish."""
    latents = torch.rand(2, 3, *size)
    enlarge = lambda z: torch.nn.functional.interpolate(z, scale_factor=8, mode="nearest")  # noqa: E731
    seen = []

    def decode_tile(z: torch.Tensor) -> torch.Tensor:
        seen.append(z.shape)
        return enlarge(z)

    assert (in_tiles(decode_tile, latents, 16) - enlarge(latents)).abs().max() < 1e-5
    assert max(max(shape[2:]) for shape in seen) == 16


def test_tiles_put_latents_together_again() -> None:
    """An encoder that only averages."""
    pixels = torch.rand(1, 3, 160, 352)
    small = in_tiles(lambda part: torch.nn.functional.avg_pool2d(part, 8), pixels, 16, given=8, made=1)
    assert (small - torch.nn.functional.avg_pool2d(pixels, 8)).abs().max() < 1e-5
