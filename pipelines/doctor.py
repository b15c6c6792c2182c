"""Look over the machine, the libraries, the data directory and the model files: what works, what does not, what to do about it.

Nothing is loaded and nothing is changed, but for a probe file in the data directory that is gone at once.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from errors import StillmotionError

MINIMUM_PYTHON = (3, 11)
LIBRARIES = ("torch", "diffusers", "transformers", "safetensors", "numpy", "scipy", "torchsde", "pillow", "imageio-ffmpeg", "tqdm")
ROOM = 2 * 2**30  # bytes that the data directory should have left
MAKES = {"still": "stills from prompts", "motion": "films from stills"}


@dataclass(frozen=True)
class Finding:
    """`level`: "ok", "note" (works, but could be better) or "bad" (a film cannot be made, or a file cannot be used)."""

    subject: str
    level: str
    found: str
    advice: str = ""


def examine(data_dir: Path) -> Iterator[Finding]:
    """Everything, one finding after the other. Raises nothing: what cannot be examined is a finding."""
    yield _python()
    libraries = [_library(name) for name in LIBRARIES]
    yield from libraries
    yield from _data_directory(data_dir)
    if all(finding.level == "ok" for finding in libraries):
        yield from _device()
        yield _ffmpeg()
        yield from _checkpoints(data_dir / "models")
        yield from _vaes(data_dir / "models" / "vae")
        yield from _loras(data_dir / "models" / "loras")


def _python() -> Finding:
    version = platform.python_version_tuple()
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if tuple(map(int, version[:2])) < MINIMUM_PYTHON:
        return Finding("Python", "bad", found, f"Use Python {'.'.join(map(str, MINIMUM_PYTHON))} or newer.")
    return Finding("Python", "ok", found)


def _library(name: str) -> Finding:
    try:
        return Finding(name, "ok", importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "bad", "not installed", "Run: pip install -r requirements.txt")


def _device() -> Iterator[Finding]:
    import torch

    from pipelines import memory

    has_cuda = torch.cuda.is_available()
    if has_cuda:
        properties = torch.cuda.get_device_properties(0)
        yield Finding("CUDA", "ok", f"{torch.version.cuda}, {properties.name}, {properties.total_memory / 2**30:.1f} GiB")
    else:
        built = f"PyTorch for CUDA {torch.version.cuda} finds no card" if torch.version.cuda else "PyTorch is built without it"
        advice = "The CPU is used. With an NVIDIA card: pip install -r requirements-cuda.txt; nvidia-smi tells of its driver."
        yield Finding("CUDA", "note", built, "" if torch.backends.mps.is_available() else advice)
    try:
        placement = memory.choose_placement()
    except StillmotionError as error:
        yield Finding("device", "bad", error.message, error.hint)
        return
    advice = "Run: pip install -r requirements-cuda.txt" if has_cuda and importlib.util.find_spec("xformers") is None else ""
    yield Finding("device", "note" if advice else "ok", placement.reason, advice)


def _ffmpeg() -> Finding:
    import imageio_ffmpeg

    try:
        program = imageio_ffmpeg.get_ffmpeg_exe()
        said = subprocess.run([program, "-hide_banner", "-encoders"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        return Finding("ffmpeg", "bad", f"cannot be run: {error}", "Run: pip install --force-reinstall imageio-ffmpeg")
    if "libx264" not in said:
        return Finding("ffmpeg", "bad", f"{program} has no H.264 encoder", "Unset IMAGEIO_FFMPEG_EXE, or point it at a full ffmpeg.")
    return Finding("ffmpeg", "ok", f"{imageio_ffmpeg.get_ffmpeg_version()} with H.264")


def _data_directory(data_dir: Path) -> Iterator[Finding]:
    there = next(folder for folder in (data_dir.absolute(), *data_dir.absolute().parents) if folder.exists())
    will = "" if there == data_dir.absolute() else ", will be made at the first film"
    try:
        if not there.is_dir():
            raise NotADirectoryError(f"{there} is no directory")
        with tempfile.TemporaryFile(dir=there) as probe:
            probe.write(b"x")
    except OSError as error:
        yield Finding("data", "bad", f"{data_dir} cannot be written: {error.strerror or error}", "Choose another one with --data-dir.")
        return
    yield Finding("data", "ok", f"{data_dir.absolute()}{will}")
    free = shutil.disk_usage(there).free
    advice = "Free some space, or choose another data directory." if free < ROOM else ""
    yield Finding("disk", "note" if advice else "ok", f"{free / 2**30:.1f} GiB free", advice)


def _checkpoints(models_dir: Path) -> Iterator[Finding]:
    from pipelines import checkpoints, model_files

    usable = set()
    for name, path in model_files.list_checkpoints(models_dir).items():
        try:
            header = checkpoints.inspect(path)
            checkpoints.check_complete(header)
        except StillmotionError as error:
            yield Finding(name, "bad", error.message, error.hint)
            continue
        usable.add(header.kind)
        size, family = header.bytes() / 2**20, checkpoints.FAMILIES.get(header.family, header.name)
        yield Finding(name, "ok", f"{family}, {size:.0f} MiB, complete; makes {MAKES[header.kind]}")
    yield from _pickles(models_dir / "checkpoints")
    for kind in sorted(MAKES.keys() - usable):
        where = models_dir / "checkpoints"
        yield Finding(kind, "bad", f"no checkpoint makes {MAKES[kind]}", f"Restore assets/checkpoints with git, or put one into {where}.")


def _vaes(folder: Path) -> Iterator[Finding]:
    from pipelines import checkpoints, model_files

    for name, path in model_files.list_files(folder).items():
        try:
            header = checkpoints.inspect_vae(path)
            checkpoints.check_complete(header)
        except StillmotionError as error:
            yield Finding(f"vae/{name}", "bad", error.message, error.hint)
            continue
        yield Finding(f"vae/{name}", "ok", f"VAE for stills, {header.bytes() / 2**20:.0f} MiB, complete")
    yield from _pickles(folder, "vae/")


def _loras(folder: Path) -> Iterator[Finding]:
    from pipelines.lora_files import inspect_lora
    from pipelines.model_files import list_files

    for name, path in list_files(folder).items():
        try:
            file = inspect_lora(path)
        except StillmotionError as error:
            yield Finding(f"loras/{name}", "bad", error.message, error.hint)
            continue
        made_for = file.made_for or "a model that it does not tell"
        layers = f"{len(file.changes)} layer{'s' if len(file.changes) != 1 else ''}"
        found = (
            f"LoRA for {made_for}, {path.stat().st_size / 2**20:.0f} MiB, changes {layers}; whether it fits a checkpoint shows when used"
        )
        yield Finding(f"loras/{name}", "ok", found)
    yield from _pickles(folder, "loras/")


def _pickles(root: Path, prefix: str = "") -> Iterator[Finding]:
    from pipelines.families import PICKLES
    from pipelines.model_files import is_folder

    for folder, inside, files in os.walk(root):
        if is_folder(Path(folder)):  # a model that was examined as one; diffusers may keep pickles beside what is read
            inside.clear()
            continue
        for file in sorted(files):
            if Path(file).suffix in PICKLES:
                name = prefix + Path(folder, file).relative_to(root).as_posix()
                yield Finding(name, "bad", "a pickle file, which can run code when it is opened", "Use its .safetensors version.")
