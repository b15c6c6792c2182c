from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from errors import InputError, StorageError, UnreadableFileError
from pipelines.metadata import exif, ffmetadata, read_settings, settings_in, to_texts, write_sidecar

COMFYUI = Path(__file__).parents[1] / "data" / "comfyui"


@pytest.mark.parametrize("name", ["image.png", "video.webp", "video.mp4"])
def test_files_of_comfyui_and_videohelpersuite_are_read(name):
    settings = read_settings(COMFYUI / name)
    assert list(settings) == ["prompt"]  # the encoder's name and the date in the MP4 are no settings
    workflow = settings["prompt"]
    assert workflow["3"]["class_type"] == "KSampler"
    assert workflow["3"]["inputs"]["seed"] == 367490676387803
    assert workflow["13"]["inputs"]["sampler_name"] == "euler_ancestral"
    assert workflow["6"]["inputs"]["text"] == "Rocket takes off from the ground, fire, sky, airplane"


def test_a_file_without_settings_says_so(tmp_path):
    path = tmp_path / "a.png"
    info = PngInfo()
    info.add_text("Software", "a camera")
    Image.new("RGB", (2, 2)).save(path, pnginfo=info)
    with pytest.raises(UnreadableFileError, match=r"a\.png carries no settings"):
        read_settings(path)
    assert settings_in(path) == {}


@pytest.mark.parametrize("compressed", [False, True])
def test_every_kind_of_png_text_is_read(tmp_path, compressed):
    info = PngInfo()
    info.add_text("latin", '"é"', zip=compressed)
    info.add_itxt("prompt", '{"text": "猫"}', lang="zh", tkey="提示", zip=compressed)
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png", pnginfo=info)
    assert read_settings(tmp_path / "a.png") == {"latin": "é", "prompt": {"text": "猫"}}


def test_settings_that_pillow_wrote_as_exif_are_read(tmp_path):
    tags = Image.Exif()
    tags[0x0110], tags[0x010F] = 'prompt:{"a": "b:c"}', "workflow:[1]"
    Image.new("RGB", (2, 2)).save(tmp_path / "a.webp", exif=tags)
    assert read_settings(tmp_path / "a.webp") == {"prompt": {"a": "b:c"}, "workflow": [1]}


def test_nan_is_read_as_nothing(tmp_path):
    (tmp_path / "a.json").write_text('{"prompt": {"is_changed": [NaN, -Infinity]}}')
    assert read_settings(tmp_path / "a.json") == {"prompt": {"is_changed": [None, None]}}


def test_texts_are_ascii():
    texts = to_texts({"prompt": "猫\ud83d\n", "n": 1.0})
    assert texts == {"prompt": '"\\u732b\\ud83d\\n"', "n": "1.0"}
    assert to_texts(None) == {}


def circle() -> list[object]:
    value: list[object] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "metadata",
    [
        {"prompt": {1, 2}},
        {"prompt": b"bytes"},
        {"prompt": float("inf")},
        {"prompt": circle()},
        {"a=b": 1},
        {"": 1},
        {"猫": 1},
        {"a" * 65: 1},
        {str(number): 1 for number in range(65)},
        {"prompt": "x" * (16 * 2**20)},
        {"a": "x" * (9 * 2**20), "b": "x" * (9 * 2**20)},
    ],
)
def test_settings_that_no_file_can_carry_are_refused(metadata):
    with pytest.raises(InputError):
        to_texts(metadata)


def test_exif_is_what_pillow_reads():
    texts = to_texts({"workflow": [1], "prompt": {"a": 1}, "stillmotion": 2, "x": 3} | {f"k{n}": n for n in range(60)})
    tags = Image.Exif()
    tags.load(exif(texts))
    assert tags[0x0110] == 'prompt:{"a": 1}'
    assert tags[0x010F] == "workflow:[1]"
    assert tags[0x010E] == "stillmotion:2"
    assert tags[0x010D] == "x:3"  # four bytes, which stand in the entry itself
    assert len(tags) == 64
    assert exif({}) == b""


def test_ffmetadata_escapes_what_ffmpeg_would_take_for_its_own():
    assert ffmetadata({"prompt": r'"a=b;c#d\n"', "n": "1"}) == ';FFMETADATA1\nprompt="a\\=b\\;c\\#d\\\\n"\nn=1\n'


# sidecars


def test_a_sidecar_stands_beside_its_film(tmp_path):
    document = {"prompt": "猫\ud800", "settings": {"seed": 2**64}, "files": []}
    path = write_sidecar(tmp_path / "film_00001.mp4", document)
    assert path == tmp_path / "film_00001.mp4.json"
    assert read_settings(path) == document
    assert json.loads(path.read_text("utf-8")) == document
    with pytest.raises(InputError, match="exists already"):
        write_sidecar(tmp_path / "film_00001.mp4", {})
    assert read_settings(path) == document


def test_a_sidecar_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(InputError, match=r"'a\.mp4' cannot be written as JSON"):
        write_sidecar(tmp_path / "a.mp4", {"a": object()})
    with pytest.raises(StorageError):
        write_sidecar(tmp_path / "missing" / "a.mp4", {})
    assert list(tmp_path.iterdir()) == []


def test_a_sidecar_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "a.JSON").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_settings(tmp_path / "a.JSON") == {"a": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[1]", "holds no JSON object"),
        (b'{"a": }', "is not valid JSON: Expecting value: line 1"),
        (b"\xff\xfe{", "is not UTF-8 text"),
        (b"{}", "carries no settings"),
        (b"", "is empty"),
        (b'{"a": ' + b"[" * 100_000, "is damaged"),
        (b'{"a": ' + b"1" * 5000 + b"}", "a.json"),
    ],
)
def test_a_json_file_that_is_no_sidecar_is_unreadable(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UnreadableFileError, match=message):
        read_settings(tmp_path / "a.json")
