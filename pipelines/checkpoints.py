"""Identify checkpoints.

A checkpoint is one `.safetensors` file, or a folder as diffusers saves it (`folders`). Files that carry their architecture in the
metadata, key `stillmotion`, are loaded by it: `{"kind": "still" | "motion", "name": ..., "sampling": {...}, "components": {"unet":
{...config}, "vae": ...}}`, tensors named `<component>.<diffusers or transformers name>`. Those of a known family (`families`) have an
architecture that we know, and tensors that `ldm` finds. Nothing else of a file is trusted, nothing is downloaded, no pickle is ever read.

To make a still, another VAE may stand in for the checkpoint's own (`vae`), and LoRAs may change the weights (`lora`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from errors import CheckpointError, InputError
from pipelines.families import TensorInfo, Tensors, describe, identify, read_safetensors_header
from pipelines.folders import Homes, describe_folder
from pipelines.ldm import Source, locate
from pipelines.lora import Lora, match
from pipelines.lora_files import inspect_lora
from pipelines.schedules import ContinuousSigmas, DiscreteSigmas
from pipelines.vae import describe_vae
from pipelines.weights import FLOATS

# What brings an autoencoder's latents to unit spread: that of Stable Diffusion XL is the second.
LATENT_SCALES = (0.18215, 0.13025)
_CLASSES = {
    "still": {
        "unet": "UNet2DConditionModel",
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "CLIPTextModelWithProjection",
    },
    "motion": {"unet": "UNetSpatioTemporalConditionModel", "vae": "AutoencoderKL", "vision": "CLIPVisionModelWithProjection"},
    "vae": {"vae": "AutoencoderKL"},  # of a file with nothing else in it
}
_OPTIONAL = {"text_encoder_2"}  # Stable Diffusion XL's
_TEMPORAL = "AutoencoderKLTemporalDecoder"  # a motion model's vae may be one; its configuration says so by `_class_name`
FAMILIES = {"sd1": "Stable Diffusion 1", "sd2": "Stable Diffusion 2", "sdxl": "Stable Diffusion XL", "svd": "Stable Video Diffusion"}
_SPACINGS = {"still": DiscreteSigmas, "motion": ContinuousSigmas}
_MAKES = {"still": "a still from a prompt", "motion": "a film from a still"}


@dataclass(frozen=True)
class CheckpointFile:
    """What the header of a file says, or what those of a folder say together. `family` is "" for files that carry their architecture;
    `homes` says of a folder's tensors in which file they are, and under which name there."""

    path: Path
    kind: str
    name: str
    sampling: dict[str, Any]
    components: dict[str, dict[str, Any]]
    family: str = ""
    tensors: Tensors = field(default_factory=dict, repr=False)
    homes: Homes = field(default_factory=dict, repr=False)

    def parts(self) -> list[str]:
        return [part for part in _CLASSES[self.kind] if part in self.components]

    def files(self) -> set[Path]:
        return {path for path, _ in self.homes.values()} or {self.path}

    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.files())


def read_header(path: Path, kind: str) -> CheckpointFile:
    """Identify a file for a stage ("still" or "motion"). Raises CheckpointError: not safetensors, damaged, unknown family, other kind."""
    header = inspect(path)
    if header.kind != kind:
        raise CheckpointError(f"{path.name} makes {_MAKES[header.kind]}, not {_MAKES[kind]}.", "Choose another checkpoint for this stage.")
    return header


def inspect(path: Path) -> CheckpointFile:
    """Identify a file or folder for whatever stage it serves. Raises CheckpointError: not safetensors, damaged, unknown family."""
    try:
        header = _described_folder(path) if path.is_dir() else _described_file(path)
        missing = _CLASSES.get(header.kind, {}).keys() - header.components.keys() - _OPTIONAL
        _check_description(header)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, ArithmeticError, LookupError, InputError) as error:
        problem = f"{path.name} is of an unknown family: its metadata describes no model ({error})."
        raise CheckpointError(problem, "Get it again from where it came.") from error
    if header.kind not in _MAKES:
        raise CheckpointError(f"{path.name} is of the unknown kind {header.kind!r}.", f"Known are: {', '.join(_MAKES)}.")
    if missing:
        raise CheckpointError(f"{path.name} lacks: {', '.join(sorted(missing))}.", "Copy or download it again.")
    return header


def inspect_vae(path: Path, scale: float = LATENT_SCALES[0]) -> CheckpointFile:
    """Identify the file of an autoencoder alone, for latents of this scale. Raises CheckpointError."""
    family, described, tensors, homes = describe_vae(path)
    described["components"]["vae"]["scaling_factor"] = scale
    return CheckpointFile(path, **described, family=family, tensors=tensors, homes=homes)


def _described_folder(path: Path) -> CheckpointFile:
    described, tensors, homes = describe_folder(path)
    return CheckpointFile(path, **described, tensors=tensors, homes=homes)


def _described_file(path: Path) -> CheckpointFile:
    tensors, metadata = read_safetensors_header(path)
    family = "" if "stillmotion" in metadata else identify(path.name, tensors)
    described = describe(family, path, tensors, metadata) if family else json.loads(metadata["stillmotion"])
    says = (described[key] for key in ("kind", "name", "sampling", "components"))
    return CheckpointFile(path, *says, family=family, tensors=tensors)


def examine(path: Path, kind: str) -> tuple[CheckpointFile, dict[str, int]]:
    """The header of a model for that stage, or of an autoencoder ("vae"), and how many weights each part has. Raises CheckpointError."""
    header = inspect_vae(path) if kind == "vae" else read_header(path, kind)
    return header, check_complete(header)


def check_complete(header: CheckpointFile) -> dict[str, int]:
    """Every tensor of every part is in the file, in its shape: how many weights each part has. None are read. Raises CheckpointError."""
    numbers = {}
    for part in header.parts():
        wanted = build(header, part).state_dict()
        sources_of(header, part, wanted)
        numbers[part] = sum(tensor.numel() for tensor in wanted.values())
    return numbers


def _check_description(header: CheckpointFile) -> None:
    """Raises one of many errors if it describes no model. What is no dictionary would be looked up at a hub by name."""
    if not all(isinstance(config, dict) for config in header.components.values()):
        raise TypeError("a component is described by something else than a configuration")
    if header.kind in _SPACINGS:
        _SPACINGS[header.kind](**header.sampling)
    for encoder in header.components.keys() & {"text_encoder", "text_encoder_2"}:
        padding, words = (header.components[encoder].get(name, default) for name, default in (("pad_token_id", 0), ("vocab_size", 49408)))
        if padding is not None and not 0 <= padding < words:
            raise ValueError(f"prompts padded with token {padding} of {words}")
    scale = header.components.get("vae", {}).get("scaling_factor", LATENT_SCALES[0])
    if scale not in LATENT_SCALES:
        raise ValueError(f"latents of scale {scale}")
    is_xl = header.components.get("unet", {}).get("addition_embed_type") == "text_time"
    if is_xl != ("text_encoder_2" in header.components):
        raise ValueError("a UNet and text encoders that do not belong together")


def is_temporal(header: CheckpointFile) -> bool:
    """Whether the decoder mixes frames."""
    return header.components["vae"].get("_class_name") == _TEMPORAL


def match_loras(header: CheckpointFile, loras: Sequence[tuple[Path, float]]) -> list[Lora]:
    """Each change in each file with its weight. Raises CheckpointError."""
    if not loras:
        return []
    parts = [part for part in header.parts() if part != "vae"]
    shapes = {part: {name: tuple(x.shape) for name, x in build(header, part).state_dict().items()} for part in parts}
    return [match(inspect_lora(path), strength, shapes) for path, strength in loras]


def build(header: CheckpointFile, part: str) -> nn.Module:
    """A model without weights, on the meta device; so its own random initialisation costs nothing."""
    import diffusers
    import transformers

    config, class_name = header.components[part], _CLASSES[header.kind][part]
    try:
        if part == "vae" and is_temporal(header):
            class_name = _TEMPORAL
        with torch.device("meta"):
            if hasattr(diffusers, class_name):
                return getattr(diffusers, class_name).from_config(config)
            model_class = getattr(transformers, class_name)
            return model_class(model_class.config_class(**config))
    except Exception as error:  # a configuration can be wrong in many ways
        raise CheckpointError(
            f"{header.path.name} describes a {part} that cannot be built: {error}.", "Get it again from where it came."
        ) from error


def sources_of(header: CheckpointFile, part: str, wanted: dict[str, torch.Tensor]) -> dict[str, Source]:
    """Where each tensor of the part is in the file. Raises CheckpointError if any is missing or does not fit."""
    own = {name: Source(f"{part}.{name}") for name in wanted}
    sources = locate(header.family, part, wanted, header.tensors) if header.family else own
    missing = {source.name: None for source in sources.values() if source.name not in header.tensors}
    if missing:
        other = " It is incomplete, or of another size than the VAEs of Stable Diffusion." if header.kind == "vae" else ""
        problem = f"{header.path.name} lacks {len(missing)} tensors of its {part}, first {_first(missing)}.{other}"
        raise CheckpointError(problem, "Copy or download it again." if not other else "Use one of those, whole.")
    strange = {source.name: None for name, source in sources.items() if not _fits(header.tensors[source.name], source, wanted[name])}
    if strange:
        raise CheckpointError(
            f"{header.path.name} has {len(strange)} tensors of another type or shape in its {part} than its kind of model, "
            f"first {_first(strange)}.",
            "It is another model than its names say; choose another one.",
        )
    return sources


def _fits(info: TensorInfo, source: Source, wanted: torch.Tensor) -> bool:
    if info.dtype not in FLOATS:
        return False
    try:
        return source.take(torch.empty(info.shape, device="meta")).shape == wanted.shape
    except (RuntimeError, IndexError):  # of so few dimensions that nothing can be taken
        return False


def _first(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in list(names)[:3])
