"""The probe must notice each way in which an encoder could cheat."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from errors import EncodingError
from pipelines import codecs
from pipelines.encode import save_png, save_video, save_webp, to_uint8
from pipelines.probe import probe

save_mp4 = partial(save_video, format="video/h264-mp4")
FRAMES = np.stack([np.full((32, 48, 3), colour, np.float32) for colour in ((0.9, 0.1, 0.2), (0.2, 0.8, 0.1), (0.1, 0.3, 0.9))])
FACTS = {"frames": 3, "width": 48, "height": 32}


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    return save_mp4(FRAMES, tmp_path_factory.mktemp("film") / "a.mp4", fps=8, metadata={"prompt": 1})


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"frames": 4}, "frames 3 instead of 4"),
        ({"width": 64}, "width 48 instead of 64"),
        ({"height": 16}, "height 32 instead of 16"),
        ({"pix_fmt": "yuv420p10le"}, "pixel format yuv420p instead of yuv420p10le"),
        ({"fps": 8.01}, r"fps 8\.0 instead of 8\.01"),
        ({"metadata": None}, "the settings inside are others"),
        ({"metadata": {"prompt": 2}}, "the settings inside are others"),
    ],
)
def test_facts_that_differ_are_named(film, wanted, message):
    facts = FACTS | {"fps": 8, "metadata": {"prompt": 1}}
    probe(film, **facts)
    with pytest.raises(EncodingError, match=message):
        probe(film, **facts | wanted)


def test_frames_that_differ_are_named(film):
    red, _, blue = to_uint8(FRAMES, rounding=True)
    facts = FACTS | {"metadata": {"prompt": 1}}
    probe(film, first=red, last=blue, **facts)
    with pytest.raises(EncodingError, match="the first frame shows something else, the last frame shows"):
        probe(film, first=blue, last=red, **facts)
    with pytest.raises(EncodingError, match=r"the first frame shows something else\."):
        probe(film, first=red[..., ::-1], last=blue, **facts)


def test_a_mirrored_frame_is_another_picture(tmp_path):
    halves = np.concatenate([FRAMES[:1, :, :32], FRAMES[2:, :, :32]], axis=2)
    path = save_mp4(halves, tmp_path / "a.mp4", fps=8, metadata=None)
    picture = to_uint8(halves, rounding=True)[0]
    probe(path, frames=1, width=64, height=32, first=picture)
    with pytest.raises(EncodingError, match="the first frame shows something else"):
        probe(path, frames=1, width=64, height=32, first=picture[:, ::-1])


@pytest.mark.parametrize(
    ("replaced", "by", "message"),
    [
        ("+faststart+", "+", "index last instead of first"),
        ("libx264", "libx265", "codec hevc instead of h264"),
        ("format=yuv420p,", "format=yuv444p,", "pixel format yuv444p instead of yuv420p"),
        ("colorspace=bt709", "colorspace=smpte170m", "colours tv, smpte170m/bt709/bt709, progressive instead of"),
        ("color_trc=bt709", "color_trc=unknown", "colours tv, bt709/bt709/unknown, progressive instead of"),
        ("scale=", "reverse,scale=", "the first frame shows something else"),
        ("scale=", "negate,scale=", "the first frame shows something else"),
        ("scale=", "trim=end_frame=2,scale=", "frames 2 instead of 3"),
        ("scale=", "crop=32:32,scale=", "width 32 instead of 48"),
        ("scale=", "setpts=N*N/8/TB,scale=", r"fps 0\.0 instead of 8"),
        ("1/8", "1/9", r"fps 9\.0 instead of 8"),
    ],
)
def test_a_film_that_is_not_what_was_asked_for_is_never_published(tmp_path, monkeypatch, replaced, by, message):
    arguments = codecs.arguments

    def cheat(*values: object) -> list[str]:
        honest = arguments(*values)
        assert any(replaced in argument for argument in honest)
        return [argument.replace(replaced, by) for argument in honest]

    monkeypatch.setattr(codecs, "arguments", cheat)
    with pytest.raises(EncodingError, match=message):
        save_mp4(FRAMES, tmp_path / "a.mp4", fps=8, metadata=None)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_is_compared_byte_for_byte(tmp_path):
    still = FRAMES[0]
    path = save_png(still, tmp_path / "a.png", None)
    pixels = to_uint8(still, rounding=False)
    other = pixels.copy()
    other[31, 47, 2] += 1
    probe(path, frames=1, width=48, height=32, first=pixels, tolerance=0)
    with pytest.raises(EncodingError, match="the first frame shows something else"):
        probe(path, frames=1, width=48, height=32, first=other, tolerance=0)
    with pytest.raises(EncodingError, match="frames 1 instead of 2"):
        probe(path, frames=2, width=48, height=32)


def test_a_webp_is_compared_too(tmp_path):
    path = save_webp(FRAMES, tmp_path / "a.webp", fps=8, metadata=None)
    red, green, blue = to_uint8(FRAMES, rounding=False)
    probe(path, first=red, last=blue, fps=8, **FACTS)
    with pytest.raises(EncodingError, match="the last frame shows something else"):
        probe(path, first=red, last=green, fps=8, **FACTS)
    with pytest.raises(EncodingError, match=r"frames 3\.0 instead of 4"):
        probe(path, **FACTS | {"frames": 4}, fps=8)
    with pytest.raises(EncodingError, match=r"frames .* instead of 3"):
        probe(path, fps=9, **FACTS)


def test_a_still_cannot_stand_for_a_film_that_moves(tmp_path):
    Image.fromarray(to_uint8(FRAMES[0], rounding=False)).save(tmp_path / "a.webp")
    red, _, blue = to_uint8(FRAMES, rounding=False)
    probe(tmp_path / "a.webp", first=red, last=red, fps=8, **FACTS)
    with pytest.raises(EncodingError, match="the last frame shows something else"):
        probe(tmp_path / "a.webp", first=red, last=blue, fps=8, **FACTS)


@pytest.mark.parametrize("cut", [0, 5, 40, 0.3, 0.9])
@pytest.mark.parametrize("kind", ["png", "webp", "mp4"])
def test_a_damaged_file_cannot_be_read_back(tmp_path, kind, cut):
    path = tmp_path / f"a.{kind}"
    frames = np.random.default_rng(0).random((3, 32, 48, 3))
    if kind == "png":
        save_png(frames[0], path, None)
    else:
        (save_webp if kind == "webp" else save_mp4)(frames, path, fps=8, metadata=None)
    data = path.read_bytes()
    path.write_bytes(data[: cut if isinstance(cut, int) else int(len(data) * cut)])
    with pytest.raises(EncodingError):
        probe(path, frames=1 if kind == "png" else 3, width=48, height=32)


def test_a_missing_file_cannot_be_read_back(tmp_path):
    with pytest.raises(EncodingError, match="cannot be read back"):
        probe(tmp_path / "a.mp4", **FACTS)
