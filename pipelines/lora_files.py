"""What the file of a LoRA holds, told from its header alone: which layers it changes, and which model it seems to be made for.

Files name weights as kohya's trainers do, `lora_unet_` and the name with underscores, counted as diffusers or as the single-file layout
counts; or as diffusers and peft do, `unet.` and the name. Other methods (LoHa, LoKr, DoRA ...) are refused by their name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import NamedTuple

from errors import CheckpointError
from pipelines.families import Tensors, known_as, read_safetensors_header

_HINT = "Known are LoRAs for Stable Diffusion 1, 2 and XL, as kohya's trainers or diffusers write them."
_FACTOR = re.compile(
    r"(?P<layer>.+?)"
    r"(\.lora_(?P<kohya>up|down|mid)\.weight|[._]lora(_linear_layer)?\.(?P<diffusers>up|down)\.weight"
    r"|\.lora_(?P<peft>A|B)(\.default)?\.weight|\.(?P<alpha>alpha))"
)
_METHODS = {
    "LoHa": r"\.hada_", "LoKr": r"\.lokr_", "DoRA": r"\.(dora_scale|lora_magnitude_vector)\b", "OFT": r"\.oft_", "IA3": r"\.on_input$",
    "GLoRA": r"\.[ab][12]\.weight$", "whole differences of weights": r"\.(diff|diff_b|w_norm|b_norm|set_weight)$",
}  # fmt: skip
# Tried in this order, on the names, when the widths say nothing.
_OTHER_MODELS = {
    "AnimateDiff": r"motion_modules",
    "Stable Video Diffusion": r"temporal_transformer_blocks|time_stack",
    "Flux": r"double_blocks|single_blocks|single_transformer_blocks",
    "Stable Diffusion 3": r"joint_blocks|^transformer\.transformer_blocks|lora_te3_",
    "Stable Cascade": r"lora_prior_unet",
    "Stable Diffusion XL": r"^lora_te2_|^text_encoder_2\.",
}
WIDTHS = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 2048: "Stable Diffusion XL"}  # of the text that a UNet attends to
_FLOATS = ("F64", "F32", "F16", "BF16")
_ALPHAS = (*_FLOATS, "I64", "I32", "I16", "I8", "U8")


class Change(NamedTuple):
    """Of one layer: the names of its factors in the file; with `mid` a convolution's kernel is between them (Tucker). `rank` divides."""

    up: str
    down: str
    rank: int
    mid: str = ""
    alpha: str = ""


@dataclass(frozen=True)
class LoraFile:
    """`changes` by layer, as the file names it; `made_for` is a guess for messages."""

    path: Path
    made_for: str
    changes: dict[str, Change]
    tensors: Tensors = field(repr=False)


def inspect_lora(path: Path) -> LoraFile:
    """What the header says. Raises CheckpointError: damaged, no LoRA, of a method that is not known, half."""
    tensors, _ = read_safetensors_header(path)
    method = next((name for name, pattern in _METHODS.items() if _any(pattern, tensors)), "")
    if method:
        raise CheckpointError(f"{path.name} changes weights by {method}, which is not supported.", _HINT)
    layers, unknown = _layers(tensors)
    if not any(roles.keys() & {"up", "down"} for roles in layers.values()):
        raise CheckpointError(f"{path.name} is {known_as(tensors)}, not a LoRA.", _HINT)
    if unknown:
        problem = f"{path.name} holds {len(unknown)} tensors that belong to no change of weights, first {unknown[0]!r}."
        raise CheckpointError(problem, _HINT)
    changes = {layer: _change(path, layer, roles, tensors) for layer, roles in layers.items()}
    return LoraFile(path, _made_for(changes, tensors), changes, tensors)


def _any(pattern: str, names: Iterable[str]) -> bool:
    return re.search(pattern, "\n".join(names), re.MULTILINE) is not None


def _layers(names: Iterable[str]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Layer to {role: name in the file}, and the names that play none, or one that is taken."""
    layers: dict[str, dict[str, str]] = {}
    unknown = []
    for name in names:
        found = _FACTOR.fullmatch(name)
        role = found and (found["kohya"] or found["diffusers"] or found["alpha"] or {"A": "down", "B": "up"}[found["peft"]])
        if not role or role in layers.get(found["layer"], {}):
            unknown.append(name)
        else:
            layers.setdefault(found["layer"], {})[role] = name
    return layers, unknown


def _change(path: Path, layer: str, roles: dict[str, str], tensors: Tensors) -> Change:
    missing = [role for role in ("up", "down") if role not in roles]
    if missing:
        problem = f"{path.name} has only half of a change: {layer!r} is without its {' and its '.join(missing)}."
        raise CheckpointError(problem, "Copy or download it again.")
    strange = [name for role, name in roles.items() if tensors[name].dtype not in (_ALPHAS if role == "alpha" else _FLOATS)]
    rank = (*tensors[roles["down"]].shape, 0)[0]
    if strange or rank < 1 or prod(tensors[roles["alpha"]].shape if "alpha" in roles else ()) != 1:
        raise CheckpointError(f"{path.name} has factors of a strange type or shape for {layer!r}.", "Copy or download it again.")
    return Change(rank=rank, **roles)


def _made_for(changes: dict[str, Change], tensors: Tensors) -> str:
    """The model, by the width of the text that is attended to, or by names; "" if neither says it."""
    downs = [change.down for layer, change in changes.items() if re.search(r"attn2[._](processor\.)?to_[kv]$", layer)]
    by_width = [WIDTHS[width] for down in downs for width in tensors[down].shape[1:2] if width in WIDTHS]
    return by_width[0] if by_width else next((model for model, pattern in _OTHER_MODELS.items() if _any(pattern, tensors)), "")
