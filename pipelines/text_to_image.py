"""Stage 1: a prompt becomes a still.

    encode the prompt -> noise from the seed -> sample -> decode

The numbers mean what they mean in ComfyUI 0.3.64: the same checkpoint, seed and settings give the same picture there and here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pipelines import prompt
from pipelines.checkpoints import LATENT_SCALE, StillModels
from pipelines.parameters import StillSettings
from pipelines.progress import IsCanceled, Report, Steps, never, silent
from pipelines.sampling import count_model_calls, initial_noise, sample
from pipelines.schedules import make_sigmas

TEMPORAL_CHUNK = 8  # frames: a temporal decoder mixes neighbours, and its memory grows with their number


@torch.inference_mode()
def text_to_image(models: StillModels, settings: StillSettings, report: Report = silent, is_canceled: IsCanceled = never) -> np.ndarray:
    """The still: (height, width, 3) float32 in 0..1. Raises Canceled between two model calls."""
    # 1. The way ahead: which noise levels, how many model calls.
    sigmas = make_sigmas(settings.schedule, settings.steps, models.spacing, sampler=settings.sampler)
    steps = Steps("still", count_model_calls(settings.sampler, sigmas), report, is_canceled)
    steps.begin()

    # 2. What is asked for, and what guidance pushes away from; and where sampling starts: pure noise, drawn on the CPU.
    cond = prompt.encode(models.text_encoder, models.tokenizer, settings.prompt)
    uncond = prompt.encode(models.text_encoder, models.tokenizer, settings.negative_prompt)
    noise = initial_noise((1, 4, settings.height // 8, settings.width // 8), settings.seed)
    x = models.spacing.noise_latent(noise, torch.zeros_like(noise), sigmas[0]).to(models.placement.device)

    # 3. The way from noise to latent. This is the only place where the model is called.
    def denoise(x: Tensor, sigma: float) -> Tensor:
        steps()
        return guided(models, x, sigma, cond, uncond, settings.guidance, steps.check)

    latent = sample(settings.sampler, denoise, x, sigmas, settings.seed)
    steps.done()

    # 4. Latent to picture.
    return decode(models.vae, latent)[0]


def guided(
    models: StillModels, x: Tensor, sigma: float, cond: Tensor, uncond: Tensor, guidance: float, check: Callable[[], None] = never
) -> Tensor:
    """The predicted x0 (n, 4, h, w) with classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598).

    `check` is called between two calls of the model, if the prompts are too unlike in length for one; it may raise."""
    if abs(guidance - 1) < 1e-9:
        return predict(models, x, sigma, cond)
    if not prompt.fit_one_batch(cond, uncond):
        without = predict(models, x, sigma, uncond)
        check()
        with_prompt = predict(models, x, sigma, cond)
    else:
        cond, uncond = prompt.match_lengths(cond, uncond)
        without, with_prompt = predict(models, torch.cat([x, x]), sigma, torch.cat([uncond, cond])).chunk(2)
    return without + guidance * (with_prompt - without)


def predict(models: StillModels, x: Tensor, sigma: float, context: Tensor) -> Tensor:
    """One call of the UNet: the x0 it predicts, (n, 4, h, w) in the dtype of x. `context`: (n, tokens, width)."""
    dtype = models.placement.dtype
    timestep = models.spacing.timestep(sigma).to(x.device)
    output = models.unet(models.spacing.scale_input(x, sigma).to(dtype), timestep, context.to(dtype)).sample
    return models.spacing.denoised(x, output.to(x.dtype), sigma)


def decode(vae: torch.nn.Module, latents: Tensor, chunk: int = 1, steps: Steps | None = None) -> np.ndarray:
    """Latents (n, 4, h, w) of unit spread to pictures (n, 8h, 8w, 3), float32 in 0..1; `chunk` at a time, or as a temporal decoder
    needs it."""
    from diffusers import AutoencoderKLTemporalDecoder

    is_temporal = isinstance(vae, AutoencoderKLTemporalDecoder)
    pictures = []
    for part in evenly(latents, TEMPORAL_CHUNK) if is_temporal else latents.split(chunk):
        for _ in range(len(part) if steps else 0):
            steps()
        together = {"num_frames": len(part)} if is_temporal else {}
        pixels = vae.decode((part / LATENT_SCALE).to(vae.dtype), **together).sample
        pictures.append(pixels.float().add(1).div(2).clamp(0, 1).permute(0, 2, 3, 1).cpu())
    return torch.cat(pictures).numpy()


def evenly(x: Tensor, most: int) -> tuple[Tensor, ...]:
    """Parts of nearly the same length, `most` at most; so no frame is left alone at the end."""
    return x.tensor_split(-(-len(x) // most))
