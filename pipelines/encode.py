"""Frames -> MP4, WEBM, GIF, PNG, animated PNG and WEBP; every file is decoded again before it gets its name.

The files are ComfyUI's and VideoHelperSuite's, down to how a float becomes a byte: PNG and WEBP cut off, the others round, so one
frame may differ by 1 between them. Settings travel inside (see metadata.py), unless `metadata` is None: then the file carries
nothing of them. `path` is a Path, or a NumberedName from `next_name`, which takes its number when the file is finished.
"""

from __future__ import annotations

import io
import logging
import numbers
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from errors import InputError, UnknownNameError
from pipelines import codecs
from pipelines.filenames import GivenName, NumberedName, publish
from pipelines.metadata import Metadata, comment, exif, ffmetadata, png_info, tags, to_texts
from pipelines.parameters import VIDEO_FORMATS
from pipelines.probe import probe, run_ffmpeg

logger = logging.getLogger(__name__)

WEBP_METHODS = {"default": 4, "fastest": 0, "slowest": 6}
FPS_RANGE = (0.01, 240)
GIF_FPS_RANGE = (0.01, 50)  # browsers show what is faster at 10
_GIF_SIDE, _GIF_SECONDS = 65535, 655  # the format's 16 bits; pictures that repeat are stored as one, so the whole film has to fit
_GIF_SAMPLE = 32768  # pixels that a palette is made of; more take longer and mend next to nothing
_WEBP_SIDE = 16383  # the container's 14 bits
_WEBP_TOLERANCE = 32  # between two frames libwebp takes colours for equal that are up to 32 apart, the more the lower the quality


def to_uint8(frames: np.ndarray, rounding: bool) -> np.ndarray:
    """Floats in 0..1 to bytes, clipped, of any shape: to the nearest or, as ComfyUI does for PNG and WEBP, cut off."""
    out = np.empty(frames.shape, np.uint8)
    for source, target in zip(frames, out, strict=True):  # one frame at a time: a film of floats is large
        scaled = np.asarray(source, np.float32) * np.float32(255) + np.float32(0.5 if rounding else 0)
        target[...] = np.clip(scaled, 0, 255).astype(np.uint8)
    return out


def save_png(still: np.ndarray, path: Path | GivenName | NumberedName, metadata: Metadata | None) -> Path:
    """Write a still, (height, width, 3) floats in 0..1. Returns the file's path; errors as `save_video`."""
    pixels = to_uint8(_checked(still, 3), rounding=False)
    texts = to_texts(metadata)

    def write(part: Path) -> None:
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, "PNG", pnginfo=png_info(texts), compress_level=4)
        part.write_bytes(data.getvalue())
        height, width, _ = pixels.shape
        probe(part, frames=1, width=width, height=height, first=pixels, last=pixels, tolerance=0, metadata=metadata)

    return _published(path, ".png", write)


def save_webp(
    frames: np.ndarray,
    path: Path | GivenName | NumberedName,
    *,
    fps: float,
    lossless: bool = False,
    quality: float = 85,
    method: str = "default",
    metadata: Metadata | None,
) -> Path:
    """Write an animated WEBP that repeats for ever. Returns the file's path; errors as `save_video`.

    frames: (frames, height, width, 3), floats in 0..1. Each is shown for int(1000 / fps) milliseconds, as in ComfyUI: the
    format knows no fractions. Pictures that do not change are stored once, with the longer duration, so players show the
    same film; one that never changes becomes a still. quality 0..100; with lossless it means effort.
    """
    _check_number("fps", fps, *FPS_RANGE)
    _check_number("quality", quality, 0, 100)
    if method not in WEBP_METHODS:
        raise UnknownNameError("WEBP method", method, WEBP_METHODS)
    pixels = to_uint8(_checked(frames, 4), rounding=False)
    _, height, width, _ = pixels.shape
    if max(height, width) > _WEBP_SIDE:
        raise InputError(f"A WEBP cannot be {width}x{height} pixels.", f"A side may have {_WEBP_SIDE}.")
    texts = to_texts(metadata)

    def write(part: Path) -> None:
        first, *others = (Image.fromarray(picture) for picture in pixels)
        options = {"lossless": lossless, "quality": quality, "method": WEBP_METHODS[method], "exif": exif(texts)}
        data = io.BytesIO()
        first.save(data, "WEBP", save_all=True, append_images=others, duration=int(1000 / fps), **options)
        part.write_bytes(data.getvalue())
        expected = {"frames": len(pixels), "width": width, "height": height, "fps": fps, "metadata": metadata}
        probe(part, first=pixels[0], last=pixels[-1], tolerance=0 if lossless else _WEBP_TOLERANCE, **expected)

    return _published(path, ".webp", write)


def save_apng(
    frames: np.ndarray, path: Path | GivenName | NumberedName, *, fps: float, compress_level: int = 4, metadata: Metadata | None
) -> Path:
    """Write an animated PNG, without loss, that repeats for ever. Returns the file's path; errors as `save_video`.

    frames: (frames, height, width, 3), floats in 0..1. compress_level: 0 (none) to 9. The rate is kept as a fraction. Pictures that do
    not change are stored once, with the longer duration; one that never changes becomes a still.
    """
    _check_number("fps", fps, *FPS_RANGE)
    _check_number("compress_level", compress_level, 0, 9, is_whole=True)
    pixels = to_uint8(_checked(frames, 4), rounding=False)
    texts = to_texts(metadata)

    def write(part: Path) -> None:
        first, *others = (Image.fromarray(picture) for picture in pixels)
        options = {"duration": 1000 / fps, "loop": 0, "pnginfo": png_info(texts), "compress_level": compress_level}
        data = io.BytesIO()
        first.save(data, "PNG", save_all=True, append_images=others, **options)
        part.write_bytes(data.getvalue())
        count, height, width, _ = pixels.shape
        expected = {"frames": count, "width": width, "height": height, "fps": fps, "metadata": metadata}
        probe(part, first=pixels[0], last=pixels[-1], tolerance=0, repeats=0, **expected)

    return _published(path, ".png", write)


def save_gif(
    frames: np.ndarray,
    path: Path | GivenName | NumberedName,
    *,
    fps: float,
    loop_count: int = 0,
    pingpong: bool = False,
    metadata: Metadata | None,
) -> Path:
    """Write a GIF in the 256 colours that suit the whole film. Returns the file's path; errors as `save_video`.

    frames: (frames, height, width, 3), floats in 0..1. GIF counts in hundredths of a second: each frame ends at the one that is nearest
    to its true end, so the film is as long as it should be. loop_count: 0 repeats for ever, else that many times more. pingpong appends
    the inner frames backwards. Pictures that do not change are stored once, with the longer duration.
    """
    _check_number("fps", fps, *GIF_FPS_RANGE, "Browsers slow down what is faster than 50.")
    _check_number("loop_count", loop_count, 0, 100, is_whole=True)
    pixels = to_uint8(_checked(frames, 4), rounding=True)
    count, height, width, _ = pixels.shape
    order = _order(count, pingpong)
    if max(height, width) > _GIF_SIDE:
        raise InputError(f"A GIF cannot be {width}x{height} pixels.", f"A side may have {_GIF_SIDE}.")
    if len(order) / fps > _GIF_SECONDS:
        raise InputError(f"The GIF would last {len(order) / fps:.0f} seconds; {_GIF_SECONDS} are the most.", "Use another format.")
    texts = to_texts(metadata)

    def write(part: Path) -> None:
        palette = _palette(pixels)
        pictures = [Image.fromarray(picture).quantize(palette=palette) for picture in pixels]
        first, *others = (pictures[index] for index in order)
        ends = [round(100 * end / fps) for end in range(len(order) + 1)]
        options = {"duration": [10 * (end - start) for start, end in pairwise(ends)], "loop": loop_count}
        data = io.BytesIO()
        first.save(data, "GIF", save_all=True, append_images=others, optimize=False, comment=comment(texts), **options)
        part.write_bytes(data.getvalue())
        expected = {"frames": len(order), "width": width, "height": height, "fps": fps, "metadata": metadata}
        probe(part, first=pixels[order[0]], last=pixels[order[-1]], repeats=loop_count, **expected)

    return _published(path, ".gif", write)


def save_video(
    frames: np.ndarray,
    path: Path | GivenName | NumberedName,
    *,
    format: str,
    fps: float,
    crf: int | None = None,
    pix_fmt: str | None = None,
    pingpong: bool = False,
    loop_count: int = 0,
    metadata: Metadata | None,
) -> Path:
    """Write a film in one of VIDEO_FORMATS: constant frame rate, BT.709, limited range, index first so that it plays while it loads.

    frames: (frames, height, width, 3), floats in 0..1; an odd side gets its edge pixels twice, since 4:2:0 needs even ones.
    crf: 0 (for H.264 lossless, which most browsers do not play) to the format's largest; None is the format's own. pix_fmt: None is the
    format's own; yuva420p is opaque all over. pingpong appends the inner frames backwards; loop_count appends the whole film that many
    times more (0..100). Returns the file's path.

    Raises InputError or UnknownNameError before any work for a value that is wrong (or if the file exists), StorageError if
    the folder does not take the file, EncodingError if it does not read back as it was written; then there is no file.
    """
    # 1. Check everything.
    if format not in VIDEO_FORMATS:
        raise UnknownNameError("video format", format, VIDEO_FORMATS)
    video = VIDEO_FORMATS[format]
    crf = video.crf if crf is None else crf
    pix_fmt = video.pixel_formats[0] if pix_fmt is None else pix_fmt
    _check_number("fps", fps, *FPS_RANGE)
    why = f"The encoder of {format} knows nothing above {video.max_crf}."
    _check_number("crf", crf, 0, video.max_crf, why, is_whole=True)
    _check_number("loop_count", loop_count, 0, 100, is_whole=True)
    if pix_fmt not in video.pixel_formats:
        raise UnknownNameError("pixel format", pix_fmt, video.pixel_formats)
    pixels = _even(to_uint8(_checked(frames, 4), rounding=True))
    count, height, width, _ = pixels.shape
    if min(height, width) < video.min_side:
        raise InputError(f"{format} cannot be {width}x{height} pixels.", f"A side must have {video.min_side}.")
    texts = to_texts(metadata)

    # 2. Encode it, look at it, give it its name.
    order = _order(count, pingpong) * (1 + loop_count)

    def write(part: Path) -> None:
        with tempfile.NamedTemporaryFile("w", encoding="ascii", dir=part.parent, prefix=".", suffix=".part") as notes:
            notes.write(ffmetadata(tags(texts) if video.suffix == ".webm" else texts))
            notes.flush()
            arguments = codecs.arguments(video, width, height, fps, crf, pix_fmt, Path(notes.name), part)
            with run_ffmpeg(*arguments) as (process, _):
                for index in order:
                    process.stdin.write(pixels[index].data)
        expected = {"frames": len(order), "width": width, "height": height, "fps": fps, "metadata": metadata}
        probe(part, first=pixels[order[0]], last=pixels[order[-1]], codec=video.codec, pix_fmt=pix_fmt, **expected)

    return _published(path, video.suffix, write)


def played(frames: np.ndarray, *, pingpong: bool = False, loop_count: int = 0) -> np.ndarray:
    """Frames in the order in which they are seen."""
    return frames[_order(len(frames), pingpong) * (1 + loop_count)] if pingpong or loop_count else frames


def _order(count: int, pingpong: bool) -> list[int]:
    return [*range(count), *(range(count - 2, 0, -1) if pingpong else ())]


def _even(pixels: np.ndarray) -> np.ndarray:
    _, height, width, _ = pixels.shape
    if height % 2 or width % 2:
        pixels = np.pad(pixels, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return pixels


def _palette(pixels: np.ndarray) -> Image.Image:
    """256 colours for the whole film. Against those of ffmpeg's palettegen they halve what smooth areas are off, in a tenth of the time."""
    colours = pixels.reshape(-1, 3)
    sample = colours[np.linspace(0, len(colours) - 1, min(len(colours), _GIF_SAMPLE)).astype(int)]
    return Image.fromarray(sample[None]).quantize(256, method=Image.Quantize.MEDIANCUT, kmeans=1)


def _checked(frames: np.ndarray, dimensions: int) -> np.ndarray:
    """The frames as a float array, or InputError."""
    try:
        frames = np.asarray(frames)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"Frames must be an array in main memory: {error}.") from error
    shape = "x".join(map(str, frames.shape))
    if frames.ndim != dimensions or frames.shape[-1] != 3:
        wanted = "(frames, height, width, 3)" if dimensions == 4 else "(height, width, 3)"
        raise InputError(f"Frames of shape {shape or 'nothing'} cannot be written.", f"The shape must be {wanted}.")
    if not frames.size:
        raise InputError(f"There is nothing to write: the frames are {shape}.", "Give at least one frame of one pixel.")
    if frames.dtype.kind != "f":
        raise InputError(f"Frames of type {frames.dtype} cannot be written.", "Give floats in 0..1.")
    if not all(np.isfinite(frame).all() for frame in frames):
        raise InputError("The frames hold NaN or infinite values, so they are no pictures.")
    return frames


def _check_number(name: str, value: float, low: float, high: float, why: str = "", is_whole: bool = False) -> None:
    kind = numbers.Integral if is_whole else numbers.Real
    if not isinstance(value, kind) or not low <= value <= high:
        what = "a whole number" if is_whole else "a number"
        nearest = f"Use {min(max(value, low), high)}." if isinstance(value, kind) and value == value else ""
        raise InputError(f"{name} is {value!r}; it must be {what} from {low} to {high}.", f"{why} {nearest}".strip())


def _published(path: Path | GivenName | NumberedName, suffix: str, write: Callable[[Path], object]) -> Path:
    published = publish(path, suffix, write)
    logger.info("wrote %s", published)
    return published
