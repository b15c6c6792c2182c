"""Where a job's files are: models, pictures that were given, results. A user's are in folders of their own; models are shared."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from errors import InputError, UnknownNameError
from pipelines.model_files import find, list_checkpoints, list_files

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".ppm")
FILMS = (".mp4", ".webm", ".mov", ".mkv")
MODEL_KINDS = {"checkpoints": "checkpoint", "vae": "VAE", "loras": "LoRA"}
_ANNOTATED = re.compile(r"(?P<name>.*?) \[(?P<type>input|output|temp)\]")


@dataclass(frozen=True)
class Folders:
    """Of one user (`owner`; "" is the one of a server without users) in one data directory."""

    data_dir: Path
    owner: str = ""

    def __post_init__(self) -> None:
        """Raises InputError for an owner whose folder would be somewhere else."""
        if self.owner.startswith(".") or re.search(r"[/\\\x00-\x1f\x7f]", self.owner) or len(self.owner.encode("utf-8", "replace")) > 200:
            raise InputError(f"The owner {self.owner[:100]!r} cannot have a folder.", "Use a name of letters, digits, '_' and '-'.")

    @property
    def models(self) -> Path:
        return self.data_dir / "models"

    def of(self, kind: str) -> Path:
        """`kind`: input, output or temp."""
        return self.data_dir / kind / self.owner if self.owner else self.data_dir / kind

    def names(self, kind: str) -> list[str]:
        """What may be chosen of a kind: checkpoints, vae, loras or input."""
        return sorted(self._pictures()) if kind == "input" else list(self._models(kind))

    def model(self, kind: str, name: str) -> Path:
        """Raises UnknownNameError, CheckpointError for formats that can run code."""
        return find(MODEL_KINDS[kind], name, self._models(kind))

    def picture(self, name: str) -> Path:
        """A given picture or film; "name [output]" is one of the results. Raises UnknownNameError, InputError for a way out."""
        annotated = _ANNOTATED.fullmatch(name)
        kind, relative = (annotated["type"], annotated["name"]) if annotated else ("input", name)
        path = inside(self.of(kind), relative)
        if not _is_file(path):
            raise UnknownNameError("picture", name[:200], self.names("input"))
        return path

    def _models(self, kind: str) -> dict[str, Path]:
        return list_checkpoints(self.models) if kind == "checkpoints" else list_files(self.models / kind)

    def _pictures(self) -> list[str]:
        root, found = self.of("input"), []
        for folder, _, names in os.walk(root):
            found += [Path(folder, name).relative_to(root).as_posix() for name in names if name.lower().endswith(PICTURES + FILMS)]
        return found


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long for the disk
        return False


def inside(folder: Path, relative: str) -> Path:
    """The path below the folder. Raises InputError if it leads out of it, by name or by a link."""
    if "\0" in relative:
        raise InputError(f"{relative!r} is no file name.")
    path = folder / relative
    try:
        is_inside = path.resolve().is_relative_to(folder.resolve())
    except OSError as error:
        raise InputError(f"{relative[:200]!r} is no file name.", "Use a shorter one.") from error
    if not is_inside:
        raise InputError(f"{relative!r} leads out of the folder.", "Use a name inside it.")
    return path
