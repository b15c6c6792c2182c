"""LoRAs: changes of low rank to a model's weights, W + strength * alpha / rank * up @ down (Hu et al. 2021, arXiv 2106.09685).

The story: `inspect_lora` says what a file holds, from its header alone; `match` finds for every change the weight that it belongs to,
and none may be left over: half a LoRA would be another LoRA. `merge` adds the changes of all files to a part's weights when they have been
read; so sampling costs nothing more, and the numbers are ComfyUI's.

Files name weights as kohya's trainers do, `lora_unet_` and the name with underscores, counted as diffusers or as the single-file layout
counts; or as diffusers and peft do, `unet.` and the name. Other methods (LoHa, LoKr, DoRA ...) are refused by their name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from errors import CheckpointError
from pipelines.families import Tensors, known_as, read_safetensors_header
from pipelines.ldm import unet_names

Shape = tuple[int, ...]
Shapes = Mapping[str, Mapping[str, Shape]]  # of each part's tensors
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
_WIDTHS = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 2048: "Stable Diffusion XL"}  # of the text that a UNet attends to
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


@dataclass(frozen=True)
class Lora:
    """A file that fits a model, and how strongly it is to change it: `changes` by part and by the name of the weight."""

    path: Path
    strength: float
    changes: dict[tuple[str, str], Change]


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
    by_width = [_WIDTHS[width] for down in downs for width in tensors[down].shape[1:2] if width in _WIDTHS]
    return by_width[0] if by_width else next((model for model, pattern in _OTHER_MODELS.items() if _any(pattern, tensors)), "")


def match(file: LoraFile, strength: float, shapes: Shapes) -> Lora:
    """Raises CheckpointError if a change belongs to no weight of these parts, or does not fit it, saying what the LoRA and the
    checkpoint are for."""
    weights, changes = _names_of_weights(shapes), {}
    unknown = [layer for layer in file.changes if _plain(layer) not in weights]
    if unknown:
        problem = f"{file.path.name} changes {len(unknown)} of {len(file.changes)} layers that the checkpoint does not have"
        raise CheckpointError(f"{problem}, first {unknown[0]!r}{_mismatch(file, shapes)}.", "Choose a LoRA for this checkpoint.")
    for layer, change in file.changes.items():
        part, weight = weights[_plain(layer)]
        if not _fits(change, shapes[part][weight], file.tensors):
            factors = " and ".join(str(list(file.tensors[name].shape)) for name in (change.up, change.down))
            problem = f"{file.path.name} does not fit: {layer!r} has {factors} for a weight of {list(shapes[part][weight])}"
            raise CheckpointError(f"{problem}{_mismatch(file, shapes)}.", "Choose a LoRA for this checkpoint.")
        if (part, weight) in changes:
            raise CheckpointError(f"{file.path.name} changes a layer twice, under two names, one {layer!r}.", "Copy or download it again.")
        changes[part, weight] = change
    return Lora(file.path, strength, changes)


def _mismatch(file: LoraFile, shapes: Shapes) -> str:
    width = next((shape[1] for name, shape in shapes["unet"].items() if name.endswith("attn2.to_k.weight")), 0)
    checkpoint = _WIDTHS.get(width, "of another kind")
    if not file.made_for:
        return f": what it was made for cannot be told, the checkpoint is {checkpoint}"
    return f": it seems to be made for {file.made_for}, the checkpoint is {checkpoint}" if file.made_for != checkpoint else ""


def _plain(layer: str) -> str:
    """Without what diffusers' attention processors of 2023 put into names."""
    layer = layer.replace(".processor.", ".")
    return f"{layer}.0" if layer.endswith(".to_out") else layer


def _names_of_weights(shapes: Shapes) -> dict[str, tuple[str, str]]:
    """All the names that files give to a weight of linear layers and convolutions: to its part and its name there."""
    found = {}
    for part, tensors in shapes.items():
        layers = [name.removesuffix(".weight") for name, shape in tensors.items() if name.endswith(".weight") and len(shape) in (2, 4)]
        for layer, names in _unet_aliases(layers) if part == "unet" else _text_aliases(part, layers):
            found |= dict.fromkeys(names, (part, f"{layer}.weight"))
    return found


def _unet_aliases(layers: list[str]) -> Iterable[tuple[str, list[str]]]:
    counted = unet_names([f"{layer}." for layer in layers])
    for layer in layers:
        single_file = counted[f"{layer}."].removesuffix(".")
        kohya = [f"lora_unet_{name.replace('.', '_')}" for name in (layer, single_file)]
        yield layer, [*kohya, layer, f"unet.{layer}", f"diffusion_model.{single_file}"]


def _text_aliases(part: str, layers: list[str]) -> Iterable[tuple[str, list[str]]]:
    prefixes = ["lora_te2_"] if part == "text_encoder_2" else ["lora_te1_", "lora_te_"]
    for layer in layers:
        inner = layer.removeprefix("text_model.")
        outer = inner if inner == "text_projection" else f"text_model.{inner}"
        yield layer, [*(f"{prefix}{outer.replace('.', '_')}" for prefix in prefixes), f"{part}.{outer}", f"{part}.{inner}"]


def _fits(change: Change, weight: Shape, tensors: Tensors) -> bool:
    """up (out, rank), down (rank, in, *kernel), with as many 1s after as they like; mid (rank, rank, *kernel)."""
    up, down = tensors[change.up].shape, tensors[change.down].shape
    kernel = weight[2:]
    if change.mid:
        if len(weight) != 4 or tensors[change.mid].shape != (prod(up[1:]), change.rank, *kernel):
            return False
        return up[:1] == weight[:1] and prod(down[1:]) == weight[1]
    is_aligned = len(down) < 4 or not kernel or down[1:] == weight[1:]
    return up[:1] == weight[:1] and prod(up[1:]) == change.rank and prod(down[1:]) == prod(weight[1:]) and is_aligned


@torch.no_grad()
def merge(part: str, model: nn.Module, loras: Sequence[Lora]) -> None:
    """Adds to each weight of a part what the files say, one after the other in float32; it is rounded to the weight's type once.
    Raises CheckpointError if a file cannot be read."""
    with ExitStack() as opened:
        files = {lora.path: _open(lora.path, opened) for lora in loras}
        for name in dict.fromkeys(name for lora in loras for owner, name in lora.changes if owner == part):
            weight = model.get_parameter(name)
            changed = weight.float()
            for lora in loras:
                if (part, name) in lora.changes and lora.strength != 0:
                    change = _product(files[lora.path], lora.changes[part, name], lora.strength)
                    changed = changed + change.reshape(weight.shape).to(weight.device)
            if not changed.isfinite().all():
                names = ", ".join(lora.path.name for lora in loras)
                raise CheckpointError(f"{names} makes numbers that are not finite of {name!r}.", "Copy or download it again.")
            weight.data = changed.to(weight.dtype)  # not in place: what was read may be shared


def _open(path: Path, opened: ExitStack) -> Any:
    try:
        return opened.enter_context(safe_open(path, framework="pt"))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path.name} cannot be read: {error}.", "Copy or download it again.") from error


def _product(file: Any, change: Change, strength: float) -> Tensor:
    """strength * alpha / rank * up @ down; without alpha it is the rank."""
    up, down = (file.get_tensor(name).float().flatten(1) for name in (change.up, change.down))
    scale = strength * (float(file.get_tensor(change.alpha)) / change.rank if change.alpha else 1.0)
    if change.mid:
        return scale * torch.einsum("oa,abhw,bi->oihw", up, file.get_tensor(change.mid).float(), down)
    return scale * (up @ down)
