from __future__ import annotations

import subprocess
from pathlib import Path

import imageio_ffmpeg
import pytest

from pipelines import codecs
from pipelines.parameters import PIXEL_FORMATS, VIDEO_FORMATS


@pytest.mark.parametrize("name", VIDEO_FORMATS)
def test_what_a_format_declares_is_what_ffmpeg_takes(tmp_path, name):
    video = VIDEO_FORMATS[name]
    assert 0 < video.crf <= video.max_crf
    (tmp_path / "notes").write_text(";FFMETADATA1\n")
    for pix_fmt in video.pixel_formats:
        for crf in (0, video.max_crf):
            path = tmp_path / f"{pix_fmt} {crf}{video.suffix}"
            side = max(2, video.min_side)
            arguments = codecs.arguments(video, side, side, 8, crf, pix_fmt, tmp_path / "notes", path)
            command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", *arguments]
            assert subprocess.run(command, input=bytes(3 * side * side), capture_output=True, check=False).returncode == 0
            assert path.stat().st_size


def test_film_settings_choose_among_the_pixel_formats_of_mp4() -> None:
    assert VIDEO_FORMATS["video/h264-mp4"].pixel_formats == PIXEL_FORMATS


def test_rates_are_fractions() -> None:
    video = VIDEO_FORMATS["video/webm"]
    for fps, rate in ((8, "8"), (29.97, "2997/100"), (24000 / 1001, "24000/1001"), (0.01, "1/100")):
        arguments = codecs.arguments(video, 16, 16, fps, 20, "yuv420p", Path("notes"), Path("a.webm"))
        assert arguments[arguments.index("-r") + 1] == rate
