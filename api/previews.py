"""Pictures for looking at: smaller to send, or only their colours, or only their transparency."""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from errors import UnreadableFileError

MAX_PIXELS = 100_000_000
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM")  # no others: some start programs of their own
_BROKEN = (  # what decoders raise at damaged files
    OSError, SyntaxError, ValueError, RuntimeError, EOFError, TypeError, LookupError, OverflowError, struct.error,
    Image.DecompressionBombError,
)  # fmt: skip


@dataclass(frozen=True)
class Wish:
    """`form`: webp or jpeg for a preview of this quality, "" for a PNG of `channel` (rgb, a), or with rgba the file as it is. `side`: a
    preview is no larger than this, wide or high; 0 is no bound."""

    form: str = ""
    quality: int = 90
    channel: str = "rgba"
    side: int = 0

    @property
    def is_file(self) -> bool:
        return not self.form and self.channel == "rgba"

    @property
    def tag(self) -> str:
        side = f"-{self.side}" if self.side else ""
        return "" if self.is_file else f"-{self.form}{self.quality if self.form else ''}{self.channel}{side}"


def converted(path: Path, wish: Wish) -> tuple[bytes, str]:
    """Of an animation the first frame; and its content type. Raises UnreadableFileError."""
    form = wish.form or "png"
    with opened(path) as image:
        try:
            picture = image if wish.form else _channel(image, wish.channel)
            picture = picture.convert("RGB" if form == "jpeg" or not _has_alpha(picture) else "RGBA")
            if wish.form and wish.side:
                picture.thumbnail((wish.side, wish.side))
            made = io.BytesIO()
            picture.save(made, form, **({"quality": wish.quality} if wish.form else {}))
        except _BROKEN as error:
            raise _unreadable(path.name, error) from error
    return made.getvalue(), f"image/{form}"


def opened(path: Path, name: str = "") -> Image.Image:
    """A picture whose size has been looked at. Raises UnreadableFileError, in which it is called `name`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is the one that counts
            image = Image.open(path, formats=FORMATS)
    except _BROKEN as error:
        raise _unreadable(name or path.name, error) from error
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise UnreadableFileError(f"{name or path.name} has {image.width}x{image.height} pixels.", f"{MAX_PIXELS} are the most.")
    return image


def check_picture(path: Path, name: str) -> None:
    """Whether it can be read to its end. Raises UnreadableFileError."""
    with opened(path, name) as image:
        try:
            image.load()
        except _BROKEN as error:
            raise _unreadable(name, error) from error


def with_mask(path: Path, mask: Path, target: Path) -> None:
    """The picture with the mask's transparency, as PNG. Raises UnreadableFileError."""
    with opened(path) as image, opened(mask, "The mask") as other:
        try:
            whole, alpha = image.convert("RGBA"), other.convert("RGBA").getchannel("A")
            whole.putalpha(alpha if alpha.size == whole.size else alpha.resize(whole.size))
            whole.save(target, "PNG", compress_level=4)
        except _BROKEN as error:
            raise _unreadable(path.name, error) from error


def _channel(image: Image.Image, channel: str) -> Image.Image:
    if channel == "rgb":
        return image.convert("RGB")
    alpha = image.convert("RGBA").getchannel("A")
    shown = Image.new("RGBA", image.size)
    shown.putalpha(alpha)
    return shown


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info


def _unreadable(name: str, error: Exception) -> UnreadableFileError:
    reason = "it is no picture of a known kind" if "cannot identify" in str(error) else str(error)[:100]
    return UnreadableFileError(f"{name} cannot be read as a picture: {reason}.", "Use a PNG, JPEG or WEBP.")
