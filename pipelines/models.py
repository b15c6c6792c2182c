"""Load what a stage works with: every part of a checkpoint as a diffusers or transformers model, on its device and in its precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from errors import CheckpointError
from pipelines.checkpoints import LATENT_SCALES, TOKENIZER, CheckpointFile, build, inspect_vae, match_loras, read_header, sources_of
from pipelines.ldm import Source
from pipelines.lora import Lora, merge
from pipelines.memory import ALL_STAY, Placement, place
from pipelines.progress import IsCanceled, Report, Steps, never, silent
from pipelines.schedules import ContinuousSigmas, DiscreteSigmas
from pipelines.weights import read_tensors

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

MIB = 2**20


@dataclass(frozen=True)
class StillModels:
    """`vae.config.scaling_factor` is the latent scale. Stable Diffusion XL has a second text encoder, and its tokenizer."""

    name: str
    unet: nn.Module
    vae: nn.Module
    text_encoder: nn.Module
    tokenizer: CLIPTokenizer
    spacing: DiscreteSigmas
    placement: Placement
    text_encoder_2: nn.Module | None = None
    tokenizer_2: CLIPTokenizer | None = None

    def text_encoders(self) -> tuple[nn.Module, ...]:
        return (self.text_encoder,) if self.text_encoder_2 is None else (self.text_encoder, self.text_encoder_2)


@dataclass(frozen=True)
class MotionModels:
    name: str
    unet: nn.Module
    vae: nn.Module
    vision: nn.Module
    spacing: ContinuousSigmas
    placement: Placement


def load_still(
    path: Path,
    placement: Placement,
    report: Report = silent,
    is_canceled: IsCanceled = never,
    residence: str = ALL_STAY,
    *,
    vae: Path | None = None,
    loras: Sequence[tuple[Path, float]] = (),
) -> StillModels:
    """Everything stage 1 needs; with `vae`, that file's autoencoder instead of the checkpoint's own, and with the LoRAs of these files and
    strengths in its weights. Raises CheckpointError, Canceled."""
    header = read_header(path, "still")
    matched = match_loras(header, loras)
    owners = dict.fromkeys(header.parts(), header)
    if vae:
        owners["vae"] = inspect_vae(vae, header.components["vae"].get("scaling_factor", LATENT_SCALES[0]))
    parts: dict[str, Any] = _load_parts(owners, placement, report, is_canceled, residence, matched)
    for encoder, tokenizer in {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}.items():
        if encoder in parts:
            parts[tokenizer] = _tokenizer(header.components[encoder].get("pad_token_id"))
    return StillModels(name=header.path.name, spacing=DiscreteSigmas(**header.sampling), placement=placement, **parts)


def _tokenizer(padding: int | None) -> CLIPTokenizer:
    """CLIP's, filling up with the token of this number; without one, with its own, the end token."""
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER, local_files_only=True)
    if padding is not None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(padding)
    return tokenizer


def load_motion(
    path: Path, placement: Placement, report: Report = silent, is_canceled: IsCanceled = never, residence: str = ALL_STAY
) -> MotionModels:
    """Everything stage 2 needs. Raises CheckpointError, Canceled."""
    header = read_header(path, "motion")
    parts = _load_parts(dict.fromkeys(header.parts(), header), placement, report, is_canceled, residence)
    return MotionModels(name=path.name, spacing=ContinuousSigmas(**header.sampling), placement=placement, **parts)


def _load_parts(
    owners: Mapping[str, CheckpointFile],
    placement: Placement,
    report: Report,
    is_canceled: IsCanceled,
    residence: str,
    loras: Sequence[Lora] = (),
) -> dict[str, nn.Module]:
    """Every part from the file that owns it, complete before the first weight is read. `report` hears of every MiB."""
    models = {part: build(header, part) for part, header in owners.items()}
    sources = {part: sources_of(owners[part], part, model.state_dict()) for part, model in models.items()}
    total = sum(_bytes_of(owners[part], found) for part, found in sources.items())
    steps, done = Steps("loading", max(1, total // MIB), report, is_canceled), 0
    steps.begin()

    def told(count: int) -> None:
        nonlocal done
        done += count
        steps.reach(done // MIB)

    for part, model in models.items():
        dtype = placement.vae_dtype if part == "vae" else placement.dtype
        try:
            weights = _read_part(owners[part], sources[part], placement.home(residence), dtype, told)
        except OSError as error:
            name = owners[part].path.name
            raise CheckpointError(f"{name} cannot be read: {error}.", "Copy or download it again.") from error
        model.load_state_dict(weights, assign=True)
        _fill_buffers(model)
        merge(part, model, loras)
        place(model, placement, residence)
    steps.done()
    return models


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
