"""Entries of a queue as bytes: protobuf messages of the package `streaming`, or JSON for those who do not ask for protobuf.

    DataFrameProto      { uint64 index = 1; map<string, string> tags = 2; bytes data = 3; string message = 4; }
    DataFrameListProto  { repeated DataFrameProto index = 1; }
    AttributesProto     { map<string, string> attributes = 1; }

Three messages that only leave us are written here by hand; a library for it would be the larger part.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence

from jobs.queue_items import Item

PROTOBUF = "application/vnd.google.protobuf"
_VARINT, _BYTES = 0, 2


def frame(item: Item) -> bytes:
    """One DataFrameProto."""
    index = _varint(1 << 3 | _VARINT) + _varint(item.index)
    return index + _map(2, item.tags) + _field(3, item.data) + _field(4, item.message.encode())


def frames(items: Sequence[Item]) -> bytes:
    """A DataFrameListProto."""
    return b"".join(_varint(1 << 3 | _BYTES) + _varint(len(one)) + one for one in map(frame, items))


def attributes(values: Mapping[str, str]) -> bytes:
    """An AttributesProto."""
    return _map(1, values)


def as_json(items: Sequence[Item]) -> bytes:
    """A list of objects with the fields of a DataFrameProto; the data in base64, as everywhere where protobuf becomes JSON."""
    rows = [{"index": i.index, "tags": i.tags, "data": base64.b64encode(i.data).decode(), "message": i.message} for i in items]
    return json.dumps(rows).encode()


def _map(number: int, values: Mapping[str, str]) -> bytes:
    entries = [_field(1, key.encode()) + _field(2, value.encode()) for key, value in values.items()]
    return b"".join(_varint(number << 3 | _BYTES) + _varint(len(entry)) + entry for entry in entries)


def _field(number: int, value: bytes) -> bytes:
    """Nothing for an empty one, which is what a reader assumes."""
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value if value else b""


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that more follow."""
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
