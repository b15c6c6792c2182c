from __future__ import annotations

import io
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from pipelines.memory import choose_placement
from pipelines.models import Loading, load_vae
from pipelines.pieces import Relief
from pipelines.preview import Previews, colours_of, fitted, picture
from pipelines.values import VaeSource
from tests.conftest import MOTION_NAME, STILL_NAME
from training.world import film, random_scene

ROOT = Path(__file__).parent.parent.parent
GREY = np.zeros((5, 3)) + np.array([[0], [0], [0], [0], [0.5]])


def pixels(jpeg: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(jpeg)) as image:
        assert image.format == "JPEG"
        return np.asarray(image, int)


def vae_of(path: Path, kind: str) -> torch.nn.Module:
    return load_vae(VaeSource(path, kind), Loading(choose_placement("cpu"))).module


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_linear_autoencoder_is_seen_as_it_is() -> None:
    colours = np.linspace(-0.2, 0.3, 15).reshape(5, 3)
    latents = torch.randn((2, 4, 3, 5), generator=torch.Generator().manual_seed(1))
    shown = torch.einsum("nchw,ck->nkhw", latents.double(), torch.from_numpy(colours[:4])) + torch.from_numpy(colours[4]).view(1, 3, 1, 1)
    assert np.allclose(fitted(latents, shown), colours)


def test_a_picture_is_eight_times_as_large_and_at_most_256_pixels_wide() -> None:
    assert pixels(picture(np.zeros((4, 6, 8)), GREY)).shape == (48, 64, 3)
    assert pixels(picture(np.zeros((4, 72, 128)), GREY)).shape == (144, 256, 3)
    assert pixels(picture(np.zeros((4, 1, 512)), GREY)).shape == (1, 256, 3)


def test_a_latent_has_its_colour_and_what_is_no_number_breaks_nothing() -> None:
    red = np.zeros((5, 3))
    red[2, 0] = 1
    latent = np.zeros((4, 8, 8))
    latent[2] = 0.8
    assert np.abs(pixels(picture(latent, red)).mean((0, 1)) - [204, 0, 0]).max() < 4
    latent[2, 0, 0], latent[0, 1, 1] = np.inf, np.nan
    pixels(picture(latent, red))


def test_a_film_shows_its_middle_frame_and_the_scale_is_taken_back() -> None:
    seen: list[bytes] = []
    bright = GREY.copy()
    bright[0] = 1
    frames = torch.zeros(3, 4, 8, 8)
    frames[1, 0] = 0.05
    Previews(bright, 0.2, seen.append)(frames)
    assert abs(pixels(seen[0]).mean() - 0.75 * 255) < 3


def test_at_most_twice_a_second_and_a_fiftieth_of_the_time() -> None:
    clock, seen = Clock(), []

    def slow(jpeg: bytes) -> None:
        seen.append(clock.now)
        clock.now += 0.001 if len(seen) < 3 else 0.1

    look = Previews(GREY, 1.0, slow, clock)
    for _ in range(1000):
        look(torch.zeros(1, 4, 4, 4))
        clock.now += 0.01
    assert seen[:3] == pytest.approx([100, 100.501, 101.002], abs=0.02)
    assert seen[3] - seen[2] >= 5
    assert len(seen) <= 5


@pytest.mark.parametrize(("name", "kind"), [(STILL_NAME, "still"), (MOTION_NAME, "motion")])
def test_every_autoencoder_is_found_out_the_same_way_each_time(tiny_models: Path, name: str, kind: str) -> None:
    vae = vae_of(tiny_models / "checkpoints" / name, kind)
    first = colours_of(vae, kind, Relief())
    assert first.shape == (5, 3)
    assert np.array_equal(first, colours_of(vae, kind, Relief()))


def test_without_memory_there_is_none(tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vae = vae_of(tiny_models / "checkpoints" / STILL_NAME, "still")

    def exhausted(*_: object) -> SimpleNamespace:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(vae, "decode", exhausted)
    assert colours_of(vae, "still", Relief()) is None


@pytest.mark.demo
@torch.inference_mode()
def test_the_demo_s_pictures_are_seen_as_they_are() -> None:
    """About nine tenths of their variance, at an eighth of the size."""
    vae = vae_of(ROOT / "assets" / "checkpoints" / "stillmotion_demo_still.safetensors", "still")
    frames = np.stack([film(random_scene(random.Random(i)), 1, 128, 128)[0] for i in range(6)])
    stills = torch.from_numpy(frames.astype(np.float32) / 255).permute(0, 3, 1, 2)
    latents = vae.encode(stills * 2 - 1).latent_dist.mean
    colours = torch.from_numpy(colours_of(vae, "still", Relief())).float()
    small = F.avg_pool2d(stills, 8)
    seen = (torch.einsum("nchw,ck->nkhw", latents, colours[:4]) + colours[4].view(1, 3, 1, 1)).clamp(0, 1)
    assert 1 - ((seen - small) ** 2).mean() / small.var((0, 2, 3)).mean() > 0.85
