"""Stage 2: a still becomes frames, by Stable Video Diffusion (Blattmann et al. 2023, arXiv 2311.15127).

    see the still -> condition on it -> noise from the seed -> sample with guidance that grows over the frames -> decode

The numbers mean what they mean in ComfyUI 0.3.64, with one difference on purpose: the augmentation noise comes from the seeds
alone, so the same settings always give the same film.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from errors import UnknownNameError
from pipelines.attention import attending
from pipelines.latents import draw_of, empty, start, visited_sigmas
from pipelines.lean_motion import told_once
from pipelines.models import Denoiser, MotionModels
from pipelines.parameters import GUIDANCE_SHAPES, MotionSettings, Sampling, StillSettings
from pipelines.pieces import Relief, one_pass, uncut
from pipelines.preview import Look, unseen
from pipelines.progress import IsCanceled, Report, Steps, never, silent
from pipelines.reuse import BOTH, WITH, WITHOUT, Reuse
from pipelines.sampling import count_model_calls, sample
from pipelines.text_to_image import centre_crop, decode, encode
from pipelines.values import Draw, Latents, MotionConditioning, Pictures

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
CLIP_SIDE = 224


@torch.inference_mode()
def image_to_video(
    models: MotionModels,
    still: np.ndarray,
    settings: MotionSettings,
    report: Report = silent,
    is_canceled: IsCanceled = never,
    after_still: Draw | None = None,
    relief: Relief | None = None,
) -> np.ndarray:
    """The frames: (frames, height, width, 3) float32 in 0..1. `still`: (h, w, 3) in 0..1, any size; cropped to the film's aspect.

    `after_still`: see `augmentation_noise`. Raises Canceled between two model calls or two decoded frames, MemoryExhaustedError.
    """
    device = models.placement.device
    relief = relief or Relief(device=device)
    picture = Pictures(still[None], after_still)
    conditioning = condition(models.vision, models.vae, picture, settings, models.placement.dtype, relief)
    nothing = empty(settings.width, settings.height, settings.frames)
    scale = guidance_scale(settings.min_guidance, settings.guidance, settings.frames, settings.guidance_shape)
    latents = sample_motion(
        models.denoiser(), conditioning, conditioning.without_still(), nothing, Sampling.of(settings), scale, report, is_canceled, relief
    )
    return decode_frames(models.vae, latents, report, is_canceled, relief)


def decode_frames(
    vae: torch.nn.Module, latents: Latents, report: Report, is_canceled: IsCanceled, relief: Relief, tile: int = 0
) -> np.ndarray:
    """Latents to frames. An image decoder sees each alone, a temporal one a few together. Raises Canceled, MemoryExhaustedError."""
    decoding = Steps("decoding", len(latents.samples), report, is_canceled)
    decoding.begin()
    frames = decode(vae, latents, decoding, relief, tile=tile)
    decoding.done()
    return frames


@torch.inference_mode()
def sample_motion(
    models: Denoiser,
    cond: MotionConditioning,
    uncond: MotionConditioning,
    latents: Latents,
    sampling: Sampling,
    scale: Tensor,
    report: Report = silent,
    is_canceled: IsCanceled = never,
    relief: Relief | None = None,
    look: Look = unseen,
) -> Latents:
    """From noise to the latents of all frames. `scale` (frames, 1, 1, 1): guidance of each; `look` is shown what each call of the model
    predicts. Raises Canceled, MemoryExhaustedError."""
    device, unet = models.placement.device, models.unet
    relief, reuse = relief or Relief(device=device), Reuse(unet, models.every, sampling.sampler)
    # 1. The way ahead.
    sigmas = visited_sigmas(models.spacing, sampling)
    steps = Steps("motion", count_model_calls(sampling.sampler, sigmas), report, is_canceled)
    if len(sigmas) < 2:
        return latents
    steps.begin()
    cond, uncond = (for_sampling(told, latents, device) for told in (cond, uncond))
    x = start(models.spacing, sampling, latents, models.scale, sigmas).to(device)  # noise for all frames in one draw

    def once(embedding: Tensor) -> Tensor:
        placement = models.placement
        return relief("motion", lambda _: told_once(unet, embedding.to(placement.dtype), len(x), placement.savings), busy=(unet,))

    # 2. From noise to latents. This is the only place where the model is called.
    def denoise(x: Tensor, sigma: float) -> Tensor:
        steps()
        reuse.begin_call()
        predicted = relief(
            "motion",
            lambda plan: guided(models, x, sigma, cond, uncond, scale, steps.check, reuse, is_batched=plan.is_batched),
            one_pass if is_guided(models, scale) else uncut,
            busy=(unet,),
        )
        look(predicted)
        return predicted

    with relief.bring("motion", unet), reuse.listening(relief), attending(models.placement.attention):
        cond, uncond = (dataclasses.replace(told, embedding=once(told.embedding)) for told in (cond, uncond))
        found = sample(sampling.sampler, denoise, x, sigmas, sampling.seed)
    steps.done()
    return Latents((found.float() / models.scale).cpu().numpy(), draw_of(sampling, latents))


def for_sampling(told: MotionConditioning, latents: Latents, device: torch.device) -> MotionConditioning:
    """On the device; the still's latent cut and brought to the size of the frames', if they differ."""
    latent, size = told.latent.to(device), latents.samples.shape[2:]
    if latent.shape[2:] != size:
        latent = crop_and_resize(latent, size[1], size[0])
    return MotionConditioning(told.embedding.to(device), latent, told.ids.to(device))


@torch.inference_mode()
def condition(
    vision: torch.nn.Module,
    vae: torch.nn.Module,
    still: Pictures,
    settings: MotionSettings,
    dtype: torch.dtype = torch.float32,
    relief: Relief | None = None,
) -> MotionConditioning:
    """See the first picture, crop it, add augmentation noise, encode; the result is on the host. `dtype`: the vision tower's. Raises
    MemoryExhaustedError; the settings were checked before."""
    relief = relief or Relief(device=next(vae.parameters()).device)
    pixels = torch.from_numpy(np.ascontiguousarray(still.pixels[:1], dtype=np.float32)).permute(0, 3, 1, 2)  # (1, 3, h, w) in 0..1
    seen = clip_pixels(pixels).to(relief.device, dtype)
    with relief.bring("motion", vision):
        embedding = relief("motion", lambda _: vision(seen).image_embeds[:, None].float(), busy=(vision,)).cpu()
    pixels = crop_and_resize(pixels, settings.width, settings.height)
    if settings.augmentation_level > 0:
        pixels = pixels + augmentation_noise(settings, still.draw) * settings.augmentation_level
    latent = encode(vae, pixels, "motion", relief)
    ids = torch.tensor([[settings.fps - 1, settings.motion_bucket_id, settings.augmentation_level]])
    return MotionConditioning(embedding, latent, ids)


def augmentation_noise(settings: MotionSettings, after_still: Draw | None) -> Tensor:
    """Unit noise for the pixels of the still, (1, 3, height, width).

    ComfyUI draws it from the process's global generator, in whatever state that is. When a workflow runs there for the first time, the
    state is what sampling the still left, and the values are drawn one by one; after the same draw this is the same noise. For a picture
    that was given nothing was drawn before, and seed 0 is used.
    """
    height, width = settings.height, settings.width
    if after_still is None:
        return torch.randn((1, height, width, 3), generator=torch.Generator().manual_seed(0)).permute(0, 3, 1, 2)
    generator = torch.Generator().manual_seed(after_still.seed)
    torch.randn(after_still.shape, generator=generator)
    strided = torch.empty_strided((1, height, width, 3), (3 * height * width, width, 1, height * width))  # torch fills it serially
    return strided.normal_(generator=generator).permute(0, 3, 1, 2)


def draw_of_still(still: StillSettings) -> Draw:
    """What sampling this still draws."""
    return draw_of(Sampling.of(still), empty(still.width, still.height))


def clip_pixels(pixels: Tensor) -> Tensor:
    """(1, 3, h, w) in 0..1 to what CLIP's vision tower takes, (1, 3, 224, 224): short side 224, bicubic; centre; 8 bit; normalised."""
    h, w = pixels.shape[2:]
    scale = CLIP_SIDE / min(h, w)
    size = (round(h * scale), round(w * scale))
    resized = F.interpolate(pixels, size=size, mode="bicubic", antialias=True)
    square = torch.round(centre_crop(resized, CLIP_SIDE, CLIP_SIDE).clamp(0, 1) * 255) / 255
    return (square - torch.tensor(CLIP_MEAN).view(3, 1, 1)) / torch.tensor(CLIP_STD).view(3, 1, 1)


def crop_and_resize(pixels: Tensor, width: int, height: int) -> Tensor:
    """Cut (n, c, h, w) to the aspect of width x height, then scale it (bilinear)."""
    return F.interpolate(crop_to_aspect(pixels, width, height), size=(height, width), mode="bilinear")


def crop_to_aspect(pixels: Tensor, width: int, height: int) -> Tensor:
    """(n, c, h, w) cut to the aspect of width x height: whole pixels, as many at either end."""
    h, w = pixels.shape[2:]
    old, new = w / h, width / height
    if old > new:
        cut = min(round((w - w * (new / old)) / 2), (w - 1) // 2)
        pixels = pixels[:, :, :, cut : w - cut]
    elif old < new:
        cut = min(round((h - h * (old / new)) / 2), (h - 1) // 2)
        pixels = pixels[:, :, cut : h - cut]
    return pixels


def guidance_scale(low: float, high: float, frames: int, shape: str = "linear") -> Tensor:
    """Guidance of each frame, (frames, 1, 1, 1). Linear: from low at the first to high at the last. Triangle: up to high in the middle and
    back, for films that are to end where they began."""
    if shape == "linear":
        scale = torch.linspace(low, high, frames)
    elif shape == "triangle":
        scale = low + (high - low) * (1 - (2 * torch.linspace(0, 1, frames) - 1).abs())
    else:
        raise UnknownNameError("guidance shape", shape, GUIDANCE_SHAPES)
    return scale.view(-1, 1, 1, 1)


def guided(
    models: Denoiser,
    x: Tensor,
    sigma: float,
    cond: MotionConditioning,
    uncond: MotionConditioning,
    scale: Tensor,
    check: Callable[[], None] = never,
    reuse: Reuse | None = None,
    *,
    is_batched: bool = True,
) -> Tensor:
    """The predicted x0 of all frames, (frames, 4, h, w); where every frame's guidance is 1 the pass without the still is left out. `check`
    is called between two calls of the model, if there are two; it may raise."""
    if not is_guided(models, scale):
        return predict(models, x[None], sigma, cond, reuse)[0]
    if is_batched:
        pairs = zip(vars(uncond).values(), vars(cond).values(), strict=True)
        without, with_still = predict(models, torch.stack([x, x]), sigma, MotionConditioning(*map(torch.cat, pairs)), reuse, BOTH)
    else:
        (without,) = predict(models, x[None], sigma, uncond, reuse, (WITHOUT,))
        check()
        (with_still,) = predict(models, x[None], sigma, cond, reuse)
    return without + scale.to(x.device) * (with_still - without)


def is_guided(models: Denoiser, scale: Tensor) -> bool:
    """Whether the pass without the still matters. `scale` is on the host, so that nobody waits for the device to tell."""
    return not models.placement.savings.skips_unconditional or bool((scale != 1).any())


def predict(
    models: Denoiser, x: Tensor, sigma: float, told: MotionConditioning, reuse: Reuse | None = None, passes: tuple[str, ...] = (WITH,)
) -> Tensor:
    """One call of the UNet: (n, frames, 4, h, w) to the x0 it predicts, in the dtype of x. `passes`: which n they are."""
    unet, dtype = reuse or Reuse(models.unet), models.placement.dtype
    timestep = models.spacing.timestep(sigma).to(x.device)
    stills = told.latent[:, None].expand(-1, x.shape[1], -1, -1, -1)  # every frame sees the same still
    shown = torch.cat([models.spacing.scale_input(x, sigma), stills], dim=2)
    output = unet(passes, shown.to(dtype), timestep, told.embedding.to(dtype), told.ids)
    return models.spacing.denoised(x, output.to(x.dtype), sigma)
