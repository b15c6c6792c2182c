"""Names, counters, and the one way in which a finished file appears in a folder.

ComfyUI numbers its pictures `{prefix}_00001_.png`, VideoHelperSuite its films `{prefix}_00001.mp4`; both styles are kept, so
that a folder may be shared with them. A file is written under a hidden name, forced to the disk, and only then given its own
name, which must be free at that moment: nobody sees half a file, and nothing is ever overwritten. A process that is killed
leaves at most hidden files that end in .part.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

from errors import InputError, StorageError

Style = Literal["image", "video"]

# style -> what follows the counter, how a number that is already in the folder looks after the prefix, and whether case counts
_STYLES: dict[str, tuple[str, str, re.RegexFlag]] = {
    "image": ("_", r"_([0-9]+)(?:_|$)", re.NOFLAG),
    "video": ("", r"_([0-9]+)\D*\.", re.IGNORECASE),
}
_NAME_BYTES = 200  # file systems stop at 255; the counter, the suffix and a sidecar's suffix still have to fit
_ABANDONED_SECONDS = 24 * 3600
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM}
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}  # exFAT and many network mounts


def _tell_nobody(part: Path, path: Path) -> None:
    """What most names do."""


@dataclass(frozen=True)
class NumberedName:
    """A file name whose number is chosen when the file is published; see `next_name`.

    `told` hears of each try to take a name, right before it, as told(hidden part, name): the part is whole and on the disk by then,
    so whoever wrote both down can finish or undo it after a crash. If it raises, nothing is published.
    """

    folder: Path
    stem: str
    style: Style
    told: Callable[[Path, Path], None] = field(default=_tell_nobody, repr=False, compare=False)

    def path(self, number: int, suffix: str) -> Path:
        return self.folder / f"{self.stem}_{number:05}{_STYLES[self.style][0]}{suffix}"

    def next_number(self) -> int:
        """One above the highest number in the folder, over all suffixes."""
        _, number, flags = _STYLES[self.style]
        pattern = re.compile(re.escape(self.stem) + number, flags)
        matches = (pattern.match(entry.name) for entry in self.folder.iterdir())
        return max((int(match[1]) for match in matches if match), default=0) + 1


@dataclass(frozen=True)
class GivenName:
    """A file name that is settled; `told` as of `NumberedName`."""

    path: Path
    told: Callable[[Path, Path], None] = field(default=_tell_nobody, repr=False, compare=False)


def next_name(
    directory: Path,
    prefix: str,
    *,
    style: Style,
    width: int = 0,
    height: int = 0,
    now: datetime | None = None,
    told: Callable[[Path, Path], None] = _tell_nobody,
) -> NumberedName:
    """The next free name with this prefix inside `directory`; the folders that the prefix names are made.

    The prefix may hold folders (both slashes separate) and %width% %height% (pixels) %year% %month% %day% %hour% %minute%
    %second% (local time, two digits). style "image" counts as ComfyUI does: case-sensitive, `cat_00001_.png`. style "video"
    counts as VideoHelperSuite does: ignoring case, `cat_00001.mp4`. The number itself is taken by the save functions, so two
    processes with one prefix get two files.

    Raises InputError for a prefix that leaves the directory or cannot be a file name, StorageError if a folder cannot be made.
    """
    *folders, stem = prefix_parts(prefix, width, height, now)
    directory = Path(directory)
    folder = directory.joinpath(*folders)
    try:
        is_inside = folder.resolve().is_relative_to(directory.resolve())
    except (OSError, RuntimeError):  # a symbolic link that leads to itself
        is_inside = False
    if not is_inside:
        raise InputError(f"The filename prefix {prefix!r} leads out of the output folder.", "Use a folder inside it.")
    try:
        _make_folder(folder)
    except OSError as error:
        raise storage_error(folder, error) from error
    return NumberedName(folder, stem, style, told)


def prefix_parts(prefix: str, width: int = 0, height: int = 0, now: datetime | None = None) -> list[str]:
    """The folders that the prefix names, and last the start of the name. No disk is looked at. Raises InputError."""
    now = now or datetime.now()
    values = {"width": str(width), "height": str(height), "year": str(now.year)}
    values |= {unit: f"{getattr(now, unit):02}" for unit in ("month", "day", "hour", "minute", "second")}
    filled = re.sub("%([a-z]+)%", lambda match: values.get(match[1], match[0]), _checked_text(prefix))
    return _checked_parts(filled, prefix)


def check_room(folder: Path, needed: int) -> None:
    """Raises StorageError, before any work, if the folder does not take a file or its disk has less than `needed` bytes left.

    What processes that were killed left half-written there more than a day ago is removed.
    """
    part = _part(folder)
    try:
        for old in folder.glob(".*.part"):
            with suppress(FileNotFoundError):  # another process has just given it its name
                if time.time() - old.stat().st_mtime > _ABANDONED_SECONDS:
                    old.unlink()
        part.write_bytes(bytes(4096))
        _sync(part)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise storage_error(folder, error) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    if free < needed:
        amounts = f"{free / 2**20:.0f} MiB left, but this film may need {needed / 2**20:.0f}"
        raise StorageError(f"The disk that holds {folder} has {amounts}.", "Free some space there, or choose another data directory.")


def publish(target: Path | GivenName | NumberedName, suffix: str, write: Callable[[Path], object]) -> Path:
    """Give what `write(part)` writes its name, all at once or not at all; returns the name.

    `write` gets a hidden path in the target's folder. If it raises, or the disk is full, nothing stays behind.
    Raises InputError if the target exists or has another suffix, StorageError if the folder does not take the file.
    """
    if not isinstance(target, NumberedName):
        target = target if isinstance(target, GivenName) else GivenName(Path(target))
        _check_free(target.path, suffix)
    folder = target.path.parent if isinstance(target, GivenName) else target.folder
    part = _part(folder)
    try:
        write(part)
        _sync(part)
        path = _link(part, target) if isinstance(target, GivenName) else _link_numbered(part, target, suffix)
        try:
            part.unlink(missing_ok=True)
            _sync(folder)
        except OSError:
            path.unlink()
            raise
    except OSError as error:
        raise storage_error(folder, error) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return path


def _checked_text(prefix: str) -> str:
    if not isinstance(prefix, str) or any(ord(character) < 32 or ord(character) == 127 for character in prefix):
        raise InputError(f"The filename prefix {prefix!r} holds characters that no file name can have.")
    try:
        prefix.encode()
    except UnicodeEncodeError as error:  # half a surrogate pair, which JSON lets through
        raise InputError(f"The filename prefix {prefix!r} is not valid Unicode.") from error
    return prefix


def _checked_parts(filled: str, prefix: str) -> list[str]:
    parts = [part for part in re.split(r"[/\\]", filled) if part not in ("", ".")]
    if filled.startswith(("/", "\\")) or ".." in parts or re.match("[A-Za-z]:", filled):
        raise InputError(f"The filename prefix {prefix!r} leads out of the output folder.", "Use a relative one, without '..'.")
    if not parts:
        raise InputError(f"The filename prefix {prefix!r} holds no name.", "Use one such as 'film' or 'trips/film'.")
    if longest := [part for part in parts if len(part.encode()) > _NAME_BYTES]:
        raise InputError(f"The filename prefix has a part of {len(longest[0].encode())} bytes.", f"{_NAME_BYTES} are allowed.")
    return parts


def _make_folder(folder: Path) -> None:
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        _sync(made.parent)


def _part(folder: Path) -> Path:
    return folder / f".{secrets.token_hex(8)}.part"


def _check_free(path: Path, suffix: str) -> None:
    if path.suffix != suffix:
        raise InputError(f"{path.name!r} does not end in {suffix}.", f"Name it {path.with_suffix(suffix).name!r}.")
    if os.path.lexists(path):
        raise InputError(f"{path} exists already.", "Choose another name: files are never overwritten.")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL or not path.is_dir():  # some network mounts cannot sync a folder
            raise
    finally:
        os.close(handle)


def _link_numbered(part: Path, name: NumberedName, suffix: str) -> Path:
    number = 0
    while True:
        number = max(number + 1, name.next_number())
        path = name.path(number, suffix)
        name.told(part, path)
        with suppress(FileExistsError):  # somebody else was faster
            _hard_link(part, path)
            return path


def _link(part: Path, name: GivenName) -> Path:
    path = name.path
    name.told(part, path)
    try:
        _hard_link(part, path)
    except FileExistsError:
        _check_free(path, path.suffix)
        raise
    return path


def _hard_link(part: Path, path: Path) -> None:
    """A rename that fails if the name is taken."""
    try:
        os.link(part, path)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))  # from here on the name is ours, though empty
        try:
            part.replace(path)
        except OSError:
            path.unlink()
            raise


def identity(path: Path) -> str:
    """Tells a file from all others, under whatever names it is linked; "" if there is none. Numbers of files are given out again once one
    is gone, so its time belongs to it."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_dev}:{status.st_ino}:{status.st_mtime_ns}"


def storage_error(folder: Path, error: OSError) -> StorageError:
    """What went wrong with a folder, in words."""
    if error.errno in _FULL:
        return StorageError(f"The disk that holds {folder} is full.", "Free some space there, or choose another data directory.")
    if error.errno in _FORBIDDEN:
        return StorageError(f"{folder} is read-only for us.", "Allow this user to write there, or choose another data directory.")
    return StorageError(f"Cannot write in {folder}: {error.strerror or error}.", "Choose another data directory.")
