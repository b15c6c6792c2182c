"""Which model files there are, and which of them a name means. Nothing of them is read; no torch here."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from errors import CheckpointError, UnknownNameError
from pipelines.families import PICKLES

ASSETS = Path(__file__).parent.parent / "assets"
BUNDLED = ASSETS / "checkpoints"
TOKENIZER = ASSETS / "clip_tokenizer"
DEMO_STILL, DEMO_MOTION = "stillmotion_demo_still.safetensors", "stillmotion_demo_motion.safetensors"
_BLOCK = 8 * 2**20
INDEX = "model_index.json"  # of a folder as diffusers saves it


def is_folder(path: Path) -> bool:
    """Whether it is a model as diffusers saves it."""
    return (path / INDEX).is_file()


def list_checkpoints(models_dir: Path) -> dict[str, Path]:
    """Names as people give them (relative to `checkpoints`, with `/`) to files; the bundled demo checkpoints come last."""
    own = list_files(models_dir / "checkpoints")
    return own | {name: BUNDLED / name for name in (DEMO_STILL, DEMO_MOTION) if name not in own and (BUNDLED / name).is_file()}


def list_files(folder: Path) -> dict[str, Path]:
    """Names relative to the folder, with `/`, to files."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(_models_below(folder))}


def _models_below(folder: Path) -> Iterator[Path]:
    """Links are followed, each folder once: a link may lead back up. A folder that is a model is not looked into."""
    seen = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        real = Path(root).resolve()
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        if is_folder(Path(root)):
            folders.clear()
            yield Path(root)
        else:
            yield from (Path(root, name) for name in names if name.endswith(".safetensors"))


def look_ahead(paths: Iterable[Path]) -> None:
    """Read these models through, so that the system has them in its cache of files: in memory that nothing else needs."""
    block = bytearray(_BLOCK)
    for path in paths:
        for part in path.rglob("*.safetensors") if path.is_dir() else (path,):
            with suppress(OSError), part.open("rb", buffering=0) as file:  # what is wrong with it is said to who wants it
                while file.readinto(block):
                    pass


def find_checkpoint(name: str, models_dir: Path) -> Path:
    """Raises UnknownNameError with what is there, CheckpointError for formats that can run code."""
    return find("checkpoint", name, list_checkpoints(models_dir))


def find(kind: str, name: str, known: dict[str, Path]) -> Path:
    """The same of any kind of model, among those that are known."""
    if Path(name).suffix in PICKLES:
        raise CheckpointError(
            f"{name} is a pickle file, which can run code when it is opened.", "Use the .safetensors version of this model."
        )
    if name not in known:
        raise UnknownNameError(kind, name, known)
    return known[name]


def file_key(path: Path, *settings: Hashable) -> Hashable:
    """Changes when the file, or a file of the folder, is replaced. Raises CheckpointError if it is gone."""
    try:
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        stamps = tuple((str(file), status.st_size, status.st_mtime_ns) for file in files for status in [file.stat()])
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror}.", "Was it moved meanwhile? Copy it there again.") from error
    return (stamps, *settings)
