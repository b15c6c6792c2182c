"""Settings inside files: the texts that the writers put in, and `read_settings`, which gets them out again.

A file carries `{"prompt": workflow, "workflow": ..., ...}`, each value as JSON text, where ComfyUI and VideoHelperSuite put it:

    PNG     one tEXt chunk a key
    WEBP    EXIF, one ASCII tag a key, "key:json": prompt in 0x0110, the others from 0x010F down
    GIF     a comment, one line "key:json" a key
    MP4     moov/udta/meta, handler mdta: the names in `keys`, the values in `ilst`
    WEBM    one tag a key, the name in capitals; keys that cannot be names of tags stand together in one, _OTHERS
    JSON    a sidecar beside a picture or a film: the document itself

The texts are pure ASCII (\\u escapes), so no reader's idea of an encoding can hurt them. containers.py reads them.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

from PIL.PngImagePlugin import PngInfo

from errors import InputError, UnreadableFileError
from pipelines.containers import (
    DAMAGED,
    PROMPT_TAG,
    TEXT_BYTES,
    TOO_MUCH,
    gif_texts,
    kind_of,
    mp4_texts,
    png_texts,
    size_of,
    take,
    webp_texts,
)
from pipelines.filenames import GivenName, publish
from pipelines.matroska import webm_texts

Metadata = Mapping[str, object]

_KEYS = 64  # EXIF has 272 tags to count down
_OTHERS = "_others"
# names that ffmpeg writes or renames
_FFMPEGS_OWN = frozenset(["title", "encoder", "encoding_tool", "creation_time", "duration", "performer", "track", "language"])
_KINDS = "PNG, WEBP, GIF, MP4, WEBM or JSON file"
_READERS = {"png": png_texts, "webp": webp_texts, "gif": gif_texts, "mp4": mp4_texts, "webm": webm_texts}


def to_texts(metadata: Metadata | None) -> dict[str, str]:
    """Each value as ASCII JSON; None, the privacy switch, is no text at all. InputError for what JSON cannot say."""
    texts = {}
    for key, value in (metadata or {}).items():
        if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", key):
            raise InputError(f"{key!r} cannot name settings in a file.", "Use letters, digits, '_', '.' and '-'.")
        texts[key] = _to_json(key, value)
    size = sum(map(len, texts.values()))
    if size > TEXT_BYTES or len(texts) > _KEYS:
        raise InputError(f"{len(texts)} settings of {size} bytes are too many.", f"Stay at {_KEYS} of {TEXT_BYTES} bytes.")
    return texts


def png_info(texts: Mapping[str, str]) -> PngInfo:
    info = PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    return info


def exif(texts: Mapping[str, str]) -> bytes:
    """One big-endian image file directory with ASCII tags; b"" without texts. Sizes are 32 bits wide here, not 16 as in JPEG."""
    if not texts:
        return b""
    others = [key for key in texts if key != "prompt"]
    tags = {PROMPT_TAG: "prompt"} if "prompt" in texts else {}
    tags |= {PROMPT_TAG - place: key for place, key in enumerate(others, start=1)}
    entries, data = b"", b""
    for tag, key in sorted(tags.items()):
        value = f"{key}:{texts[key]}\0".encode("ascii")
        place = struct.pack(">I", 8 + 2 + 12 * len(tags) + 4 + len(data))
        if len(value) <= 4:
            entries += struct.pack(">HHI4s", tag, 2, len(value), value)
        else:
            entries += struct.pack(">HHI4s", tag, 2, len(value), place)
            data += value + b"\0" * (len(value) % 2)
    return b"Exif\0\0MM\0*" + struct.pack(">IH", 8, len(tags)) + entries + bytes(4) + data


def comment(texts: Mapping[str, str]) -> bytes:
    return "\n".join(f"{key}:{text}" for key, text in texts.items()).encode("ascii")


def tags(texts: Mapping[str, str]) -> dict[str, str]:
    """The texts under names that come back from Matroska's capitals, and through ffmpeg, as they were."""
    own = {key: text for key, text in texts.items() if re.fullmatch("[a-z0-9][a-z0-9_.]*", key) and key not in _FFMPEGS_OWN}
    others = ", ".join(f'"{key}": {text}' for key, text in texts.items() if key not in own)
    return own | ({_OTHERS: f"{{{others}}}"} if others else {})


def ffmetadata(texts: Mapping[str, str]) -> str:
    """ffmpeg's own metadata file, https://ffmpeg.org/ffmpeg-formats.html#Metadata-2"""
    lines = (f"{key}=" + re.sub(r"[=;#\\\n]", r"\\\g<0>", text) for key, text in texts.items())
    return "\n".join([";FFMETADATA1", *lines, ""])


def write_sidecar(path: Path, document: Metadata, told: Callable[[Path, Path], None] | None = None) -> Path:
    """Write the document beside the picture or film at `path`, as `<its name>.json`; returns that name. `told` as of `NumberedName`.

    Raises InputError if it exists already or is no JSON, StorageError if the folder does not take it.
    """
    path = Path(path)
    text = _to_json(path.name, document, indent=1)
    name = GivenName(path.with_name(path.name + ".json"), *([told] if told else []))
    return publish(name, ".json", lambda part: part.write_text(text, "ascii"))


def read_settings(path: Path) -> dict[str, object]:
    """The settings that a PNG, WEBP, GIF, MP4, WEBM or JSON file carries: parsed values under "prompt", "workflow" and other keys.

    Text that is not JSON (a camera's name, the encoder's) is not ours and is left out; a sidecar is returned as it is.
    NaN, which Python writes but JSON does not have, comes back as None.
    Raises UnreadableFileError if the file is missing, damaged or of another kind, or carries no settings.
    """
    settings = settings_in(path)
    if not settings:
        raise UnreadableFileError(f"{Path(path).name} carries no settings.", "Choose a file that was saved with its settings.")
    return settings


def settings_in(path: Path) -> dict[str, object]:
    """As `read_settings`, but a sound file without settings is an empty dict."""
    path = Path(path)
    try:
        if not path.is_file():
            reason = "is not a file" if path.exists() else "does not exist"
            raise UnreadableFileError(f"{path.name or path} {reason}.", f"Choose a {_KINDS}.")
        with path.open("rb") as file:
            kind = kind_of(file)
            settings = _document(file) if kind == "json" else _parsed(_READERS[kind](file))
            others = settings.pop(_OTHERS, None) if kind == "webm" else None
            return settings | (others if isinstance(others, dict) else {})
    except OSError as error:
        raise UnreadableFileError(f"{path.name} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise UnreadableFileError(f"{path.name} {error}.", "It may be damaged; choose another one.") from error
    except (struct.error, zlib.error, IndexError, RecursionError) as error:
        raise UnreadableFileError(f"{path.name} {DAMAGED}.", "Choose another copy of it.") from error


def _to_json(name: str, value: object, indent: int | None = None) -> str:
    try:
        text = json.dumps(value, allow_nan=False, indent=indent)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"The settings of {name!r} cannot be written as JSON: {error}.") from error
    if len(text) > TEXT_BYTES:
        raise InputError(f"The settings of {name!r} have {len(text)} bytes.", f"Stay at {TEXT_BYTES}.")
    return text


def _document(file: BinaryIO) -> dict[str, object]:
    try:
        document = _from_json(take(file, size_of(file)).decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError("is not UTF-8 text") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise ValueError("holds no JSON object")
    return document


def _parsed(texts: Iterable[tuple[str, str]]) -> dict[str, object]:
    settings, size = {}, 0
    for key, text in texts:
        size += len(text)
        if size > TEXT_BYTES:
            raise ValueError(TOO_MUCH)
        try:
            settings[key] = _from_json(text)
        except ValueError:  # no JSON: some other program's note
            continue
    return settings


def _from_json(text: str) -> object:
    return json.loads(text, parse_constant=lambda _: None)
