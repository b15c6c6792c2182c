from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from errors import UnreadableFileError
from pipelines import read_video as module
from pipelines.encode import save_video
from pipelines.probe import run_ffmpeg
from pipelines.read_video import read_video

FRAMES = np.linspace(0, 1, 3, dtype=np.float32)[:, None, None, None] * np.ones((1, 32, 64, 3), np.float32)


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return save_video(FRAMES, tmp_path / "film.mp4", format="video/h264-mp4", fps=12.5, crf=0, metadata=None)


def test_a_film_comes_back_with_its_speed(film: Path) -> None:
    frames, fps = read_video(film)
    assert frames.shape == (3, 32, 64, 3)
    assert frames.dtype == np.float32
    assert np.abs(frames - FRAMES).max() < 0.02
    assert fps == 12.5


def test_a_film_that_was_taken_upright_is_upright(film: Path, tmp_path: Path) -> None:
    """As telephones write it: wide, with a note to turn it."""
    gradient = np.broadcast_to(np.linspace(0, 1, 64, dtype=np.float32)[None, None, :, None], (3, 32, 64, 3))
    wide = save_video(gradient, tmp_path / "wide.mp4", format="video/h264-mp4", fps=10, metadata=None)
    turned = tmp_path / "turned.mp4"
    with run_ffmpeg("-display_rotation", "90", "-i", str(wide), "-c", "copy", str(turned)) as (process, _):
        process.stdout.read()
    frames, _ = read_video(turned)
    assert frames.shape == (3, 64, 32, 3)
    rows = frames[0].mean((1, 2))
    assert abs(rows[0] - rows[-1]) > 0.8  # it grows along the height now
    assert frames[0].std(1).max() < 0.05


def test_other_containers(film: Path, tmp_path: Path) -> None:
    for name, codec in (("film.ts", "mpeg2video"), ("film.mkv", "libx264"), ("film.mov", "libx264")):
        path = tmp_path / name
        with run_ffmpeg("-i", str(film), "-r", "25", "-c:v", codec, str(path)) as (process, _):
            process.stdout.read()
        frames, fps = read_video(path)
        assert frames.shape[1:] == (32, 64, 3)
        assert fps == 25


def test_what_is_no_film_is_said_to_be_none(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.mp4").write_text("hello")
    (tmp_path / "cut.mp4").write_bytes(film.read_bytes()[:200])
    for name in ("text.mp4", "cut.mp4", "missing.mp4"):
        with pytest.raises(UnreadableFileError):
            read_video(tmp_path / name)
    monkeypatch.setattr(module, "MAX_BYTES", 2 * 32 * 64 * 12)
    with pytest.raises(UnreadableFileError, match="more than 2 frames"):
        read_video(film)
