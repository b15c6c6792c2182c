from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from pathlib import Path

import pytest

from errors import StorageError
from jobs import database
from jobs.database import Database, network_type, statements

TABLE = [("0001 x", "CREATE TABLE x (y TEXT);")]
OURS = 77


def open_database(path: Path, migrations=TABLE, **values: float) -> contextlib.closing[Database]:
    return contextlib.closing(Database(path, migrations, OURS, **values))


def foreign(path: Path, sql: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(sql)


def test_a_local_disk_has_a_write_ahead_log_that_survives_the_loss_of_power(path, caplog):
    with open_database(path) as opened:
        assert opened.read("PRAGMA journal_mode")[0][0] == "wal"
        assert opened.read("PRAGMA synchronous")[0][0] == 2
    assert not caplog.records


def test_a_network_disk_has_a_rollback_journal_and_it_is_said_once(path, monkeypatch, caplog):
    with open_database(path):
        pass
    monkeypatch.setattr(database, "network_type", lambda folder: "nfs4")
    with caplog.at_level(logging.WARNING), open_database(path) as opened:
        opened.write("INSERT INTO x VALUES ('a')")
        assert opened.read("PRAGMA journal_mode")[0][0] == "delete"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "it lies on nfs4" in caplog.text


def test_a_file_system_that_refuses_the_log_gets_a_rollback_journal(path, monkeypatch, caplog):
    monkeypatch.setattr(Database, "_set_journal", lambda *_: "delete")
    with open_database(path):
        assert "rollback journal" in caplog.text


def test_the_innermost_mount_says_what_a_folder_lies_on(tmp_path, monkeypatch):
    mounts = tmp_path / "mountinfo"
    lines = [
        "20 1 8:1 / / rw - ext4 /dev/sda rw",
        f"21 20 0:30 / {tmp_path}/with\\040space rw shared:1 - nfs4 server:/ rw",
        f"22 21 0:31 / {tmp_path}/with\\040space/local rw - xfs /dev/sdb rw",
        f"23 20 0:32 / {tmp_path}/oss rw - fuse.ossfs ossfs rw",
    ]
    mounts.write_text("\n".join(lines))
    monkeypatch.setattr(database, "_MOUNTS", mounts)
    found = {name: network_type(tmp_path / name) for name in ("x", "with space", "with space/local", "oss/deep")}
    assert found == {"x": None, "with space": "nfs4", "with space/local": None, "oss/deep": "fuse.ossfs"}
    monkeypatch.setattr(database, "_MOUNTS", tmp_path / "gone")
    assert network_type(tmp_path) is None


def test_a_transaction_is_all_or_nothing(path):
    with open_database(path) as opened:
        with contextlib.suppress(RuntimeError), opened.transaction() as connection:
            connection.execute("INSERT INTO x VALUES ('a')")
            raise RuntimeError
        assert opened.read("SELECT * FROM x") == []
        with opened.transaction() as connection:
            connection.execute("INSERT INTO x VALUES ('b')")
        assert [row["y"] for row in opened.read("SELECT * FROM x")] == ["b"]


def test_no_more_connections_stay_open_than_were_used_at_once(path):
    with open_database(path) as opened:
        for _ in range(30):
            thread = threading.Thread(target=opened.read, args=("SELECT 1",))
            thread.start()
            thread.join()
        assert len(opened._idle) <= 2
        with contextlib.ExitStack() as many:
            for _ in range(20):
                many.enter_context(opened.connection())
        assert len(opened._idle) == 16


def test_a_closed_database_says_so_and_holds_nothing(path):
    with open_database(path) as opened:
        using = opened.connection()
        connection = using.__enter__()
        opened.close()
        using.__exit__(None, None, None)
        with pytest.raises(sqlite3.ProgrammingError):
            connection.execute("SELECT 1")
        with pytest.raises(StorageError, match="has been closed"):
            opened.read("SELECT 1")


def test_a_locked_database_is_said_after_a_while(path):
    with open_database(path, busy_seconds=0.05) as opened, contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="Another program holds the database"):
            opened.write("INSERT INTO x VALUES ('a')")
        assert opened.read("SELECT * FROM x") == []  # reading does not wait
        other.execute("ROLLBACK")
        opened.write("INSERT INTO x VALUES ('a')")


def test_a_new_file_that_another_process_is_making_is_waited_for(path):
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StorageError, match="Another program holds"), open_database(path, busy_seconds=0.05):
            pass
        timer = threading.Timer(0.1, other.execute, ["COMMIT"])
        timer.start()
        with open_database(path) as opened:
            assert opened.read("PRAGMA journal_mode")[0][0] == "wal"
        timer.join()


def test_a_full_disk_loses_nothing_that_was_there(path):
    with open_database(path) as opened:
        opened.write("INSERT INTO x VALUES ('first')")
        pages = opened.read("PRAGMA page_count")[0][0]
        for idle in opened._idle:
            idle.execute(f"PRAGMA max_page_count = {pages}")
        for use in (opened.write, lambda *given: opened.transaction().__enter__().execute(*given)):
            with pytest.raises((StorageError, sqlite3.OperationalError), match="is full"):
                use("INSERT INTO x VALUES (?)", ("long" * 5000,))
        assert [row["y"] for row in opened.read("SELECT * FROM x")] == ["first"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b"no database, " * 500), "is no database"),
        (lambda path: foreign(path, "CREATE TABLE theirs (x)"), "of another program"),
        (lambda path: foreign(path, "PRAGMA application_id = 5"), "of another program"),
        (lambda path: path.mkdir(), "cannot be opened or made"),
    ],
)
def test_a_file_that_is_not_ours_is_refused_and_left_as_it_is(path, make, message):
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(StorageError, match=message), open_database(path):
        pass
    assert (path.read_bytes() if path.is_file() else b"") == before


def test_damage_is_found_when_the_file_is_opened(path):
    with open_database(path) as opened:
        for _ in range(50):
            opened.write("INSERT INTO x VALUES (?)", ("word" * 500,))
    data = bytearray(path.read_bytes())
    data[4096 * 2 : 4096 * 12] = os.urandom(4096 * 10)
    path.write_bytes(data)
    with pytest.raises(StorageError, match="is damaged"), open_database(path):
        pass


def test_damage_that_comes_later_is_said_too(path):
    with open_database(path) as opened:
        opened.write("INSERT INTO x VALUES (?)", ("word" * 5000,))
        opened.read("PRAGMA wal_checkpoint(TRUNCATE)")
    with open_database(path) as opened:
        data = bytearray(path.read_bytes())
        data[4096:] = b"\xff" * (len(data) - 4096)
        path.write_bytes(data)
        while opened._idle:  # they remember what they read
            opened._idle.pop().close()
        with pytest.raises(StorageError, match="damaged"):
            opened.read("SELECT * FROM x")


def test_a_read_only_file_is_said(path, monkeypatch):
    connect = sqlite3.connect
    with open_database(path):
        pass
    monkeypatch.setattr(database.sqlite3, "connect", lambda path, **values: connect(f"file:{path}?mode=ro", uri=True, **values))
    with open_database(path) as opened, pytest.raises(StorageError, match="read-only for us"):
        opened.write("INSERT INTO x VALUES ('a')")


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be made"), open_database(tmp_path / "file" / "deep" / "x.sqlite"):
        pass


def test_other_errors_of_the_disk_keep_the_words_of_sqlite(path):
    with open_database(path) as opened, pytest.raises(StorageError, match="cannot be used: no such table: gone"):
        opened.read("SELECT * FROM gone")


def test_a_script_is_cut_into_statements():
    script = "CREATE TABLE a (x);\nCREATE TRIGGER t AFTER INSERT ON a BEGIN\n  DELETE FROM a;\nEND;\n"
    assert [statement.split()[1] for statement in statements(script)] == ["TABLE", "TRIGGER"]
