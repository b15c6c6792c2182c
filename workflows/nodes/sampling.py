"""From noise to latents, and latents to begin with."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

from pipelines.parameters import MAX_SEED, SAMPLERS, SCHEDULES, Choice, Number, Sampling
from pipelines.values import Conditioning, Latents, ModelSource
from workflows.declare import node

if TYPE_CHECKING:
    from pipelines.bench import Bench

Seed = Number(0, MAX_SEED, "the same seed and settings give the same result", wire={"default": 0, "control_after_generate": True})
Steps = Number(1, 10_000, "denoising steps: more take longer and are finer", wire={"default": 20})
Guidance = Number(0.0, 100.0, "how closely the result follows what it is told", wire={"default": 8.0, "step": 0.1, "round": 0.01})
Sampler = Choice(SAMPLERS, "method of sampling")
Schedule = Choice(SCHEDULES, "noise levels that sampling visits")
Step = Number(0, 10_000, "counted from 0")
Every = Number(1, 10, "of so many calls of the model one is whole: 1 is exact, 2 or 3 is faster and nearly the same, more drifts off")
Side = Number(16, 16384, "pixels, a multiple of 8", wire={"step": 8})


@node("KSampler", title="KSampler", category="sampling", keeps=True)
def sample(
    bench: Bench,
    model: ModelSource,
    seed: Annotated[int, Seed],
    steps: Annotated[int, Steps],
    cfg: Annotated[float, Guidance],
    sampler_name: Annotated[str, Sampler],
    scheduler: Annotated[str, Schedule],
    positive: Conditioning,
    negative: Conditioning,
    latent_image: Latents,
    denoise: Annotated[float, Number(0.0, 1.0, "1 starts from noise alone; less keeps some of the picture", wire={"step": 0.01})] = 1.0,
) -> Latents:
    """Takes the noise away, step by step."""
    return bench.sample(model, positive, negative, latent_image, Sampling(seed, steps, cfg, sampler_name, scheduler, denoise))


@node("KSamplerAdvanced", title="KSampler (Advanced)", category="sampling", keeps=True)
def sample_partly(
    bench: Bench,
    model: ModelSource,
    add_noise: Annotated[str, Choice(("enable", "disable"), "whether to begin with new noise")],
    noise_seed: Annotated[int, Seed],
    steps: Annotated[int, Steps],
    cfg: Annotated[float, Guidance],
    sampler_name: Annotated[str, Sampler],
    scheduler: Annotated[str, Schedule],
    positive: Conditioning,
    negative: Conditioning,
    latent_image: Latents,
    start_at_step: Annotated[int, Step] = 0,
    end_at_step: Annotated[int, Step] = 10_000,
    return_with_leftover_noise: Annotated[str, Choice(("disable", "enable"), "whether noise may be left at the last step")] = "disable",
) -> Latents:
    """Takes the noise away in some of the steps only, to go on with another model."""
    keeps, adds = return_with_leftover_noise == "enable", add_noise == "enable"
    way = Sampling(noise_seed, steps, cfg, sampler_name, scheduler, 1.0, start_at_step, end_at_step, adds, keeps)
    return bench.sample(model, positive, negative, latent_image, way)


@node("StillmotionReuse", title="Reuse Deep Features (lossy)", category="sampling", is_early=True, module="stillmotion")
def reuse(bench: Bench, model: ModelSource, every: Annotated[int, Every] = 2) -> ModelSource:
    """Faster and not the same: most calls of the model compute its outer layers alone."""
    return dataclasses.replace(model, every=every)


@node("EmptyLatentImage", title="Empty Latent Image", category="latent")
def empty(
    bench: Bench,
    width: Annotated[int, Side] = 512,
    height: Annotated[int, Side] = 512,
    batch_size: Annotated[int, Number(1, 4096, "how many pictures at once")] = 1,
) -> Latents:
    """Room for pictures of this size."""
    return bench.empty_latents(width, height, batch_size)


@node("RepeatLatentBatch", title="Repeat Latent Batch", category="latent/batch")
def repeat(bench: Bench, samples: Latents, amount: Annotated[int, Number(1, 64, "how often")] = 1) -> Latents:
    """The same latents several times, for several pictures."""
    return bench.repeat(samples, amount)


NODES = (sample, sample_partly, reuse, empty, repeat)
