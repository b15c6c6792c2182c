"""Frames -> MP4, animated WEBP and PNG; every file is decoded again before it gets its name.

The files are ComfyUI's and VideoHelperSuite's, down to how a float becomes a byte: PNG and WEBP cut off, MP4 rounds, so one
frame may differ by 1 between them. Settings travel inside (see metadata.py), unless `metadata` is None: then the file carries
nothing of them. `path` is a Path, or a NumberedName from `next_name`, which takes its number when the file is finished.
"""

from __future__ import annotations

import io
import logging
import numbers
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from errors import InputError, UnknownNameError
from pipelines.filenames import NumberedName, publish
from pipelines.metadata import Metadata, exif, ffmetadata, png_info, to_texts
from pipelines.parameters import PIXEL_FORMATS
from pipelines.probe import EXACT_COLOURS, probe, run_ffmpeg

logger = logging.getLogger(__name__)

WEBP_METHODS = {"default": 4, "fastest": 0, "slowest": 6}
FPS_RANGE = (0.01, 240)
_WEBP_SIDE = 16383  # the container's 14 bits
_WEBP_TOLERANCE = 32  # between two frames libwebp takes colours for equal that are up to 32 apart, the more the lower the quality


def to_uint8(frames: np.ndarray, rounding: bool) -> np.ndarray:
    """Floats in 0..1 to bytes, clipped, of any shape: to the nearest (MP4) or, as ComfyUI does for PNG and WEBP, cut off."""
    out = np.empty(frames.shape, np.uint8)
    for source, target in zip(frames, out, strict=True):  # one frame at a time: a film of floats is large
        scaled = np.asarray(source, np.float32) * np.float32(255) + np.float32(0.5 if rounding else 0)
        target[...] = np.clip(scaled, 0, 255).astype(np.uint8)
    return out


def save_png(still: np.ndarray, path: Path | NumberedName, metadata: Metadata | None) -> Path:
    """Write a still, (height, width, 3) floats in 0..1. Returns the file's path; errors as `save_mp4`."""
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
    path: Path | NumberedName,
    *,
    fps: float,
    lossless: bool = False,
    quality: float = 85,
    method: str = "default",
    metadata: Metadata | None,
) -> Path:
    """Write an animated WEBP that repeats for ever. Returns the file's path; errors as `save_mp4`.

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


def save_video(
    frames: np.ndarray,
    path: Path | NumberedName,
    *,
    format: str = "video/h264-mp4",
    fps: float,
    crf: float = 20,
    pix_fmt: str = "yuv420p",
    pingpong: bool = False,
    loop_count: int = 0,
    metadata: Metadata | None,
) -> Path:
    """Write an H.264 film: constant frame rate, BT.709, limited range, index first so that it plays while it loads.

    frames: (frames, height, width, 3), floats in 0..1; an odd side gets its edge pixels twice, since 4:2:0 needs even ones.
    crf: 0 (lossless, which most browsers do not play) to 51. pingpong appends the inner frames backwards; loop_count appends
    the whole film that many times more (0..100). Returns the file's path.

    Raises InputError or UnknownNameError before any work for a value that is wrong (or if the file exists), StorageError if
    the folder does not take the file, EncodingError if it does not read back as it was written; then there is no file.
    """
    # 1. Check everything.
    crf, pix_fmt = 20 if crf is None else crf, pix_fmt or "yuv420p"
    _check_number("fps", fps, *FPS_RANGE)
    _check_number("crf", crf, 0, 51, "x264 knows nothing above 51 and would quietly use that.")
    _check_number("loop_count", loop_count, 0, 100, is_whole=True)
    if pix_fmt not in PIXEL_FORMATS:
        raise UnknownNameError("pixel format", pix_fmt, PIXEL_FORMATS)
    pixels = to_uint8(_checked(frames, 4), rounding=True)
    texts = to_texts(metadata)

    # 2. Lay out the film.
    count, height, width, _ = pixels.shape
    if height % 2 or width % 2:
        pixels = np.pad(pixels, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    height, width = pixels.shape[1:3]
    order = [*range(count), *(range(count - 2, 0, -1) if pingpong else ())] * (1 + loop_count)

    # 3. Encode it, look at it, give it its name.
    def write(part: Path) -> None:
        with tempfile.NamedTemporaryFile("w", encoding="ascii", dir=part.parent, prefix=".", suffix=".part") as notes:
            notes.write(ffmetadata(texts))
            notes.flush()
            arguments = _mp4_arguments(width, height, fps, crf, pix_fmt, Path(notes.name), part)
            with run_ffmpeg(*arguments) as (process, _):
                for index in order:
                    process.stdin.write(pixels[index].data)
        expected = {"frames": len(order), "width": width, "height": height, "fps": fps, "metadata": metadata}
        probe(part, first=pixels[order[0]], last=pixels[order[-1]], pix_fmt=pix_fmt, **expected)

    return _published(path, ".mp4", write)


def _mp4_arguments(width: int, height: int, fps: float, crf: float, pix_fmt: str, notes: Path, part: Path) -> list[str]:
    """From raw rgb24 on standard input to H.264. The tags are set on the frames: as options they miss primaries and transfer."""
    rate = Fraction(float(fps)).limit_denominator(1001)  # 29.97 stays 29.97, 24000 / 1001 becomes exact
    filters = [
        f"scale=out_color_matrix=bt709:out_range=tv:flags={EXACT_COLOURS}",
        f"format={pix_fmt}",
        "setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709",
    ]
    picture = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-framerate", str(rate), "-i", "pipe:0"]
    settings = ["-f", "ffmetadata", "-i", f"file:{notes.absolute()}", "-map", "0:v", "-map_metadata", "1"]
    codec = ["-vf", ",".join(filters), "-c:v", "libx264", "-preset", "medium", "-crf", f"{crf:g}"]
    time = ["-fps_mode", "passthrough", "-enc_time_base", f"{rate.denominator}/{rate.numerator}"]  # unasked, 119.88 becomes 120
    container = ["-movflags", "+faststart+use_metadata_tags", "-f", "mp4", "-y", f"file:{part.absolute()}"]
    return ["-v", "error", *picture, *settings, *codec, *time, *container]


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


def _published(path: Path | NumberedName, suffix: str, write: Callable[[Path], object]) -> Path:
    published = publish(path, suffix, write)
    logger.info("wrote %s", published)
    return published
