"""What a Space is told by its surroundings, and what people are told of it."""

from __future__ import annotations

from pathlib import Path

import pytest

import settings
import space_options
from api.access_settings import startup_credentials
from api.origins import HostRule, OriginRule
from api.refusals import ForbiddenOrigin
from server_options import ServeCommand

SPACE = {"SPACE_ID": "anna/films"}


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Space with storage."""
    monkeypatch.setattr(space_options, "PERSISTENT", tmp_path)
    return tmp_path


def served(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], *arguments: str) -> ServeCommand:
    monkeypatch.setattr(settings.os, "environ", environment)
    command = settings.parse(arguments)
    assert isinstance(command, ServeCommand)
    return command


def test_a_space_listens_where_it_has_to_under_its_own_name(monkeypatch: pytest.MonkeyPatch, storage: Path) -> None:
    command = served(monkeypatch, SPACE)
    assert (command.host, command.port, command.no_auth, command.may_be_framed) == ("0.0.0.0", 7860, True, True)
    assert (command.allowed_hosts, command.trusted_proxies) == (("*",), ("*",))
    assert (command.store.data_dir, command.notices) == (storage, ("space_apart",))
    hosts = HostRule.of(command.host, command.allowed_hosts, has_credentials=False)
    hosts.check("anna-films.hf.space")
    OriginRule.of(command.allowed_origins).check("https://anna-films.hf.space", "anna-films.hf.space", "https")
    with pytest.raises(ForbiddenOrigin):
        OriginRule.of(command.allowed_origins).check("https://evil.example", "anna-films.hf.space", "https")


def test_without_storage_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space_options, "PERSISTENT", Path("/nowhere/at/all"))
    command = served(monkeypatch, SPACE)
    assert (command.store.data_dir, command.allowed_hosts) == (Path("data"), ("*",))
    assert command.notices == ("space_temporary", "space_apart")


@pytest.mark.parametrize(
    ("said", "arguments"), [({"STILLMOTION_TOKEN": "t"}, ()), ({}, ("--token", "t")), ({"STILLMOTION_USERS": "u"}, ())]
)
def test_a_space_with_a_token_is_not_open(monkeypatch: pytest.MonkeyPatch, storage: Path, said: dict, arguments: tuple) -> None:
    command = served(monkeypatch, SPACE | said, *arguments)
    assert (command.no_auth, command.notices) == (False, ())
    assert not startup_credentials(command.host, command.token, command.users, command.no_auth).is_made


def test_what_is_set_by_hand_counts_more(monkeypatch: pytest.MonkeyPatch, storage: Path) -> None:
    said = {"STILLMOTION_PORT": "8001", "STILLMOTION_DATA_DIR": "elsewhere", "STILLMOTION_ALLOWED_HOSTS": "films.example"}
    command = served(monkeypatch, SPACE | said, "--listen", "::")
    assert (command.host, command.port, command.allowed_hosts) == ("::", 8001, ("films.example",))
    assert (command.store.data_dir, command.notices) == (Path("elsewhere"), ("space_temporary", "space_apart"))


def test_visitors_of_an_open_space_are_no_admins_unless_somebody_says_so(monkeypatch: pytest.MonkeyPatch, storage: Path) -> None:
    assert not served(monkeypatch, SPACE).everybody_is_admin
    assert served(monkeypatch, SPACE, "--no-auth").everybody_is_admin
    assert served(monkeypatch, SPACE | {"STILLMOTION_NO_AUTH": "true"}).everybody_is_admin
    assert served(monkeypatch, {}).everybody_is_admin


def test_visitors_of_an_open_space_are_apart_unless_somebody_says_so(monkeypatch: pytest.MonkeyPatch, storage: Path) -> None:
    assert served(monkeypatch, SPACE).everybody_is_apart
    for command in (served(monkeypatch, SPACE, "--no-auth"), served(monkeypatch, SPACE | {"STILLMOTION_NO_AUTH": "true"})):
        assert (command.everybody_is_apart, command.notices) == (False, ("space_open",))
    assert not served(monkeypatch, SPACE, "--token", "t").everybody_is_apart
    assert not served(monkeypatch, {}, "--no-auth").everybody_is_apart


def test_elsewhere_nothing_changes(monkeypatch: pytest.MonkeyPatch, storage: Path) -> None:
    command = served(monkeypatch, {})
    assert (command.host, command.port, command.no_auth, command.may_be_framed, command.notices) == ("127.0.0.1", 8000, False, False, ())
    assert command.store.data_dir == Path("data")
