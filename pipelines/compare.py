"""How alike two files are: PSNR of pictures, and of films frame by frame."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

from errors import UnreadableFileError
from pipelines.picture import read_picture
from pipelines.read_video import MAX_BYTES, read_video

VIDEOS = (".mp4", ".webm", ".mov", ".mkv")
ANIMATIONS = (".webp", ".gif")


@dataclass(frozen=True)
class Likeness:
    """Of two files; pairs are the first's and the second's. `psnr` is in dB over all frames that both have, `worst_psnr` that of the frame
    that differs most; None where they are identical, or where their sizes differ and nothing can be said."""

    is_identical: bool
    sizes: tuple[tuple[int, int], tuple[int, int]]
    frames: tuple[int, int]
    psnr: float | None = None
    worst_psnr: float | None = None


def compare(one: Path, other: Path) -> Likeness:
    """Both are pictures, or both films. Raises UnreadableFileError."""
    first, second = read_frames(one), read_frames(other)
    frames = len(first), len(second)
    sizes = (first.shape[2], first.shape[1]), (second.shape[2], second.shape[1])
    if sizes[0] != sizes[1]:
        return Likeness(False, sizes, frames)
    psnr, worst = psnr_of(first, second)
    return Likeness(frames[0] == frames[1] and worst is None, sizes, frames, psnr, worst)


def psnr_of(first: np.ndarray, second: np.ndarray) -> tuple[float | None, float | None]:
    """Of two films in 0..1, (frames, height, width, 3), in dB: over all frames that both have, and of the frame that differs most. None
    where they are identical."""
    errors = [_squared_error(a, b) for a, b in zip(first, second, strict=False)]
    return _psnr(sum(errors) / len(errors)), _psnr(max(errors))


def read_frames(path: Path) -> np.ndarray:
    """(frames, height, width, 3) float32 in 0..1, one frame of a picture. Raises UnreadableFileError."""
    suffix = path.suffix.lower()
    if suffix in VIDEOS:
        return read_video(path)[0]
    return _animation(path) if suffix in ANIMATIONS else read_picture(path)[None]


def _animation(path: Path) -> np.ndarray:
    try:
        with Image.open(path, formats=("WEBP", "GIF")) as image:
            most = MAX_BYTES // (image.width * image.height * 12)
            if getattr(image, "n_frames", 1) > most:
                raise UnreadableFileError(f"{path.name} has more than {most} frames.", "It is too long to be compared.")
            frames = [np.asarray(frame.convert("RGB"), np.float32) / 255 for frame in ImageSequence.Iterator(image)]
    except FileNotFoundError as error:
        raise UnreadableFileError(f"There is no file {path}.", "Check the path.") from error
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise UnreadableFileError(f"{path.name} cannot be read as an animation: {error}.", "Use a WEBP or GIF.") from error
    return np.stack(frames)


def _squared_error(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.square(one - other, dtype=np.float64).mean())


def _psnr(squared_error: float) -> float | None:
    return round(-10 * math.log10(squared_error), 2) if squared_error else None
