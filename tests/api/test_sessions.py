from __future__ import annotations

import logging
from pathlib import Path

import pytest

from api.sessions import LIFE_SECONDS, Sessions, read_key
from api.users import Login, User
from errors import StorageError, UnreadableFileError

LOGIN = Login(User("艾达", is_admin=True), "proof")


def test_a_cookie_is_read_by_whoever_has_the_key() -> None:
    value = Sessions(b"k" * 32, now=lambda: 1000.0).issue(LOGIN)
    assert value.isascii()
    assert not set(value) & set(' ",;\\')
    assert Sessions(b"k" * 32, now=lambda: 999.0 + LIFE_SECONDS).read(value) == ("艾达", "proof")
    assert Sessions(b"k" * 32, now=lambda: 1000.0 + LIFE_SECONDS).read(value) is None
    assert Sessions(b"j" * 32, now=lambda: 1000.0).read(value) is None


def test_the_longest_name_fits() -> None:
    sessions = Sessions(b"k" * 32)
    assert sessions.read(sessions.issue(Login(User("🎬" * 64, is_admin=False), "0" * 32))) == ("🎬" * 64, "0" * 32)


def test_two_servers_on_one_machine_have_two_cookies() -> None:
    names = {Sessions(key * 32).cookie_name for key in (b"a", b"b")}
    assert len(names) == 2
    assert Sessions(b"a" * 32).cookie_name in names


def test_the_key_is_made_once_for_its_owner_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "data" / "cookie.key"
    key = read_key(path)
    assert len(key) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_key(path) == key != read_key(None)
    assert not caplog.records
    path.chmod(0o640)
    with caplog.at_level(logging.WARNING):
        read_key(path)
    assert "chmod 600" in caplog.text


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"no hex", b"00" * 31])
def test_a_damaged_key(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(UnreadableFileError, match="damaged") as caught:
        read_key(tmp_path / "key")
    assert "sign in again" in caught.value.hint


def test_a_key_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="Cannot write"):
        read_key(tmp_path / "file" / "key")
    (tmp_path / "key.new").write_bytes(b"")  # left by a process that was killed
    with pytest.raises(StorageError, match=r"remove .*key\.new"):
        read_key(tmp_path / "key")
