"""Real files, decoded again by Pillow and by ffmpeg as other programs would."""

from __future__ import annotations

import errno
import io
import json
import re
import struct
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from errors import EncodingError, InputError, StorageError, UnknownNameError
from pipelines import encode, filenames
from pipelines.encode import save_apng, save_gif, save_png, save_video, save_webp, to_uint8
from pipelines.filenames import next_name
from pipelines.matroska import webm_texts
from pipelines.metadata import exif, read_settings, to_texts
from pipelines.parameters import VIDEO_FORMATS

save_mp4, save_webm, save_h265 = (partial(save_video, format=f"video/{name}") for name in ("h264-mp4", "webm", "h265-mp4"))
KINDS = ("png", "webp", "gif", "mp4", "webm")
COMFYUI = Path(__file__).parents[1] / "data" / "comfyui"
WORKFLOW = {"3": {"class_type": "KSampler", "inputs": {"seed": 7, "cfg": 7.0, "model": ["4", 0]}}}
NASTY = [
    "",
    "quotes \" and ' and `",
    "back\\slash \\n \\\\",
    "line\nbreak\r\nand\ttab",
    "a=b;c#d [section]\n;FFMETADATA1\n[STREAM]\ntitle=x",
    "一只猫在月光下 🐈‍⬛ é",
    "\ud800 half a surrogate, \x00 nul, \x1b escape, \u2028",
    "%s %d {0} $HOME `id` -i file:x",
    "prompt:{}",
]


def film(frames: int = 6, height: int = 48, width: int = 64) -> np.ndarray:
    """A colourful wave that moves; every frame differs from every other."""
    y, x = np.mgrid[:height, :width]
    waves = [(np.sin((x + 9 * t) / 11), np.cos((y - 7 * t) / 13), np.sin((x + y) / 17 + t)) for t in range(frames)]
    return (np.stack([np.stack(wave, -1) for wave in waves]).astype(np.float32) + 1) / 2


def greys(*levels: int, size: int = 16) -> np.ndarray:
    return np.stack([np.full((size, size, 3), level / 255, np.float32) for level in levels])


def ffmpeg(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", *arguments], capture_output=True, check=False)


def planes(path: Path, pix_fmt: str, height: int, width: int) -> list[list[np.ndarray]]:
    """Y, U and V of each frame, as stored."""
    raw = ffmpeg("-v", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", pix_fmt, "-").stdout
    dtype = np.uint16 if "10" in pix_fmt else np.uint8
    frames = np.frombuffer(raw, dtype).reshape(-1, height * width * 3 // 2)
    luma, chroma = height * width, height * width // 4
    return [[f[:luma].reshape(height, width), f[luma : luma + chroma], f[luma + chroma :]] for f in frames]


def decoded(path: Path, height: int, width: int) -> np.ndarray:
    raw = ffmpeg("-v", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-").stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


def webp_frames(path: Path) -> tuple[np.ndarray, list[int]]:
    with Image.open(path) as image:
        pictures, durations = [], []
        for index in range(image.n_frames):
            image.seek(index)
            pictures.append(np.asarray(image.convert("RGB")))
            durations.append(image.info["duration"])
    return np.stack(pictures), durations


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


def save(kind: str, path: Path, metadata: dict[str, object] | None = None, frames: np.ndarray | None = None) -> Path:
    frames = film(2) if frames is None else frames
    if kind == "png":
        return save_png(frames[0], path, metadata)
    writers = {"webp": save_webp, "gif": save_gif, "mp4": save_mp4, "webm": save_webm}
    return writers[kind](frames, path, fps=8, metadata=metadata)


# bytes


def test_png_and_webp_cut_off_where_mp4_rounds():
    values = np.array([[-0.1, 0.0, 0.001, 0.5, 0.9999, 1.0, 1.1]], np.float32)
    assert to_uint8(values, rounding=False).tolist() == [[0, 0, 0, 127, 254, 255, 255]]
    assert to_uint8(values, rounding=True).tolist() == [[0, 0, 0, 128, 255, 255, 255]]


def test_bytes_are_made_in_float32_whatever_comes_in():
    values = np.nextafter(np.arange(1, 259) / 255, 0).reshape(1, 2, 43, 3)  # in float64 just below the next byte
    expected = np.clip(np.float32(255) * values.astype(np.float32), 0, 255).astype(np.uint8)
    assert not np.array_equal(np.clip(255 * values, 0, 255).astype(np.uint8), expected)
    assert np.array_equal(to_uint8(values, rounding=False), expected)
    strided = values.astype(np.float32).transpose(0, 3, 1, 2).copy().transpose(0, 2, 3, 1)  # as a decoder's output lies in memory
    assert np.array_equal(to_uint8(strided, rounding=False), expected)


# PNG


def test_png_holds_the_pixels_and_the_settings_before_them(tmp_path):
    still = film(1)[0]
    path = save_png(still, tmp_path / "a.png", {"prompt": WORKFLOW, "workflow": {"nodes": []}})
    with Image.open(path) as image:
        assert (image.mode, image.size) == ("RGB", (64, 48))
        assert list(image.info) == ["prompt", "workflow"]
        assert json.loads(image.info["prompt"]) == WORKFLOW
        assert np.array_equal(np.asarray(image), to_uint8(still, rounding=False))
    data = path.read_bytes()
    assert data.index(b"tEXtprompt\0") < data.index(b"tEXtworkflow\0") < data.index(b"IDAT")
    alike = io.BytesIO()
    Image.fromarray(to_uint8(still, rounding=False)).save(alike, "PNG", compress_level=4)
    assert data.endswith(alike.getvalue()[33:])  # all after the header


def test_png_is_the_one_that_comfyui_writes(tmp_path):
    settings = read_settings(COMFYUI / "image.png")
    with Image.open(COMFYUI / "image.png") as image:
        pixels, text = np.asarray(image), image.info["prompt"]
    path = save_png((pixels + 0.25) / 255, tmp_path / "a.png", settings)
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), pixels)
        assert image.info == {"prompt": text}


# WEBP


def test_lossless_webp_holds_every_frame_exactly(tmp_path):
    frames = film(5)
    path = save_webp(frames, tmp_path / "a.webp", fps=10, lossless=True, metadata={"prompt": WORKFLOW})
    pictures, durations = webp_frames(path)
    assert np.array_equal(pictures, to_uint8(frames, rounding=False))
    assert durations == [100] * 5
    with Image.open(path) as image:
        assert image.info["loop"] == 0


def test_webp_is_the_one_that_comfyui_writes(tmp_path):
    pixels, durations = webp_frames(COMFYUI / "video.webp")
    settings = read_settings(COMFYUI / "video.webp")
    path = save_webp((pixels + 0.25) / 255, tmp_path / "a.webp", fps=10, lossless=True, metadata=settings)
    ours, theirs = path.read_bytes(), (COMFYUI / "video.webp").read_bytes()
    assert ours[ours.rindex(b"EXIF") :] == theirs[theirs.rindex(b"EXIF") :]
    assert np.array_equal(webp_frames(path)[0], pixels)
    assert webp_frames(path)[1] == durations


def test_webp_quality_and_method_matter(tmp_path):
    frames = film(3)
    sizes = {}
    for name, options in {"low": {"quality": 5}, "high": {"quality": 95}, "fast": {"method": "fastest"}, "plain": {}}.items():
        path = save_webp(frames, tmp_path / f"{name}.webp", fps=10, metadata=None, **options)
        sizes[name] = path.stat().st_size
        assert difference(webp_frames(path)[0], to_uint8(frames, rounding=False)) < 12
    assert sizes["low"] < sizes["plain"] < sizes["high"]
    assert sizes["fast"] != sizes["plain"]


@pytest.mark.parametrize(("fps", "milliseconds"), [(7.5, 133), (23.976, 41), (240, 4), (0.01, 100_000)])
def test_webp_frames_last_whole_milliseconds(tmp_path, fps, milliseconds):
    path = save_webp(film(2), tmp_path / "a.webp", fps=fps, metadata=None)
    assert webp_frames(path)[1] == [milliseconds] * 2


def test_webp_keeps_the_time_of_pictures_that_repeat(tmp_path):
    a, b = film(2)
    path = save_webp(np.stack([a, a, a, b, b]), tmp_path / "a.webp", fps=10, lossless=True, metadata=None)
    assert webp_frames(path)[1] == [300, 200]
    still = save_webp(np.stack([a, a, a]), tmp_path / "still.webp", fps=10, lossless=True, metadata={"prompt": WORKFLOW})
    with Image.open(still) as image:
        assert image.n_frames == 1
    assert read_settings(still) == {"prompt": WORKFLOW}


def test_one_frame_is_a_film_too(tmp_path):
    for kind in KINDS:
        path = save(kind, tmp_path / f"a.{kind}", {"prompt": WORKFLOW}, film(1))
        assert read_settings(path) == {"prompt": WORKFLOW}
    assert len(decoded(tmp_path / "a.mp4", 48, 64)) == 1


# MP4


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le"])
def test_mp4_is_h264_with_true_colour_tags_and_its_index_first(tmp_path, pix_fmt):
    frames = film(7)
    path = save_mp4(frames, tmp_path / "a.mp4", fps=8, pix_fmt=pix_fmt, metadata=None)
    stream = re.search(r"Stream #0:0.*", ffmpeg("-i", str(path)).stderr.decode())[0]
    assert f"Video: h264 (High{' 10' if '10' in pix_fmt else ''}) (avc1" in stream
    assert f"{pix_fmt}(tv, bt709, progressive), 64x48" in stream  # ffmpeg writes bt709/unknown/unknown where a tag lacks
    assert ", 8 fps" in stream
    assert path.read_bytes().index(b"moov") < path.read_bytes().index(b"mdat")
    pictures = decoded(path, 48, 64)
    assert len(pictures) == 7
    assert difference(pictures, to_uint8(frames, rounding=True)) < 5


@pytest.mark.parametrize(("pix_fmt", "scale"), [("yuv420p", 1), ("yuv420p10le", 4)])
def test_mp4_colours_follow_bt709(tmp_path, pix_fmt, scale):
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0], [200, 30, 90]])
    frames = np.broadcast_to(colours[:, None, None] / 255, (6, 16, 16, 3))
    path = save_mp4(frames, tmp_path / "a.mp4", fps=8, crf=0, pix_fmt=pix_fmt, metadata=None)
    for (r, g, b), stored in zip(colours / 255, planes(path, pix_fmt, 16, 16), strict=True):
        luma = 0.2126 * r + 0.7152 * g + 0.0722 * b  # ITU-R BT.709, items 3.2 to 3.5
        expected = [16 + 219 * luma, 128 + 224 * (b - luma) / 1.8556, 128 + 224 * (r - luma) / 1.5748]
        for plane, value in zip(stored, expected, strict=True):
            assert np.abs(plane - value * scale).max() < 0.52  # to the nearest; the fast scaler misses by 0.75


def test_mp4_rounds(tmp_path):
    frames = np.full((2, 16, 16, 3), 0.5, np.float32)
    path = save_mp4(frames, tmp_path / "a.mp4", fps=8, crf=0, metadata=None)
    assert planes(path, "yuv420p", 16, 16)[0][0][0, 0] == 126  # 16 + 219 * 128 / 255; of 127 it would be 125


@pytest.mark.parametrize(("height", "width"), [(31, 48), (32, 47), (33, 33), (1, 1)])
def test_mp4_repeats_the_edge_of_an_odd_side(tmp_path, height, width):
    frames = film(2, height, width)
    path = save_mp4(frames, tmp_path / "a.mp4", fps=8, crf=0, metadata=None)
    even = height + height % 2, width + width % 2
    luma = planes(path, "yuv420p", *even)[0][0]
    if height % 2:
        assert np.array_equal(luma[-1], luma[-2])
    if width % 2:
        assert np.array_equal(luma[:, -1], luma[:, -2])


def order_of(path: Path) -> list[int]:
    """The grey of each frame, back to the bytes that went in."""
    return [round((float(frame[0][8, 8]) - 16) * 255 / 219) for frame in planes(path, "yuv420p", 16, 16)]


@pytest.mark.parametrize(
    ("levels", "options", "expected"),
    [
        ((0, 80, 160, 240), {"pingpong": True}, [0, 80, 160, 240, 160, 80]),
        ((0, 240), {"pingpong": True}, [0, 240]),
        ((80,), {"pingpong": True}, [80]),
        ((0, 80, 160), {"loop_count": 2}, [0, 80, 160] * 3),
        ((0, 80, 160), {"loop_count": 1, "pingpong": True}, [0, 80, 160, 80] * 2),
    ],
)
def test_mp4_goes_to_and_fro_and_round_and_round(tmp_path, levels, options, expected):
    path = save_mp4(greys(*levels), tmp_path / "a.mp4", fps=8, crf=0, metadata=None, **options)
    assert np.abs(np.subtract(order_of(path), expected)).max() <= 1


@pytest.mark.parametrize(
    ("fps", "time_base"),
    [(7.5, "2/15"), (23.976, "125/2997"), (24000 / 1001, "1001/24000"), (119.88, "25/2997"), (0.01, "100/1")],
)
def test_mp4_keeps_the_exact_rate_and_every_frame_lasts_as_long(tmp_path, fps, time_base):
    path = save_mp4(film(4, 16, 16), tmp_path / "a.mp4", fps=fps, metadata=None)
    listing = ffmpeg("-v", "error", "-i", str(path), "-fps_mode", "passthrough", "-enc_time_base", time_base, "-f", "framecrc", "-")
    lines = [line.replace(" ", "") for line in listing.stdout.decode().splitlines()]
    assert f"#tb0:{time_base}" in lines
    assert [line.split(",")[2:4] for line in lines if not line.startswith("#")] == [[str(index), "1"] for index in range(4)]


def test_a_lower_crf_is_a_larger_file(tmp_path):
    sizes = [save_mp4(film(), tmp_path / f"{crf}.mp4", fps=8, crf=crf, metadata=None).stat().st_size for crf in (5, 20, 51)]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_input_is_the_same_file(tmp_path, kind):
    one, other = (save(kind, tmp_path / f"{name}.{kind}", {"prompt": WORKFLOW}) for name in "ab")
    assert one.read_bytes() == other.read_bytes()  # so there is no clock in it either


# the other films


@pytest.mark.parametrize(
    ("writer", "pix_fmt", "stream"),
    [
        (save_h265, None, "Video: hevc (Main 10) (hvc1 / 0x31637668), yuv420p10le(tv, bt709, progressive), 64x48"),
        (save_h265, "yuv420p", "Video: hevc (Main) (hvc1 / 0x31637668), yuv420p(tv, bt709, progressive), 64x48"),
        (save_webm, None, "Video: vp9 (Profile 0), yuv420p(tv, bt709, progressive), 64x48"),
        (save_webm, "yuva420p", "Video: vp9 (Profile 0), yuv420p(tv, bt709, progressive), 64x48"),  # ffmpeg's decoder ignores the alpha
    ],
)
def test_other_formats_have_their_codec_true_tags_and_their_index_first(tmp_path, writer, pix_fmt, stream):
    frames = film(7)
    path = writer(frames, tmp_path / ("a.webm" if writer is save_webm else "a.mp4"), fps=8, pix_fmt=pix_fmt, metadata=None)
    line = re.search(r"Stream #0:0.*", ffmpeg("-i", str(path)).stderr.decode())[0]
    assert stream in line
    assert ", 8 fps" in line
    data = path.read_bytes()
    index, pictures = (b"\x1c\x53\xbb\x6b\x40", b"\x1f\x43\xb6\x75") if writer is save_webm else (b"moov", b"mdat")
    assert data.rindex(index[:4]) < data.rindex(pictures)
    assert difference(decoded(path, 48, 64), to_uint8(frames, rounding=True)) < 5


@pytest.mark.parametrize(("writer", "suffix"), [(save_h265, ".mp4"), (save_webm, ".webm")])
def test_other_formats_follow_bt709_too(tmp_path, writer, suffix):
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0], [200, 30, 90]])
    frames = np.broadcast_to(colours[:, None, None] / 255, (6, 16, 16, 3))
    path = writer(frames, tmp_path / f"a{suffix}", fps=8, crf=0, pix_fmt="yuv420p", metadata=None)
    for (r, g, b), stored in zip(colours / 255, planes(path, "yuv420p", 16, 16), strict=True):
        luma = 0.2126 * r + 0.7152 * g + 0.0722 * b
        expected = [16 + 219 * luma, 128 + 224 * (b - luma) / 1.8556, 128 + 224 * (r - luma) / 1.5748]
        assert [np.abs(plane - value).max() < 2 for plane, value in zip(stored, expected, strict=True)] == [True] * 3


def test_a_transparent_webm_is_opaque_all_over(tmp_path):
    path = save_webm(film(3), tmp_path / "a.webm", fps=8, pix_fmt="yuva420p", metadata=None)
    assert "alpha_mode      : 1" in ffmpeg("-i", str(path)).stderr.decode()
    alpha = ffmpeg("-v", "error", "-c:v", "libvpx-vp9", "-i", str(path), "-vf", "alphaextract", "-f", "rawvideo", "-pix_fmt", "gray", "-")
    assert alpha.stdout == b"\xff" * (3 * 48 * 64)


@pytest.mark.parametrize("fps", [7, 7.5, 23.976, 119.88, 240, 0.01])
@pytest.mark.parametrize(("writer", "suffix"), [(save_h265, ".mp4"), (save_webm, ".webm")])
def test_other_formats_keep_the_rate(tmp_path, writer, suffix, fps):
    path = writer(film(4, 16, 16), tmp_path / f"a{suffix}", fps=fps, metadata=None)
    listing = ffmpeg("-v", "error", "-i", str(path), "-fps_mode", "passthrough", "-enc_time_base", "1/1000000", "-f", "framecrc", "-")
    times = [int(line.split(",")[2]) / 1e6 for line in listing.stdout.decode().splitlines() if not line.startswith("#")]
    assert np.abs(np.subtract(times, np.arange(4) / fps)).max() < 0.00051  # Matroska counts in milliseconds


@pytest.mark.parametrize(("writer", "suffix"), [(save_h265, ".mp4"), (save_webm, ".webm")])
def test_other_formats_go_to_and_fro_and_round_too(tmp_path, writer, suffix):
    options = {"crf": 0, "pix_fmt": "yuv420p", "pingpong": True, "loop_count": 1}
    path = writer(greys(0, 80, 160), tmp_path / f"a{suffix}", fps=8, metadata=None, **options)
    assert np.abs(np.subtract(order_of(path), [0, 80, 160, 80] * 2)).max() <= 1


def test_an_odd_side_gets_its_edge_twice_in_every_format(tmp_path):
    for writer, suffix in ((save_h265, ".mp4"), (save_webm, ".webm")):
        path = writer(film(2, 31, 47), tmp_path / f"a{suffix}", fps=8, crf=0, pix_fmt="yuv420p", metadata=None)
        luma = planes(path, "yuv420p", 32, 48)[0][0].astype(int)
        assert np.abs(luma[-1] - luma[-2]).max() <= 2
        assert np.abs(luma[:, -1] - luma[:, -2]).max() <= 2


def test_h265_is_written_twice_the_same(tmp_path):
    one, other = (save_h265(film(5, 128, 128), tmp_path / f"{name}.mp4", fps=8, metadata={"prompt": WORKFLOW}) for name in "ab")
    assert one.read_bytes() == other.read_bytes()
    assert read_settings(one) == {"prompt": WORKFLOW}


@pytest.mark.parametrize("pix_fmt", VIDEO_FORMATS["video/h265-mp4"].pixel_formats)
@pytest.mark.parametrize("height", [16, 24, 32, 64])
def test_h265_of_the_width_at_which_its_encoder_would_crash(tmp_path, height, pix_fmt):
    assert save_h265(film(3, height, 48), tmp_path / "a.mp4", fps=8, pix_fmt=pix_fmt, metadata=None).exists()


@pytest.mark.parametrize(("writer", "suffix"), [(save_h265, ".mp4"), (save_webm, ".webm")])
def test_the_format_has_a_quality_of_its_own(tmp_path, writer, suffix):
    name = "video/webm" if writer is save_webm else "video/h265-mp4"
    usual = writer(film(), tmp_path / f"a{suffix}", fps=8, metadata=None)
    same = writer(film(), tmp_path / f"b{suffix}", fps=8, crf=VIDEO_FORMATS[name].crf, metadata=None)
    worst = writer(film(), tmp_path / f"c{suffix}", fps=8, crf=VIDEO_FORMATS[name].max_crf, metadata=None)
    assert usual.read_bytes() == same.read_bytes()
    assert worst.stat().st_size < usual.stat().st_size


@pytest.mark.parametrize(
    "key", ["title", "encoder", "duration", "language", "performer", "track", "creation_time", "encoding_tool", "date"]
)
def test_webm_keeps_names_that_ffmpeg_has_a_use_for(tmp_path, key):
    metadata = {key: {"a": 1}, key.upper(): 2, "prompt": WORKFLOW}
    assert read_settings(save_webm(film(1), tmp_path / "a.webm", fps=8, metadata=metadata)) == metadata


def test_webm_keeps_every_name(tmp_path):
    metadata = {
        "extraMetadata": [1],
        "x-en": 2,
        "A": 3,
        "a": 4,
        "_others": {"a": 5},
        "a.b": 6,
        "-": 7,
        ".": 8,
        "comment": 9,
        "alpha_mode": 10,
    }
    assert read_settings(save_webm(film(1), tmp_path / "a.webm", fps=8, metadata=metadata)) == metadata


# GIF


def gif_frames(path: Path) -> tuple[np.ndarray, list[float]]:
    return webp_frames(path)  # Pillow has one way for all


@pytest.mark.parametrize(
    ("fps", "milliseconds"),
    [
        (7, [140, 150, 140, 140, 140, 150, 140]),  # a second in all
        (8, [120, 130, 130, 120, 120, 130, 130]),  # 12.5 goes to the even neighbour
        (10, [100] * 7),
        (50, [20] * 7),
        (23.976, [40, 40, 50, 40, 40, 40, 40]),
        (0.011, [90910, 90910, 90910, 90910, 90910, 90900, 90910]),
    ],
)
def test_gif_frames_last_as_long_as_they_should_together(tmp_path, fps, milliseconds):
    durations = gif_frames(save_gif(film(7), tmp_path / "a.gif", fps=fps, metadata=None))[1]
    assert durations == milliseconds
    assert abs(sum(durations) - 7000 / fps) <= 5


def test_gif_is_close_and_repeats_for_ever(tmp_path):
    frames = film(6, 128, 128)
    path = save_gif(frames, tmp_path / "a.gif", fps=7, metadata=None)
    pictures, _ = gif_frames(path)
    pixels = to_uint8(frames, rounding=True)
    assert pictures.shape == pixels.shape
    assert difference(pictures, pixels) < 14
    cells = [array.reshape(6, 32, 4, 32, 4, 3).mean(axis=(2, 4)) for array in (pictures.astype(float), pixels)]
    assert np.abs(np.subtract(*cells)).mean() < 4  # what is left from a little farther away, where dots melt into colours
    with Image.open(path) as image:
        assert image.info["loop"] == 0
    assert "128x128" in ffmpeg("-i", str(path)).stderr.decode()


def test_gif_keeps_few_colours_exactly(tmp_path):
    frames = greys(0, 80, 160, 255)
    pictures, _ = gif_frames(save_gif(frames, tmp_path / "a.gif", fps=10, metadata=None))
    assert np.array_equal(pictures, to_uint8(frames, rounding=True))


def test_gif_goes_to_and_fro_and_says_how_often(tmp_path):
    path = save_gif(greys(0, 80, 160), tmp_path / "a.gif", fps=7, pingpong=True, loop_count=3, metadata=None)
    pictures, durations = gif_frames(path)
    assert [int(picture[0, 0, 0]) for picture in pictures] == [0, 80, 160, 80]
    assert durations == [140, 150, 140, 140]
    with Image.open(path) as image:
        assert image.info["loop"] == 3


def test_gif_keeps_the_time_of_pictures_that_repeat(tmp_path):
    a, b = greys(0, 200)
    assert gif_frames(save_gif(np.stack([a, a, a, b]), tmp_path / "a.gif", fps=7, metadata=None))[1] == [430, 140]
    path = save_gif(np.stack([a, a]), tmp_path / "still.gif", fps=7, metadata={"prompt": WORKFLOW})
    assert len(gif_frames(path)[0]) == 1
    assert read_settings(path) == {"prompt": WORKFLOW}


# animated PNG


def test_apng_holds_every_frame_exactly(tmp_path):
    frames = film(5)
    metadata = {"prompt": WORKFLOW, "workflow": NASTY}
    path = save_apng(frames, tmp_path / "a.png", fps=7, metadata=metadata)
    pictures, durations = webp_frames(path)
    assert np.array_equal(pictures, to_uint8(frames, rounding=False))
    assert durations == pytest.approx([1000 / 7] * 5)
    assert path.read_bytes().count(struct.pack(">HH", 1, 7)) >= 5  # as fractions
    with Image.open(path) as image:
        assert (image.info["loop"], image.is_animated) == (0, True)
        assert {key: json.loads(text) for key, text in image.text.items()} == metadata
    assert read_settings(path) == metadata
    assert "Video: apng, rgb24" in ffmpeg("-i", str(path)).stderr.decode()


def test_apng_levels_differ_in_size_alone(tmp_path):
    sizes = []
    for level in (0, 4, 9):
        path = save_apng(film(3), tmp_path / f"{level}.png", fps=8, compress_level=level, metadata=None)
        sizes.append(path.stat().st_size)
        assert np.array_equal(webp_frames(path)[0], to_uint8(film(3), rounding=False))
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("fps", [0.01, 23.976, 24000 / 1001, 240])
def test_apng_keeps_the_rate_and_pictures_that_repeat(tmp_path, fps):
    a, b = film(2)
    path = save_apng(np.stack([a, a, b, b, b]), tmp_path / "a.png", fps=fps, metadata=None)
    assert webp_frames(path)[1] == pytest.approx([2000 / fps, 3000 / fps], rel=1e-4)
    still = save_apng(np.stack([a, a]), tmp_path / "still.png", fps=fps, metadata={"prompt": WORKFLOW})
    assert read_settings(still) == {"prompt": WORKFLOW}


# settings


@pytest.mark.parametrize("kind", KINDS)
def test_settings_survive_whatever_they_hold(tmp_path, kind):
    metadata = {
        "prompt": {text: {"inputs": {"text": text}} for text in NASTY},
        "workflow": NASTY,
        "stillmotion": {"seed": 2**64 - 1, "cfg": 0.1, "none": None, "yes": True, "nested": [[[]], {}]},
        "plain": "text",
        "number": -1.5e-300,
        "a": 1,
    }
    path = save(kind, tmp_path / f"a.{kind}", metadata)
    assert read_settings(path) == metadata


@pytest.mark.parametrize("kind", KINDS)
def test_long_settings_survive(tmp_path, kind):
    metadata = {"prompt": "=;#\\\"'\n" * 14_000, "workflow": "一只🐈" * 30_000}
    assert read_settings(save(kind, tmp_path / f"a.{kind}", metadata)) == metadata


def test_other_programs_read_the_settings(tmp_path):
    metadata = {"prompt": WORKFLOW, "workflow": {"text": "a=b;c#d\\e\n猫"}, "stillmotion": {"seed": 1}}
    with Image.open(save("png", tmp_path / "a.png", metadata)) as image:
        assert {key: json.loads(text) for key, text in image.text.items()} == metadata
    with Image.open(save("webp", tmp_path / "a.webp", metadata)) as image:
        tags = dict(image.getexif())
    assert sorted(tags) == [0x010E, 0x010F, 0x0110]
    texts = dict(text.split(":", 1) for text in tags.values())
    assert {key: json.loads(text) for key, text in texts.items()} == metadata
    with Image.open(save("gif", tmp_path / "a.gif", metadata)) as image:
        texts = dict(line.split(":", 1) for line in image.info["comment"].decode().split("\n"))
    assert {key: json.loads(text) for key, text in texts.items()} == metadata
    for kind in ("mp4", "webm"):
        written = ffmpeg("-v", "error", "-i", str(save(kind, tmp_path / f"a.{kind}", metadata)), "-f", "ffmetadata", "-").stdout.decode()
        lines = dict(line.split("=", 1) for line in written.splitlines()[1:] if "=" in line)
        names = {key: key.upper() if kind == "webm" else key for key in metadata}
        assert {key: json.loads(re.sub(r"\\(.)", r"\1", lines[name])) for key, name in names.items()} == metadata


def test_without_metadata_there_are_no_settings_in_the_file(tmp_path):
    png, webp, gif, mp4, webm = (save(kind, tmp_path / f"a.{kind}", None).read_bytes() for kind in KINDS)
    place, chunks = 8, []
    while place < len(png):
        (length,) = struct.unpack_from(">I", png, place)
        chunks.append(png[place + 4 : place + 8])
        place += length + 12
    assert set(chunks) == {b"IHDR", b"IDAT", b"IEND"}
    assert not any(kind in webp for kind in (b"EXIF", b"XMP "))
    assert mp4.count(b"mdta") == 2  # the handler, and one key:
    assert b"mdtaencoder" in mp4
    assert b"!\xfe" not in gif
    assert [name for name, _ in webm_texts(io.BytesIO(webm))] == ["encoder", "duration"]  # the track's
    assert not re.search(rb"Lav[cf]\d", webm)


def test_the_privacy_switch_is_an_empty_dict_too(tmp_path):
    for kind in KINDS:
        assert save(kind, tmp_path / f"a.{kind}", None).read_bytes() == save(kind, tmp_path / f"b.{kind}", {}).read_bytes()


# values that are wrong


@pytest.mark.parametrize("fps", [0, -1, 1000.1, float("nan"), float("inf"), 0.001, "8", None])
@pytest.mark.parametrize("writer", [save_webp, save_mp4, save_webm, save_h265, save_apng])
def test_a_bad_rate_is_refused(tmp_path, writer, fps):
    with pytest.raises(InputError, match=r"fps is .*; it must be a number from 0\.01 to 1000"):
        writer(film(2), tmp_path / "a.bin", fps=fps, metadata=None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crf": -1}, "crf is -1; it must be a whole number from 0 to 51. .* Use 0"),
        ({"crf": 60}, "crf is 60; .*h264-mp4 knows nothing above 51. Use 51"),
        ({"crf": float("nan")}, "crf is nan"),
        ({"loop_count": -1}, "loop_count is -1; it must be a whole number"),
        ({"loop_count": 1.5}, "loop_count is 1.5"),
        ({"loop_count": 101}, "Use 100"),
    ],
)
def test_bad_numbers_for_mp4_are_refused(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        save_mp4(film(2), tmp_path / "a.mp4", fps=8, metadata=None, **options)


@pytest.mark.parametrize(
    ("writer", "options", "message"),
    [
        (save_webm, {"crf": 100}, "crf is 100; it must be a whole number from 0 to 63. .*webm knows nothing above 63. Use 63"),
        (save_webm, {"crf": 20.5}, "crf is 20.5; it must be a whole number"),
        (save_h265, {"crf": 52}, "crf is 52; .* knows nothing above 51. Use 51"),
        (save_h265, {"loop_count": -1}, "loop_count is -1"),
        (save_gif, {"fps": 60}, "fps is 60; it must be a number from 0.01 to 50. Browsers slow down .* Use 50"),
        (save_gif, {"fps": 0}, "fps is 0"),
        (save_gif, {"loop_count": 101}, "loop_count is 101"),
        (save_gif, {"fps": 0.01, "loop_count": 0}, None),
        (save_gif, {"fps": 0.01, "pingpong": True}, "would last 1000 seconds; 655 are the most"),
        (save_apng, {"compress_level": 10}, "compress_level is 10; .* from 0 to 9. Use 9"),
        (save_apng, {"compress_level": 1.5}, "compress_level is 1.5; it must be a whole number"),
    ],
)
def test_bad_numbers_for_the_others_are_refused(tmp_path, writer, options, message):
    if message is None:
        assert writer(film(6), tmp_path / "a.gif", **{"metadata": None} | options).exists()
        return
    with pytest.raises(InputError, match=message):
        writer(film(6), tmp_path / "a.bin", **{"fps": 8, "metadata": None} | options)
    assert list(tmp_path.iterdir()) == []


def test_sides_that_a_format_cannot_have_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"video/h265-mp4 cannot be 14x64 pixels\. A side must have 16"):
        save_h265(film(1, 64, 14), tmp_path / "a.mp4", fps=8, metadata=None)
    with pytest.raises(InputError, match="A GIF cannot be 65536x1 pixels"):
        save_gif(np.zeros((1, 1, 65536, 3), np.float32), tmp_path / "a.gif", fps=8, metadata=None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("quality", [-1, 101, float("nan"), "high"])
def test_a_bad_quality_is_refused(tmp_path, quality):
    with pytest.raises(InputError, match=r"quality is .* from 0 to 100"):
        save_webp(film(2), tmp_path / "a.webp", fps=8, quality=quality, metadata=None)


def test_unknown_names_are_answered_with_the_known_ones(tmp_path):
    with pytest.raises(UnknownNameError, match=r"pixel format 'yuv444p'.*yuv420p, yuv420p10le"):
        save_mp4(film(2), tmp_path / "a.mp4", fps=8, pix_fmt="yuv444p", metadata=None)
    with pytest.raises(UnknownNameError, match=r"pixel format 'yuv420p10le'.*yuv420p, yuva420p"):
        save_webm(film(2), tmp_path / "a.webm", fps=8, pix_fmt="yuv420p10le", metadata=None)
    with pytest.raises(UnknownNameError, match=r"video format 'video/h264'.*Choose one of: video/h264-mp4, video/h265-mp4, video/webm"):
        save_video(film(2), tmp_path / "a.mp4", format="video/h264", fps=8, metadata=None)
    with pytest.raises(UnknownNameError, match=r"WEBP method 'slow'.*slowest.*default, fastest, slowest"):
        save_webp(film(2), tmp_path / "a.webp", fps=8, method="slow", metadata=None)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((0, 8, 8, 3)), "nothing to write"),
        (np.zeros((2, 0, 8, 3)), "nothing to write"),
        (np.zeros((8, 8, 3)), "shape 8x8x3"),
        (np.zeros((2, 3, 8, 8)), "shape 2x3x8x8"),
        (np.zeros((2, 8, 8, 4)), "shape 2x8x8x4"),
        (np.zeros(()), "shape nothing"),
        (np.zeros((2, 8, 8, 3), np.uint8), "type uint8"),
        ("film", "shape nothing"),
        ([[1.0], [1.0, 2.0]], "must be an array"),
        (np.full((2, 8, 8, 3), np.nan), "NaN"),
        (np.pad(np.full((1, 8, 8, 3), np.inf), ((1, 0), (0, 0), (0, 0), (0, 0))), "infinite"),
    ],
)
@pytest.mark.parametrize("writer", [save_webp, save_mp4, save_webm, save_h265, save_apng])
def test_frames_that_are_no_film_are_refused(tmp_path, writer, frames, message):
    with pytest.raises(InputError, match=message):
        writer(frames, tmp_path / "a.bin", fps=8, metadata=None)
    assert list(tmp_path.iterdir()) == []


def test_a_still_has_three_dimensions(tmp_path):
    with pytest.raises(InputError, match=r"must be \(height, width, 3\)"):
        save_png(film(1), tmp_path / "a.png", None)


def test_webp_refuses_a_side_that_it_cannot_store(tmp_path):
    with pytest.raises(InputError, match="16384x1"):
        save_webp(np.zeros((1, 1, 16384, 3), np.float32), tmp_path / "a.webp", fps=8, metadata=None)


@pytest.mark.parametrize("kind", KINDS)
def test_settings_that_are_no_json_are_refused_before_any_work(tmp_path, kind):
    for metadata in ({"prompt": object()}, {"prompt": float("nan")}, {"a:b": 1}, {"a b": 1}, {"": 1}, {7: 1}):
        with pytest.raises(InputError):
            save(kind, tmp_path / f"a.{kind}", metadata)
    assert list(tmp_path.iterdir()) == []


# publication


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_exists_is_not_touched(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    path.write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        save(kind, path)
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["-i", "file:a", "http:a", "%03d", "a b'c\"", "猫", "pipe:0", "@x", "*", "a\nb"])
def test_odd_file_names_are_only_names(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = save("mp4", Path(f"{name}.mp4"), {"prompt": WORKFLOW})
    assert read_settings(path) == {"prompt": WORKFLOW}
    assert [entry.name for entry in tmp_path.iterdir()] == [f"{name}.mp4"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch, kind):
    def part_on_a_full_disk(folder: Path) -> Path:
        part = folder / ".x.part"
        part.symlink_to("/dev/full")  # the kernel answers every write with ENOSPC
        return part

    monkeypatch.setattr(filenames, "_part", part_on_a_full_disk)
    with pytest.raises(StorageError, match=f"disk that holds {re.escape(str(tmp_path))} is full.*Free some space"):
        save(kind, tmp_path / f"a.{kind}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("number", "message"), [(errno.ENOSPC, "is full"), (errno.EROFS, "read-only"), (errno.EIO, "Cannot write")])
def test_a_disk_that_fails_at_the_end_leaves_nothing_behind(tmp_path, monkeypatch, kind, number, message):
    def fail(handle: int) -> None:
        raise OSError(number, "simulated")

    monkeypatch.setattr(filenames.os, "fsync", fail)
    with pytest.raises(StorageError, match=message):
        save(kind, tmp_path / f"a.{kind}")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_missing_is_a_storage_error(tmp_path):
    for kind in KINDS:
        with pytest.raises(StorageError, match=r"Cannot write in .*missing"):
            save(kind, tmp_path / "missing" / f"a.{kind}")


@pytest.mark.parametrize(("kind", "style"), [("png", "image"), ("webp", "image"), ("gif", "video"), ("mp4", "video"), ("webm", "video")])
def test_eight_threads_with_one_prefix_get_eight_files(tmp_path, kind, style):
    def one(index: int) -> Path:
        name = next_name(tmp_path, "film", style=style)
        return save(kind, name, {"prompt": index}, film(2, 16, 16))

    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(one, range(8)))
    ending = f"_.{kind}" if style == "image" else f".{kind}"
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"film_{number:05}{ending}" for number in range(1, 9)]
    assert [read_settings(path)["prompt"] for path in paths] == list(range(8))


def test_eight_threads_with_one_path_get_one_file(tmp_path):
    def one(index: int) -> int | None:
        try:
            save_png(film(1)[0], tmp_path / "a.png", {"prompt": index})
        except InputError:
            return None
        return index

    with ThreadPoolExecutor(8) as pool:
        winners = [index for index in pool.map(one, range(8)) if index is not None]
    assert [read_settings(tmp_path / "a.png")["prompt"]] == winners
    assert len(list(tmp_path.iterdir())) == 1


# ffmpeg that fails


def script(folder: Path, text: str) -> str:
    path = folder / "ffmpeg.sh"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("echo 'Unknown encoder libx264' >&2; exit 1", EncodingError, "Unknown encoder libx264"),
        ("exit 3", EncodingError, "status 3"),
        ("head -c 9999999 /dev/zero >&2; echo the end >&2; cat > /dev/null; exit 1", EncodingError, "the end"),
        ("cat > /dev/null; exit 0", EncodingError, "cannot be read back"),  # says that all is well, and wrote nothing
        ("echo 'x: No space left on device' >&2; exit 1", StorageError, "is full"),
    ],
)
def test_ffmpeg_that_fails_is_quoted(tmp_path, monkeypatch, text, error, message):
    output = tmp_path / "output"
    output.mkdir()
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: script(tmp_path, text))
    with pytest.raises(error, match=message):
        save("mp4", output / "a.mp4", None, film(12, 128, 128))
    assert list(output.iterdir()) == []


def test_a_missing_ffmpeg_is_an_encoding_error(tmp_path, monkeypatch):
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(tmp_path / "nothing"))
    with pytest.raises(EncodingError, match=r"does not start.*Install the package"):
        save("mp4", tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_lost_its_settings_is_never_published(tmp_path, monkeypatch):
    monkeypatch.setattr(encode, "ffmetadata", lambda texts: ";FFMETADATA1\n")
    monkeypatch.setattr(encode, "exif", lambda texts: exif(to_texts({"prompt": 1})))
    monkeypatch.setattr(encode, "png_info", lambda texts: None)
    monkeypatch.setattr(encode, "comment", lambda texts: b"")
    for kind in KINDS:
        with pytest.raises(EncodingError, match="the settings inside are others"):
            save(kind, tmp_path / f"a.{kind}", {"prompt": WORKFLOW})
    assert list(tmp_path.iterdir()) == []
