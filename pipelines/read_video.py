"""Read a film that somebody gave, with the ffmpeg that imageio-ffmpeg ships."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from errors import EncodingError, UnreadableFileError
from pipelines.probe import EXACT_COLOURS, run_ffmpeg

MAX_BYTES = 4 * 2**30  # of frames in memory, as floats
_STREAM = re.compile(rb"(?m)^  Stream #\d+:\d+.*: Video: .*? (\d{1,5})x(\d{1,5})\b")
_RATE = re.compile(rb"(?m): Video: .*?, ([\d.]+) fps")


def read_video(path: Path) -> tuple[np.ndarray, float]:
    """Frames (n, height, width, 3) float32 in 0..1, and frames a second. Raises UnreadableFileError: no film, damaged, too long."""
    if not path.is_file():
        raise UnreadableFileError(f"There is no file {path}.", "Check the path.")
    width, height, fps = _look(path)
    size, most = width * height * 3, MAX_BYTES // (width * height * 12)
    source = ["-protocol_whitelist", "file,pipe", "-i", f"file:{path.absolute()}", "-map", "0:v:0", "-fps_mode", "passthrough"]
    frames: list[np.ndarray] = []
    try:
        with run_ffmpeg(*source, "-sws_flags", EXACT_COLOURS, "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1") as (process, _):
            while len(picture := process.stdout.read(size)) == size:
                if len(frames) == most:
                    raise UnreadableFileError(
                        f"{path.name} has more than {most} frames of {width}x{height}.", "Cut it, or make it smaller."
                    )
                frames.append(np.frombuffer(picture, np.uint8).reshape(height, width, 3))
    except EncodingError as error:
        raise UnreadableFileError(f"{path.name} cannot be read as a film: {error.message}", "Use an MP4 or WEBM.") from error
    if not frames:
        raise UnreadableFileError(f"{path.name} holds no frame.", "Use another film.")
    return np.stack(frames).astype(np.float32) / 255, fps


def _look(path: Path) -> tuple[int, int, float]:
    """Width, height and frames a second, as ffmpeg tells them."""
    arguments = ["-protocol_whitelist", "file,pipe", "-i", f"file:{path.absolute()}", "-map", "0:v:0", "-frames:v", "1", "-f", "null", "-"]
    try:
        with run_ffmpeg(*arguments) as (process, said):
            process.stdout.read()
    except EncodingError as error:
        raise UnreadableFileError(f"{path.name} cannot be read as a film: {error.message}", "Use an MP4 or WEBM.") from error
    stream, rate = _STREAM.search(said), _RATE.search(said)
    if not stream:
        raise UnreadableFileError(f"{path.name} holds no film.", "Use an MP4 or WEBM.")
    return int(stream[1]), int(stream[2]), float(rate[1]) if rate else 7.0
