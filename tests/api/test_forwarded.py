"""What proxies say, and who is believed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from api.forwarded import TrustedProxies, checked_root_path
from errors import InputError

SAID = {
    "X-Forwarded-For": "198.51.100.9",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "films.example.com",
    "X-Forwarded-Prefix": "/films",
}


def test_a_trusted_proxy_is_believed(door: Callable) -> None:
    found = door(allowed_hosts=("films.example.com",)).get("/view?a=1", SAID, client="127.0.0.1").json()
    assert (found["client"][0], found["scheme"], found["root_path"], found["path"]) == ("198.51.100.9", "https", "/films", "/films/view")
    assert found["headers"]["host"] == "films.example.com"


def test_nobody_else_is(door: Callable) -> None:
    found = door().get("/view", SAID, client="203.0.113.7").json()
    assert (found["client"][0], found["scheme"], found["root_path"], found["path"]) == ("203.0.113.7", "http", "", "/view")
    assert found["headers"]["host"] == "localhost:8000"
    assert not [name for name in found["headers"] if name.startswith("x-forwarded")]


def test_the_name_that_a_proxy_was_asked_for_is_checked_too(door: Callable) -> None:
    assert door().get("/", SAID, client="127.0.0.1").status_code == 403
    rebound = {"X-Forwarded-Host": "localhost", "Host": "evil.example"}  # a page on this machine can set headers on its own name
    assert door().get("/", rebound, client="127.0.0.1").status_code == 403


def test_the_origin_is_compared_with_that_name(door: Callable) -> None:
    asking = door(allowed_hosts=("films.example.com",))
    assert asking.post("/prompt", SAID | {"Origin": "https://films.example.com"}, client="127.0.0.1").status_code == 200
    assert asking.post("/prompt", SAID | {"Origin": "http://films.example.com"}, client="127.0.0.1").status_code == 403
    assert asking.post("/prompt", SAID | {"Origin": "http://localhost:8000"}, client="127.0.0.1").status_code == 403
    assert asking.post("/prompt", SAID | {"Origin": "https://films.example.com"}).status_code == 403  # said by nobody whom we trust


def test_cookies_behind_https_and_a_path(door: Callable) -> None:
    asking = door(token="a-token-of-ours", allowed_hosts=("films.example.com",))
    page = {"Accept": "text/html"}
    found = asking.get("/view?x=1", SAID | page, client="127.0.0.1")
    assert found.headers["location"] == "/films/login?next=/view%3Fx%3D1"
    assert 'action="/films/login?' in asking.get("/login", SAID, client="127.0.0.1").text
    found = asking.post("/login?next=/view%3Fx%3D1", SAID | page, client="127.0.0.1", data={"password": "a-token-of-ours"})
    assert found.headers["location"] == "/films/view?x=1"
    assert "Secure" in found.headers["set-cookie"]
    assert "Path=/films;" in found.headers["set-cookie"]
    found = asking.get("/view?token=a-token-of-ours", SAID | page, client="127.0.0.1")
    assert found.headers["location"] == "/films/view"
    assert asking.get("/healthz", SAID, client="127.0.0.1").status_code == 200


@pytest.mark.parametrize("path", ["/films/view", "/view"])
def test_a_root_path_that_is_taken_away_or_not(door: Callable, path: str) -> None:
    found = door(root_path="/films/").get(path).json()
    assert (found["root_path"], found["path"]) == ("/films", "/films/view")
    assert door(root_path="/films", token="x").get(path.replace("view", "healthz")).status_code == 200
    assert door(root_path="/films", token="x").get("/filmset/healthz").status_code == 401


@pytest.mark.parametrize("prefix", ["films", "//evil.example", "/a/../b", "/a b", "/a?b", "/é", "/", "/<script>"])
def test_strange_prefixes_are_none(door: Callable, prefix: str) -> None:
    assert door().get("/", {"X-Forwarded-Prefix": prefix.encode()}, client="127.0.0.1").json()["root_path"] == ""


@pytest.mark.parametrize("proto", ["javascript", "", "httpss"])
def test_strange_schemes_are_none(door: Callable, proto: str) -> None:
    assert door().get("/", {"X-Forwarded-Proto": proto}, client="127.0.0.1").json()["scheme"] == "http"


@pytest.mark.parametrize(
    ("trusted", "peer", "said", "client"),
    [
        (["127.0.0.1"], "127.0.0.1", "1.2.3.4", "1.2.3.4"),
        (["127.0.0.1"], "127.0.0.1", "6.6.6.6, 1.2.3.4", "1.2.3.4"),
        (["127.0.0.1", "10.0.0.0/8"], "127.0.0.1", "6.6.6.6, 1.2.3.4, 10.0.0.9", "1.2.3.4"),
        (["127.0.0.1"], "127.0.0.1", "1.2.3.4:5678", "1.2.3.4"),
        (["::1"], "::1", "[2001:db8::1]:80", "2001:db8::1"),
        (["127.0.0.1"], "127.0.0.1", "::ffff:1.2.3.4", "1.2.3.4"),
        (["127.0.0.1"], "127.0.0.1", "unknown", "127.0.0.1"),
        (["127.0.0.1"], "127.0.0.1", "1.2.3.4, <script>", "127.0.0.1"),
        (["127.0.0.1"], "127.0.0.1", "", "127.0.0.1"),
        (["*"], "9.9.9.9", "1.2.3.4, 5.6.7.8", "1.2.3.4"),
    ],
)
def test_the_client_is_the_last_who_is_not_trusted(trusted: list, peer: str, said: str, client: str) -> None:
    proxies = TrustedProxies(trusted)
    assert peer in proxies
    assert proxies.client(peer, said) == client


def test_addresses_of_proxies() -> None:
    assert "::ffff:10.1.2.3" in TrustedProxies(["10.0.0.0/8"])
    assert "10.1.2.3" not in TrustedProxies(["::1"])
    assert "testclient" not in TrustedProxies(["10.0.0.0/8"])
    with pytest.raises(InputError, match="no address of a proxy"):
        TrustedProxies(["proxy.example"])
    assert [checked_root_path(path) for path in ("", "/", "/a/", "/a/b")] == ["", "", "/a", "/a/b"]
    with pytest.raises(InputError, match="no path"):
        checked_root_path("films")
