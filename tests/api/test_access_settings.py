from __future__ import annotations

import logging
from pathlib import Path

import pytest

from api.access_settings import AccessSettings, Credentials, entry_address, startup_credentials
from errors import InputError

USERS = Path("users.json")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.2"])
def test_on_loopback_nothing_is_needed(host: str) -> None:
    assert startup_credentials(host) == Credentials()
    assert startup_credentials(host, no_auth=True) == Credentials()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.5", "films.example.com"])
def test_beyond_it_a_token_is_made(host: str, caplog: pytest.LogCaptureFixture) -> None:
    made = startup_credentials(host)
    assert made.is_made
    assert len(made.token) == 32
    assert made.token != startup_credentials(host).token
    AccessSettings(listen_host=host, token=made.token).check()
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert startup_credentials(host, no_auth=True) == Credentials()
    assert "--no-auth" in caplog.text


def test_what_is_given_stays() -> None:
    assert startup_credentials("0.0.0.0", "a-token-of-ours") == Credentials("a-token-of-ours")
    assert startup_credentials("0.0.0.0", users_path=USERS) == Credentials("", USERS)


def test_contradictions() -> None:
    for given in ({"token": "x", "no_auth": True}, {"users_path": USERS, "no_auth": True}, {"token": "x", "users_path": USERS}):
        with pytest.raises(InputError, match="contradict"):
            startup_credentials("0.0.0.0", **given)
    for token in (" x", "x\n", "a\0b"):
        with pytest.raises(InputError, match="token has spaces"):
            startup_credentials("0.0.0.0", token)


def test_the_address_to_print() -> None:
    assert entry_address("http://127.0.0.1:8000/films/", "a b&c/é") == "http://127.0.0.1:8000/films/?token=a%20b%26c%2F%C3%A9"


def test_the_longest_path_counts() -> None:
    settings = AccessSettings(body_limit_bytes=1, body_limits={"/upload": 2, "/upload/image": 3})
    assert [settings.body_limit(path) for path in ("/", "/uploads", "/upload/image")] == [1, 2, 3]
