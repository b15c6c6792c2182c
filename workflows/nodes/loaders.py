"""Which models: checkpoints, autoencoders, LoRAs. They are named here and loaded where they are needed."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

from pipelines.parameters import MAX_STRENGTH, Number
from pipelines.values import ModelSource, TextSource, VaeSource, VisionSource
from workflows.declare import FileChoice, node
from workflows.job_context import JobContext

if TYPE_CHECKING:
    from pipelines.bench import Bench

Checkpoint = FileChoice("checkpoints", "a file in models/checkpoints")
LoraName = FileChoice("loras", "a file in models/loras")
Strength = Number(-MAX_STRENGTH, MAX_STRENGTH, "how much it changes; about 0.5 to 1 is usual", wire={"step": 0.01})


@node("CheckpointLoaderSimple", title="Load Checkpoint", category="loaders", is_early=True, output_names=("MODEL", "CLIP", "VAE"))
def load_checkpoint(bench: Bench, job: JobContext, ckpt_name: Annotated[str, Checkpoint]) -> tuple[ModelSource, TextSource, VaeSource]:
    """The model of a still with its text encoder and its autoencoder."""
    path = bench.identified(job.folders.model("checkpoints", ckpt_name), "still")
    return ModelSource(path, "still"), TextSource(path), VaeSource(path, "still")


@node(
    "ImageOnlyCheckpointLoader", title="Image Only Checkpoint Loader (img2vid model)", category="loaders/video_models", is_early=True,
    output_names=("MODEL", "CLIP_VISION", "VAE"), module="comfy_extras.nodes_video_model",
)  # fmt: skip
def load_motion_checkpoint(
    bench: Bench, job: JobContext, ckpt_name: Annotated[str, Checkpoint]
) -> tuple[ModelSource, VisionSource, VaeSource]:
    """The model that sets a still in motion, with what sees the still and its autoencoder."""
    path = bench.identified(job.folders.model("checkpoints", ckpt_name), "motion")
    return ModelSource(path, "motion"), VisionSource(path), VaeSource(path, "motion")


@node("VAELoader", title="Load VAE", category="loaders", is_early=True)
def load_vae(bench: Bench, job: JobContext, vae_name: Annotated[str, FileChoice("vae", "a file in models/vae")]) -> VaeSource:
    """An autoencoder in a file of its own, in place of a checkpoint's."""
    return VaeSource(bench.identified(job.folders.model("vae", vae_name), "vae"), "vae")


@node("LoraLoader", title="Load LoRA", category="loaders", is_early=True)
def load_lora(
    bench: Bench,
    job: JobContext,
    model: ModelSource,
    clip: TextSource,
    lora_name: Annotated[str, LoraName],
    strength_model: Annotated[float, Strength] = 1.0,
    strength_clip: Annotated[float, Strength] = 1.0,
) -> tuple[ModelSource, TextSource]:
    """Changes a model and its text encoder by a LoRA."""
    path = bench.fitting_lora(job.folders.model("loras", lora_name), model)
    changed = dataclasses.replace(model, loras=(*model.loras, (path, strength_model)))
    return changed, dataclasses.replace(clip, loras=(*clip.loras, (path, strength_clip)))


@node("LoraLoaderModelOnly", title="LoraLoaderModelOnly", category="loaders", is_early=True)
def load_lora_model_only(
    bench: Bench,
    job: JobContext,
    model: ModelSource,
    lora_name: Annotated[str, LoraName],
    strength_model: Annotated[float, Strength] = 1.0,
) -> ModelSource:
    """Changes a model by a LoRA, and not its text encoder."""
    path = bench.fitting_lora(job.folders.model("loras", lora_name), model)
    return dataclasses.replace(model, loras=(*model.loras, (path, strength_model)))


NODES = (load_checkpoint, load_motion_checkpoint, load_vae, load_lora, load_lora_model_only)
