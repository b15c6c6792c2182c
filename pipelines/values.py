"""What nodes hand to each other. No torch here: a workflow can be checked before it is loaded.

Models are named, not loaded: a source says which weights are meant, so it costs nothing and can be compared and kept. Latents and
pictures live on the host, as arrays.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

LoraStrengths = tuple[tuple[Path, float], ...]


@dataclass(frozen=True)
class ModelSource:
    """A UNet: of which checkpoint, for which stage ("still" or "motion"), changed by which LoRAs. For motion, guidance may grow over the
    frames from `min_guidance` in a `shape`; without one it is the same for all. Of `every` calls one is whole; see pipelines/reuse.py."""

    path: Path
    kind: str
    loras: LoraStrengths = ()
    min_guidance: float | None = None
    shape: str = "linear"
    every: int = 1


@dataclass(frozen=True)
class TextSource:
    """The text encoders of a checkpoint; `last_layer` counts from the end, -1 is the last, None the one that the family takes."""

    path: Path
    loras: LoraStrengths = ()
    last_layer: int | None = None


@dataclass(frozen=True)
class VaeSource:
    """The autoencoder of a checkpoint for `kind`, or one in a file of its own: then `kind` is "vae"."""

    path: Path
    kind: str


@dataclass(frozen=True)
class VisionSource:
    path: Path


@dataclass(frozen=True)
class Draw:
    """Noise that was drawn from a seed: of which shape. What is drawn from the same generator next depends on it."""

    seed: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Latents:
    """`samples` (n, 4, height/8, width/8) float32, as the autoencoder takes and gives them, without a model's scale."""

    samples: np.ndarray
    draw: Draw | None = None


@dataclass(frozen=True)
class Pictures:
    """`pixels` (n, height, width, 3) float32 in 0..1: stills or the frames of a film."""

    pixels: np.ndarray
    draw: Draw | None = None


@dataclass(frozen=True)
class Mask:
    """`values` (n, height, width) float32: 1 where a picture is transparent."""

    values: np.ndarray


@dataclass(frozen=True)
class Audio:
    """The sound of a film. Nothing here makes or keeps any; it has its place in ComfyUI's nodes."""


@dataclass(frozen=True)
class Film:
    """Frames and how fast they play, not yet written."""

    pictures: Pictures
    fps: float


@dataclass(frozen=True)
class Conditioning:
    """What a UNet is told of n prompts: `context` (n, tokens, width) for its cross-attention. Stable Diffusion XL's is told besides
    `pooled` (n, 1280), one vector for all of a prompt, and `sizes` (n, 6): height and width of the picture, the place of its upper left
    corner in the whole, and height and width again, that are asked for; in pixels."""

    context: torch.Tensor
    pooled: torch.Tensor | None = None
    sizes: torch.Tensor | None = None

    def added(self) -> dict[str, Any]:
        """The UNet's `added_cond_kwargs`."""
        return {} if self.pooled is None else {"text_embeds": self.pooled, "time_ids": self.sizes}


@dataclass(frozen=True)
class MotionConditioning:
    """Of the still: its `embedding` (1, 1, width) and its unscaled `latent` (1, 4, h, w). `ids` (1, 3): fps - 1, motion bucket,
    augmentation level."""

    embedding: torch.Tensor
    latent: torch.Tensor
    ids: torch.Tensor

    def without_still(self) -> MotionConditioning:
        """What guidance pushes away from: neither embedding nor latent."""
        return MotionConditioning(self.embedding.new_zeros(self.embedding.shape), self.latent.new_zeros(self.latent.shape), self.ids)


@dataclass(frozen=True)
class Saved:
    """What a node that writes gives back: `ui` as ComfyUI tells it, {"images": [{"filename", "subfolder", "type"}]}, and every file."""

    ui: dict[str, list[Any]] = field(default_factory=dict)
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Filenames(Saved):
    """The same, of a node whose files another node may be given."""
