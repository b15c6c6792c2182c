"""LoRAs: changes of low rank to a model's weights, W + strength * alpha / rank * up @ down (Hu et al. 2021, arXiv 2106.09685).

The story: `lora_files` says what a file holds, from its header alone; `match` finds for every change the weight that it belongs to,
and none may be left over: half a LoRA would be another LoRA. `merge` adds the changes of all files to a part's weights when they have been
read; so sampling costs nothing more, and the numbers are ComfyUI's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from errors import CheckpointError
from pipelines.families import Tensors
from pipelines.ldm import unet_names
from pipelines.lora_files import WIDTHS, Change, LoraFile

Shape = tuple[int, ...]
Shapes = Mapping[str, Mapping[str, Shape]]  # of each part's tensors


@dataclass(frozen=True)
class Lora:
    """A file that fits a model, and how strongly it is to change it: `changes` by part and by the name of the weight."""

    path: Path
    strength: float
    changes: dict[tuple[str, str], Change]


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
    checkpoint = WIDTHS.get(width, "of another kind")
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
