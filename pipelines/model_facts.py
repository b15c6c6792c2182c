"""What a model file is, told from its header: kind, family, whether it is whole. Neither weights nor PyTorch are needed for that.

"complete" means that the header is sound, that the file is as long as it says, and that a checkpoint has its UNet, its encoder and its
autoencoder. `app.py doctor` compares every single tensor besides.
"""

from __future__ import annotations

import json
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path

from errors import CheckpointError
from pipelines.families import PICKLES, identify, read_safetensors_header
from pipelines.folders import describe_folder
from pipelines.lora_files import inspect_lora
from pipelines.model_files import file_key
from pipelines.vae import describe_vae

TITLES = {"sd1": "Stable Diffusion 1", "sd2": "Stable Diffusion 2", "sdxl": "Stable Diffusion XL", "svd": "Stable Video Diffusion"}
_OWN = "stillmotion"


@dataclass(frozen=True)
class Facts:
    """`kind`: still, motion, vae, lora, or "" if nobody knows. `family`: sd1, sd2, sdxl, svd, stillmotion (its architecture is in the
    file), diffusers (a folder), or "". `state`: complete, damaged, or unknown: it is something that is not used here. `problem` and
    `hint` say why it is not complete."""

    kind: str = ""
    family: str = ""
    title: str = ""
    bytes: int = 0
    state: str = "complete"
    problem: str = ""
    hint: str = ""


class KnownFacts:
    """Headers are read once, and again when a file changes."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[Hashable, Facts]] = {}

    def of(self, path: Path, folder: str) -> Facts:
        """`folder`: checkpoints, vae or loras. Raises nothing: what is wrong is a fact."""
        try:
            key = file_key(path, folder)
        except CheckpointError as error:
            return Facts(state="damaged", problem=error.message, hint=error.hint)
        kept = self._known.get(path)
        if kept is None or kept[0] != key:
            kept = self._known[path] = (key, facts_of(path, folder))
        return kept[1]

    def keep_only(self, paths: set[Path]) -> None:
        for gone in {*list(self._known)} - paths:  # a copy, since others may be reading headers meanwhile
            self._known.pop(gone, None)


def facts_of(path: Path, folder: str) -> Facts:
    """Raises nothing."""
    if path.suffix in PICKLES:
        problem = f"{path.name} is a pickle file, which can run code when it is opened."
        return Facts("", "", "", _size(path), "unknown", problem, "Use the .safetensors version of this model.")
    try:
        if not path.is_dir():
            read_safetensors_header(path)
    except CheckpointError as error:
        return Facts("", "", "", _size(path), "damaged", error.message, error.hint)
    try:
        return {"vae": _vae, "loras": _lora}.get(folder, _checkpoint)(path)
    except CheckpointError as error:  # sound as a file; in a folder that is a model, something is missing
        return Facts("", "", "", _size(path), "damaged" if path.is_dir() else "unknown", error.message, error.hint)


def _checkpoint(path: Path) -> Facts:
    if path.is_dir():
        described, _, homes = describe_folder(path)
        size = sum(_size(file) for file in {file for file, _ in homes.values()})
        return Facts(described["kind"], "diffusers", described["name"], size)
    tensors, metadata = read_safetensors_header(path)
    if _OWN in metadata:
        return _own(path, metadata[_OWN], list(tensors))
    family = identify(path.name, tensors)
    return Facts("motion" if family == "svd" else "still", family, TITLES[family], _size(path))


def _own(path: Path, described: str, tensors: list[str]) -> Facts:
    """A file that carries its architecture."""
    try:
        document = json.loads(described)
        kind, name, parts = document["kind"], str(document["name"]), list(document["components"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path.name} is of an unknown family: its metadata describes no model.", "Get it again.") from error
    if kind not in ("still", "motion"):
        raise CheckpointError(f"{path.name} is of the unknown kind {str(kind)[:50]!r}.", "Known are: still, motion.")
    found = {tensor.split(".", 1)[0] for tensor in tensors}
    if missing := [part for part in parts if part not in found]:
        problem = f"{path.name} lacks: {', '.join(missing)}."
        return Facts(kind, _OWN, name, _size(path), "damaged", problem, "Copy or download it again.")
    return Facts(kind, _OWN, name, _size(path))


def _vae(path: Path) -> Facts:
    describe_vae(path)
    return Facts("vae", "", "VAE", _size(path))


def _lora(path: Path) -> Facts:
    made_for = inspect_lora(path).made_for
    family = next((family for family, title in TITLES.items() if title == made_for), "")
    return Facts("lora", family, f"LoRA for {made_for}" if made_for else "LoRA", _size(path))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0
