"""Read a picture that somebody gave, whatever its format."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from errors import UnreadableFileError

_MAX_PIXELS = 100_000_000
_MAX_ASPECT = 100
_FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM")  # no others: some start programs of their own


def read_picture(path: Path) -> np.ndarray:
    """(height, width, 3) float32 in 0..1, turned upright, transparency on white; of an animation the first frame.

    Raises UnreadableFileError if the file is missing, is no picture, is damaged, has more than 100 million pixels or is a mere line.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is the one that counts
            with Image.open(path, formats=_FORMATS) as image:
                _check_size(path, *image.size)
                upright = ImageOps.exif_transpose(image)
                if upright.mode.startswith(("I", "F")):
                    return np.repeat(_deep(upright)[..., None], 3, axis=2)
                rgba = upright.convert("RGBA")
                flat = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    except FileNotFoundError as error:
        raise UnreadableFileError(f"There is no file {path}.", "Check the path.") from error
    except (OSError, SyntaxError, ValueError, RuntimeError, Image.DecompressionBombError) as error:
        raise UnreadableFileError(f"{path} cannot be read as a picture: {error}.", "Use a PNG, JPEG or WEBP.") from error
    return np.asarray(flat, np.float32) / 255


def picture_size(path: Path) -> tuple[int, int]:
    """(width, height) as it is seen, told from its header. Raises UnreadableFileError."""
    try:
        with Image.open(path, formats=_FORMATS) as image:
            is_turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            return image.size[::-1] if is_turned else image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableFileError(f"{path} cannot be read as a picture: {error}.", "Use a PNG, JPEG or WEBP.") from error


def read_mask(path: Path) -> np.ndarray:
    """(height, width) float32: 1 where a picture that can be read is transparent, 0 everywhere in one that knows no transparency."""
    with Image.open(path, formats=_FORMATS) as image:
        alpha = ImageOps.exif_transpose(image).convert("RGBA").getchannel("A")
    return 1 - np.asarray(alpha, np.float32) / 255


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > _MAX_PIXELS:
        raise UnreadableFileError(f"{path.name} has {width}x{height} pixels; 100 million are the most.", "Scale it down first.")
    if max(width, height) > _MAX_ASPECT * min(width, height):
        raise UnreadableFileError(f"{path.name} is a line of {width}x{height} pixels.", "Use a picture that is less narrow.")


def _deep(image: Image.Image) -> np.ndarray:
    """Sixteen-bit integers count to 65535, floats to 1 (or to 255, as some programs write them)."""
    values = np.nan_to_num(np.asarray(image, np.float32), posinf=0, neginf=0)
    largest = (1 if values.max(initial=0) <= 1 else 255) if image.mode == "F" else 65535
    return np.clip(values / largest, 0, 1)
