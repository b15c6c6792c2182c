"""The page itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from api.login import FORM_BYTES, local_target, login_address

TOKEN = "a-token-of-ours"
PAGE = {"Accept": "text/html"}


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.found.append((tag, dict(attrs)))

    def names(self) -> list[str]:
        return [attrs["name"] for tag, attrs in self.found if tag == "input"]


def test_a_page_without_anything_from_outside(door: Callable) -> None:
    found = door(token=TOKEN).get("/login", PAGE)
    assert found.status_code == 200
    assert found.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in found.headers["content-security-policy"]
    tags = {tag for tag, _ in Tags(found.text).found}
    assert not tags & {"script", "img", "link", "iframe"}
    assert "http" not in found.text


def test_one_field_for_a_token_two_for_users(door: Callable, users_path: Path) -> None:
    assert Tags(door(token=TOKEN).get("/login").text).names() == ["password"]
    assert Tags(door(users_path=users_path).get("/login").text).names() == ["username", "password"]


@pytest.mark.parametrize(
    ("asked", "query", "language"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", "", "zh-CN"),
        ("en-US,en;q=0.9,zh;q=0.8", "", "en"),
        ("fr, zh-TW", "", "zh-CN"),
        ("fr", "", "en"),
        ("", "", "en"),
        ("en", "?lang=zh", "zh-CN"),
        ("zh", "?lang=en", "en"),
        ("zh", "?lang=xx", "zh-CN"),
    ],
)
def test_two_languages(door: Callable, asked: str, query: str, language: str) -> None:
    text = door(token=TOKEN).get(f"/login{query}", {"Accept-Language": asked}).text
    assert f'<html lang="{language}"' in text
    assert ("登录" in text) == (language == "zh-CN")


def test_the_other_language_and_a_failure_keep_where_one_wanted_to_go(door: Callable) -> None:
    asking = door(token=TOKEN)
    text = asking.get("/login?next=/view%3Fa%3D1").text
    assert 'href="/login?next=%2Fview%3Fa%3D1&amp;lang=zh"' in text
    found = asking.post("/login?next=%2Fview%3Fa%3D1&lang=zh", PAGE, data={"password": "wrong"})
    assert (found.status_code, found.headers["cache-control"]) == (401, "no-store")
    assert "输入有误" in found.text
    assert 'action="/login?next=%2Fview%3Fa%3D1&amp;lang=zh"' in found.text
    assert "wrong<" not in found.text


def test_a_failure_has_an_id_and_is_in_the_log(door: Callable, lines: Callable) -> None:
    asking = door(token=TOKEN)
    found = asking.post("/login", PAGE, data={"password": "wrong"})
    assert lines()[-1]["error_id"] == re.search(r"\(([0-9a-f]{8})\)", found.text)[1]
    for _ in range(10):
        found = asking.post("/login", PAGE, data={"password": "wrong"})
    assert (found.status_code, found.headers["retry-after"]) == (429, "30")
    assert "Too many" in found.text
    assert asking.post("/login", data={"password": "wrong"}).json()["error"]["code"] == "too_many_attempts"


def test_names_and_passwords(door: Callable, users_path: Path) -> None:
    asking = door(users_path=users_path)
    found = asking.post("/login", PAGE, data={"username": "bo", "password": "battery staple"})
    assert (found.status_code, found.headers["location"]) == (303, "/")
    cookie = {"Cookie": found.headers["set-cookie"].split(";")[0]}
    assert asking.get("/", cookie).json()["user"] == "bo"
    for pair in (("", ""), ("bo", ""), ("", "battery staple"), ("b\0", "\xff"), ("bo", "battery staple ")):
        assert asking.post("/login", data=dict(zip(("username", "password"), pair, strict=True))).status_code == 401
    assert asking.post("/login", data={"username": "bo"}).status_code == 401


def test_as_gradio_client_signs_in(door: Callable, users_path: Path) -> None:
    """It posts the form, wants a success, and sends back every cookie by name and value."""
    found = door(users_path=users_path).post("/login", data={"username": "bo", "password": "battery staple"})
    assert (found.status_code, found.json()) == (200, {"success": True})
    assert len(found.cookies) == 1


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"a=1&" * 50, b'{"password": "a-token-of-ours"}', b"password"])
def test_what_is_no_form(door: Callable, body: bytes) -> None:
    assert door(token=TOKEN).post("/login", content=body).status_code == 401


def test_a_form_has_a_limit(door: Callable) -> None:
    found = door(token=TOKEN).post("/login", content=b"x" * (FORM_BYTES + 1))
    assert (found.status_code, found.json()["error"]["code"]) == (413, "body_too_large")


def test_signing_out(door: Callable) -> None:
    asking = door(token=TOKEN)
    shown = asking.get("/logout", PAGE)
    assert shown.status_code == 200
    assert 'method="post" action="/logout?' in shown.text
    assert "set-cookie" not in shown.headers
    found = asking.post("/logout", PAGE)
    assert (found.status_code, found.headers["location"]) == (303, "/login")
    assert "Max-Age=0" in found.headers["set-cookie"]
    assert asking.post("/logout", {"Origin": "http://evil.example"}).status_code == 403


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "\t//evil.example",
        "/\n/evil.example",
        " //evil.example",
        "http://evil.example",
        "javascript:alert(1)",
        "/é",
        "/login",
        "/login?next=/login",
        "/logout",
        "http:/x",
        "//[",
    ],
)
def test_only_paths_of_ours_are_led_to(door: Callable, text: str) -> None:
    assert local_target(text) == "/"
    found = door(token=TOKEN).ask("POST", "/login", PAGE, params={"next": text}, data={"password": TOKEN})
    assert found.headers["location"] == "/"


@pytest.mark.parametrize("text", ["/", "/view?a=1&b=//x", "/a/b%20c#d", "/?__theme=dark", "/x:80/y", "/a//b"])
def test_and_those_are(text: str) -> None:
    assert local_target(text) == text


def test_addresses_of_the_page() -> None:
    assert login_address("", "/") == "/login"
    assert login_address("/films", "/a?b=1&c=2") == "/films/login?next=/a%3Fb%3D1%26c%3D2"


def test_what_is_asked_for_cannot_become_html(door: Callable) -> None:
    attack = '"><script>alert(1)</script>'
    text = door(token=TOKEN).get("/login", params={"next": f"/{attack}", "lang": attack}).text
    assert "<script" not in text
    assert "&lt;script" not in text  # it is percent-encoded before
