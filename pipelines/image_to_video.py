"""Stage 2: a still becomes frames, by Stable Video Diffusion (Blattmann et al. 2023, arXiv 2311.15127).

    see the still -> condition on it -> noise from the seed -> sample with guidance that grows over the frames -> decode

The numbers mean what they mean in ComfyUI 0.3.64, with one difference on purpose: the augmentation noise comes from the seeds
alone, so the same settings always give the same film.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from errors import UnknownNameError
from pipelines.models import MotionModels
from pipelines.parameters import GUIDANCE_SHAPES, MotionSettings, StillSettings
from pipelines.pieces import Relief, decoding_cuts, one_pass, uncut
from pipelines.progress import IsCanceled, Report, Steps, never, silent
from pipelines.sampling import count_model_calls, initial_noise, sample
from pipelines.schedules import make_sigmas
from pipelines.text_to_image import decode, in_tiles

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
CLIP_SIDE = 224


@dataclass(frozen=True)
class MotionConditioning:
    """Of the still: its `embedding` (1, 1, width) and its unscaled `latent` (1, 4, h, w). `ids` (1, 3): fps - 1, motion bucket,
    augmentation level."""

    embedding: Tensor
    latent: Tensor
    ids: Tensor


@torch.inference_mode()
def image_to_video(
    models: MotionModels,
    still: np.ndarray,
    settings: MotionSettings,
    report: Report = silent,
    is_canceled: IsCanceled = never,
    after_still: torch.Generator | None = None,
    relief: Relief | None = None,
) -> np.ndarray:
    """The frames: (frames, height, width, 3) float32 in 0..1. `still`: (h, w, 3) in 0..1, any size; cropped to the film's aspect.

    `after_still`: see `augmentation_noise`. Raises Canceled between two model calls or two decoded frames, MemoryExhaustedError.
    """
    device = models.placement.device
    relief = relief or Relief(device=device)
    unet, vae, vision = models.unet, models.vae, models.vision
    # 1. The way ahead.
    sigmas = make_sigmas(settings.schedule, settings.steps, models.spacing, sampler=settings.sampler)
    steps = Steps("motion", count_model_calls(settings.sampler, sigmas), report, is_canceled)
    steps.begin()

    # 2. What the model sees of the still, and where sampling starts: noise for all frames in one draw.
    conditioning = condition(models, still, settings, after_still, relief)
    noise = initial_noise((settings.frames, 4, settings.height // 8, settings.width // 8), settings.seed)
    x = models.spacing.noise_latent(noise, torch.zeros_like(noise), sigmas[0]).to(device)

    # 3. From noise to latents. This is the only place where the model is called.
    scale = guidance_scale(settings).to(device)

    def denoise(x: Tensor, sigma: float) -> Tensor:
        steps()
        return relief(
            "motion",
            lambda plan: guided(models, x, sigma, conditioning, scale, steps.check, is_batched=plan.is_batched),
            one_pass if bool((scale != 1).any()) else uncut,
            busy=unet,
            idle=(vision, vae),
        )

    with relief.bring("motion", unet, idle=(vision, vae)):
        latents = sample(settings.sampler, denoise, x, sigmas, settings.seed)
    steps.done()

    # 4. Latents to frames. An image decoder sees each alone, a temporal one a few together.
    decoding = Steps("decoding", settings.frames, report, is_canceled)
    decoding.begin()
    with relief.bring("decoding", vae, idle=(unet, vision)):
        frames = decode(vae, latents, decoding, relief, idle=(unet, vision))
    decoding.done()
    return frames


def condition(
    models: MotionModels,
    still: np.ndarray,
    settings: MotionSettings,
    after_still: torch.Generator | None = None,
    relief: Relief | None = None,
) -> MotionConditioning:
    """See, crop, add augmentation noise, encode. Raises MemoryExhaustedError; the settings were checked before."""
    placement = models.placement
    relief = relief or Relief(device=placement.device)
    unet, vae, vision = models.unet, models.vae, models.vision
    pixels = torch.from_numpy(np.ascontiguousarray(still, dtype=np.float32)).permute(2, 0, 1)[None]  # (1, 3, h, w) in 0..1
    seen = clip_pixels(pixels).to(placement.device, placement.dtype)
    with relief.bring("motion", vision, idle=(unet, vae)):
        embedding = relief("motion", lambda _: vision(seen).image_embeds[:, None].float(), idle=(unet, vae))
    pixels = crop_and_resize(pixels, settings.width, settings.height)
    if settings.augmentation_level > 0:
        pixels = pixels + augmentation_noise(settings, after_still) * settings.augmentation_level
    shown = (pixels * 2 - 1).to(placement.device, vae.dtype)
    with relief.bring("motion", vae, idle=(unet, vision)):
        cuts = decoding_cuts(1, settings.height // 8, settings.width // 8)
        latent = relief("motion", lambda plan: encode(vae, shown, plan.tile), cuts, idle=(unet, vision))
    ids = torch.tensor([[settings.fps - 1, settings.motion_bucket_id, settings.augmentation_level]], device=placement.device)
    return MotionConditioning(embedding, latent, ids)


def encode(vae: torch.nn.Module, pixels: Tensor, tile: int = 0) -> Tensor:
    """(1, 3, height, width) in -1..1 to the mean of the unscaled latents, (1, 4, h, w); in tiles of as many latents, if not 0."""

    def mean(part: Tensor) -> Tensor:
        return vae.encode(part).latent_dist.mean.float()

    return in_tiles(mean, pixels, tile, given=8, made=1) if tile else mean(pixels)


def augmentation_noise(settings: MotionSettings, after_still: torch.Generator | None) -> Tensor:
    """Unit noise for the pixels of the still, (1, 3, height, width).

    ComfyUI draws it from the process's global generator, in whatever state that is. When a workflow runs there for the first time, the
    state is what sampling the still left, and the values are drawn one by one; `after_still` in that state gives the same noise. Without
    it, for a picture that was given, the film's own seed is used, after the noise that sampling starts from.
    """
    height, width = settings.height, settings.width
    if after_still is None:
        generator = torch.Generator().manual_seed(settings.seed)
        torch.randn((settings.frames, 4, height // 8, width // 8), generator=generator)
        return torch.randn((1, height, width, 3), generator=generator).permute(0, 3, 1, 2)
    strided = torch.empty_strided((1, height, width, 3), (3 * height * width, width, 1, height * width))  # torch fills it serially
    return strided.normal_(generator=after_still).permute(0, 3, 1, 2)


def generator_left_by(still: StillSettings) -> torch.Generator:
    """In the state in which sampling this still leaves the global generator of a ComfyUI that did nothing before."""
    generator = torch.Generator().manual_seed(still.seed if still.sampler != "ddim" else (still.seed + 1) % 2**64)
    torch.randn((1, 4, still.height // 8, still.width // 8), generator=generator)
    return generator


def clip_pixels(pixels: Tensor) -> Tensor:
    """(1, 3, h, w) in 0..1 to what CLIP's vision tower takes, (1, 3, 224, 224): short side 224, bicubic; centre; 8 bit; normalised."""
    h, w = pixels.shape[2:]
    scale = CLIP_SIDE / min(h, w)
    size = (round(h * scale), round(w * scale))
    resized = F.interpolate(pixels, size=size, mode="bicubic", antialias=True)
    square = torch.round(centre_crop(resized, CLIP_SIDE, CLIP_SIDE).clamp(0, 1) * 255) / 255
    return (square - torch.tensor(CLIP_MEAN).view(3, 1, 1)) / torch.tensor(CLIP_STD).view(3, 1, 1)


def crop_and_resize(pixels: Tensor, width: int, height: int) -> Tensor:
    """Cut (1, 3, h, w) to the aspect of width x height, whole pixels and as many at either end, then scale it (bilinear)."""
    h, w = pixels.shape[2:]
    old, new = w / h, width / height
    if old > new:
        cut = min(round((w - w * (new / old)) / 2), (w - 1) // 2)
        pixels = pixels[:, :, :, cut : w - cut]
    elif old < new:
        cut = min(round((h - h * (old / new)) / 2), (h - 1) // 2)
        pixels = pixels[:, :, cut : h - cut]
    return F.interpolate(pixels, size=(height, width), mode="bilinear")


def centre_crop(pixels: Tensor, width: int, height: int) -> Tensor:
    top, left = (pixels.shape[2] - height) // 2, (pixels.shape[3] - width) // 2
    return pixels[:, :, top : top + height, left : left + width]


def guidance_scale(settings: MotionSettings) -> Tensor:
    """Guidance of each frame, (frames, 1, 1, 1). Linear: from min_guidance at the first to guidance at the last. Triangle: up to
    guidance in the middle and back, for films that are to end where they began."""
    low, high, n = settings.min_guidance, settings.guidance, settings.frames
    if settings.guidance_shape == "linear":
        scale = torch.linspace(low, high, n)
    elif settings.guidance_shape == "triangle":
        scale = low + (high - low) * (1 - (2 * torch.linspace(0, 1, n) - 1).abs())
    else:
        raise UnknownNameError("guidance shape", settings.guidance_shape, GUIDANCE_SHAPES)
    return scale.view(-1, 1, 1, 1)


def guided(
    models: MotionModels,
    x: Tensor,
    sigma: float,
    conditioning: MotionConditioning,
    scale: Tensor,
    check: Callable[[], None] = never,
    *,
    is_batched: bool = True,
) -> Tensor:
    """The predicted x0 of all frames, (frames, 4, h, w). Without the still (uncond) its latent and its embedding are zeros; where every
    frame's guidance is 1 that pass is left out. `check` is called between two calls of the model, if there are two; it may raise."""
    embedding, latent, ids = conditioning.embedding, conditioning.latent, conditioning.ids
    if bool((scale == 1).all()):
        return predict(models, x[None], sigma, embedding, latent, ids)[0]
    nothing, empty = torch.zeros_like(embedding), torch.zeros_like(latent)
    if is_batched:
        together = torch.cat([nothing, embedding]), torch.cat([empty, latent])
        uncond, cond = predict(models, torch.stack([x, x]), sigma, *together, ids.repeat(2, 1))
    else:
        (uncond,) = predict(models, x[None], sigma, nothing, empty, ids)
        check()
        (cond,) = predict(models, x[None], sigma, embedding, latent, ids)
    return uncond + scale * (cond - uncond)


def predict(models: MotionModels, x: Tensor, sigma: float, embedding: Tensor, latent: Tensor, ids: Tensor) -> Tensor:
    """One call of the UNet: (n, frames, 4, h, w) to the x0 it predicts, in the dtype of x."""
    dtype = models.placement.dtype
    timestep = models.spacing.timestep(sigma).to(x.device)
    stills = latent[:, None].expand(-1, x.shape[1], -1, -1, -1)  # every frame sees the same still
    shown = torch.cat([models.spacing.scale_input(x, sigma), stills], dim=2)
    output = models.unet(shown.to(dtype), timestep, embedding.to(dtype), ids).sample
    return models.spacing.denoised(x, output.to(x.dtype), sigma)
