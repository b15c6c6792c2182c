"""Look at a finished file as other programs will: decode all of it, and compare it with what should be in it."""

from __future__ import annotations

import errno
import json
import os
import re
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import imageio_ffmpeg
import numpy as np
from PIL import Image

from errors import EncodingError, UnreadableFileError
from pipelines.containers import kind_of, mp4_fps, mp4_index_is_first
from pipelines.matroska import webm_fps, webm_index_is_first
from pipelines.metadata import Metadata, settings_in, to_texts

EXACT_COLOURS = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"  # flags of ffmpeg's scaler
_CELL = 16  # pixels; lossy pictures are compared by the mean colours of such squares, smaller ones by their facts alone
_STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)  # what ffmpeg may say about the disk
_UNREADABLE = (UnreadableFileError, OSError, EOFError, LookupError, ValueError, struct.error)
_UNREADABLE += (SyntaxError, Image.DecompressionBombError)  # Pillow's own


def probe(
    path: Path,
    *,
    frames: int,
    width: int,
    height: int,
    codec: str = "h264",
    pix_fmt: str = "yuv420p",
    fps: float | None = None,
    repeats: int | None = None,
    first: np.ndarray | None = None,
    last: np.ndarray | None = None,
    tolerance: float = 16,
    metadata: Metadata | None = None,
) -> None:
    """Decode the whole file and raise EncodingError, saying what differs, unless it holds what was written.

    first, last: (height, width, 3) bytes as they were written. tolerance: 0 compares byte for byte; else how far, of 255, mean
    colours may lie apart in a smooth picture. fps: as written; without it an animation's pictures are counted, not their time.
    codec, pix_fmt: for MP4 and WEBM alone. repeats: how often an animation begins anew, 0 being for ever. metadata: None says that the file
    must carry no settings.
    """
    try:
        with path.open("rb") as file:
            kind = kind_of(file)
        is_video = kind in ("mp4", "webm")
        found = _decode_video(path, kind, width, height, pix_fmt) if is_video else _decode_picture(path, frames, fps)
        settings = settings_in(path)
    except _UNREADABLE as error:
        raise EncodingError(f"The file that was written cannot be read back: {error}") from error
    wanted: dict[str, object] = {"codec": kind, "width": width, "height": height, "frames": frames}
    if is_video:
        wanted |= {"codec": codec, "pixel format": pix_fmt, "colours": "tv, bt709, progressive", "index": "first"}
    elif repeats is not None and "repeats" in found.facts:
        wanted["repeats"] = repeats
    wrong = [f"{what} {found.facts[what]} instead of {value}" for what, value in wanted.items() if found.facts[what] != value]
    if is_video and fps is not None and abs(found.facts["fps"] - fps) > 0.001:
        wrong.append(f"fps {found.facts['fps']} instead of {fps}")
    if not wrong:
        pairs = {"first": (first, found.first), "last": (last, found.last)}
        given = {what: pair for what, pair in pairs.items() if pair[0] is not None}
        wrong = [f"the {what} frame shows something else" for what, pair in given.items() if not _is_close(*pair, tolerance)]
    if settings != {key: json.loads(text) for key, text in to_texts(metadata).items()}:
        wrong.append("the settings inside are others")
    if wrong:
        raise EncodingError(f"The {kind.upper()} file is not what was written: {', '.join(wrong)}.", "Please report this.")


class _Decoded(NamedTuple):
    facts: dict[str, object]
    first: np.ndarray | None  # bytes, in the order height, width, 3
    last: np.ndarray | None


def _decode_video(path: Path, kind: str, width: int, height: int, pix_fmt: str) -> _Decoded:
    fps, index_is_first = {"mp4": (mp4_fps, mp4_index_is_first), "webm": (webm_fps, webm_index_is_first)}[kind]
    with path.open("rb") as file:
        facts: dict[str, object] = {"fps": fps(file), "index": "first" if index_is_first(file) else "last"}
    decoder = ["-c:v", "libvpx-vp9"] if pix_fmt == "yuva420p" else []  # ffmpeg's own leaves the transparency out
    source = ["-protocol_whitelist", "file,pipe", *decoder, "-i", f"file:{path.absolute()}", "-map", "0:v:0", "-fps_mode", "passthrough"]
    count, first, last = 0, None, None
    with run_ffmpeg(*source, "-sws_flags", EXACT_COLOURS, "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1") as (process, said):
        while picture := process.stdout.read(width * height * 3):
            first, last, count = first or picture, picture, count + 1
    stream = re.search(rb"(?m)^  Stream #0:0.*: Video: (\w+).*?, (\w+)\((.*?)\), (\d+)x(\d+)", said)
    if not stream or not count:
        raise ValueError("ffmpeg finds no film in it")
    codec, pix_fmt, colours, found_width, found_height = (text.decode() for text in stream.groups())
    facts |= {"codec": codec, "pixel format": pix_fmt, "colours": colours, "frames": count}
    facts |= {"width": int(found_width), "height": int(found_height)}
    return _Decoded(facts, np.frombuffer(first, np.uint8), np.frombuffer(last, np.uint8))


def _decode_picture(path: Path, frames: int, fps: float | None) -> _Decoded:
    with Image.open(path) as picture:
        pixels, milliseconds, count = [], 0, getattr(picture, "n_frames", 1)
        for index in range(count):
            picture.seek(index)
            picture.load()
            milliseconds += picture.info.get("duration", 0)
            if index in (0, count - 1):
                pixels.append(np.asarray(picture.convert("RGB")))
        facts = {"codec": picture.format.lower(), "width": picture.width, "height": picture.height, "frames": count}
        facts |= {"repeats": picture.info.get("loop", "never")} if count > 1 else {}
    if milliseconds and fps is not None:  # equal neighbours are stored as one, so their time is what counts
        wanted = {"webp": frames * int(1000 / fps), "gif": 10 * round(100 * frames / fps), "png": 1000 * frames / fps}
        facts["frames"] = round(frames * milliseconds / wanted[facts["codec"]], 2)
    elif count == 1 and fps is not None:
        facts["frames"] = frames  # a film without motion becomes a still; that the last frame is close to it proves the rest
    return _Decoded(facts, pixels[0], pixels[-1])


def _is_close(written: np.ndarray, decoded: np.ndarray, tolerance: float) -> bool:
    decoded = decoded.reshape(written.shape)
    if not tolerance:
        return np.array_equal(written, decoded)
    height, width, _ = written.shape
    cells = (width // _CELL, height // _CELL)
    if not all(cells):
        return True
    coarse = [Image.fromarray(picture).resize(cells, Image.Resampling.BOX) for picture in (written, decoded)]
    difference = np.abs(np.subtract(*coarse, dtype=float)).mean()
    detail = np.abs(np.subtract(written, coarse[0].resize((width, height), Image.Resampling.BOX), dtype=float)).mean()
    return difference <= tolerance + detail  # 4:2:0 and the quantizer take detail away: measured, up to 0.9 of it


@contextmanager
def run_ffmpeg(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], bytearray]]:
    """The bundled ffmpeg, running, with a pipe at each end, and what it says (all of it after the block).

    Raises EncodingError, in ffmpeg's own words, if it fails; OSError if what failed is the disk.
    """
    try:
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", "-nostats", *arguments]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except (RuntimeError, OSError) as error:
        raise EncodingError(f"ffmpeg does not start: {error}.", "Install the package imageio-ffmpeg once more.") from error
    said = bytearray()
    listener = threading.Thread(target=lambda: said.extend(process.stderr.read()), daemon=True)
    listener.start()
    try:
        with suppress(BrokenPipeError):  # it has stopped listening, and will have said why
            yield process, said
            process.stdin.close()
        status = process.wait()
        listener.join()
    finally:
        process.kill()
        process.wait()
        listener.join()
        for pipe in (process.stdin, process.stdout, process.stderr):
            with suppress(BrokenPipeError):
                pipe.close()
    if status:
        words = bytes(said[-2000:]).decode("utf-8", "replace").strip()
        for number in _STORAGE:
            if os.strerror(number) in words:
                raise OSError(number, os.strerror(number))
        raise EncodingError(f"ffmpeg failed: {words or f'status {status}'}.")
