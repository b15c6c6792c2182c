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
from pipelines.checkpoints import StillModels
from pipelines.parameters import StillSettings
from pipelines.progress import IsCanceled, Report, Steps, never, silent
from pipelines.prompt import Conditioning
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
    cond, uncond = (condition(models, text, settings) for text in (settings.prompt, settings.negative_prompt))
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


def condition(models: StillModels, text: str, settings: StillSettings) -> Conditioning:
    """What the UNet is told of a prompt. Stable Diffusion XL's is told as well that the picture is whole and of the size asked for."""
    if models.text_encoder_2 is None:
        return Conditioning(prompt.encode(models.text_encoder, models.tokenizer, text))
    first, second = (models.text_encoder, models.tokenizer), (models.text_encoder_2, models.tokenizer_2)
    context, pooled = prompt.encode_xl(first, second, text)
    size = [settings.height, settings.width]
    return Conditioning(context, pooled, torch.tensor([[*size, 0, 0, *size]], dtype=torch.float32, device=pooled.device))


def guided(
    models: StillModels,
    x: Tensor,
    sigma: float,
    cond: Conditioning,
    uncond: Conditioning,
    guidance: float,
    check: Callable[[], None] = never,
) -> Tensor:
    """The predicted x0 (n, 4, h, w) with classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598).

    `check` is called between two calls of the model, if the prompts are too unlike in length for one; it may raise."""
    if abs(guidance - 1) < 1e-9:
        return predict(models, x, sigma, cond)
    if not prompt.fit_one_batch(cond.context, uncond.context):
        without = predict(models, x, sigma, uncond)
        check()
        with_prompt = predict(models, x, sigma, cond)
    else:
        without, with_prompt = predict(models, torch.cat([x, x]), sigma, prompt.together(uncond, cond)).chunk(2)
    return without + guidance * (with_prompt - without)


def predict(models: StillModels, x: Tensor, sigma: float, told: Conditioning) -> Tensor:
    """One call of the UNet: the x0 it predicts, (n, 4, h, w) in the dtype of x. `told`: of n prompts."""
    dtype = models.placement.dtype
    timestep = models.spacing.timestep(sigma).to(x.device)
    shown = models.spacing.scale_input(x, sigma).to(dtype)
    output = models.unet(shown, timestep, told.context.to(dtype), added_cond_kwargs=told.added()).sample
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
        pixels = vae.decode((part / vae.config.scaling_factor).to(vae.dtype), **together).sample
        pictures.append(pixels.float().add(1).div(2).clamp(0, 1).permute(0, 2, 3, 1).cpu())
    return torch.cat(pictures).numpy()


def evenly(x: Tensor, most: int) -> tuple[Tensor, ...]:
    """Parts of nearly the same length, `most` at most; so no frame is left alone at the end."""
    return x.tensor_split(-(-len(x) // most))
