"""WEBM and other Matroska files, as far as settings, the index and the times of pictures go: a tree of elements, RFC 8794 and RFC 9559.

Errors are those of containers.py.
"""

from __future__ import annotations

import struct
from collections.abc import Container, Iterator
from typing import BinaryIO

from pipelines.containers import CUT_OFF, DAMAGED, PIECES, size_of, take

_SEGMENT, _CLUSTER, _CUES, _TRACKS, _TAGS = 0x18538067, 0x1F43B675, 0x1C53BB6B, 0x1654AE6B, 0x1254C367
_TAG, _SIMPLE_TAG, _TAG_NAME, _TAG_STRING = 0x7373, 0x67C8, 0x45A3, 0x4487
_TRACK, _DEFAULT_DURATION, _TIMESTAMP = 0xAE, 0x23E383, 0xE7
_SIMPLE_BLOCK, _BLOCK_GROUP, _BLOCK = 0xA3, 0xA0, 0xA1
_UNKNOWN = -1  # the length of what is written while it happens

Place = tuple[int, int]  # where the content of an element starts and ends


def webm_texts(file: BinaryIO) -> Iterator[tuple[str, str]]:
    """All tags; their names, which Matroska has in capitals, in small letters."""
    name = b""
    for identity, place in _elements(file, _segment(file), entered=(_TAGS, _TAG, _SIMPLE_TAG)):
        if identity == _SIMPLE_TAG:
            name = b""
        elif identity == _TAG_NAME:
            name = _content(file, place)
        elif identity == _TAG_STRING and name:
            yield name.decode("utf-8", "replace").lower(), _content(file, place).rstrip(b"\0").decode("utf-8", "replace")


def webm_index_is_first(file: BinaryIO) -> bool:
    identities = [identity for identity, _ in _elements(file, _segment(file))]
    return identities.index(_CUES) < identities.index(_CLUSTER)


def webm_fps(file: BinaryIO) -> float:
    """Frames a second of the first track, if all pictures stand where that puts them, as exactly as whole milliseconds can; else 0."""
    segment = _segment(file)
    track = _first(file, _first(file, segment, _TRACKS), _TRACK)
    nanoseconds = int.from_bytes(_content(file, _first(file, track, _DEFAULT_DURATION)))
    times = (time for cluster in _all(file, segment, _CLUSTER) for time in _times(file, cluster))
    is_even = all(abs(time - index * nanoseconds / 1e6) <= 1 for index, time in enumerate(times))
    return 1e9 / nanoseconds if is_even and nanoseconds else 0.0


def _times(file: BinaryIO, cluster: Place) -> Iterator[int]:
    start = int.from_bytes(_content(file, _first(file, cluster, _TIMESTAMP)))
    for identity, place in _elements(file, cluster):
        if identity == _BLOCK_GROUP:
            place = _first(file, place, _BLOCK)
        if identity in (_BLOCK_GROUP, _SIMPLE_BLOCK):
            file.seek(place[0])
            _number(file)  # the track
            yield start + struct.unpack(">h", take(file, 2))[0]


def _segment(file: BinaryIO) -> Place:
    return _first(file, (0, size_of(file)), _SEGMENT)


def _first(file: BinaryIO, place: Place, wanted: int) -> Place:
    for found in _all(file, place, wanted):
        return found
    raise ValueError(CUT_OFF)


def _all(file: BinaryIO, place: Place, wanted: int) -> Iterator[Place]:
    return (found for identity, found in _elements(file, place) if identity == wanted)


def _elements(file: BinaryIO, place: Place, entered: Container[int] = ()) -> Iterator[tuple[int, Place]]:
    """(identity, place of the content) of the elements in a place, of which none may stand out. `entered`: what is followed by what it
    holds. What has no length goes on to the end, and is entered if it is a cluster."""
    start, end = place
    for _ in range(PIECES):
        if start >= end:
            return
        file.seek(start)
        identity, length = _number(file, is_identity=True), _number(file)
        content = file.tell()
        is_open = length == _UNKNOWN
        if is_open and identity not in (_SEGMENT, _CLUSTER):
            raise ValueError(DAMAGED)
        stop = end if is_open else content + length
        if not content <= stop <= end:
            raise ValueError(CUT_OFF)
        yield identity, (content, stop)
        start = content if identity in entered or (is_open and identity == _CLUSTER) else stop
    raise ValueError(DAMAGED)


def _number(file: BinaryIO, is_identity: bool = False) -> int:
    """A number of one to eight bytes, as many as its first byte has zeros in front; an identity keeps the one that ends them."""
    first = take(file, 1)[0]
    length = 9 - first.bit_length()
    if length > (4 if is_identity else 8):
        raise ValueError(DAMAGED)
    value = int.from_bytes(bytes([first]) + take(file, length - 1))
    if is_identity:
        return value
    value -= 1 << 7 * length
    return _UNKNOWN if value == (1 << 7 * length) - 1 else value


def _content(file: BinaryIO, place: Place) -> bytes:
    file.seek(place[0])
    return take(file, place[1] - place[0])
