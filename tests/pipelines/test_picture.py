from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from errors import UnreadableFileError
from pipelines.picture import read_picture


@pytest.mark.parametrize("suffix", [".png", ".webp", ".bmp"])
def test_pixels_come_back(tmp_path: Path, suffix: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}", **({"lossless": True} if suffix == ".webp" else {}))
    assert np.array_equal(read_picture(tmp_path / f"a{suffix}"), pixels.astype(np.float32) / 255)


def test_a_turned_photograph_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right
    Image.new("RGB", (30, 10), "red").save(tmp_path / "a.jpg", exif=exif)
    assert read_picture(tmp_path / "a.jpg").shape == (30, 10, 3)


def test_transparency_becomes_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").min() == 1


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "LA"])
def test_every_mode_becomes_three_colours(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.tiff" if mode == "CMYK" else "a.png")
    Image.new("L", (6, 4), 255).convert("RGB").convert(mode).save(path)
    picture = read_picture(path)
    assert picture.shape == (4, 6, 3)
    assert picture.min() > 0.98


def test_sixteen_bits_keep_their_brightness(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 32768, np.uint16)).save(tmp_path / "a.png")
    assert abs(read_picture(tmp_path / "a.png").mean() - 0.5) < 0.01


@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_dark_sixteen_bit_pictures_stay_dark(tmp_path: Path, dtype: str) -> None:
    mode = "I;16" if dtype == "<u2" else "I;16B"
    Image.frombytes(mode, (4, 4), np.full((4, 4), 200, dtype).tobytes()).save(tmp_path / "a.tiff")
    assert abs(read_picture(tmp_path / "a.tiff").max() - 200 / 65535) < 1e-4


@pytest.mark.parametrize("scale", [1, 255])
def test_floats_count_to_one_or_to_255(tmp_path: Path, scale: int) -> None:
    values = np.array([[0, 0.5], [1, np.nan]], np.float32) * scale
    Image.fromarray(values).save(tmp_path / "a.tiff")
    assert np.allclose(read_picture(tmp_path / "a.tiff")[..., 0], [[0, 0.5], [1, 0]])


def test_a_huge_picture_or_a_mere_line_is_refused_without_warnings(tmp_path: Path) -> None:
    Image.new("1", (10_001, 10_000)).save(tmp_path / "huge.png")
    Image.new("1", (1, 101)).save(tmp_path / "line.png")
    with pytest.raises(UnreadableFileError, match="10001x10000 pixels; 100 million are the most"):
        read_picture(tmp_path / "huge.png")
    with pytest.raises(UnreadableFileError, match="a line of 1x101 pixels"):
        read_picture(tmp_path / "line.png")


def test_of_an_animation_the_first_frame(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.gif", save_all=True, append_images=[Image.new("RGB", (4, 4), "blue")])
    assert read_picture(tmp_path / "a.gif")[0, 0].tolist() == [1, 0, 0]


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n" + b"\x00" * 40])
def test_what_is_no_picture_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UnreadableFileError, match=r"a\.png cannot be read as a picture"):
        read_picture(tmp_path / "a.png")


def test_missing_files_and_folders_are_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match="There is no file"):
        read_picture(tmp_path / "none.png")
    with pytest.raises(UnreadableFileError, match="cannot be read as a picture"):
        read_picture(tmp_path)


def test_a_truncated_picture_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:3000])
    with pytest.raises(UnreadableFileError, match="cannot be read"):
        read_picture(tmp_path / "cut.png")
