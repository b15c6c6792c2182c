"""What ffmpeg is told, to make a film of raw pictures. The formats themselves are declared in parameters.py."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from pipelines.parameters import VideoFormat
from pipelines.probe import EXACT_COLOURS

_ENCODERS = {  # by what comes out
    "h264": ("libx264", "-preset", "medium"),
    "hevc": ("libx265", "-preset", "medium", "-tag:v", "hvc1", "-x265-params", "log-level=error"),  # Apple plays hvc1 alone
    "vp9": ("libvpx-vp9", "-b:v", "0", "-deadline", "good", "-cpu-used", "2", "-row-mt", "1"),  # without 0, crf is but a limit
}
_X265_WIDTH = 64  # pixels; at 48 its cutree writes past its memory and crashes, from 64 on it has been seen to behave
_CONTAINERS = {
    ".mp4": ("-movflags", "+faststart+use_metadata_tags", "-f", "mp4"),
    ".webm": ("-cues_to_front", "1", "-fflags", "+bitexact", "-f", "webm"),  # else the tracks' identities are drawn at random
}


def arguments(video: VideoFormat, width: int, height: int, fps: float, crf: int, pix_fmt: str, notes: Path, part: Path) -> list[str]:
    """From raw rgb24 on standard input to a film. The colour tags are set on the frames: as options they miss primaries and transfer."""
    rate = Fraction(float(fps)).limit_denominator(1001)  # 29.97 stays 29.97, 24000 / 1001 becomes exact
    filters = [
        f"scale=out_color_matrix=bt709:out_range=tv:flags={EXACT_COLOURS}",
        f"format={pix_fmt}",
        "setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709",
    ]
    picture = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(rate), "-i", "pipe:0"]  # -framerate is rounded
    settings = ["-f", "ffmetadata", "-i", f"file:{notes.absolute()}", "-map", "0:v", "-map_metadata", "1"]
    codec = ["-vf", ",".join(filters), "-c:v", *_ENCODERS[video.codec], "-crf", str(crf)]
    if video.codec == "hevc" and width < _X265_WIDTH:
        codec += ["-x265-params", "log-level=error:cutree=0"]
    time = ["-fps_mode", "passthrough", "-enc_time_base", f"{rate.denominator}/{rate.numerator}"]  # unasked, 119.88 becomes 120
    return ["-v", "error", *picture, *settings, *codec, *time, *_CONTAINERS[video.suffix], "-y", f"file:{part.absolute()}"]
