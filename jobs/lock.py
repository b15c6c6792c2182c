"""Only one process works on a database at a time: a lock file beside it, which the system lets go when the process ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from errors import StorageError


class WorkerLock:
    """Of the database at `path`. The file stays; what counts is who holds it."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(path.name + ".lock")
        self._handle: int | None = None

    def take(self) -> None:
        """Taking it twice does no harm. Raises StorageError if another holds it, or if it cannot be held here."""
        if self._handle is not None:
            return
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StorageError(f"{self.path} cannot be written: {error.strerror}.", "Choose another data directory.") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
        except OSError as error:
            holder = os.pread(handle, 20, 0).decode(errors="replace").strip()
            os.close(handle)
            raise self._refusal(error, holder) from error
        self._handle = handle

    def release(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _refusal(self, error: OSError, holder: str) -> StorageError:
        if isinstance(error, BlockingIOError):
            message = f"Another Stillmotion{f' (process {holder})' if holder else ''} works in {self.path.parent} already."
            return StorageError(message, "Stop it first, or choose another data directory.")
        return StorageError(f"{self.path} cannot be locked: {error.strerror}.", "Choose a data directory on a local disk.")
