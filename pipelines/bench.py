"""Where a job's work is done: models are loaded when they are needed, and every piece of work runs under the job's memory plan.

A bench belongs to one job. The shelf behind it outlives the job: what is still loaded from the one before is used again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F

from errors import InputError
from pipelines import checkpoints, picture
from pipelines import latents as latent
from pipelines.image_to_video import condition, crop_to_aspect, decode_frames, guidance_scale, sample_motion
from pipelines.memory import Placement
from pipelines.model_files import file_key
from pipelines.models import Denoiser, Loading, Single, TextEncoders, load_denoiser, load_encoders, load_vae, load_vision
from pipelines.parameters import MotionSettings, Sampling
from pipelines.pieces import Plan, Relief, fewer_stay, uncut
from pipelines.preview import Colours, Previews, Window, colours_of, unseen
from pipelines.progress import IsCanceled, Report, Steps
from pipelines.read_video import read_video
from pipelines.shelf import Shelf
from pipelines.text_to_image import decode, encode, encode_prompt, sample_still
from pipelines.values import (
    Conditioning,
    Film,
    Latents,
    Mask,
    ModelSource,
    MotionConditioning,
    Pictures,
    TextSource,
    VaeSource,
    VisionSource,
)

Source = ModelSource | TextSource | VaeSource | VisionSource
T = TypeVar("T")
_LOADERS: dict[type, Callable[..., Any]] = {
    ModelSource: load_denoiser, TextSource: load_encoders, VaeSource: load_vae, VisionSource: load_vision,
}  # fmt: skip


class Bench:
    """`report`, `is_canceled` and, if somebody looks, the `window` for previews are the job's; `examine` may know files that it has seen.
    Errors are those of the pipelines."""

    def __init__(
        self,
        placement: Placement,
        relief: Relief,
        shelf: Shelf,
        report: Report,
        is_canceled: IsCanceled,
        window: Window | None = None,
        examine: Callable[[Path, str], object] = checkpoints.examine,
    ) -> None:
        self.placement, self.relief, self.shelf, self.report, self.is_canceled = placement, relief, shelf, report, is_canceled
        self.window, self.examine = window, examine

    def identified(self, path: Path, kind: str) -> Path:
        """The file, which is a model for that stage, or an autoencoder ("vae"). Raises CheckpointError."""
        self.examine(path, kind)
        return path

    def fitting_lora(self, path: Path, model: ModelSource) -> Path:
        """The file, which is a LoRA for this model. Raises CheckpointError."""
        checkpoints.match_loras(checkpoints.read_header(model.path, model.kind), [(path, 1.0)])
        return path

    def read_picture(self, path: Path) -> tuple[Pictures, Mask]:
        """Raises UnreadableFileError."""
        pixels, mask = picture.read_picture(path), picture.read_mask(path)
        return Pictures(pixels[None]), Mask(mask[None])

    def read_video(self, path: Path) -> Film:
        """Raises UnreadableFileError."""
        frames, fps = read_video(path)
        return Film(Pictures(frames), fps)

    def join(self, first: Pictures, second: Pictures) -> Pictures:
        return Pictures(np.concatenate([first.pixels, second.pixels]), first.draw)

    def encode_prompt(self, clip: TextSource, text: str) -> Conditioning:
        encoders: TextEncoders = self._models(clip)
        return encode_prompt(encoders, text, self.relief, last_layer=clip.last_layer)

    def condition_motion(self, vision: VisionSource, vae: VaeSource, still: Pictures, settings: MotionSettings) -> MotionConditioning:
        """What the motion model is told of the first picture."""
        tower: Single = self._models(vision)
        autoencoder: Single = self._models(vae)
        return condition(tower.module, autoencoder.module, still, settings, self.placement.dtype, self.relief)

    def sample(
        self,
        model: ModelSource,
        positive: Conditioning | MotionConditioning,
        negative: Conditioning | MotionConditioning,
        latents: Latents,
        sampling: Sampling,
    ) -> Latents:
        """Raises InputError if the model is for another stage than what it is told."""
        wanted, given = (Conditioning, "a prompt") if model.kind == "still" else (MotionConditioning, "a still to set in motion")
        for told in (positive, negative):
            if not isinstance(told, wanted):
                hint = "Connect the model and the conditioning of the same stage."
                raise InputError(f"{model.path.name} has to be told of {given}, and is told of something else.", hint)
        colours = self._colours(VaeSource(model.path, model.kind)) if self.window else None
        loaded: Denoiser = self._models(model)
        models = dataclasses.replace(loaded, every=model.every)
        look = unseen if colours is None else Previews(colours, models.scale, self.window.show)
        _check_told(model.path.name, models, positive, negative)
        if model.kind == "still":
            return sample_still(models, positive, negative, latents, sampling, self.report, self.is_canceled, self.relief, look)
        low = sampling.guidance if model.min_guidance is None else model.min_guidance
        scale = guidance_scale(low, sampling.guidance, len(latents.samples), model.shape)
        return sample_motion(models, positive, negative, latents, sampling, scale, self.report, self.is_canceled, self.relief, look)

    def decode(self, vae: VaeSource, latents: Latents, tile: int = 0) -> Pictures:
        """`tile`: side of what is decoded in one piece, in latents; 0 is the whole picture. More than one picture are a film's frames."""
        autoencoder: Single = self._models(vae)
        if vae.kind == "motion" or len(latents.samples) > 1:
            pixels = decode_frames(autoencoder.module, latents, self.report, self.is_canceled, self.relief, tile)
        else:
            pixels = decode(autoencoder.module, latents, relief=self.relief, tile=tile)
        return Pictures(pixels, latents.draw)

    def encode(self, vae: VaeSource, pictures: Pictures) -> Latents:
        autoencoder: Single = self._models(vae)
        height, width = pictures.pixels.shape[1:3]
        if min(height, width) < 8:
            raise InputError(f"A picture of {width}x{height} pixels is too small for latents.", "A side must have 8 pixels.")
        pixels = torch.from_numpy(pictures.pixels).permute(0, 3, 1, 2)
        steps = Steps("still", len(pixels), self.report, self.is_canceled)
        return Latents(encode(autoencoder.module, pixels, "still", self.relief, steps).cpu().numpy())

    def empty_latents(self, width: int, height: int, count: int) -> Latents:
        return latent.empty(width, height, count)

    def repeat(self, latents: Latents, times: int) -> Latents:
        return latent.repeat(latents, times)

    def scale(self, pictures: Pictures, method: str, width: int, height: int, *, is_cropped: bool = False) -> Pictures:
        """To width x height pixels, of which one may be 0: it follows the other. `is_cropped`: cut to the aspect, not stretched."""
        h, w = pictures.pixels.shape[1:3]
        if not width and not height:
            return pictures
        width, height = width or max(1, round(w * height / h)), height or max(1, round(h * width / w))
        pixels = torch.from_numpy(pictures.pixels).permute(0, 3, 1, 2)
        return Pictures(scaled(crop_to_aspect(pixels, width, height) if is_cropped else pixels, width, height, method), pictures.draw)

    def key(self, source: Source) -> tuple[Source, tuple[Any, ...], Placement, str]:
        """Under which its models lie on the shelf."""
        source = _weights_of(source)
        return source, self._stamps(source), self.placement, self.relief.cut("loading").residence

    def load(self, source: Source) -> None:
        """So that its models are there when they are wanted. Raises CheckpointError, MemoryExhaustedError, Canceled."""
        self._models(source)

    def writing(self, work: Callable[[], T]) -> T:
        """Work that only needs memory of the host, for the files."""
        self.relief.spare = self.shelf.drop_others
        return self.relief("encoding", lambda _: work())

    def _colours(self, source: VaeSource) -> Colours | None:
        """How latents of this autoencoder look: found out when it is met for the first time."""
        key = source, self._stamps(source)
        if key not in self.window.known:
            autoencoder: Single = self._models(source)
            self.window.known[key] = colours_of(autoencoder.module, source.kind, self.relief)
        return self.window.known[key]

    def _models(self, source: Source) -> Any:
        source = _weights_of(source)

        def load(plan: Plan) -> Any:
            key = self.key(source)
            self.relief.spare = lambda: self.shelf.drop_others(key)
            loading = Loading(self.placement, self.report, self.is_canceled, plan.residence)
            return self.shelf.take(key, partial(_LOADERS[type(source)], source, loading))

        smaller = uncut if self.placement.device.type == "cpu" else fewer_stay
        return self.relief("loading", load, smaller)

    @staticmethod
    def _stamps(source: Source) -> tuple[Any, ...]:
        """They change when a file is replaced."""
        return (file_key(source.path), *(file_key(path) for path, _ in getattr(source, "loras", ())))


def _weights_of(source: Source) -> Source:
    """Of the same weights, however they are used."""
    if isinstance(source, ModelSource):
        return ModelSource(source.path, source.kind, source.loras)
    return dataclasses.replace(source, last_layer=None) if isinstance(source, TextSource) else source


def _check_told(name: str, models: Denoiser, *told: Conditioning | MotionConditioning) -> None:
    """Raises InputError if a UNet is told by the encoders of another family of models."""
    config = models.unet.config
    for one in told:
        width = (one.context if isinstance(one, Conditioning) else one.embedding).shape[-1]
        wants_pooled = getattr(config, "addition_embed_type", None) == "text_time"
        if width != config.cross_attention_dim or wants_pooled != (getattr(one, "pooled", None) is not None):
            hint = "Take the prompt's CLIP from the same checkpoint as the model."
            raise InputError(f"{name} cannot read what it is told: that is for another family of models.", hint)


METHODS = {"nearest-exact": "nearest-exact", "bilinear": "bilinear", "area": "area", "bicubic": "bicubic", "lanczos": ""}


def scaled(pixels: torch.Tensor, width: int, height: int, method: str) -> np.ndarray:
    """(n, 3, h, w) in 0..1 to (n, height, width, 3)."""
    if method == "lanczos":
        from PIL import Image

        bytes_ = (pixels.permute(0, 2, 3, 1).numpy() * 255).clip(0, 255).astype(np.uint8)
        resized = [np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS)) for picture in bytes_]
        return np.stack(resized).astype(np.float32) / 255
    return F.interpolate(pixels, size=(height, width), mode=METHODS[method]).permute(0, 2, 3, 1).contiguous().numpy()
