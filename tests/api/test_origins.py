"""Names that we answer to, and pages that may write."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from api.origins import HostRule, OriginRule, is_everywhere, is_loopback, same_place, split_host
from api.refusals import ForbiddenHost, ForbiddenOrigin
from errors import InputError

TOKEN = {"Authorization": "a-token-of-ours"}


@pytest.mark.parametrize(
    ("host", "is_good"),
    [
        ("localhost", True),
        ("localhost:8000", True),
        ("LocalHost.:1", True),
        ("films.localhost", True),
        ("127.0.0.1:8000", True),
        ("127.9.9.9", True),
        ("[::1]:8000", True),
        ("[::ffff:127.0.0.1]", True),
        ("evil.example", False),
        ("evil.example:8000", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("127.0.0.1@evil.example", False),
        ("192.168.1.5", False),
        ("[::1", False),
        ("::1", False),
        ("localhost, evil.example", False),
        ("localhost:99999", False),
        ("localhost:8000:8000", False),
        ("2130706433", False),
        ("", False),
    ],
)
def test_hosts_without_credentials_on_loopback(door: Callable, host: str, is_good: bool) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        found = door().ask(method, "/prompt", {"Host": host})
        assert found.status_code == (200 if is_good else 403)
        assert is_good or found.json()["error"]["code"] == "forbidden_host"


@pytest.mark.parametrize(
    ("listen", "allowed", "has_credentials", "good", "bad"),
    [
        ("127.0.0.1", [], True, "any.example 10.0.0.7", ""),
        ("127.0.0.1", ["films.example.com"], False, "films.example.com FILMS.example.com. localhost", "example.com 10.0.0.7"),
        ("127.0.0.1", ["films.example.com"], True, "films.example.com localhost", "any.example 10.0.0.7"),
        ("127.0.0.1", [".example.com"], False, "example.com a.example.com a.b.example.com", "badexample.com example.com.evil.example"),
        ("127.0.0.1", ["*"], False, "any.example 10.0.0.7 not_a..name", ""),
        ("0.0.0.0", [], False, "10.0.0.7 [fe80::1] localhost", "any.example"),
        ("", [], False, "10.0.0.7", "any.example"),
        ("::", [], True, "any.example", ""),
        ("0.0.0.0", ["films.example.com"], False, "films.example.com", "10.0.0.7"),
        ("films.example.com", [], False, "films.example.com", "any.example"),
        ("192.168.1.5", ["a.example"], True, "192.168.1.5 a.example", "192.168.1.6"),
        ("127.0.0.1", ["例子.example"], False, "xn--fsqu00a.example", "any.example"),
        ("::1", ["[fe80::2]", "b.example:8000"], False, "[::1] [fe80::2] b.example", "[fe80::3]"),
    ],
)
def test_hosts_by_settings(listen: str, allowed: list, has_credentials: bool, good: str, bad: str) -> None:
    rule = HostRule.of(listen, allowed, has_credentials=has_credentials)
    for host in good.split():
        rule.check(host)
        rule.check(f"{host}:8188")
    for host in bad.split():
        with pytest.raises(ForbiddenHost) as caught:
            rule.check(host)
        assert "--allowed-hosts" in caught.value.hint


SAME = ["http://localhost:8000", "http://LOCALHOST:8000"]
FOREIGN = [
    "http://evil.example",
    "http://localhost",
    "http://localhost:8001",
    "https://localhost",
    "http://127.0.0.1:8000",
    "http://localhost:8000.evil.example",
    "http://localhost:8000@evil.example",
    "http://[::1]:8000",
    "chrome-extension://abcdef",
    "file://",
    "http://",
    "localhost:8000",
    "http://localhost:8000/path",
    "http://localhost:99999",
    "http://[",
    "\xff",
    "null",
]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("origin", [None, *SAME, *FOREIGN])
def test_writes_by_origin(door: Callable, method: str, origin: str | None) -> None:
    headers = {"Origin": origin.encode("latin-1")} if origin is not None else {}
    found = door().ask(method, "/prompt", headers)
    assert found.status_code == (403 if origin in FOREIGN else 200)
    assert origin not in FOREIGN or found.json()["error"]["code"] == "forbidden_origin"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_reading_is_not_asked(door: Callable, method: str) -> None:
    found = door().ask(method, "/history", {"Origin": "http://evil.example"})
    assert found.status_code == 200
    assert "access-control-allow-origin" not in found.headers  # the page may send it, but not read the answer


def test_a_hidden_origin_needs_credentials_of_its_own(door: Callable) -> None:
    asking = door(token="a-token-of-ours")
    cookie = {"Cookie": asking.post("/login", data={"password": "a-token-of-ours"}).headers["set-cookie"].split(";")[0]}
    hidden = {"Origin": "null"}
    assert asking.post("/prompt", cookie).status_code == 200
    assert asking.post("/prompt", cookie | hidden).status_code == 403
    assert asking.post("/prompt", TOKEN | hidden).status_code == 200
    assert asking.post("/login", hidden, data={"password": "a-token-of-ours"}).status_code == 403
    assert door(token="a-token-of-ours", allowed_origins=("null",)).post("/prompt", TOKEN | hidden).status_code == 200


def test_pages_that_are_allowed(door: Callable) -> None:
    asking = door(token="a-token-of-ours", allowed_origins=("https://films.example.com", "http://localhost:3000/"))
    for origin in ("https://films.example.com", "https://films.example.com:443", "http://localhost:3000"):
        found = asking.post("/prompt", TOKEN | {"Origin": origin})
        assert (found.status_code, found.headers["access-control-allow-origin"], found.headers["vary"]) == (200, origin, "Origin")
        assert asking.get("/history", {"Origin": origin}).headers["access-control-allow-origin"] == origin  # 401, but readable
    assert asking.post("/prompt", TOKEN | {"Origin": "http://films.example.com"}).status_code == 403
    assert door(allowed_origins=("*",)).post("/prompt", {"Origin": "http://evil.example"}).status_code == 200


def test_the_question_before_a_write(door: Callable) -> None:
    asking = door(token="a-token-of-ours", allowed_origins=("https://films.example.com",))
    question = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    found = asking.ask("OPTIONS", "/prompt", question | {"Origin": "https://films.example.com"})
    assert (found.status_code, found.headers["access-control-allow-headers"]) == (204, "authorization,content-type")
    assert "access-control-allow-credentials" not in found.headers
    found = asking.ask("OPTIONS", "/prompt", question | {"Origin": "http://evil.example"})
    assert found.status_code == 401
    assert "access-control-allow-origin" not in found.headers


@pytest.mark.parametrize(
    ("origin", "host", "scheme", "is_same"),
    [
        ("https://a.example", "a.example", "http", True),  # a proxy that does not say that it speaks https
        ("https://a.example", "a.example:443", "http", True),
        ("http://a.example", "a.example:80", "http", True),
        ("http://a.example", "a.example", "https", False),
        ("http://a.example:8000", "a.example", "http", False),
        ("https://例子.example", "xn--fsqu00a.example", "https", True),
        ("http://[::1]:8000", "[::1]:8000", "http", True),
    ],
)
def test_same_place(origin: str, host: str, scheme: str, is_same: bool) -> None:
    assert same_place(origin, host, scheme) is is_same
    if not is_same:
        with pytest.raises(ForbiddenOrigin, match="may not do that"):
            OriginRule.of([]).check(origin, host, scheme)


def test_names_and_addresses() -> None:
    assert split_host("[::1]:80") == ("::1", 80)
    assert split_host("A.example.") == ("a.example", None)
    assert [is_loopback(host) for host in ("127.1.2.3", "::1", "localhost", "0.0.0.0", "", "evil.example")] == [True] * 3 + [False] * 3
    assert [is_everywhere(host) for host in ("0.0.0.0", "::", "", "127.0.0.1", "a.example")] == [True] * 3 + [False] * 2
    for wrong in ("a b", "http://a.example", "a@b", ".", "..", ""):
        with pytest.raises(InputError, match="no host name"):
            HostRule.of("127.0.0.1", [wrong], has_credentials=False)
    for wrong in ("a.example", "ftp://a.example", "https://a.example/x", "https://a.example:x"):
        with pytest.raises(InputError, match="no origin"):
            OriginRule.of([wrong])
