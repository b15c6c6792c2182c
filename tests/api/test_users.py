"""The file of users: made, read, changed while we run, and damaged."""

from __future__ import annotations

import json
import logging
import threading
import time
from pathlib import Path

import pytest

from api import users
from api.passwords import Cost, PasswordHash
from api.users import Entry, User, Users, UsersFile
from errors import InputError, StorageError, UnknownNameError, UnreadableFileError

CHEAP = Cost(n=16, r=1, p=1)


def test_a_user_is_added_and_found(tmp_path: Path) -> None:
    path = tmp_path / "new" / "users.json"
    users.add(path, "艾达", "correct horse", "admin", CHEAP)
    assert path.stat().st_mode & 0o777 == 0o600
    assert "correct" not in path.read_text()
    found = Users(users.read(path)).by_password("艾达", "correct horse")
    assert found.user == User("艾达", is_admin=True)
    assert [one.name for one in path.parent.iterdir()] == ["users.json"]


def test_the_usual_cost_is_the_recommended_one(tmp_path: Path) -> None:
    users.add(tmp_path / "users.json", "ada", "correct horse")
    assert users.read(tmp_path / "users.json")[0].password.cost == Cost(2**14, 8, 5)


def test_a_token_is_kept_as_a_hash_only(users_path: Path) -> None:
    token = users.new_token(users_path, "bo")
    assert token not in users_path.read_text()
    assert len(token) >= 43
    found = Users(users.read(users_path))
    assert found.by_token(token.encode()).user == User("bo", is_admin=False)
    assert found.by_token(b"") is None
    assert found.by_password("ada", "correct horse") is not None  # the others are still there


@pytest.mark.parametrize("name", ["", " ada", "a:b", "a/b", "a\\b", "a\nb", "a\0", "x" * 65, "\ud800"])
def test_what_is_no_name(users_path: Path, name: str) -> None:
    before = users_path.read_bytes()
    with pytest.raises(InputError, match="cannot be a user's name"):
        users.add(users_path, name, "correct horse", cost=CHEAP)
    assert users_path.read_bytes() == before


def test_other_mistakes(users_path: Path) -> None:
    with pytest.raises(InputError, match="already"):
        users.add(users_path, "ada", "correct horse", cost=CHEAP)
    with pytest.raises(InputError, match="7 characters"):
        users.add(users_path, "eve", "1234567", cost=CHEAP)
    with pytest.raises(UnknownNameError, match="Did you mean 'admin'"):
        users.add(users_path, "eve", "correct horse", "admins", CHEAP)
    with pytest.raises(UnknownNameError, match="Unknown user 'add'"):
        users.new_token(users_path, "add")
    with pytest.raises(UnreadableFileError, match="cannot be read"):
        users.new_token(users_path.with_name("other.json"), "ada")
    assert [one.name for one in users_path.parent.iterdir()] == ["users.json"]


def test_names_and_passwords_are_composed_alike(tmp_path: Path) -> None:
    users.add(tmp_path / "users.json", "Jose\u0301", "pa\u0301ssword", cost=CHEAP)
    assert Users(users.read(tmp_path / "users.json")).by_password("José", "p\xe1ssword").user.name == "José"


def test_two_who_change_the_file_at_once(users_path: Path) -> None:
    failed = []

    def change(number: int) -> None:
        try:
            users.add(users_path, f"user{number}", "correct horse", cost=CHEAP)
        except StorageError:
            failed.append(number)

    threads = [threading.Thread(target=change, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(users.read(users_path)) == 2 + 8 - len(failed)  # nobody is lost without being told


def test_a_link_stays_a_link(users_path: Path) -> None:
    link = users_path.with_name("link.json")
    link.symlink_to(users_path)
    users.new_token(link, "ada")
    assert link.is_symlink()
    assert users.read(users_path)[0].tokens


GOOD = {"name": "ada", "role": "admin", "password": str(PasswordHash.of("correct horse", CHEAP)), "tokens": ["0" * 64]}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (b"", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        ([], "not of the form"),
        ({"users": None}, "not of the form"),
        ({"users": ["ada"]}, "not of the form"),
        ({"users": [{}]}, "not of the form"),
        ({"users": []}, "names nobody"),
        ({"users": [GOOD, GOOD]}, "twice"),
        ({"users": [GOOD | {"name": 7}]}, "7 is no name"),
        ({"users": [GOOD | {"name": "a:b"}]}, "colons"),
        ({"users": [GOOD | {"name": "Jose\u0301"}]}, "NFC"),
        ({"users": [GOOD | {"role": "root"}]}, "role of 'ada'"),
        ({"users": [GOOD | {"tokens": "0" * 64}]}, "tokens of 'ada'"),
        ({"users": [GOOD | {"tokens": ["a-token-in-clear"]}]}, "tokens of 'ada'"),
        ({"users": [GOOD | {"password": "correct horse"}]}, "password of 'ada'"),
        ({"users": [GOOD | {"password": 7}]}, "password of 'ada'"),
        ({"users": [GOOD | {"password": "scrypt:1073741824:8:1:AAAAAAAAAAAAAAAA:AAAAAAAAAAAAAAAAAAAAAAAA"}]}, "password of 'ada'"),
        ({"users": [GOOD | {"pasword": "x"}]}, "'pasword', which nothing reads"),
    ],
)
def test_a_damaged_file_says_what_is_wrong(tmp_path: Path, document: object, said: str) -> None:
    path = tmp_path / "users.json"
    path.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
    with pytest.raises(UnreadableFileError, match=said) as caught:
        UsersFile(path)
    assert "app.py user add" in caught.value.hint
    assert "correct horse" not in str(caught.value)
    assert "in-clear" not in str(caught.value)


def test_the_file_is_read_again_when_it_changes(users_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = UsersFile(users_path)
    assert file.current() is file.current()
    users.add(users_path, "cy", "a third one", cost=CHEAP)
    assert set(file.current().entries) == {"ada", "bo", "cy"}
    with caplog.at_level(logging.ERROR):
        for damaged in (b"{", b'{"users": []}'):
            users_path.write_bytes(damaged)
            assert set(file.current().entries) == {"ada", "bo", "cy"}
            file.current()
        users_path.unlink()
        assert set(file.current().entries) == {"ada", "bo", "cy"}
        file.current()
    assert len(caplog.records) == 3  # once for each damage
    assert "stay as they were" in caplog.text
    users_path.write_bytes(users.document([Entry("dee", tokens=("1" * 64,))]))
    assert set(file.current().entries) == {"dee"}


def test_a_file_that_others_can_read_is_warned_of(users_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    UsersFile(users_path)
    assert not caplog.records
    users_path.chmod(0o644)
    UsersFile(users_path)
    assert "chmod 600" in caplog.text


def test_a_name_that_does_not_exist_takes_as_long() -> None:
    cost = Cost(n=2**12, r=8, p=1)
    known = Users([Entry("ada", password=PasswordHash.of("correct horse", cost)), Entry("tokens only", tokens=("0" * 64,))])

    def seconds(name: str) -> float:
        taken = []
        for _ in range(5):
            began = time.thread_time()
            assert known.by_password(name, "wrong") is None
            taken.append(time.thread_time() - began)
        return min(taken)

    for name in ("eve", "tokens only", ""):
        assert 0.5 < seconds(name) / seconds("ada") < 2


def test_nobody_enters_without_a_password() -> None:
    known = Users([Entry("bo", tokens=("0" * 64,))])
    assert known.by_password("bo", "") is None
    assert known.by_proof("bo", users.fingerprint("None")) is None
    assert known.by_proof("eve", users.fingerprint("0" * 64)) is None
    assert known.by_proof("bo", users.fingerprint("0" * 64)).user == User("bo", is_admin=False)
