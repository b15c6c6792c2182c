"""Load what a stage works with: every part of a checkpoint as a diffusers or transformers model, on its device and in its precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from errors import CheckpointError
from pipelines.checkpoints import LATENT_SCALES, CheckpointFile, build, inspect_vae, match_loras, read_header, sources_of
from pipelines.ldm import Source
from pipelines.lora import Lora, merge
from pipelines.memory import ALL_STAY, Placement, place
from pipelines.model_files import TOKENIZER
from pipelines.progress import IsCanceled, Report, Steps, never, silent
from pipelines.schedules import ContinuousSigmas, DiscreteSigmas
from pipelines.values import LoraStrengths, ModelSource, TextSource, VaeSource, VisionSource
from pipelines.weights import read_tensors

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

MIB = 2**20


@dataclass(frozen=True)
class Denoiser:
    """A UNet, how it counts noise levels, and what brings its latents to unit spread. Of `every` calls one is whole."""

    unet: nn.Module
    spacing: DiscreteSigmas | ContinuousSigmas
    scale: float
    placement: Placement
    every: int = 1


@dataclass(frozen=True)
class TextEncoders:
    """Stable Diffusion XL has a second one, with a tokenizer of its own."""

    text_encoder: nn.Module
    tokenizer: CLIPTokenizer
    text_encoder_2: nn.Module | None = None
    tokenizer_2: CLIPTokenizer | None = None

    def modules(self) -> tuple[nn.Module, ...]:
        return (self.text_encoder,) if self.text_encoder_2 is None else (self.text_encoder, self.text_encoder_2)


@dataclass(frozen=True)
class Single:
    """An autoencoder or a vision tower."""

    module: nn.Module


@dataclass(frozen=True)
class StillModels:
    """Everything stage 1 needs. Of `every` calls of the UNet one is whole."""

    name: str
    unet: nn.Module
    vae: nn.Module
    text_encoder: nn.Module
    tokenizer: CLIPTokenizer
    spacing: DiscreteSigmas
    placement: Placement
    text_encoder_2: nn.Module | None = None
    tokenizer_2: CLIPTokenizer | None = None
    every: int = 1

    def denoiser(self) -> Denoiser:
        return Denoiser(self.unet, self.spacing, self.vae.config.scaling_factor, self.placement, self.every)

    def encoders(self) -> TextEncoders:
        return TextEncoders(self.text_encoder, self.tokenizer, self.text_encoder_2, self.tokenizer_2)


@dataclass(frozen=True)
class MotionModels:
    """Everything stage 2 needs. Of `every` calls of the UNet one is whole."""

    name: str
    unet: nn.Module
    vae: nn.Module
    vision: nn.Module
    spacing: ContinuousSigmas
    placement: Placement
    every: int = 1

    def denoiser(self) -> Denoiser:
        return Denoiser(self.unet, self.spacing, self.vae.config.scaling_factor, self.placement, self.every)


@dataclass(frozen=True)
class Loading:
    """How models are loaded: where to, who hears of it, and what of them is on the device from then on."""

    placement: Placement
    report: Report = silent
    is_canceled: IsCanceled = never
    residence: str = ALL_STAY


def load_still(
    path: Path,
    placement: Placement,
    report: Report = silent,
    is_canceled: IsCanceled = never,
    residence: str = ALL_STAY,
    *,
    vae: Path | None = None,
    loras: LoraStrengths | Sequence[tuple[Path, float]] = (),
) -> StillModels:
    """Everything stage 1 needs; with `vae`, that file's autoencoder instead of the checkpoint's own, and with the LoRAs of these files and
    strengths in its weights. Raises CheckpointError, Canceled."""
    header = read_header(path, "still")
    matched = match_loras(header, loras)
    owners = dict.fromkeys(header.parts(), header)
    if vae:
        owners["vae"] = inspect_vae(vae, scale_of(header))
    parts: dict[str, Any] = _load_parts(owners, Loading(placement, report, is_canceled, residence), matched)
    spacing = DiscreteSigmas(**header.sampling)
    return StillModels(name=path.name, spacing=spacing, placement=placement, **parts, **tokenizers_of(header))


def load_motion(
    path: Path, placement: Placement, report: Report = silent, is_canceled: IsCanceled = never, residence: str = ALL_STAY
) -> MotionModels:
    """Everything stage 2 needs. Raises CheckpointError, Canceled."""
    header = read_header(path, "motion")
    parts = _load_parts(dict.fromkeys(header.parts(), header), Loading(placement, report, is_canceled, residence))
    return MotionModels(name=path.name, spacing=ContinuousSigmas(**header.sampling), placement=placement, **parts)


def load_denoiser(source: ModelSource, loading: Loading) -> Denoiser:
    """The UNet alone. Raises CheckpointError, Canceled."""
    header = read_header(source.path, source.kind)
    unet = _load_parts({"unet": header}, loading, match_loras(header, source.loras))["unet"]
    spacing = DiscreteSigmas if source.kind == "still" else ContinuousSigmas
    return Denoiser(unet, spacing(**header.sampling), scale_of(header), loading.placement)


def load_encoders(source: TextSource, loading: Loading) -> TextEncoders:
    """The text encoders alone. Raises CheckpointError, Canceled."""
    header = read_header(source.path, "still")
    owners = {part: header for part in header.parts() if part.startswith("text_encoder")}
    return TextEncoders(**_load_parts(owners, loading, match_loras(header, source.loras)), **tokenizers_of(header))


def load_vae(source: VaeSource, loading: Loading) -> Single:
    """The autoencoder alone. Raises CheckpointError, Canceled."""
    header = inspect_vae(source.path) if source.kind == "vae" else read_header(source.path, source.kind)
    return Single(_load_parts({"vae": header}, loading)["vae"])


def load_vision(source: VisionSource, loading: Loading) -> Single:
    """The vision tower alone. Raises CheckpointError, Canceled."""
    return Single(_load_parts({"vision": read_header(source.path, "motion")}, loading)["vision"])


def scale_of(header: CheckpointFile) -> float:
    return header.components["vae"].get("scaling_factor", LATENT_SCALES[0])


def tokenizers_of(header: CheckpointFile) -> dict[str, CLIPTokenizer]:
    encoders = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}
    return {name: _tokenizer(header.components[part].get("pad_token_id")) for part, name in encoders.items() if part in header.components}


def _tokenizer(padding: int | None) -> CLIPTokenizer:
    """CLIP's, filling up with the token of this number; without one, with its own, the end token."""
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER, local_files_only=True)
    if padding is not None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(padding)
    return tokenizer


def _load_parts(owners: Mapping[str, CheckpointFile], loading: Loading, loras: Sequence[Lora] = ()) -> dict[str, nn.Module]:
    """Every part from the file that owns it, complete before the first weight is read. `report` hears of every MiB."""
    placement = loading.placement
    models = {part: build(header, part) for part, header in owners.items()}
    sources = {part: sources_of(owners[part], part, model.state_dict()) for part, model in models.items()}
    total = sum(_bytes_of(owners[part], found) for part, found in sources.items())
    steps, done = Steps("loading", max(1, total // MIB), loading.report, loading.is_canceled), 0
    steps.begin()

    def told(count: int) -> None:
        nonlocal done
        done += count
        steps.reach(done // MIB)

    for part, model in models.items():
        dtype = placement.vae_dtype if part == "vae" else placement.dtype
        try:
            weights = _read_part(owners[part], sources[part], _first_home(part, loading), dtype, told)
        except OSError as error:
            name = owners[part].path.name
            raise CheckpointError(f"{name} cannot be read: {error}.", "Copy or download it again.") from error
        model.load_state_dict(weights, assign=True)
        weights.clear()  # or what is made smaller would stay
        _fill_buffers(model)
        merge(part, model, loras)
        place(model, placement, loading.residence)
    steps.done()
    return models


def _first_home(part: str, loading: Loading) -> torch.device:
    """Where a part's weights are read to. A UNet's that are to be kept in eight bits come to the device when they are no more than that."""
    return torch.device("cpu") if part == "unet" and loading.placement.is_float8 else loading.placement.home(loading.residence)


def _bytes_of(header: CheckpointFile, sources: dict[str, Source]) -> int:
    """What will be read of a part."""
    each = [header.tensors[name] for name in {source.name for source in sources.values()}]
    return sum(info.end - info.begin for info in each)


def _read_part(
    header: CheckpointFile, sources: dict[str, Source], home: torch.device, dtype: torch.dtype, told: Callable[[int], None]
) -> dict[str, torch.Tensor]:
    """Tensor after tensor straight into its place and dtype; one of the file may serve several of the model's."""
    users: dict[str, list[str]] = {}
    for name, source in sources.items():
        users.setdefault(source.name, []).append(name)
    places = {name: (header.homes[name][0] if header.homes else header.path, header.tensors[name]) for name in users}
    weights = {}
    for found, tensor in read_tensors(places, told):
        for name in users[found]:
            weights[name] = sources[name].take(tensor).to(home, dtype).contiguous()
    return weights


def _fill_buffers(model: nn.Module) -> None:
    """Buffers that are not in the file (CLIP's position ids) were made on the meta device; they count upwards."""
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta:
                if name != "position_ids":
                    raise CheckpointError(
                        f"The buffer {name!r} of {type(module).__name__} has no value.", "This version of transformers is not known here."
                    )
                module.register_buffer(
                    name, torch.arange(buffer.shape[-1], device=next(model.parameters()).device).unsqueeze(0), persistent=False
                )
