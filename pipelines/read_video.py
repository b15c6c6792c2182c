"""Read a film that somebody gave, with the ffmpeg that imageio-ffmpeg ships."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from errors import EncodingError, UnreadableFileError
from pipelines.probe import EXACT_COLOURS, run_ffmpeg

MAX_BYTES = 4 * 2**30  # of frames in memory, as floats
_OUTPUT = re.compile(rb"(?ms)^Output #0.*?Stream #0:0.*?: Video: .*?, ([1-9]\d{0,4})x([1-9]\d{0,4})[, \[]")  # turned as it is to be seen
_RATE = re.compile(rb": Video: [^\n]*?, ([\d.]+)(k?) fps")


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
    pixels = np.empty((len(frames), height, width, 3), np.float32)
    for k, frame in enumerate(frames):
        np.divide(frame, 255, out=pixels[k], dtype=np.float32)
    return pixels, fps


def _look(path: Path) -> tuple[int, int, float]:
    """Width, height and frames a second, as ffmpeg tells them."""
    arguments = [
        "-protocol_whitelist",
        "file,pipe",
        "-i",
        f"file:{path.absolute()}",
        "-map",
        "0:v:0",
        "-frames:v",
        "1",
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "pipe:1",
    ]
    try:
        with run_ffmpeg(*arguments) as (process, said):
            process.stdout.read()
    except EncodingError as error:
        raise UnreadableFileError(f"{path.name} cannot be read as a film: {error.message}", "Use an MP4 or WEBM.") from error
    stream, rate = _OUTPUT.search(said), _RATE.search(said)
    if not stream:
        raise UnreadableFileError(f"{path.name} holds no film.", "Use an MP4 or WEBM.")
    return int(stream[1]), int(stream[2]), float(rate[1]) * (1000 if rate[2] else 1) if rate else 7.0
