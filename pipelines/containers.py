"""The texts that PNG, WEBP, GIF and MP4 files carry, read without decoding a pixel or starting a program.

Files come from strangers here. The readers walk the containers themselves, check every length against the file, and give up on
sizes that no honest file has. They raise ValueError with the end of a sentence ("is cut off before its end"), struct.error,
zlib.error or IndexError; metadata.py makes the error that a person sees.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

TEXT_BYTES = 16 * 2**20  # the most text that one file may carry, each way
TOO_MUCH = "carries more text than settings can have"
DAMAGED = "is damaged"
PROMPT_TAG = 0x0110  # the highest EXIF tag that carries settings
CUT_OFF = "is cut off before its end"
PIECES = 100_000  # the most chunks or boxes that are walked
_BLOCKS = 4_000_000  # the most blocks of a whole GIF, up to 255 bytes each


def kind_of(file: BinaryIO) -> str:
    """ "png", "webp", "gif", "mp4", "webm" (any Matroska) or "json", by content; the position in the file is kept.

    ValueError for everything else."""
    start = file.tell()
    head = file.read(12)
    file.seek(start)
    if not head:
        raise ValueError("is empty")
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head[:4] == b"RIFF" and head[8:] == b"WEBP":
        return "webp"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    if head[4:8] == b"ftyp":
        return "mp4"
    if head[:4] == b"\x1aE\xdf\xa3":
        return "webm"
    if Path(file.name).suffix.lower() == ".json":
        return "json"
    raise ValueError("is not a PNG, WEBP, GIF, MP4, WEBM or JSON file, whatever it is called")


def png_texts(file: BinaryIO) -> Iterator[tuple[str, str]]:
    file.seek(8)
    for _ in range(PIECES):
        length, kind = struct.unpack(">I4s", take(file, 8))
        if kind in (b"tEXt", b"zTXt", b"iTXt"):
            data = take(file, length)
            if struct.pack(">I", zlib.crc32(kind + data)) != take(file, 4):
                raise ValueError(DAMAGED)
            yield _png_text(kind, data)
        elif kind == b"IEND":
            take(file, length + 4)
            return
        else:
            file.seek(length + 4, os.SEEK_CUR)
    raise ValueError(DAMAGED)


def webp_texts(file: BinaryIO) -> Iterator[tuple[str, str]]:
    (size,) = struct.unpack("<4xI4x", take(file, 12))
    if 8 + size > size_of(file):
        raise ValueError(CUT_OFF)
    for _ in range(PIECES):
        if file.tell() >= 8 + size:
            return
        kind, length = struct.unpack("<4sI", take(file, 8))
        if kind == b"EXIF":
            yield from _exif_texts(take(file, length).removeprefix(b"Exif\0\0"))  # some writers leave the prefix in
            return
        file.seek(length + length % 2, os.SEEK_CUR)
    raise ValueError(DAMAGED)


def gif_texts(file: BinaryIO) -> Iterator[tuple[str, str]]:
    """The lines "key:text" of all comments."""
    _skip_colours(file, take(file, 13)[10])
    budget = iter(range(_BLOCKS))
    for _ in range(PIECES):
        kind = take(file, 1)
        if kind == b";":
            return
        if kind == b"!" and take(file, 1) == b"\xfe":
            lines = _sub_blocks(file, budget).decode("utf-8", "replace").split("\n")
            yield from ((key, text) for key, colon, text in (line.partition(":") for line in lines) if colon)
        elif kind == b"!":
            _sub_blocks(file, budget, are_kept=False)
        elif kind == b",":
            _skip_colours(file, take(file, 9)[8])
            take(file, 1)  # the size of its first codes
            _sub_blocks(file, budget, are_kept=False)
        else:
            break
    raise ValueError(DAMAGED)


def mp4_texts(file: BinaryIO) -> Iterator[tuple[str, str]]:
    top = _children(file, 0, size_of(file))
    if not {b"moov", b"mdat"} <= top.keys():
        raise ValueError(CUT_OFF)
    moov = _children(file, *top[b"moov"])
    udta = _children(file, *moov[b"udta"]) if b"udta" in moov else {}
    for parent in (moov, udta):
        if b"meta" in parent:
            yield from _mdta_texts(file, *parent[b"meta"])


def mp4_boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, where the content starts, where it ends) of the boxes between two places. ValueError if one does not fit."""
    for _ in range(PIECES):
        if end - start < 8:  # QuickTime may end a list of boxes with four zeros
            return
        file.seek(start)
        size, kind = struct.unpack(">I4s", take(file, 8))
        content = start + 8
        if size == 1:
            (size,) = struct.unpack(">Q", take(file, 8))
            content = start + 16
        stop = start + size if size else end
        if not content <= stop <= end:
            raise ValueError(CUT_OFF)
        yield kind, content, stop
        start = stop
    raise ValueError(DAMAGED)


def mp4_index_is_first(file: BinaryIO) -> bool:
    kinds = [kind for kind, _, _ in mp4_boxes(file, 0, size_of(file))]
    return kinds.index(b"moov") < kinds.index(b"mdat")


def mp4_fps(file: BinaryIO) -> float:
    """Frames a second in the first track; 0 if they do not all last equally long. KeyError if the index is not complete."""
    place = (0, size_of(file))
    for kind in (b"moov", b"trak", b"mdia"):
        place = _children(file, *place)[kind]
    mdia = _children(file, *place)
    stbl = _children(file, *_children(file, *mdia[b"minf"])[b"stbl"])
    header = _content(file, *mdia[b"mdhd"])
    (timescale,) = struct.unpack_from(">I", header, 20 if header[0] else 12)
    _, entries, _, ticks = struct.unpack_from(">4I", _content(file, *stbl[b"stts"]))
    return timescale / ticks if entries == 1 and ticks else 0.0


def take(file: BinaryIO, length: int) -> bytes:
    if length > TEXT_BYTES + 2**16:
        raise ValueError(TOO_MUCH)
    data = file.read(length)
    if len(data) < length:
        raise ValueError(CUT_OFF)
    return data


def size_of(file: BinaryIO) -> int:
    place = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(place)
    return size


def _skip_colours(file: BinaryIO, flags: int) -> None:
    if flags & 0x80:
        take(file, 3 << ((flags & 7) + 1))


def _sub_blocks(file: BinaryIO, budget: Iterator[int], are_kept: bool = True) -> bytes:
    data = bytearray()
    for _ in budget:
        block = take(file, take(file, 1)[0])
        if not block:
            return bytes(data)
        if are_kept:
            data += block
        if len(data) > TEXT_BYTES + 2**16:
            raise ValueError(TOO_MUCH)
    raise ValueError(DAMAGED)


def _png_text(kind: bytes, data: bytes) -> tuple[str, str]:
    key, _, text = data.partition(b"\0")
    is_compressed = kind == b"zTXt"
    if kind == b"iTXt":
        is_compressed = text[0] == 1
        text = text[2:].split(b"\0", 2)[2]  # after the language and the translated keyword
    elif is_compressed:
        text = text[1:]
    if is_compressed:
        text = zlib.decompressobj().decompress(text, TEXT_BYTES + 1)
    return key.decode("latin-1"), text.decode("utf-8" if kind == b"iTXt" else "latin-1", "replace")


def _exif_texts(data: bytes) -> Iterator[tuple[str, str]]:
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        raise ValueError(DAMAGED)
    (start,) = struct.unpack_from(order + "4xI", data)
    (count,) = struct.unpack_from(order + "H", data, start)
    for place in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, length, offset = struct.unpack_from(order + "HHII", data, place)
        if tag > PROMPT_TAG or kind != 2:
            continue
        first = offset if length > 4 else place + 8
        if first + length > len(data):
            raise ValueError(DAMAGED)
        key, colon, text = data[first : first + length].rstrip(b"\0").decode("utf-8", "replace").partition(":")
        if colon:
            yield key, text


def _mdta_texts(file: BinaryIO, start: int, end: int) -> Iterator[tuple[str, str]]:
    file.seek(start)
    has_version = take(file, 8)[4:] != b"hdlr"  # QuickTime's box starts with its first child at once
    meta = _children(file, start + 4 * has_version, end)
    if not {b"keys", b"ilst"} <= meta.keys():
        return  # another handler's
    keys, values = (_content(file, *meta[kind]) for kind in (b"keys", b"ilst"))
    names, place = [], 8
    while place < len(keys):
        (size,) = struct.unpack_from(">I", keys, place)
        names.append(keys[place + 8 : place + size].decode("utf-8", "replace"))
        place += max(size, 8)
    items = io.BytesIO(values)
    for number, content, stop in mp4_boxes(items, 0, len(values)):
        index = int.from_bytes(number, "big") - 1
        first, last = _children(items, content, stop).get(b"data", (0, 0))
        if 0 <= index < len(names) and last:
            yield names[index], values[first + 8 : last].decode("utf-8", "replace")


def _children(file: BinaryIO, start: int, end: int) -> dict[bytes, tuple[int, int]]:
    """The first box of each kind: where its content starts and ends."""
    children: dict[bytes, tuple[int, int]] = {}
    for kind, content, stop in mp4_boxes(file, start, end):
        children.setdefault(kind, (content, stop))
    return children


def _content(file: BinaryIO, start: int, end: int) -> bytes:
    file.seek(start)
    return take(file, end - start)
