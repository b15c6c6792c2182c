"""Read a picture that somebody gave, whatever its format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from errors import UnreadableFileError

_MAX_PIXELS = 100_000_000


def read_picture(path: Path) -> np.ndarray:
    """(height, width, 3) float32 in 0..1, turned upright, transparency on white; of an animation the first frame.

    Raises UnreadableFileError if the file is missing, is no picture, is damaged, or is larger than 100 million pixels.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise UnreadableFileError(f"{path.name} has {image.width}x{image.height} pixels.", "Scale it down first.")
            upright = ImageOps.exif_transpose(image)
            if upright.mode in ("I", "I;16", "F"):  # 16 bits a pixel: bring them to 8
                return np.repeat(_sixteen_bits(upright)[..., None], 3, axis=2)
            rgba = upright.convert("RGBA")
            flat = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    except FileNotFoundError as error:
        raise UnreadableFileError(f"There is no file {path}.", "Check the path.") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableFileError(f"{path} cannot be read as a picture: {error}.", "Use a PNG, JPEG or WEBP.") from error
    return np.asarray(flat, np.float32) / 255


def _sixteen_bits(image: Image.Image) -> np.ndarray:
    values = np.asarray(image, np.float32)
    return np.clip(values / (65535 if values.max(initial=0) > 255 else 255), 0, 1)
