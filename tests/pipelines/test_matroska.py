"""Honest, foreign, damaged and hostile WEBM: the answer is settings or one clear line."""

from __future__ import annotations

import io
import json
import random
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from errors import UnreadableFileError
from pipelines.encode import save_video
from pipelines.matroska import webm_fps, webm_index_is_first, webm_texts
from pipelines.metadata import read_settings, settings_in

WORKFLOW = {"3": {"class_type": "KSampler", "inputs": {"seed": 7, "text": 'a=b;c#d\\e "q" 猫'}}}
SEGMENT, CLUSTER, TAGS, VOID = b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75", b"\x12\x54\xc3\x67", b"\xec"
TAG, SIMPLE, NAME, STRING = b"\x73\x73", b"\x67\xc8", b"\x45\xa3", b"\x44\x87"
UNKNOWN = b"\xff"
MEBIBYTE = 2**20


def element(identity: bytes, content: bytes = b"", length: bytes | None = None) -> bytes:
    return identity + (length or (len(content) | 1 << 56).to_bytes(8)) + content


def tag(name: bytes, text: bytes) -> bytes:
    return element(TAG, element(b"\x63\xc0") + element(SIMPLE, element(NAME, name) + element(b"\x44\x7a", b"und") + element(STRING, text)))


def webm(*content: bytes, length: bytes | None = None) -> bytes:
    return element(b"\x1a\x45\xdf\xa3", element(b"\x42\x82", b"webm")) + element(SEGMENT, b"".join(content), length)


PROMPT = element(TAGS, tag(b"PROMPT", b'{"a": 1}'))


def read(folder: Path, name: str, data: bytes) -> dict[str, object]:
    path = folder / name
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    return read_settings(path)


@pytest.fixture(scope="module")
def ours(tmp_path_factory) -> bytes:
    frames = np.random.default_rng(0).random((3, 16, 16, 3))
    path = tmp_path_factory.mktemp("webm") / "a.webm"
    return save_video(frames, path, format="video/webm", fps=8, metadata={"prompt": WORKFLOW, "extraMetadata": 1}).read_bytes()


@pytest.mark.parametrize("container", ["webm", "matroska"])
def test_files_as_videohelpersuite_has_ffmpeg_write_them_are_read(tmp_path, container):
    escaped = json.dumps(WORKFLOW).replace("\\", "\\\\").replace("=", "\\=").replace(";", "\\;").replace("#", "\\#")
    (tmp_path / "notes").write_text(f";FFMETADATA1\nprompt={escaped}\nworkflow=[1]\ncreation_time=now\n")
    path = tmp_path / f"a.{container}"
    source = ["-f", "lavfi", "-i", "testsrc=size=32x32:rate=10:duration=0.4", "-i", str(tmp_path / "notes"), "-map_metadata", "1"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *source, "-c:v", "libvpx-vp9", "-crf", "20", "-b:v", "0", "-f", container]
    subprocess.run([*command, str(path)], check=True)
    assert read_settings(path) == {"prompt": WORKFLOW, "workflow": [1]}
    with path.open("rb") as file:
        assert webm_fps(file) == 10
        assert not webm_index_is_first(file)


def test_a_stream_that_was_written_while_it_happened_is_read(tmp_path):
    (tmp_path / "notes").write_text(";FFMETADATA1\nprompt=7\n")
    source = ["-f", "lavfi", "-i", "testsrc=size=32x32:rate=10:duration=0.4", "-i", str(tmp_path / "notes"), "-map_metadata", "1"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *source, "-c:v", "libvpx-vp9", "-live", "1", "-f", "webm", "-"]
    data = subprocess.run(command, check=True, capture_output=True).stdout
    assert SEGMENT + b"\x01" + b"\xff" * 7 in data
    assert read(tmp_path, "a.webm", data) == {"prompt": 7}


@pytest.mark.parametrize(
    "data",
    [
        webm(PROMPT),
        webm(element(CLUSTER, bytes(99)), element(VOID, bytes(9)), PROMPT),
        webm(element(CLUSTER, element(b"\xa3", bytes(9)), UNKNOWN) + element(CLUSTER, b"", UNKNOWN), PROMPT, length=UNKNOWN),
        webm(element(TAGS, element(TAG, element(SIMPLE, element(NAME, b"Prompt") + element(STRING, b'{"a": 1}\0\0', b"\x8a"))))),
        webm(element(TAGS, tag(b"X", b"no json") + element(TAG, element(SIMPLE, element(NAME, b"Y"))) + tag(b"PROMPT", b'{"a": 1}'))),
        webm(element(TAGS, tag(b"", b"1") + element(TAG, element(SIMPLE, element(STRING, b"2")))), PROMPT),
        webm(PROMPT, element(TAGS, tag(b"_OTHERS", b"[1]"))),
    ],
)
def test_honest_files(tmp_path, data):
    assert read(tmp_path, "a.webm", data) == {"prompt": {"a": 1}}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("head only.webm", b"\x1aE\xdf\xa3", "is cut off"),
        ("no segment.webm", element(b"\x1a\x45\xdf\xa3"), "is cut off"),
        ("none.webm", webm(element(CLUSTER, bytes(9))), "carries no settings"),
        ("too long.webm", webm(PROMPT)[:-1], "is cut off"),
        ("stands out.webm", webm(element(TAGS, element(TAG, element(SIMPLE, element(STRING, b"", b"\xa0"))))), "is cut off"),
        ("no length.webm", webm(element(TAGS, b"", UNKNOWN)), "is damaged"),
        ("no identity.webm", webm(bytes(20)), "is damaged"),
        ("long identity.webm", webm(b"\x08" + bytes(20)), "is damaged"),
        ("no size.webm", webm(b"\xec" + bytes(20)), "is damaged"),
        ("huge size.webm", webm(b"\xec\x01" + b"\xff" * 6 + b"\xfe"), "is cut off"),
        ("endless.webm", webm((VOID + b"\x80") * 100_001), "is damaged"),
        ("endless tags.webm", webm(element(TAGS, (TAG + b"\x80") * 100_001)), "is damaged"),
        ("deep.webm", webm(element(TAGS, tag(b"PROMPT", b"[" * 100_000))), "is damaged"),
        ("huge.webm", webm(element(TAGS, tag(b"PROMPT", bytes(17 * MEBIBYTE)))), "more text than"),
        ("many.webm", webm(element(TAGS, tag(b"PROMPT", b"9" * MEBIBYTE) * 17)), "more text than"),
        ("huge name.webm", webm(element(TAGS, tag(bytes(17 * MEBIBYTE), b"1"))), "more text than"),
    ],
)
def test_hostile_and_foreign_files(tmp_path, name, data, message):
    with pytest.raises(UnreadableFileError, match=message) as caught:
        read(tmp_path, name, data)
    assert caught.value.message.startswith(name)
    assert "\n" not in str(caught.value)


def test_a_film_that_is_cut_off_anywhere_is_unreadable(tmp_path, ours):
    assert read(tmp_path, "a.webm", ours) == {"prompt": WORKFLOW, "extraMetadata": 1}
    for length in [*range(300), *range(300, len(ours), 7)]:
        with pytest.raises(UnreadableFileError):
            read(tmp_path, "a.webm", ours[:length])


def test_a_film_with_bytes_flipped_never_surprises(tmp_path, ours):
    dice = random.Random(0)
    where = [place for place in range(len(ours)) if not 600 < place < len(ours) - 600]
    read_anyway = 0
    for _ in range(1500):
        data = bytearray(ours)
        for _ in range(dice.randint(1, 4)):
            data[dice.choice(where)] = dice.randrange(256)
        for reader in (webm_fps, webm_index_is_first):
            try:
                reader(io.BytesIO(data))
            except (ValueError, IndexError):
                continue
        try:
            read_anyway += bool(read(tmp_path, "a.webm", bytes(data)))
        except UnreadableFileError:
            continue
    assert 0 < read_anyway < 1500


def test_pictures_that_stand_elsewhere_are_no_even_rate(ours):
    assert webm_fps(io.BytesIO(ours)) == 8
    late = bytearray(ours)
    block = late.index(b"\x81\x00\xfa", late.index(CLUSTER))  # track 1, 250 ms
    late[block + 2] = 0xFC
    assert webm_fps(io.BytesIO(bytes(late))) == 0


def test_texts_are_found_in_order(ours):
    assert [name for name, _ in webm_texts(io.BytesIO(ours))] == ["prompt", "_others", "encoder", "duration"]


def test_a_tag_of_the_others_that_is_no_object_is_left_out(tmp_path):
    path = tmp_path / "a.webm"
    path.write_bytes(webm(element(TAGS, tag(b"_OTHERS", b"[1]"))))
    assert settings_in(path) == {}
