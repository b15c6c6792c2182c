"""Find, identify and load checkpoints.

A checkpoint is one `.safetensors` file. Those that carry their architecture in the metadata, key `stillmotion`, are loaded by it:
`{"kind": "still" | "motion", "name": ..., "sampling": {...}, "components": {"unet": {...config}, "vae": ...}}`, tensors named
`<component>.<diffusers or transformers name>`. Nothing else of a file is trusted, nothing is downloaded, no pickle is ever read.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from errors import CheckpointError, UnknownNameError
from pipelines.memory import Placement, place
from pipelines.schedules import ContinuousSigmas, DiscreteSigmas

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

ASSETS = Path(__file__).parent.parent / "assets"
BUNDLED = ASSETS / "checkpoints"
TOKENIZER = ASSETS / "clip_tokenizer"
DEMO_STILL, DEMO_MOTION = "stillmotion_demo_still.safetensors", "stillmotion_demo_motion.safetensors"
LATENT_SCALE = 0.18215  # brings latents of Stable Diffusion's and Stable Video Diffusion's autoencoders to unit spread
_CLASSES = {
    "still": {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "text_encoder": "CLIPTextModel"},
    "motion": {"unet": "UNetSpatioTemporalConditionModel", "vae": "AutoencoderKL", "vision": "CLIPVisionModelWithProjection"},
}
_MAKES = {"still": "a still from a prompt", "motion": "a film from a still"}


@dataclass(frozen=True)
class CheckpointFile:
    """What the header of a file says; no weights are read for it."""

    path: Path
    kind: str
    name: str
    sampling: dict[str, Any]
    components: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class StillModels:
    name: str
    unet: nn.Module
    vae: nn.Module
    text_encoder: nn.Module
    tokenizer: CLIPTokenizer
    spacing: DiscreteSigmas
    placement: Placement


@dataclass(frozen=True)
class MotionModels:
    name: str
    unet: nn.Module
    vae: nn.Module
    vision: nn.Module
    spacing: ContinuousSigmas
    placement: Placement


def list_checkpoints(models_dir: Path) -> dict[str, Path]:
    """Names as people give them (relative to `checkpoints`, with `/`) to files; the bundled demo checkpoints come last."""
    folder = models_dir / "checkpoints"
    found = (Path(root, name) for root, _, names in os.walk(folder, followlinks=True) for name in names)
    own = {p.relative_to(folder).as_posix(): p for p in sorted(found) if p.suffix == ".safetensors"}
    return own | {name: BUNDLED / name for name in (DEMO_STILL, DEMO_MOTION) if name not in own and (BUNDLED / name).is_file()}


def find_checkpoint(name: str, models_dir: Path) -> Path:
    """Raises UnknownNameError with what is there, CheckpointError for formats that can run code."""
    if Path(name).suffix in (".ckpt", ".pt", ".pth", ".bin"):
        raise CheckpointError(
            f"{name} is a pickle file, which can run code when it is opened.", "Use the .safetensors version of this model."
        )
    known = list_checkpoints(models_dir)
    if name not in known:
        raise UnknownNameError("checkpoint", name, known)
    return known[name]


def read_header(path: Path, kind: str) -> CheckpointFile:
    """Identify a file for a stage ("still" or "motion"). Raises CheckpointError: not safetensors, damaged, unknown family, other kind."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        hint = "Copy or download it again; it is incomplete or no safetensors file."
        raise CheckpointError(f"{path.name} cannot be read as safetensors: {error}.", hint) from error
    try:
        described = json.loads(metadata.get("stillmotion", "null"))
        header = CheckpointFile(path, described["kind"], described["name"], described["sampling"], described["components"])
    except (ValueError, TypeError, KeyError) as error:
        hint = "Known so far: checkpoints that carry their architecture, such as the bundled demo checkpoints."
        raise CheckpointError(f"{path.name} is of an unknown family.", hint) from error
    if header.kind not in _CLASSES:
        raise CheckpointError(f"{path.name} is of the unknown kind {header.kind!r}.", f"Known are: {', '.join(_CLASSES)}.")
    if header.kind != kind:
        raise CheckpointError(f"{path.name} makes {_MAKES[header.kind]}, not {_MAKES[kind]}.", "Choose another checkpoint for this stage.")
    missing = _CLASSES[kind].keys() - header.components.keys()
    if missing:
        raise CheckpointError(f"{path.name} lacks: {', '.join(sorted(missing))}.", "Copy or download it again.")
    return header


def load_still(path: Path, placement: Placement) -> StillModels:
    """Everything stage 1 needs. Raises CheckpointError."""
    from transformers import CLIPTokenizer

    header = read_header(path, "still")
    parts = _load_parts(header, placement)
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER, local_files_only=True)
    return StillModels(name=path.name, tokenizer=tokenizer, spacing=DiscreteSigmas(**header.sampling), placement=placement, **parts)


def load_motion(path: Path, placement: Placement) -> MotionModels:
    """Everything stage 2 needs. Raises CheckpointError."""
    header = read_header(path, "motion")
    return MotionModels(name=path.name, spacing=ContinuousSigmas(**header.sampling), placement=placement, **_load_parts(header, placement))


def _load_parts(header: CheckpointFile, placement: Placement) -> dict[str, nn.Module]:
    classes = _CLASSES[header.kind]
    parts = {}
    with safe_open(header.path, framework="pt") as file:
        names = list(file.keys())
        for part, class_name in classes.items():
            prefix = f"{part}."
            dtype = placement.vae_dtype if part == "vae" else placement.dtype
            weights = {name.removeprefix(prefix): file.get_tensor(name).to(dtype) for name in names if name.startswith(prefix)}
            parts[part] = place(_build(header, part, class_name, weights), placement, dtype)
    return parts


def _build(header: CheckpointFile, part: str, class_name: str, weights: dict[str, torch.Tensor]) -> nn.Module:
    """A model of the named class with these weights. Its own random initialisation is skipped."""
    import diffusers
    import transformers

    config = header.components[part]
    try:
        with torch.device("meta"):
            if hasattr(diffusers, class_name):
                model = getattr(diffusers, class_name).from_config(config)
            else:
                model_class = getattr(transformers, class_name)
                model = model_class(model_class.config_class(**config))
    except (TypeError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{header.path.name} describes a {part} that cannot be built: {error}.", "Get it again from where it came."
        ) from error
    wanted = model.state_dict()
    wrong = [name for name in wanted if name not in weights or weights[name].shape != wanted[name].shape]
    if wrong:
        raise CheckpointError(
            f"{header.path.name} lacks {len(wrong)} tensors of its {part}, first {wrong[0]!r}.", "Copy or download it again."
        )
    model.load_state_dict({name: weights[name] for name in wanted}, assign=True)
    _fill_buffers(model)
    return model


def _fill_buffers(model: nn.Module) -> None:
    """Buffers that are not in the file (CLIP's position ids) were made on the meta device; they count upwards."""
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta:
                if name != "position_ids":
                    raise CheckpointError(
                        f"The buffer {name!r} of {type(module).__name__} has no value.", "This version of transformers is not known here."
                    )
                module.register_buffer(name, torch.arange(buffer.shape[-1]).unsqueeze(0), persistent=False)
