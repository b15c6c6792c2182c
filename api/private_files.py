"""Files that only their owner may read: passwords' hashes and the key of the cookies."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from errors import StorageError

log = logging.getLogger("stillmotion.access")


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file (0600) that takes the place of `path` when the block ends well, all at once; else nothing has changed.

    It is written under the name of `path` with `.new` behind it. Only one process can hold that, so what is read from `path` inside the
    block is still true at its end. Raises StorageError if somebody else holds it, or the folder does not take it.
    """
    path = path.resolve()  # through a symbolic link, which stays one
    new = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        if isinstance(error, FileExistsError) and os.path.lexists(new):
            raise StorageError(f"Somebody else is changing {path}.", f"If nobody is, remove {new} and try again.") from error
        raise _cannot_write(path, error) from error
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            new.unlink(missing_ok=True)


def warn_if_others_can_read(path: Path) -> None:
    with suppress(OSError):
        if os.name == "posix" and path.stat().st_mode & 0o077:
            log.warning("%s can be read by other users of this machine; `chmod 600` mends it", path)


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # some systems cannot
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _cannot_write(path: Path, error: OSError) -> StorageError:
    return StorageError(f"Cannot write {path}: {error.strerror or error}.", "Choose a place that this user may write.")
