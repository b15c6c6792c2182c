"""Fetch a model file: broken off and gone on with as often as it takes, checked, and only then there under its name.

While it comes, two hidden files lie beside its place: `.NAME.part` with the bytes, and `.NAME.download`, which says what they are of, so
that another process can go on. Both are gone when the file is there. Whoever fetches holds a lock on the part.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from errors import BadDownloadError, Canceled, InputError, StorageError
from pipelines.filenames import publish, storage_error
from pipelines.hub import HubFile, HubSettings, Interrupted, bytes_from, check_names, is_file_name, look_up

FOLDERS = ("checkpoints", "vae", "loras")
PAUSES = (1.0, 3.0, 10.0, 30.0)  # seconds between tries that bring nothing new
ROOM = 2**30  # bytes that the disk keeps besides
_BLOCK = 2**20
Told = Callable[[str, int, int], None]  # "checking" or "running", bytes that are there, bytes in all


@dataclass(frozen=True)
class Wanted:
    """A file of the hub (`repo`, `path`) and where it goes: `folder`, one of FOLDERS, and `name` there."""

    repo: str
    path: str
    folder: str = "checkpoints"
    name: str = ""

    def checked(self) -> Wanted:
        """With a name. Raises InputError for anything that leads elsewhere or is no .safetensors file."""
        check_names(self.repo, self.path)
        if self.folder not in FOLDERS:
            raise InputError(f"{self.folder!r} is no folder of models.", f"Choose one of: {', '.join(FOLDERS)}.")
        name = self.name or self.path.rsplit("/", 1)[-1]
        if not is_file_name(name) or name.startswith(".") or not name.endswith(".safetensors"):
            raise InputError(f"{name[:200]!r} cannot be the name of a model file.", "Use one such as 'mine.safetensors'.")
        return replace(self, name=name)

    def target(self, models_dir: Path) -> Path:
        return models_dir / self.folder / self.name


@dataclass(frozen=True)
class Record:
    """What is known of a download that has not arrived. `is_running`: a server was asked for it and not told to stop, so
    it goes on after a restart."""

    wanted: Wanted
    is_running: bool = True
    size: int = 0
    sha256: str = ""
    bytes: int = 0


def records(models_dir: Path) -> list[Record]:
    """Of all that was begun and is not there yet. What cannot be read is left out."""
    paths = [path for folder in FOLDERS for path in sorted((models_dir / folder).glob(".*.download"))]
    found = [record for path in paths if (record := _read(path)) is not None]
    return [record for record in found if not record.wanted.target(models_dir).exists()]


def forget(models_dir: Path, wanted: Wanted) -> None:
    """The part and what is known of it. Raises StorageError."""
    part, record = _places(wanted.target(models_dir))
    try:
        part.unlink(missing_ok=True)
        record.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(part.parent, error) from error


def note(models_dir: Path, record: Record) -> None:
    """Write down what is wanted, so that it is known after a restart. Raises StorageError."""
    target = record.wanted.target(models_dir)
    path = _places(target)[1]
    document = asdict(record.wanted) | {"is_running": record.is_running, "size": record.size, "sha256": record.sha256}
    new = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(json.dumps(document))
        new.replace(path)
    except OSError as error:
        raise storage_error(path.parent, error) from error


def check_free(models_dir: Path, wanted: Wanted) -> None:
    """Raises InputError if there is such a file already."""
    target = wanted.target(models_dir)
    if os.path.lexists(target):
        raise InputError(f"{wanted.folder}/{wanted.name} is there already.", "Remove it first, or choose another name.")


def fetch(
    hub: HubSettings,
    wanted: Wanted,
    models_dir: Path,
    told: Told,
    is_canceled: Callable[[], bool],
    pauses: Sequence[float] = PAUSES,
) -> Path:
    """The file, whole and checked. `told` hears of every block.

    Raises InputError for names and for what is there already; HubError and its kinds; StorageError if the disk has no room or another
    process fetches the same; Canceled. What came is kept then, but for what turned out to be wrong.
    """
    wanted = wanted.checked()
    check_free(models_dir, wanted)
    target = wanted.target(models_dir)
    known = replace(_read(_places(target)[1]) or Record(wanted, is_running=False), wanted=wanted)
    note(models_dir, known)
    with _part(target) as part:
        try:
            _fetch(hub, known, models_dir, part, told, is_canceled, pauses)
        except BaseException:
            if not known.is_running and not part.seek(0, os.SEEK_END):  # nothing is worth to be known of it
                forget(models_dir, wanted)
            raise
    return target


def _fetch(
    hub: HubSettings, known: Record, models_dir: Path, part: BinaryIO, told: Told, is_canceled: Callable[[], bool], pauses: Sequence[float]
) -> None:
    wanted = known.wanted
    target = wanted.target(models_dir)

    # 1. What it is now, and whether what is here is of that.
    file = look_up(hub, wanted.repo, wanted.path)
    if known.sha256 != file.sha256 or part.seek(0, os.SEEK_END) > file.size:
        part.truncate(0)
    note(models_dir, replace(known, size=file.size, sha256=file.sha256))
    _check_room(target.parent, file.size - part.seek(0, os.SEEK_END))

    # 2. The bytes that are here, then those that are not.
    digest = _digest_of(part, file.size, told, is_canceled)
    try:
        digest = _read_on(hub, file, part, digest, told, is_canceled, pauses)
        part.flush()
    except OSError as error:
        raise storage_error(target.parent, error) from error

    # 3. Whether they are those of the hub.
    if digest.hexdigest() != file.sha256:
        part.truncate(0)
        problem = f"{wanted.name} has the SHA-256 {digest.hexdigest()[:12]}… and should have {file.sha256[:12]}…."
        raise BadDownloadError(problem, "It was damaged on its way and is removed; start again, or use another mirror: HF_ENDPOINT.")
    publish(target, ".safetensors", _places(target)[0].replace)
    with suppress(OSError):
        _places(target)[1].unlink(missing_ok=True)


def _read_on(
    hub: HubSettings, file: HubFile, part: BinaryIO, digest: Any, told: Told, is_canceled: Callable[[], bool], pauses: Sequence[float]
) -> Any:
    """The digest of all. Raises Interrupted after as many tries without a new byte as there are pauses."""
    tries = 0
    while (before := part.seek(0, os.SEEK_END)) < file.size:
        try:
            digest = _one_go(hub, file, part, digest, told, is_canceled)
            problem = Interrupted(f"The hub ended before the last byte of {file.path}.", "Resume it later; what came is kept.")
        except Interrupted as error:
            problem = error
        has_more = part.seek(0, os.SEEK_END) > before
        if part.tell() >= file.size:
            break
        tries = 0 if has_more else tries + 1
        if tries > len(pauses):
            raise problem
        _pause(pauses[max(0, tries - 1)] if pauses else 0, is_canceled)
    return digest


def _one_go(hub: HubSettings, file: HubFile, part: BinaryIO, digest: Any, told: Told, is_canceled: Callable[[], bool]) -> Any:
    """Until the connection ends."""
    place = part.seek(0, os.SEEK_END)
    for block in bytes_from(hub, file, place):
        if is_canceled():
            raise Canceled
        if not block:  # from the first byte on
            part.truncate(0)
            place, digest = 0, hashlib.sha256()
        block = block[: file.size - place]
        part.write(block)
        digest.update(block)
        place += len(block)
        told("running", place, file.size)
        if place >= file.size:
            break
    return digest


def _digest_of(part: BinaryIO, size: int, told: Told, is_canceled: Callable[[], bool]) -> Any:
    """Of what is there already."""
    digest, place = hashlib.sha256(), 0
    part.seek(0)
    while block := part.read(_BLOCK):
        if is_canceled():
            raise Canceled
        digest.update(block)
        place += len(block)
        told("checking", place, size)
    return digest


def _pause(seconds: float, is_canceled: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if is_canceled():
            raise Canceled
        time.sleep(min(0.2, left))


@contextmanager
def _part(target: Path) -> Iterator[BinaryIO]:
    """Open to read, and to write at its end, and ours alone. Raises StorageError."""
    path = _places(target)[0]
    try:
        file = path.open("a+b")
    except OSError as error:
        raise storage_error(path.parent, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(f"Another process fetches {target.name} already.", "Wait for it, or stop it.") from error
        except OSError:
            pass  # some network mounts cannot lock
        yield file


def _places(target: Path) -> tuple[Path, Path]:
    return target.with_name(f".{target.name}.part"), target.with_name(f".{target.name}.download")


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + ROOM:
        amounts = f"{free / 1e9:.1f} GB left, and {(needed + ROOM) / 1e9:.1f} are needed"
        raise StorageError(f"The disk that holds {folder} has {amounts}.", "Free some space there; what came so far is kept.")


def _read(path: Path) -> Record | None:
    try:
        found = json.loads(path.read_bytes())
        wanted = Wanted(found["repo"], found["path"], found["folder"], found["name"]).checked()
        part = path.with_name(path.name.removesuffix(".download") + ".part")
        have = part.stat().st_size if part.exists() else 0
        is_its_place = (wanted.folder, f".{wanted.name}.download") == (path.parent.name, path.name)
        return Record(wanted, bool(found["is_running"]), int(found["size"]), str(found["sha256"]), have) if is_its_place else None
    except (OSError, ValueError, KeyError, TypeError, InputError, RecursionError):
        return None
