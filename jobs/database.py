"""One SQLite file that keeps what was said to be kept, used from many threads and several processes.

On a local disk it is a write-ahead log with full synchronisation: what was committed survives the loss of power, and reading never
waits. A network file system cannot carry that, so there the older rollback journal is used. Every error of SQLite comes out as a
StorageError that says what to do.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from errors import StorageError

log = logging.getLogger(__name__)

_MOUNTS = Path("/proc/self/mountinfo")
_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "beegfs", "glusterfs", "gpfs", "virtiofs"}
_SYNCHRONOUS = "FULL"  # a commit returns once it would survive the loss of power
_LOG_BYTES = 64 * 2**20  # what the write-ahead log is cut down to after it grew
_RETRY_SECONDS = 0.02
_IDLE = 16  # connections kept open for the next use


class Database:
    """`migrations` are (name, sql) in the order in which they are applied; `application_id` marks the file as ours.

    Opening raises StorageError for a file that is damaged, foreign, newer than this program, locked or not writable.
    `lock` is held while something is written; hold it longer to do something in the order of the writes.
    """

    def __init__(self, path: Path, migrations: Sequence[tuple[str, str]], application_id: int, *, busy_seconds: float = 10.0) -> None:
        self.path, self.busy_seconds, self.lock = Path(path), busy_seconds, threading.RLock()
        self._idle: list[sqlite3.Connection] = []
        self._handing_over = threading.Lock()
        self._is_closed = False
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"The folder {self.path.parent} cannot be made: {error.strerror}.", _ELSEWHERE) from error
        try:
            with self.connection() as connection:
                _check_ours(self.path, connection, application_id)
                self._choose_journal(connection)
                self._migrate(connection, migrations, application_id)
        except BaseException:
            self.close()
            raise

    @contextlib.contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """One that nobody else uses meanwhile; there are as many as are used at once. Errors come out as StorageError."""
        with self._translated():
            connection = self._take()
            try:
                yield connection
            finally:
                self._give_back(connection)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All that is written inside is on the disk afterwards, or nothing is, if anything is raised."""
        with self.lock, self.connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # a full disk has rolled back already
                    connection.execute("ROLLBACK")
                raise

    def read(self, sql: str, values: Sequence[object] | dict[str, object] = ()) -> list[sqlite3.Row]:
        with self.connection() as connection:
            return connection.execute(sql, values).fetchall()

    def write(self, sql: str, values: Sequence[object] | dict[str, object] = ()) -> list[sqlite3.Row]:
        """One statement, on the disk when this returns; gives what it says to return."""
        with self.lock, self.connection() as connection:
            return connection.execute(sql, values).fetchall()

    def close(self) -> None:
        """Connections that are in use are closed when they come back."""
        with self._handing_over:
            self._is_closed = True
            while self._idle:
                self._idle.pop().close()

    def _take(self) -> sqlite3.Connection:
        with self._handing_over:
            if self._is_closed:
                raise StorageError(f"The database {self.path} has been closed.", "Start Stillmotion again.")
            if self._idle:
                return self._idle.pop()
        return self._connect()

    def _give_back(self, connection: sqlite3.Connection) -> None:
        with self._handing_over:
            if self._is_closed or connection.in_transaction or len(self._idle) >= _IDLE:
                connection.close()
            else:
                self._idle.append(connection)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=self.busy_seconds, isolation_level=None, check_same_thread=False)
        try:
            connection.row_factory = sqlite3.Row
            for pragma in (f"synchronous = {_SYNCHRONOUS}", "foreign_keys = ON", f"journal_size_limit = {_LOG_BYTES}"):
                connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _choose_journal(self, connection: sqlite3.Connection) -> None:
        network = network_type(self.path.parent)
        wanted = "delete" if network else "wal"
        mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
        if mode != wanted:
            mode = self._set_journal(connection, wanted)
        if mode != "wal":
            reason = f"it lies on {network}" if network else "its file system cannot do more"
            log.warning("The job database %s uses a rollback journal, since %s; a local disk is faster.", self.path, reason)

    def _set_journal(self, connection: sqlite3.Connection, wanted: str) -> str:
        """SQLite does not wait by itself while another process opens the same new file."""
        until = time.monotonic() + self.busy_seconds
        while True:
            try:
                return connection.execute(f"PRAGMA journal_mode = {wanted}").fetchone()[0]
            except sqlite3.OperationalError as error:
                if not _is_busy(error):
                    return connection.execute("PRAGMA journal_mode = delete").fetchone()[0]
                if time.monotonic() > until:
                    raise
                time.sleep(_RETRY_SECONDS)

    def _migrate(self, connection: sqlite3.Connection, migrations: Sequence[tuple[str, str]], application_id: int) -> None:
        if self._applied(connection) == [name for name, _ in migrations]:
            return
        for number, (name, sql) in enumerate(migrations):
            with self.transaction() as connection:
                connection.execute("CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY, applied TEXT DEFAULT CURRENT_TIMESTAMP)")
                connection.execute(f"PRAGMA application_id = {application_id}")
                applied = self._applied(connection)
                if newer := [other for other in applied if other not in dict(migrations)]:
                    message = f"{self.path} was written by a newer Stillmotion: it has {newer[0]!r}."
                    raise StorageError(message, "Update Stillmotion, or choose another data directory.")
                if len(applied) <= number:
                    for statement in statements(sql):
                        connection.execute(statement)
                    connection.execute("INSERT INTO migrations (name) VALUES (?)", (name,))

    def _applied(self, connection: sqlite3.Connection) -> list[str]:
        is_new = not connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'migrations'").fetchone()[0]
        return [] if is_new else [row[0] for row in connection.execute("SELECT name FROM migrations ORDER BY rowid")]

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError):  # mistakes of ours, not of the disk
            raise
        except sqlite3.DatabaseError as error:
            raise _storage_error(self.path, error) from error


def statements(sql: str) -> Iterator[str]:
    """A script, cut into its statements."""
    statement = ""
    for piece in sql.split(";")[:-1]:
        statement += piece + ";"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def network_type(folder: Path) -> str | None:
    """The name of the network file system that holds the folder, or None if its disk is local, or if that cannot be told."""
    try:
        mounts = [line.split() for line in _MOUNTS.read_text().splitlines()]
    except OSError:
        return None
    folder = folder.resolve()
    held = [
        (len(parts[4]), order, parts[parts.index("-") + 1])  # the innermost mount, and of several there the last
        for order, parts in enumerate(mounts)
        if folder.is_relative_to(parts[4].replace("\\040", " "))
    ]
    kind = max(held, default=(0, 0, ""))[2]
    return kind if kind in _NETWORK or kind.startswith("fuse.") else None


def copy_database(source: Path, target: Path) -> None:
    """The whole database as it is at one moment, while others write to it; `target` is one file, and there only when it is whole.

    It is copied as it is, not brought up to date. Raises StorageError.
    """
    part = target.with_name(f".{target.name}.part")
    part.unlink(missing_ok=True)
    try:
        with (
            contextlib.closing(sqlite3.connect(f"{source.resolve().as_uri()}?mode=rw", uri=True, timeout=60.0)) as given,
            contextlib.closing(sqlite3.connect(part)) as made,
        ):
            part.chmod(source.stat().st_mode & 0o777)
            given.backup(made)
            made.execute("PRAGMA journal_mode = delete")  # or else a second file would belong to it
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(target)
    except sqlite3.Error as error:
        raise _storage_error(source, error) from error
    finally:
        part.unlink(missing_ok=True)


def check_database(path: Path, application_id: int) -> None:
    """Raises StorageError for a file that is damaged or not ours. It stays as it is."""
    try:
        with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?immutable=1", uri=True)) as connection:
            _check_ours(path, connection, application_id)
    except sqlite3.Error as error:
        raise _storage_error(path, error) from error


def _check_ours(path: Path, connection: sqlite3.Connection, application_id: int) -> None:
    """Before anything is written to it."""
    found = connection.execute("PRAGMA application_id").fetchone()[0]
    is_empty = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if found != application_id and not (found == 0 and is_empty):
        raise StorageError(f"{path} is a database of another program.", _ELSEWHERE)
    if damage := [row[0] for row in connection.execute("PRAGMA quick_check(1)") if row[0] != "ok"]:
        raise StorageError(f"The database {path} is damaged: {' '.join(damage[0].split())}.", _DAMAGED)


_ELSEWHERE = "Choose another data directory."
_ALLOW = "Allow this user to write there, or choose another data directory."
_DAMAGED = "Put it aside and start again; the films are not in it, and `app.py reindex` finds them."
_RELEASE = "Close what uses it, and try again."
_MEANINGS = {
    sqlite3.SQLITE_FULL: ("The disk that holds {path} is full.", "Free some space there, or choose another data directory."),
    sqlite3.SQLITE_READONLY: ("{path} is read-only for us, or was moved.", _ALLOW),
    sqlite3.SQLITE_PERM: ("{path} is read-only for us.", _ALLOW),
    sqlite3.SQLITE_CANTOPEN: ("{path} cannot be opened or made.", _ALLOW),
    sqlite3.SQLITE_NOTADB: ("{path} is no database.", _DAMAGED),
    sqlite3.SQLITE_CORRUPT: ("The database {path} is damaged.", _DAMAGED),
    sqlite3.SQLITE_BUSY: ("Another program holds the database {path}.", _RELEASE),
    sqlite3.SQLITE_LOCKED: ("Another program holds the database {path}.", _RELEASE),
}
_UNKNOWN = ("The database {path} cannot be used: {error}.", "See that its disk works, or choose another data directory.")


def _storage_error(path: Path, error: sqlite3.DatabaseError) -> StorageError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest of the number says where it happened
    message, hint = _MEANINGS.get(code, _UNKNOWN)
    return StorageError(message.format(path=path, error=error), hint)


def _is_busy(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
