"""Models that are known by name, and where the hub has them. Sizes are about so; what a file really is, the hub tells later."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from errors import UnknownNameError
from pipelines.fetch import Wanted

_FILE = Path(__file__).parent / "known_models.json"


@dataclass(frozen=True)
class KnownModel:
    """`is_gated`: its licence has to be accepted at the hub first; None: it may be."""

    id: str
    title: str
    repo: str
    file: str
    folder: str
    kind: str
    family: str
    about_bytes: int
    licence: str
    is_gated: bool | None
    about: Mapping[str, str]

    @property
    def name(self) -> str:
        return self.file.rsplit("/", 1)[-1]

    @property
    def wanted(self) -> Wanted:
        return Wanted(self.repo, self.file, self.folder, self.name)


@cache
def known_models() -> dict[str, KnownModel]:
    """By id, in the order in which they are shown."""
    return {entry["id"]: KnownModel(**entry) for entry in json.loads(_FILE.read_text(encoding="utf-8"))}


def find_known(name: str) -> KnownModel:
    """By its id or by the name of its file. Raises UnknownNameError."""
    known = known_models()
    by_file = {one.name: one for one in known.values()}
    if name not in known and name not in by_file:
        raise UnknownNameError("model", name, known)
    return known.get(name) or by_file[name]


def known_file(folder: str, name: str) -> KnownModel | None:
    """The one that goes under this name into this folder."""
    return next((one for one in known_models().values() if (one.folder, one.name) == (folder, name.rsplit("/", 1)[-1])), None)
