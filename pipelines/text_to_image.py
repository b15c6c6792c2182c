"""Stage 1: a prompt becomes a still.

    encode the prompt -> noise from the seed -> sample -> decode

The numbers mean what they mean in ComfyUI 0.3.64: the same checkpoint, seed and settings give the same picture there and here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from pipelines import prompt
from pipelines.models import StillModels
from pipelines.parameters import StillSettings
from pipelines.pieces import Plan, Relief, decoding_cuts, one_pass, uncut
from pipelines.progress import IsCanceled, Report, Steps, never, silent
from pipelines.prompt import Conditioning
from pipelines.sampling import count_model_calls, initial_noise, sample
from pipelines.schedules import make_sigmas

TILE_OVERLAP = 0.25


@torch.inference_mode()
def text_to_image(
    models: StillModels,
    settings: StillSettings,
    report: Report = silent,
    is_canceled: IsCanceled = never,
    relief: Relief | None = None,
) -> np.ndarray:
    """The still: (height, width, 3) float32 in 0..1. Raises Canceled between two model calls, MemoryExhaustedError."""
    device = models.placement.device
    relief = relief or Relief(device=device)
    unet, vae, encoders = models.unet, models.vae, models.text_encoders()
    # 1. The way ahead: which noise levels, how many model calls.
    sigmas = make_sigmas(settings.schedule, settings.steps, models.spacing, sampler=settings.sampler)
    steps = Steps("still", count_model_calls(settings.sampler, sigmas), report, is_canceled)
    steps.begin()

    # 2. What is asked for, and what guidance pushes away from; and where sampling starts: pure noise, drawn on the CPU.
    def encode(text: str) -> Conditioning:
        return relief("still", lambda _: condition(models, text, settings), idle=(unet, vae))

    with relief.bring("still", *encoders, idle=(unet, vae)):
        cond, uncond = encode(settings.prompt), encode(settings.negative_prompt)
    noise = initial_noise((1, 4, settings.height // 8, settings.width // 8), settings.seed)
    x = models.spacing.noise_latent(noise, torch.zeros_like(noise), sigmas[0]).to(device)

    # 3. The way from noise to latent. This is the only place where the model is called.
    def denoise(x: Tensor, sigma: float) -> Tensor:
        steps()
        return relief(
            "still",
            lambda plan: guided(models, x, sigma, cond, uncond, settings.guidance, steps.check, is_batched=plan.is_batched),
            one_pass if settings.guidance != 1 else uncut,
            busy=unet,
            idle=(*encoders, vae),
        )

    with relief.bring("still", unet, idle=(*encoders, vae)):
        latent = sample(settings.sampler, denoise, x, sigmas, settings.seed)
    steps.done()

    # 4. Latent to picture.
    with relief.bring("still", vae, idle=(unet, *encoders)):
        return decode(vae, latent, relief=relief, idle=(unet, *encoders))[0]


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
    *,
    is_batched: bool = True,
) -> Tensor:
    """The predicted x0 (n, 4, h, w) with classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598).

    `check` is called between two calls of the model, if there are two; it may raise. There are if memory is to be saved, or if the
    prompts are too unlike in length for one."""
    if abs(guidance - 1) < 1e-9:
        return predict(models, x, sigma, cond)
    if not is_batched or not prompt.fit_one_batch(cond.context, uncond.context):
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


def decode(
    vae: torch.nn.Module,
    latents: Tensor,
    steps: Steps | None = None,
    relief: Relief | None = None,
    idle: tuple[torch.nn.Module, ...] = (),
) -> np.ndarray:
    """Latents (n, 4, h, w) of unit spread to pictures (n, 8h, 8w, 3), float32 in 0..1: one by one, or as many together as a temporal
    decoder is to see. `idle`: models that may leave the device if memory runs out."""
    from diffusers import AutoencoderKLTemporalDecoder

    relief, is_temporal = relief or Relief(device=latents.device), isinstance(vae, AutoencoderKLTemporalDecoder)
    phase, smaller = "decoding" if steps else "still", decoding_cuts(len(latents) if is_temporal else 1, *latents.shape[2:])
    pictures, left = [], latents
    while len(left):  # after each piece anew: the next may have to be smaller
        if steps:
            steps.reach(len(latents) - len(left))
        part, pixels = relief(phase, partial(_decode_next, vae, left, is_temporal), smaller, idle=idle)
        left = left[len(part) :]
        pictures.append(pixels)
    return torch.cat(pictures).numpy()


def _decode_next(vae: torch.nn.Module, latents: Tensor, is_temporal: bool, plan: Plan) -> tuple[Tensor, Tensor]:
    """The latents that are decoded in this piece, from the first on, and their pixels (n, 8h, 8w, 3) in 0..1, on the host."""
    part = latents.tensor_split(-(-len(latents) // plan.together))[0] if is_temporal else latents[:1]  # of like length: none is left alone
    together = {"num_frames": len(part)} if is_temporal else {}

    def pixels(z: Tensor) -> Tensor:
        return vae.decode((z / vae.config.scaling_factor).to(vae.dtype), **together).sample

    found = in_tiles(pixels, part, plan.tile) if plan.tile else pixels(part)
    return part, found.float().add(1).div(2).clamp(0, 1).permute(0, 2, 3, 1).cpu()


def in_tiles(work: Callable[[Tensor], Tensor], x: Tensor, tile: int, *, given: int = 1, made: int = 8) -> Tensor:
    """`work` of x (n, c, h, w), a square at a time, whose side is `tile` latents; where tiles overlap one fades into the next. A latent is
    `given` numbers wide in x and `made` in the result: 1 and 8 to decode, 8 and 1 to encode.
    Not quite the same: what normalises over a whole picture normalises over a tile."""
    h, w = x.shape[2] // given, x.shape[3] // given
    out = weight = None
    for top in _starts(h, tile):
        for left in _starts(w, tile):
            part = x[:, :, given * top : given * (top + tile), given * left : given * (left + tile)]
            piece = work(part).float()
            if out is None:
                out = piece.new_zeros(len(x), piece.shape[1], made * h, made * w)
                weight = out.new_zeros(made * h, made * w)
            fade = _ramp(piece.shape[2], made * tile, piece)[:, None] * _ramp(piece.shape[3], made * tile, piece)
            place = (slice(made * top, made * top + piece.shape[2]), slice(made * left, made * left + piece.shape[3]))
            out[:, :, *place] += piece * fade
            weight[place] += fade
    return out / weight


def _starts(length: int, tile: int) -> list[int]:
    """Where tiles begin: evenly, the last one at the end, each overlapping the one before by a quarter at least."""
    if length <= tile:
        return [0]
    count = -(-(length - tile) // round(tile * (1 - TILE_OVERLAP))) + 1
    return [round(k * (length - tile) / (count - 1)) for k in range(count)]


def _ramp(length: int, tile: int, like: Tensor) -> Tensor:
    """Weights along one side of a tile: rising over the overlap, falling at the other end."""
    width = tile * TILE_OVERLAP
    distance = torch.minimum(torch.arange(length, device=like.device), torch.arange(length - 1, -1, -1, device=like.device)) + 0.5
    return (distance / width).clamp(max=1)
