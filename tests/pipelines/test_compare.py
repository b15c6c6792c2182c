from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from errors import UnreadableFileError
from pipelines.compare import Likeness, compare
from pipelines.encode import save_gif, save_png, save_video, save_webp

FRAMES = np.random.default_rng(0).random((3, 32, 48, 3), np.float32).repeat(8, 1).repeat(8, 2)[:, :32, :48]
BRIGHTER = np.clip(FRAMES + 0.1, 0, 1)
WRITERS: dict[str, Callable[[np.ndarray, Path], Path]] = {
    ".png": lambda frames, path: save_png(frames[0], path, None),
    ".webp": lambda frames, path: save_webp(frames, path, fps=7, lossless=True, quality=80, metadata=None),
    ".gif": lambda frames, path: save_gif(frames, path, fps=7, metadata=None),
    ".mp4": lambda frames, path: save_video(frames, path, format="video/h264-mp4", fps=7, metadata=None),
    ".webm": lambda frames, path: save_video(frames, path, format="video/webm", fps=7, metadata=None),
}


@pytest.fixture(params=WRITERS)
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str, np.ndarray], Path]:
    return lambda name, frames: WRITERS[request.param](frames, tmp_path / f"{name}{request.param}")


def test_the_same_again_is_identical(written: Callable[[str, np.ndarray], Path]) -> None:
    one, other = written("a", FRAMES), written("b", FRAMES)
    count = 1 if one.suffix == ".png" else 3
    assert compare(one, other) == Likeness(True, ((48, 32), (48, 32)), (count, count))


def test_what_is_brighter_by_a_tenth_is_20_db_away(written: Callable[[str, np.ndarray], Path]) -> None:
    grey, lighter = np.full_like(FRAMES, 0.4), np.full_like(FRAMES, 0.5)
    found = compare(written("a", grey), written("b", lighter))
    assert not found.is_identical
    assert found.psnr == pytest.approx(20, abs=0.5)
    assert found.worst_psnr == pytest.approx(found.psnr, abs=0.3)


def test_the_worst_frame_is_told_apart(tmp_path: Path) -> None:
    one = WRITERS[".webp"](FRAMES, tmp_path / "a.webp")
    other = WRITERS[".webp"](np.concatenate([FRAMES[:2], BRIGHTER[2:]]), tmp_path / "b.webp")
    found = compare(one, other)
    assert found.psnr == pytest.approx(found.worst_psnr + 10 * np.log10(3), abs=0.02)


def test_sizes_and_lengths_that_differ_are_said(written: Callable[[str, np.ndarray], Path]) -> None:
    one = written("a", FRAMES)
    smaller, shorter = compare(one, written("b", FRAMES[:, :16])), compare(one, written("c", FRAMES[:2]))
    assert (smaller.is_identical, smaller.sizes, smaller.psnr) == (False, ((48, 32), (48, 16)), None)
    if one.suffix != ".png":
        assert (shorter.is_identical, shorter.frames) == (False, (3, 2))


@pytest.mark.parametrize("suffix", WRITERS)
def test_what_is_gone_or_damaged_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    with pytest.raises(UnreadableFileError, match="no file"):
        compare(path, path)
    path.write_bytes(b"RIFF no film")
    with pytest.raises(UnreadableFileError, match="cannot be read"):
        compare(path, path)
