"""Files from strangers: whatever is in them, the answer is settings or one clear line."""

from __future__ import annotations

import io
import json
import os
import random
import struct
import tracemalloc
import zlib
from pathlib import Path

import pytest
from PIL import Image

from errors import UnreadableFileError
from pipelines import containers
from pipelines.metadata import read_settings

COMFYUI = Path(__file__).parents[1] / "data" / "comfyui"
NAMES = ["image.png", "video.webp", "video.mp4", "video.gif"]
MEBIBYTE = 2**20


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*texts: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(texts) + chunk(b"IDAT", zlib.compress(bytes(4))) + chunk(b"IEND", b"")


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def mp4(moov: bytes) -> bytes:
    return box(b"ftyp", b"isom" + bytes(4)) + box(b"moov", moov) + box(b"mdat", b"film")


def mdta(keys: bytes, values: bytes, version: bytes = bytes(4)) -> bytes:
    return box(b"meta", version + box(b"hdlr", bytes(8) + b"mdta" + bytes(13)) + box(b"keys", keys) + box(b"ilst", values))


KEYS = struct.pack(">II", 0, 1) + box(b"mdta", b"prompt")
VALUES = box(struct.pack(">I", 1), box(b"data", struct.pack(">II", 1, 0) + b'{"a": 1}'))


def webp(exif: bytes, size: int | None = None) -> bytes:
    chunks = b"VP8X" + struct.pack("<I", 10) + bytes(10) + b"EXIF" + struct.pack("<I", len(exif)) + exif + bytes(len(exif) % 2)
    return b"RIFF" + struct.pack("<I", 4 + len(chunks) if size is None else size) + b"WEBP" + chunks


def tiff(count: int, *entries: bytes, data: bytes = b"", order: str = ">") -> bytes:
    head = b"MM\0*" if order == ">" else b"II*\0"
    return head + struct.pack(order + "IH", 8, count) + b"".join(entries) + bytes(4) + data


def gif(*blocks: bytes, end: bytes = b";") -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6) + b"".join(blocks) + end


def comment(text: bytes) -> bytes:
    return b"!\xfe" + sub_blocks(text)


def sub_blocks(data: bytes) -> bytes:
    return b"".join(bytes([len(data[n : n + 255])]) + data[n : n + 255] for n in range(0, len(data), 255)) + b"\0"


PICTURE = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0x80) + bytes(6) + b"\x02" + sub_blocks(b"\x44\x01")


def read(folder: Path, name: str, data: bytes) -> dict[str, object]:
    path = folder / name
    path.unlink(missing_ok=True)  # some file systems wait for the disk when a file is emptied and written again
    path.write_bytes(data)
    return read_settings(path)


def recorded(name: str) -> bytes:
    """A film as ComfyUI or VideoHelperSuite wrote it; the GIF, into which they put no settings, is ours."""
    if name != "video.gif":
        return (COMFYUI / name).read_bytes()
    with Image.open(COMFYUI / "video.webp") as image:
        data = io.BytesIO()
        text = b"prompt:" + json.dumps(read_settings(COMFYUI / "video.webp")["prompt"]).encode()
        image.resize((16, 16)).save(data, "GIF", comment=text)
    return data.getvalue()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.png", png(chunk(b"tEXt", b'prompt\0{"a": 1}'))),
        ("renamed.mp4", png(chunk(b"tEXt", b'prompt\0{"a": 1}'))),
        ("after the pixels.png", png()[:-12] + chunk(b"tEXt", b'prompt\0{"a": 1}') + png()[-12:]),
        ("a.mp4", mp4(box(b"udta", mdta(KEYS, VALUES)))),
        ("directly in moov.mp4", mp4(mdta(KEYS, VALUES))),
        ("quicktime.mov", mp4(box(b"udta", mdta(KEYS, VALUES, version=b"") + bytes(4)))),
        ("wide.mp4", mp4(mdta(KEYS, VALUES)) + struct.pack(">I4sQ", 1, b"mdat", 20) + bytes(4)),
        ("to the end.mp4", mp4(mdta(KEYS, VALUES)) + struct.pack(">I4s", 0, b"mdat") + bytes(99)),
        ("a.gif", gif(comment(b'prompt:{"a": 1}'), PICTURE)),
        ("87.gif", gif(comment(b'prompt:{"a": 1}'), PICTURE).replace(b"GIF89a", b"GIF87a")),
        (
            "at the end.gif",
            gif(b"!\xff" + sub_blocks(b"NETSCAPE2.0") + b"!\xf9" + sub_blocks(bytes(4)), PICTURE, comment(b'prompt:{"a": 1}')),
        ),
        ("lines.gif", gif(comment(b'made with love\nprompt:{"a": 1}\nby: me'), PICTURE, comment(b"later"))),
        ("a.webp", webp(tiff(1, struct.pack(">HHII", 0x110, 2, 16, 26), data=b'prompt:{"a": 1}\0'))),
        ("little.webp", webp(tiff(1, struct.pack("<HHII", 0x110, 2, 16, 26), data=b'prompt:{"a": 1}\0', order="<"))),
        ("prefix.webp", webp(b"Exif\0\0" + tiff(1, struct.pack(">HHII", 0x110, 2, 16, 26), data=b'prompt:{"a": 1}\0'))),
    ],
)
def test_honest_files(tmp_path, name, data):
    assert read(tmp_path, name, data) == {"prompt": {"a": 1}}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("empty.png", b"", "is empty"),
        ("text.png", b"hello, I am a text", "is not a PNG, WEBP, GIF, MP4, WEBM or JSON file"),
        ("json.png", b'{"prompt": {}}', "is not a PNG"),
        ("gif.webp", b"GIF89a" + bytes(20), "is damaged"),
        ("wave.webp", b"RIFF" + bytes(4) + b"WAVE", "is not a PNG"),
        ("none.gif", gif(PICTURE), "carries no settings"),
        ("no end.gif", gif(comment(b"prompt:1"), PICTURE, end=b""), "is cut off"),
        ("no colours.gif", gif()[:15], "is cut off"),
        ("no blocks.gif", gif(b"!\xfe", end=b""), "is cut off"),
        ("odd.gif", gif(b"?"), "is damaged"),
        ("huge.gif", gif(comment(b"prompt:" + bytes(17 * MEBIBYTE))), "more text than"),
        ("many.gif", gif(comment(b"p:" + b"9" * MEBIBYTE) * 17), "more text than"),
        ("endless.gif", gif(b"!\xfe\0" * 100_001), "is damaged"),
        ("deep.gif", gif(comment(b"prompt:" + b"[" * 100_000)), "is damaged"),
        ("none.png", png(), "carries no settings"),
        ("none.mp4", mp4(b""), "carries no settings"),
        ("none.webp", webp(tiff(0)), "carries no settings"),
        ("no json.png", png(chunk(b"tEXt", b"prompt\0{'a': 1}")), "carries no settings"),
        ("flipped.png", png(chunk(b"tEXt", b'prompt\0{"a": 1}').replace(b"1", b"2")), "is damaged"),
        ("flat itxt.png", png(chunk(b"iTXt", b"prompt\0")), "is damaged"),
        ("open itxt.png", png(chunk(b"iTXt", b"prompt\0\0\0en")), "is damaged"),
        ("no zlib.png", png(chunk(b"zTXt", b"prompt\0\0nonsense")), "is damaged"),
        ("bomb.png", png(chunk(b"zTXt", b"prompt\0\0" + zlib.compress(bytes(64 * MEBIBYTE)))), "more text than"),
        ("many.png", png(*[chunk(b"zTXt", b"p\0\0" + zlib.compress(bytes(9 * MEBIBYTE)))] * 50), "more text than"),
        ("huge.png", png(chunk(b"tEXt", b"prompt\0" + bytes(17 * MEBIBYTE))), "more text than"),
        ("liar.png", png()[:-12] + struct.pack(">I", 2**32 - 1) + b"tEXt", "more text than"),
        ("deep.png", png(chunk(b"tEXt", b"prompt\0" + b"[" * 100_000)), "is damaged"),
        ("endless.png", png()[:-12] + chunk(b"IDAT", b"") * 100_001, "is damaged"),
        ("head only.mp4", box(b"ftyp", b"isom"), "is cut off"),
        ("no film.mp4", box(b"ftyp", b"isom") + box(b"moov", b""), "is cut off"),
        ("too long.mp4", mp4(box(b"udta", struct.pack(">I4s", 999, b"meta"))), "is cut off"),
        ("too short.mp4", mp4(struct.pack(">I4s", 7, b"udta")), "is cut off"),
        ("backwards.mp4", mp4(struct.pack(">I4sQ", 1, b"udta", 2**64 - 1)), "is cut off"),
        ("endless.mp4", mp4(box(b"free", b"") * 100_001), "is damaged"),
        ("no index.mp4", mp4(mdta(KEYS, VALUES.replace(b"\0\0\0\1", b"\0\0\0\2", 1))), "carries no settings"),
        ("no data.mp4", mp4(mdta(KEYS, box(struct.pack(">I", 1), b""))), "carries no settings"),
        ("short keys.mp4", mp4(mdta(KEYS[:10], VALUES)), "is damaged"),
        ("huge.mp4", mp4(mdta(KEYS, bytes(17 * MEBIBYTE))), "more text than"),
        ("cut.webp", webp(tiff(0), size=9999), "is cut off"),
        ("no tiff.webp", webp(b"XX" + bytes(20)), "is damaged"),
        ("short tiff.webp", webp(b"MM\0*"), "is damaged"),
        ("far tiff.webp", webp(b"MM\0*" + b"\xff" * 4), "is damaged"),
        ("far value.webp", webp(tiff(1, struct.pack(">HHII", 0x110, 2, 99, 26))), "is damaged"),
        ("too few.webp", webp(tiff(9)), "is damaged"),
        (
            "one text a thousand times.webp",
            webp(tiff(1000, *[struct.pack(">HHII", 0x110, 2, MEBIBYTE, 14 + 12000)] * 1000, data=b"a:" + b"1" * MEBIBYTE)),
            "more text than",
        ),
    ],
)
def test_hostile_and_foreign_files(tmp_path, name, data, message):
    with pytest.raises(UnreadableFileError, match=message) as caught:
        read(tmp_path, name, data)
    assert caught.value.message.startswith(name)
    assert "\n" not in str(caught.value)


def test_a_bomb_is_not_inflated(tmp_path):
    bomb = png(chunk(b"zTXt", b"prompt\0\0" + zlib.compress(bytes(128 * MEBIBYTE), 1)))
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableFileError, match="more text than"):
            read(tmp_path, "a.png", bomb)
        assert tracemalloc.get_traced_memory()[1] < 64 * MEBIBYTE
    finally:
        tracemalloc.stop()


def test_things_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")  # opening it would wait for ever
    (tmp_path / "loop.png").symlink_to("loop.png")
    for path, message in [
        (tmp_path, "is not a file"),
        (tmp_path / "pipe.png", "is not a file"),
        (tmp_path / "missing.png", "does not exist"),
        (tmp_path / "loop.png", "loop.png"),
        (tmp_path / "nul\0.png", "does not exist"),
        (tmp_path / ("x" * 300), "x"),
        (Path("/dev/zero"), "is not a file"),
        (Path(), "is not a file"),
    ]:
        with pytest.raises(UnreadableFileError, match=message):
            read_settings(path)


def test_a_gif_of_countless_blocks_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(containers, "_BLOCKS", 8)
    assert read(tmp_path, "a.gif", gif(comment(b"prompt:1"), PICTURE, PICTURE)) == {"prompt": 1}
    with pytest.raises(UnreadableFileError, match="is damaged"):
        read(tmp_path, "a.gif", gif(comment(b"prompt:1"), PICTURE, PICTURE, PICTURE, PICTURE))


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_cut_off_anywhere_is_unreadable(tmp_path, name):
    data = recorded(name)
    for length in [*range(200), *range(200, len(data), 61), *range(len(data) - 50, len(data))]:
        with pytest.raises(UnreadableFileError):
            read(tmp_path, name, data[:length])


@pytest.mark.parametrize("name", NAMES)
def test_a_file_with_bytes_flipped_never_surprises(tmp_path, name):
    original = recorded(name)
    where = {
        "image.png": range(200),
        "video.webp": range(len(original) - 2800, len(original)),
        "video.mp4": range(3793, len(original)),
        "video.gif": range(len(original)),
    }
    dice = random.Random(0)
    read_anyway = 0
    for _ in range(600):
        data = bytearray(original)
        for _ in range(dice.randint(1, 4)):
            data[dice.choice(where[name])] = dice.randrange(256)
        try:
            read_anyway += isinstance(read(tmp_path, name, bytes(data)), dict)
        except UnreadableFileError:
            continue
    assert read_anyway < 600
