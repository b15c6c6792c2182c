"""A backup of all that cannot be made again, taken while the server works, and the way back.

    DIR/jobs.sqlite         the table of jobs, as it was when the backup began
    DIR/jobs-queues.sqlite  the entries of PAI-EAS's queues
    DIR/data/...            the data directory without what is remade (cache, temp) and, unless they are asked for, without models
    DIR/backup.json         what is there; written last, so a folder without it is no backup

The tables come first: whatever they name was there before, and what came later is a file too many, never one too few.
"""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from errors import InputError, StorageError, UnreadableFileError
from jobs.database import check_database, copy_database
from jobs.lock import WorkerLock
from jobs.migrations import APPLICATION_ID
from jobs.queue_migrations import QUEUE_FILE
from jobs.service_settings import StoreSettings
from pipelines.filenames import storage_error
from workflows.folders import inside

_FORMAT = 1
_RECORD, _DATA = "backup.json", "data"
_JOBS, _QUEUES = "jobs.sqlite", "jobs-queues.sqlite"
_REMADE = ("cache", "temp")
_OF_A_DATABASE = ("", "-wal", "-shm", "-journal")


@dataclass(frozen=True)
class Backup:
    """`made`: seconds since 1970. `files`: path below the data directory -> bytes."""

    made: float
    files: Mapping[str, int]
    format: int = _FORMAT

    @property
    def bytes(self) -> int:
        return sum(self.files.values())


def back_up(settings: StoreSettings, target: Path, *, earlier: Path | None = None, has_models: bool = False) -> Backup:
    """`earlier` is another backup: files that are there already, unchanged, are shared with it and take no room.

    Raises InputError if `target` holds something or lies where it would be part of itself, UnreadableFileError if `earlier` is no
    backup, StorageError if there is nothing to keep, or no room for it.
    """
    if not settings.database.exists():
        raise StorageError(f"There is no table of jobs at {settings.database}.", "Check --data-dir and --database.")
    _check_target(settings, target)
    known = None if earlier is None else earlier / _DATA
    if earlier is not None:
        read_backup(earlier)
    made, files = time.time(), {}
    with _told(target):
        target.mkdir(parents=True, exist_ok=True, mode=0o700)
        copy_database(settings.database, target / _JOBS)
        if settings.queues_path.exists():
            copy_database(settings.queues_path, target / _QUEUES)
        for name, path in _to_keep(settings, has_models):
            with suppress(FileNotFoundError):  # it went meanwhile
                files[name] = _keep(path, target / _DATA / name, known and known / name)
        backup = Backup(made, files)
        _write_record(target, backup)
    return backup


def read_backup(source: Path) -> Backup:
    """Raises UnreadableFileError if there is none, or if a file of it is missing or cut short."""
    try:
        document = json.loads((source / _RECORD).read_text("utf-8"))
        if document["format"] != _FORMAT:
            raise UnreadableFileError(f"{source} is a backup of form {document['format']!r}.", "Update Stillmotion.")
        backup = Backup(float(document["made"]), {str(name): int(size) for name, size in document["files"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        hint = f"A whole one has a file {_RECORD}; the folder of one that was broken off can be removed."
        raise UnreadableFileError(f"{source} is no backup, or not a whole one.", hint) from error
    for name, size in backup.files.items():
        path = inside(source / _DATA, name)
        if not path.is_file() or path.stat().st_size != size:
            raise UnreadableFileError(f"{path} is missing or has changed its size.", "Take another backup.")
    return backup


def restore(settings: StoreSettings, source: Path) -> Backup:
    """Put a backup into a data directory that has no jobs yet. Nothing is overwritten; broken off, it can be done again.

    Raises UnreadableFileError for what is no whole backup, StorageError for a place that is taken, or too small.
    """
    backup, databases = read_backup(source), _database_files(settings)
    names = [name for name in backup.files if inside(settings.data_dir, name).resolve() not in databases]
    tables = [(source / _JOBS, settings.database, APPLICATION_ID)]
    if (source / _QUEUES).exists():
        tables.insert(0, (source / _QUEUES, settings.queues_path, QUEUE_FILE))
    for path, _, application_id in tables:
        check_database(path, application_id)
    for name in names:
        _check_free(source / _DATA / name, inside(settings.data_dir, name))
    with _told(settings.data_dir):
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        settings.database.parent.mkdir(parents=True, exist_ok=True)
        lock = WorkerLock(settings.database)
        lock.take()
        try:
            if settings.database.exists():
                raise StorageError(
                    f"There is a table of jobs at {settings.database} already.", "Choose an empty data directory, or move that one away."
                )
            for name in names:
                _put(source / _DATA / name, settings.data_dir / name)
            for path, target, _ in tables:  # the jobs last: with them it is whole
                for more in _OF_A_DATABASE:  # what another table left beside it would be read into this one
                    target.with_name(target.name + more).unlink(missing_ok=True)
                copy_database(path, target)
        finally:
            lock.release()
    return backup


def _check_target(settings: StoreSettings, target: Path) -> None:
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise InputError(f"{target} is there already, and not empty.", "Name a new folder; --like shares files with an earlier backup.")
    kept = [settings.data_dir, *(settings.data_dir.iterdir() if settings.data_dir.is_dir() else ())]
    if any(target.resolve().is_relative_to(one.resolve()) for one in kept):
        raise InputError(f"{target} lies in the data directory.", "Name a folder elsewhere, on another disk if there is one.")


def _to_keep(settings: StoreSettings, has_models: bool) -> Iterator[tuple[str, Path]]:
    """(path below the data directory, where it is). Folders that are links at the top are followed, as people put them on other disks."""
    left_out = {*_REMADE, *(() if has_models else ("models",))}
    databases = _database_files(settings)
    for top in sorted(settings.data_dir.iterdir()):
        if top.is_file() and top.resolve() not in databases and not _is_unfinished(top.name):
            yield top.name, top
        elif top.is_dir() and top.name not in left_out:
            for folder, _, names in os.walk(top):
                found = (Path(folder, name) for name in sorted(names) if not _is_unfinished(name))
                kept = (path for path in found if path.is_file() and path.resolve() not in databases)
                yield from ((path.relative_to(settings.data_dir).as_posix(), path) for path in kept)


def _database_files(settings: StoreSettings) -> set[Path]:
    """The tables and what lies beside them, however their paths are spelled."""
    spelled = (settings.database, settings.queues_path)
    places = {place for path in spelled for place in (path.resolve(), path.parent.resolve() / path.name)}
    return {place.with_name(place.name + more) for place in places for more in (*_OF_A_DATABASE, ".lock")}


def _is_unfinished(name: str) -> bool:
    return name.startswith(".") or name.endswith((".part", ".new"))


def _keep(path: Path, target: Path, known: Path | None) -> int:
    """Its bytes."""
    status = path.stat()
    target.parent.mkdir(parents=True, exist_ok=True)
    if known is not None and known.is_file():
        old = known.stat()
        if (old.st_size, old.st_mtime_ns) == (status.st_size, status.st_mtime_ns):
            with suppress(OSError):  # on another disk, or on one that has no links
                os.link(known, target)
                return status.st_size
    _copy(path, target)
    return target.stat().st_size


def _check_free(path: Path, target: Path) -> None:
    if os.path.lexists(target) and not (target.is_file() and filecmp.cmp(path, target, shallow=False)):
        raise StorageError(f"{target} is there already.", "Choose an empty data directory, or move that file away.")


def _put(path: Path, target: Path) -> None:
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        _copy(path, target)


def _copy(path: Path, target: Path) -> None:
    """All at once or not at all, and nobody reads meanwhile what only its owner may read."""
    part = target.with_name(".copy.part")
    with path.open("rb") as given, os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as made:
        shutil.copyfileobj(given, made, 2**20)
        made.flush()
        os.fsync(made.fileno())
    shutil.copystat(path, part)
    part.replace(target)


def _write_record(target: Path, backup: Backup) -> None:
    part = target / f".{_RECORD}.part"
    with part.open("w", encoding="utf-8") as file:
        json.dump(asdict(backup), file, indent=1, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    part.replace(target / _RECORD)


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise storage_error(folder, error) from error
