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
from pipelines.attention import attending
from pipelines.latents import draw_of, empty, start, visited_sigmas
from pipelines.models import Denoiser, StillModels, TextEncoders
from pipelines.parameters import Sampling, StillSettings
from pipelines.pieces import Plan, Relief, decoding_cuts, one_pass, uncut
from pipelines.preview import Look, unseen
from pipelines.progress import IsCanceled, Report, Steps, never, silent
from pipelines.reuse import BOTH, WITH, WITHOUT, Reuse
from pipelines.sampling import count_model_calls, sample
from pipelines.values import Conditioning, Latents

TILE_OVERLAP = 0.25
_LAYERS_OF_SD2 = 23


@torch.inference_mode()
def text_to_image(
    models: StillModels,
    settings: StillSettings,
    report: Report = silent,
    is_canceled: IsCanceled = never,
    relief: Relief | None = None,
) -> np.ndarray:
    """The still: (height, width, 3) float32 in 0..1. Raises Canceled between two model calls, MemoryExhaustedError."""
    relief = relief or Relief(device=models.placement.device)
    cond, uncond = (encode_prompt(models.encoders(), text, relief) for text in (settings.prompt, settings.negative_prompt))
    nothing = empty(settings.width, settings.height)
    latents = sample_still(models.denoiser(), cond, uncond, nothing, Sampling.of(settings), report, is_canceled, relief)
    return decode(models.vae, latents, relief=relief, device=models.placement.device)[0]


@torch.inference_mode()
def encode_prompt(encoders: TextEncoders, text: str, relief: Relief | None = None, *, last_layer: int | None = None) -> Conditioning:
    """What the UNet is told of a prompt, on the host. `last_layer` counts from the end, as ComfyUI's CLIPSetLastLayer does; None is the
    family's own. Raises InputError for a weight that is too large, MemoryExhaustedError."""
    relief, modules = relief or Relief(device=next(encoders.text_encoder.parameters()).device), encoders.modules()

    def read() -> Conditioning:
        if encoders.text_encoder_2 is None:
            skip = _layer_of(encoders.text_encoder, last_layer)
            return Conditioning(prompt.encode(encoders.text_encoder, encoders.tokenizer, text, clip_skip=skip).cpu())
        first, second = (encoders.text_encoder, encoders.tokenizer), (encoders.text_encoder_2, encoders.tokenizer_2)
        context, pooled = prompt.encode_xl(first, second, text, layer=-2 if last_layer is None else last_layer)
        return Conditioning(context.cpu(), pooled.cpu())

    with relief.bring("still", *modules):
        return relief("still", lambda _: read(), busy=modules)


def _layer_of(encoder: torch.nn.Module, last_layer: int | None) -> int:
    """Stable Diffusion 2 takes the last layer but one, so its encoder is kept without the last: there -2 is the end."""
    if last_layer is None:
        return -1
    return min(-1, last_layer + 1) if encoder.config.num_hidden_layers == _LAYERS_OF_SD2 else last_layer


@torch.inference_mode()
def sample_still(
    models: Denoiser,
    cond: Conditioning,
    uncond: Conditioning,
    latents: Latents,
    sampling: Sampling,
    report: Report = silent,
    is_canceled: IsCanceled = never,
    relief: Relief | None = None,
    look: Look = unseen,
) -> Latents:
    """From latents (zeros, or those of a picture) and noise to latents of what `cond` says, n at once. `look` is shown what each call of
    the model predicts. Raises Canceled between two model calls, MemoryExhaustedError."""
    device, unet = models.placement.device, models.unet
    relief, reuse = relief or Relief(device=device), Reuse(unet, models.every, sampling.sampler)
    # 1. The way ahead: which noise levels, how many model calls.
    sigmas = visited_sigmas(models.spacing, sampling)
    steps = Steps("still", count_model_calls(sampling.sampler, sigmas), report, is_canceled)
    if len(sigmas) < 2:
        return latents
    steps.begin()
    cond, uncond = (for_sampling(told, latents, device) for told in (cond, uncond))
    x = start(models.spacing, sampling, latents, models.scale, sigmas).to(device)

    # 2. The way from noise to latent. This is the only place where the model is called.
    def denoise(x: Tensor, sigma: float) -> Tensor:
        steps()
        reuse.begin_call()
        predicted = relief(
            "still",
            lambda plan: guided(models, x, sigma, cond, uncond, sampling.guidance, steps.check, reuse, is_batched=plan.is_batched),
            one_pass if is_guided(models, sampling.guidance) else uncut,
            busy=(unet,),
        )
        look(predicted)
        return predicted

    with relief.bring("still", unet), reuse.listening(relief), attending(models.placement.attention):
        found = sample(sampling.sampler, denoise, x, sigmas, sampling.seed)
    steps.done()
    return Latents((found.float() / models.scale).cpu().numpy(), draw_of(sampling, latents))


def for_sampling(told: Conditioning, latents: Latents, device: torch.device) -> Conditioning:
    """For every latent, on the device. Stable Diffusion XL is told that each picture is whole and of the size asked for."""
    n, _, h, w = latents.samples.shape
    context = told.context.to(device).expand(n, -1, -1)
    if told.pooled is None:
        return Conditioning(context)
    size = [8 * h, 8 * w]
    sizes = torch.tensor([[*size, 0, 0, *size]], dtype=torch.float32, device=device).expand(n, -1)
    return Conditioning(context, told.pooled.to(device).expand(n, -1), sizes)


def guided(
    models: Denoiser,
    x: Tensor,
    sigma: float,
    cond: Conditioning,
    uncond: Conditioning,
    guidance: float,
    check: Callable[[], None] = never,
    reuse: Reuse | None = None,
    *,
    is_batched: bool = True,
) -> Tensor:
    """The predicted x0 (n, 4, h, w) with classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598).

    `check` is called between two calls of the model, if there are two; it may raise. There are if memory is to be saved, or if the
    prompts are too unlike in length for one."""
    if not is_guided(models, guidance):
        return predict(models, x, sigma, cond, reuse)
    if not is_batched or not prompt.fit_one_batch(cond.context, uncond.context):
        without = predict(models, x, sigma, uncond, reuse, (WITHOUT,))
        check()
        with_prompt = predict(models, x, sigma, cond, reuse)
    else:
        without, with_prompt = predict(models, torch.cat([x, x]), sigma, prompt.together(uncond, cond), reuse, BOTH).chunk(2)
    return without + guidance * (with_prompt - without)


def is_guided(models: Denoiser, guidance: float) -> bool:
    """Whether the pass without the prompt matters."""
    return not models.placement.savings.skips_unconditional or abs(guidance - 1) >= 1e-9


def predict(
    models: Denoiser, x: Tensor, sigma: float, told: Conditioning, reuse: Reuse | None = None, passes: tuple[str, ...] = (WITH,)
) -> Tensor:
    """One call of the UNet: the x0 it predicts, (n, 4, h, w) in the dtype of x. `told`: of n prompts, in these `passes`."""
    unet, dtype = reuse or Reuse(models.unet), models.placement.dtype
    timestep = models.spacing.timestep(sigma).to(x.device)
    shown = models.spacing.scale_input(x, sigma).to(dtype)
    output = unet(passes, shown, timestep, told.context.to(dtype), added_cond_kwargs=told.added())
    return models.spacing.denoised(x, output.to(x.dtype), sigma)


@torch.inference_mode()
def decode(
    vae: torch.nn.Module,
    latents: Latents,
    steps: Steps | None = None,
    relief: Relief | None = None,
    device: torch.device | str = "cpu",
    *,
    tile: int = 0,
) -> np.ndarray:
    """Latents to pictures (n, 8h, 8w, 3), float32 in 0..1: one by one, or as many together as a temporal decoder is to see; in tiles of as
    many latents, if not 0. `steps` are told of the frames of a film."""
    from diffusers import AutoencoderKLTemporalDecoder

    relief, is_temporal = relief or Relief(device=device), isinstance(vae, AutoencoderKLTemporalDecoder)
    left = torch.from_numpy(latents.samples).to(relief.device)
    phase, smaller = "decoding" if steps else "still", decoding_cuts(len(left) if is_temporal else 1, *left.shape[2:])
    pictures, count = [], len(left)
    with relief.bring(phase, vae):
        while len(left):  # after each piece anew: the next may have to be smaller
            if steps:
                steps.reach(count - len(left))
            part, pixels = relief(phase, partial(_decode_next, vae, left, is_temporal, tile), smaller, busy=(vae,))
            plan = relief.cut(phase)
            mixes_fewer = is_temporal and plan.together < min(Plan().together, count)
            relief.has_seams |= mixes_fewer or 0 < plan.tile < (tile or max(left.shape[2:]))
            left = left[len(part) :]
            pictures.append(pixels)
    return torch.cat(pictures).numpy()


def _decode_next(vae: torch.nn.Module, latents: Tensor, is_temporal: bool, tile: int, plan: Plan) -> tuple[Tensor, Tensor]:
    """The latents that are decoded in this piece, from the first on, and their pixels (n, 8h, 8w, 3) in 0..1, on the host."""
    part = latents.tensor_split(-(-len(latents) // plan.together))[0] if is_temporal else latents[:1]  # of like length: none is left alone
    together = {"num_frames": len(part)} if is_temporal else {}
    side = min(filter(None, (tile, plan.tile)), default=0)

    def pixels(z: Tensor) -> Tensor:
        return vae.decode(z.to(vae.dtype), **together).sample

    found = in_tiles(pixels, part, side) if side else pixels(part)
    return part, found.float().add(1).div(2).clamp(0, 1).permute(0, 2, 3, 1).cpu()


@torch.inference_mode()
def encode(vae: torch.nn.Module, pixels: Tensor, phase: str, relief: Relief, steps: Steps | None = None) -> Tensor:
    """(n, 3, height, width) in 0..1 to the mean of the unscaled latents, (n, 4, h, w), one by one. A side that is no multiple of 8 loses
    its rest, as much at either end. Raises MemoryExhaustedError, Canceled."""
    h, w = pixels.shape[2] // 8, pixels.shape[3] // 8
    pixels = centre_crop(pixels, 8 * w, 8 * h)

    def mean(part: Tensor) -> Tensor:
        return vae.encode(part).latent_dist.mean.float()

    def one(picture: Tensor, plan: Plan) -> Tensor:
        shown = (picture * 2 - 1).to(relief.device, vae.dtype)
        return (in_tiles(mean, shown, plan.tile, given=8, made=1) if plan.tile else mean(shown)).cpu()

    cuts, found = decoding_cuts(1, h, w), []
    with relief.bring(phase, vae):
        for picture in pixels:
            if steps:
                steps()
            found.append(relief(phase, partial(one, picture[None]), cuts, busy=(vae,)))
            relief.has_seams |= 0 < relief.cut(phase).tile < max(h, w)
    return torch.cat(found)


def centre_crop(pixels: Tensor, width: int, height: int) -> Tensor:
    top, left = (pixels.shape[2] - height) // 2, (pixels.shape[3] - width) // 2
    return pixels[:, :, top : top + height, left : left + width]


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
