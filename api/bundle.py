"""The files of several jobs as one ZIP, made while it is sent: nothing is compressed (films are already), nothing is held in memory."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

_CHUNK = 256 * 1024
_FIRST_TIME = (1980, 1, 1, 0, 0, 0)  # ZIP knows nothing older


@dataclass(frozen=True)
class Entry:
    """What one job adds: its files, and what `settings` says as `<stem>.settings.json`. `missing`: names of files that are gone."""

    stem: str
    paths: Sequence[Path]
    settings: dict[str, Any]
    missing: Sequence[str] = ()


def bundle(entries: Sequence[Entry]) -> Iterator[bytes]:
    """The ZIP in pieces. A file that two jobs share is in it once; names that are taken get a number. A file that goes away meanwhile
    breaks it off, so that nobody takes the rest for the whole."""
    names, seen, out = Names(), set(), _Pipe()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as made:
        for entry in entries:
            for path in entry.paths:
                if path not in seen:
                    seen.add(path)
                    yield from _file(made, out, path, names.free(path.name))
            text = json.dumps(entry.settings, ensure_ascii=False, indent=1).encode("utf-8", "backslashreplace")
            made.writestr(_info(names.free(f"{entry.stem}.settings.json"), time.time()), text)
            yield out.taken()
        if missing := [name for entry in entries for name in entry.missing]:
            text = "These files had been removed:\n" + "\n".join(missing) + "\n"
            made.writestr(_info(names.free("MISSING.txt"), time.time()), text.encode("utf-8", "replace"))
    yield out.taken()


class Names:
    """Each is given out once, whatever its case: many file systems know none."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def free(self, name: str) -> str:
        path, number, free = PurePosixPath(name), 1, name
        while free.casefold() in self._taken:
            number += 1
            free = f"{path.stem} ({number}){path.suffix}"
        self._taken.add(free.casefold())
        return free


class _Pipe(io.RawIOBase):
    """What is written into it is taken out again. It cannot be wound back, which `zipfile` understands."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, piece: Any) -> int:
        self._pieces.append(bytes(piece))
        return len(piece)

    def taken(self) -> bytes:
        whole = b"".join(self._pieces)
        self._pieces.clear()
        return whole


def _file(made: zipfile.ZipFile, out: _Pipe, path: Path, name: str) -> Iterator[bytes]:
    with path.open("rb") as source:
        status = path.stat()
        info = _info(name, status.st_mtime)
        info.file_size = status.st_size  # whether it needs the large form of the format
        with made.open(info, "w") as target:
            while piece := source.read(_CHUNK):
                target.write(piece)
                yield out.taken()
    yield out.taken()


def _info(name: str, seconds: float) -> zipfile.ZipInfo:
    moment = max(time.localtime(seconds)[:6], _FIRST_TIME)
    info = zipfile.ZipInfo(name, moment)
    info.external_attr = 0o644 << 16
    return info
