"""Browsers that nobody asks to sign in, each somebody of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from api.sessions import LIFE_SECONDS, Sessions, read_key
from api.users import Login, User
from tests.api.conftest import PAGE, Clock


@pytest.fixture
def apart(door: Callable[..., SimpleNamespace], tmp_path: Path) -> SimpleNamespace:
    return door(everybody_is_admin=False, everybody_is_apart=True, key_path=tmp_path / "key")


def cookie(answer) -> str:
    return answer.headers["set-cookie"].partition(";")[0]


def test_each_browser_is_somebody_and_stays_it(apart: SimpleNamespace) -> None:
    first, second = apart.get("/"), apart.get("/")
    names = first.json()["user"], second.json()["user"]
    assert names[0] != names[1]
    assert all(name.startswith("visitor-") for name in names)
    for answer, name in zip((first, second), names, strict=True):
        again = apart.get("/api/jobs", {"Cookie": cookie(answer)})
        assert (again.json()["user"], again.json()["is_admin"]) == (name, False)
        assert "set-cookie" not in again.headers


def test_the_cookie_is_for_us_alone_and_no_cache_keeps_it(apart: SimpleNamespace) -> None:
    answer = apart.get("/")
    assert "HttpOnly" in answer.headers["set-cookie"]
    assert "SameSite=lax" in answer.headers["set-cookie"]
    assert "Secure" not in answer.headers["set-cookie"]
    assert answer.headers["cache-control"] == "private, no-store"


def test_inside_the_page_of_another_site_browsers_send_it_too(door: Callable[..., SimpleNamespace], tmp_path: Path) -> None:
    framed = door(everybody_is_apart=True, may_be_framed=True, key_path=tmp_path / "key")
    said = framed.get("/", base="https://localhost:8000").headers["set-cookie"]
    assert all(word in said for word in ("HttpOnly", "Secure", "SameSite=none", "Partitioned"))
    assert "SameSite=lax" in framed.get("/").headers["set-cookie"]


def test_what_is_no_visitor_s_cookie_makes_a_new_one(apart: SimpleNamespace, clock: Clock, tmp_path: Path) -> None:
    good = cookie(apart.get("/"))
    name, _, value = good.partition("=")
    sessions = Sessions(read_key(tmp_path / "key"), clock)
    of_ada = sessions.issue(Login(User("ada", True), "proof"))
    for bad in (f"{name}={value[:-1]}x", f"{name}={of_ada}", f"{name}=", "other=1"):
        answer = apart.get("/", {"Cookie": bad})
        assert answer.json()["user"].startswith("visitor-")
        assert "set-cookie" in answer.headers
    clock.seconds += LIFE_SECONDS + 1
    assert "set-cookie" in apart.get("/", {"Cookie": good}).headers


def test_whoever_opens_the_page_keeps_the_name_for_as_long_again(apart: SimpleNamespace, clock: Clock) -> None:
    first = apart.get("/")
    clock.seconds += LIFE_SECONDS - 10
    again = apart.get("/", {"Cookie": cookie(first), **PAGE})
    clock.seconds += LIFE_SECONDS - 10
    assert apart.get("/", {"Cookie": cookie(again)}).json()["user"] == first.json()["user"]


def test_elsewhere_nobody_gets_one(door: Callable[..., SimpleNamespace], tmp_path: Path) -> None:
    assert "set-cookie" not in door().get("/").headers
    assert "set-cookie" not in door(token="t", everybody_is_apart=True, key_path=tmp_path / "key").get("/").headers
