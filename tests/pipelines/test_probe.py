"""The probe must notice each way in which an encoder could cheat."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from errors import EncodingError
from pipelines import codecs
from pipelines.encode import save_apng, save_gif, save_png, save_video, save_webp, to_uint8
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


@pytest.mark.parametrize(
    ("name", "replaced", "by", "message"),
    [
        ("h265-mp4", "hvc1", "avc1", "ffmpeg failed: .*Tag avc1 incompatible"),
        ("h265-mp4", "format=yuv420p10le,", "format=yuv420p,", "pixel format yuv420p instead of yuv420p10le"),
        ("h265-mp4", "+faststart+", "+", "index last instead of first"),
        ("webm", "libvpx-vp9", "libvpx", "codec vp8 instead of vp9"),
        ("webm", "format=yuv420p,", "format=yuv422p,", "pixel format yuv422p instead of yuv420p"),
        ("webm", "color_trc=bt709", "color_trc=unknown", "colours tv, bt709/bt709/unknown, progressive instead of"),
        ("webm", "scale=", "negate,scale=", "the first frame shows something else"),
        ("webm", "scale=", "trim=end_frame=2,scale=", "frames 2 instead of 3"),
        ("webm", "1/8", "1/9", r"fps .* instead of 8"),
        ("webm", "scale=", "setpts=N*N/8/TB,scale=", r"fps 0\.0 instead of 8"),
    ],
)
def test_a_film_of_another_format_is_looked_at_as_closely(tmp_path, monkeypatch, name, replaced, by, message):
    arguments = codecs.arguments

    def cheat(*values: object) -> list[str]:
        honest = arguments(*values)
        assert any(replaced in argument for argument in honest)
        return [argument.replace(replaced, by) for argument in honest]

    monkeypatch.setattr(codecs, "arguments", cheat)
    with pytest.raises(EncodingError, match=f"(?s){message}"):
        save_video(FRAMES, tmp_path / f"a.{name[-4:].strip('-')}", format=f"video/{name}", fps=8, metadata=None)
    assert list(tmp_path.iterdir()) == []


def test_an_index_at_the_end_of_a_webm_is_noticed(tmp_path, monkeypatch):
    arguments = codecs.arguments
    monkeypatch.setattr(
        codecs, "arguments", lambda *values: [value.replace("cues_to_front", "allow_raw_vfw") for value in arguments(*values)]
    )
    with pytest.raises(EncodingError, match="index last instead of first"):
        save_video(FRAMES, tmp_path / "a.webm", format="video/webm", fps=8, metadata=None)


def test_a_film_without_transparency_does_not_pass_for_one(tmp_path):
    path = save_video(FRAMES, tmp_path / "a.webm", format="video/webm", fps=8, metadata=None)
    probe(path, codec="vp9", fps=8, **FACTS)
    with pytest.raises(EncodingError, match="pixel format yuv420p instead of yuva420p"):
        probe(path, codec="vp9", pix_fmt="yuva420p", **FACTS)


def test_a_gif_and_an_animated_png_are_compared_too(tmp_path):
    red, green, blue = to_uint8(FRAMES, rounding=True)
    gif = save_gif(FRAMES, tmp_path / "a.gif", fps=7, loop_count=2, metadata=None)
    facts = FACTS | {"fps": 7, "repeats": 2}
    probe(gif, first=red, last=blue, **facts)
    for wanted, message in [
        ({"last": green}, "the last frame shows something else"),
        ({"frames": 4}, r"frames 3\.02 instead of 4"),
        ({"fps": 8}, "frames .* instead of 3"),
        ({"repeats": 0}, "repeats 2 instead of 0"),
        ({"metadata": {"prompt": 1}}, "the settings inside are others"),
    ]:
        with pytest.raises(EncodingError, match=message):
            probe(gif, **facts | wanted)
    png = save_apng(FRAMES, tmp_path / "a.png", fps=7, metadata=None)
    pixels = to_uint8(FRAMES, rounding=False)
    probe(png, first=pixels[0], last=pixels[2], tolerance=0, fps=7, repeats=0, **FACTS)
    with pytest.raises(EncodingError, match="the last frame shows something else"):
        probe(png, first=pixels[0], last=pixels[2] ^ 1, tolerance=0, fps=7, **FACTS)
    with pytest.raises(EncodingError, match=r"frames 3\.43 instead of 3"):
        probe(png, fps=8, **FACTS)


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
@pytest.mark.parametrize("kind", ["png", "webp", "gif", "mp4", "webm"])
def test_a_damaged_file_cannot_be_read_back(tmp_path, kind, cut):
    path = tmp_path / f"a.{kind}"
    frames = np.random.default_rng(0).random((3, 32, 48, 3))
    writers = {"png": save_apng, "webp": save_webp, "gif": save_gif, "mp4": save_mp4, "webm": partial(save_video, format="video/webm")}
    writers[kind](frames, path, fps=8, metadata=None)
    data = path.read_bytes()
    path.write_bytes(data[: cut if isinstance(cut, int) else int(len(data) * cut)])
    with pytest.raises(EncodingError):
        probe(path, frames=3, width=48, height=32, codec="vp9" if kind == "webm" else "h264")


def test_a_missing_file_cannot_be_read_back(tmp_path):
    with pytest.raises(EncodingError, match="cannot be read back"):
        probe(tmp_path / "a.mp4", **FACTS)
