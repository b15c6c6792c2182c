"""Who is let in, who is not, and what either of them sees."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse

from api import users
from api.access import Access, AccessSettings
from errors import InputError, UnreadableFileError

TOKEN = "a-token-of-ours"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PAGE = {"Accept": "text/html,*/*"}


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def error(response: Any) -> dict[str, str]:
    assert set(response.json()) == {"error"}
    return response.json()["error"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": TOKEN},
        BEARER,
        {"Authorization": f"bearer   {TOKEN} "},
        basic("", TOKEN),
        basic("anybody", TOKEN),
    ],
    ids=["raw", "bearer", "small letters", "basic without a name", "basic"],
)
def test_the_token_opens(door: Callable, headers: dict) -> None:
    found = door(token=TOKEN).get("/history", headers)
    assert found.status_code == 200
    assert (found.json()["user"], found.json()["is_admin"]) == ("", True)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": TOKEN[:-1]},
        {"Authorization": "Basic ???"},
        {"Authorization": "Basic " + base64.b64encode(b"no colon").decode()},
        {"Authorization": "Basic " + base64.b64encode(b"\xff\xfe:x").decode()},
        {"Authorization": b"Bearer \xff\xfe\x80"},
        {"Cookie": "stillmotion_00000000=a.b"},
        {"Cookie": b"\xff\xfe=\xff"},
    ],
)
def test_all_else_does_not(door: Callable, headers: dict) -> None:
    found = door(token=TOKEN).get("/history", headers)
    assert (found.status_code, error(found)["code"]) == (401, "unauthorized")
    assert found.headers["www-authenticate"].startswith("Bearer")
    assert len(error(found)["id"]) == 8


def test_a_token_may_be_of_any_letters(door: Callable) -> None:
    asking = door(token="密码-ключ-日本")
    assert asking.get("/", {"Authorization": "Bearer 密码-ключ-日本".encode()}).status_code == 200
    assert asking.get("/?token=%E5%AF%86%E7%A0%81-%D0%BA%D0%BB%D1%8E%D1%87-%E6%97%A5%E6%9C%AC").status_code == 200


def test_users_by_password_and_by_token(door: Callable, users_path: Path) -> None:
    token = users.new_token(users_path, "bo")
    asking = door(users_path=users_path)
    for headers in (basic("bo", "battery staple"), basic("bo", token), basic("", token), {"Authorization": token}):
        found = asking.get("/", headers).json()
        assert (found["user"], found["is_admin"]) == ("bo", False)
    assert asking.get("/", basic("ada", "correct horse")).json()["is_admin"]
    for headers in (
        basic("bo", "correct horse"),
        basic("ada", token),
        basic("eve", "correct horse"),
        basic("", ""),
        basic("", "battery staple"),
    ):
        assert asking.get("/", headers).status_code == 401


def test_without_credentials_on_loopback_everybody_is_the_one_user(door: Callable) -> None:
    found = door().get("/")
    assert (found.json()["user"], found.json()["is_admin"]) == ("", True)
    assert door().get("/login").headers["location"] == "/"
    assert door().post("/login").json() == {"success": True}  # gradio_client with `auth` is content


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_need_nothing(door: Callable, path: str) -> None:
    asking = door(token=TOKEN, listen_host="0.0.0.0", allowed_hosts=("films.example.com",))
    found = asking.get(path, {"Host": "10.1.2.3:8000"})
    assert (found.status_code, found.json()["user"], found.json()["is_admin"]) == (200, "", False)
    assert asking.post(path, {"Host": "films.example.com"}).status_code == 401
    assert asking.get(path + "/", {"Host": "films.example.com"}).status_code == 401


def test_a_browser_is_led_to_the_login_page_and_back(door: Callable) -> None:
    asking = door(token=TOKEN)
    found = asking.get("/view?filename=a%20b.png&x=%E4%BD%A0", PAGE)
    assert found.status_code == 303
    there = urlsplit(found.headers["location"])
    assert there.path == "/login"
    assert parse_qs(there.query) == {"next": ["/view?filename=a%20b.png&x=%E4%BD%A0"]}
    signed_in = asking.post(found.headers["location"], PAGE, data={"password": TOKEN})
    assert (signed_in.status_code, signed_in.headers["location"]) == (303, "/view?filename=a%20b.png&x=%E4%BD%A0")
    assert asking.post("/prompt", PAGE).status_code == 401  # only a page is led there


def test_the_printed_address_signs_in_once(door: Callable) -> None:
    asking = door(token=TOKEN)
    found = asking.get(f"/films?a=1&token={TOKEN}&b=%20", PAGE)
    assert (found.status_code, found.headers["location"], found.headers["cache-control"]) == (303, "/films?a=1&b=%20", "no-store")
    cookie = found.headers["set-cookie"]
    for part in ("HttpOnly", "SameSite=lax", "Path=/", "Max-Age=2592000"):
        assert part in cookie
    assert "Secure" not in cookie
    seen = asking.get("/films", {"Cookie": cookie.split(";")[0]})
    assert seen.status_code == 200
    assert asking.get("/films?token=wrong", PAGE).headers["location"] == "/login?next=/films"


def test_a_program_may_use_the_token_in_a_get_but_not_in_a_post(door: Callable) -> None:
    asking = door(token=TOKEN)
    found = asking.get(f"/view?token={TOKEN}&filename=x")
    assert (found.status_code, found.json()["query"]) == (200, "filename=x")
    assert asking.post(f"/prompt?token={TOKEN}").status_code == 401
    assert asking.post("/api_prompt?token=tag", BEARER).json()["query"] == "token=tag"  # a parameter like others


@pytest.mark.parametrize("path", ["//evil.example/x", "/\\evil.example", "/%5Cevil.example"])
def test_the_printed_address_leads_nowhere_else(door: Callable, path: str) -> None:
    async def run() -> list:
        sent = []
        scope = {"type": "http", "method": "GET", "path": path.replace("%5C", "\\"), "query_string": f"token={TOKEN}".encode()}
        scope |= {"headers": [(b"host", b"localhost"), (b"accept", b"text/html")], "client": ("127.0.0.1", 1), "scheme": "http"}

        async def send(message: dict) -> None:
            sent.append(message)

        await door(token=TOKEN).access(scope, None, send)
        return sent

    location = dict(asyncio.run(run())[0]["headers"])[b"location"].decode()
    assert location.startswith("/")
    assert urlsplit(location).netloc == ""
    assert "\\" not in location


def cookie_of(asking: Any, **login: str) -> str:
    found = asking.post("/login", data=login)
    assert found.status_code == 200, found.text
    return found.headers["set-cookie"].split(";")[0]


def test_the_cookie_is_good_for_thirty_days(door: Callable, clock: Any) -> None:
    asking = door(token=TOKEN)
    cookie = cookie_of(asking, password=TOKEN)
    clock.seconds += 30 * 24 * 3600 - 1
    assert asking.get("/", {"Cookie": cookie}).status_code == 200
    clock.seconds += 1
    assert asking.get("/", {"Cookie": cookie}).status_code == 401


def test_a_changed_cookie_is_no_cookie(door: Callable, users_path: Path) -> None:
    asking = door(users_path=users_path)
    name, _, value = cookie_of(asking, username="bo", password="battery staple").partition("=")
    assert asking.get("/", {"Cookie": f"{name}={value}"}).json()["user"] == "bo"
    for index in range(0, len(value), 7):
        other = "A" if value[index] != "A" else "B"
        changed = value[:index] + other + value[index + 1 :]
        assert asking.get("/", {"Cookie": f"{name}={changed}"}).status_code == 401
    for changed in ("", ".", value.replace(".", ""), value + "0", value[:-1], "é." + value, value * 20):
        assert asking.get("/", {"Cookie": f"{name}={changed}".encode()}).status_code == 401


def test_a_cookie_dies_with_what_it_was_got_for(door: Callable, users_path: Path, tmp_path: Path) -> None:
    key_path = tmp_path / "key"
    token = users.new_token(users_path, "bo")
    asking = door(users_path=users_path, key_path=key_path)
    by_token, by_password = cookie_of(asking, password=token), cookie_of(asking, username="bo", password="battery staple")
    assert by_token != by_password
    again = door(users_path=users_path, key_path=key_path)  # after a restart
    assert again.get("/", {"Cookie": by_token}).json()["user"] == "bo"
    entries = users.read(users_path)
    users_path.write_bytes(users.document([entries[0], users.Entry("bo", "user", entries[1].password)]))
    assert again.get("/", {"Cookie": by_token}).status_code == 401
    assert again.get("/", {"Cookie": by_password}).json()["user"] == "bo"
    users_path.write_bytes(users.document(entries[:1]))
    assert again.get("/", {"Cookie": by_password}).status_code == 401
    assert door(users_path=users_path, key_path=tmp_path / "other").get("/", {"Cookie": by_password}).status_code == 401


def test_a_role_that_changes_counts_at_once(door: Callable, users_path: Path) -> None:
    asking = door(users_path=users_path)
    cookie = cookie_of(asking, username="ada", password="correct horse")
    users_path.write_text(users_path.read_text().replace('"admin"', '"user"'))
    assert asking.get("/", {"Cookie": cookie}).json()["is_admin"] is False


def test_with_a_good_cookie_a_proxys_password_does_no_harm(door: Callable) -> None:
    asking = door(token=TOKEN)
    cookie = {"Cookie": cookie_of(asking, password=TOKEN)}
    for _ in range(30):
        assert asking.get("/", cookie | basic("proxy", "password")).status_code == 200
        assert asking.get("/", cookie | {"Authorization": "Bearer of the proxy"}).status_code == 200


def test_guessing_is_slowed_by_address(door: Callable, clock: Any) -> None:
    asking = door(token=TOKEN)
    cookie = {"Cookie": cookie_of(asking, password=TOKEN)}
    for number in range(10):
        assert asking.get("/", {"Authorization": f"guess {number}"}).status_code == 401
    found = asking.get("/", {"Authorization": "Bearer guess"})
    assert (found.status_code, error(found)["code"], found.headers["retry-after"]) == (429, "too_many_attempts", "30")
    assert asking.get("/", cookie).status_code == 200  # who is known stays so
    assert asking.post("/login", data={"password": TOKEN}).status_code == 200  # this very secret was right before
    assert asking.get("/", {"Authorization": "other"}, client="203.0.113.8").status_code == 401
    assert asking.get("/").status_code == 401  # no attempt
    clock.seconds += 29
    assert asking.get("/", {"Authorization": "x"}).headers["retry-after"] == "1"
    clock.seconds += 1
    assert asking.get("/", {"Authorization": "y"}).status_code == 401
    assert asking.get("/", {"Authorization": "z"}).status_code == 429


def test_a_right_guess_is_not_told_while_slowed(door: Callable) -> None:
    asking = door(token=TOKEN)
    for number in range(10):
        asking.get("/", {"Authorization": f"guess {number}"})
    assert asking.get("/", BEARER).status_code == 429


def test_many_guesses_at_once_are_counted_too(users_path: Path, clock: Any) -> None:
    access = Access(lambda *_: None, AccessSettings(users_path=users_path), now=clock, clock=clock)

    async def guess(number: int) -> int:
        sent = []
        scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "client": ("203.0.113.7", 1)}
        value = basic("ada", f"guess {number}")["Authorization"].encode()
        scope["headers"] = [(b"host", b"localhost"), (b"authorization", value)]

        async def send(message: dict) -> None:
            sent.append(message)

        await access(scope, None, send)
        return sent[0]["status"]

    async def run() -> list[int]:
        return await asyncio.gather(*(guess(number) for number in range(30)))

    assert sorted(asyncio.run(run())) == [401] * 10 + [429] * 20


def test_headers_that_are_there_twice(door: Callable) -> None:
    asking = door(token=TOKEN)
    twice = [("Authorization", f"Bearer {TOKEN}"), ("Authorization", "Bearer other")]
    found = asking.get("/", twice)
    assert (found.status_code, error(found)["code"]) == (400, "bad_request")
    assert TOKEN not in found.text


@pytest.mark.parametrize("headers", [[("X-A", "x" * 70_000)], [(f"X-{number}", "") for number in range(300)]])
def test_too_many_headers(door: Callable, headers: list) -> None:
    found = door(token=TOKEN).get("/", headers)
    assert (found.status_code, error(found)["code"]) == (431, "headers_too_large")


def test_every_answer_has_the_security_headers(door: Callable) -> None:
    for found in (door().get("/"), door(token=TOKEN).get("/"), door(token=TOKEN).get("/login"), door(token=TOKEN).get("/", PAGE)):
        assert found.headers["x-content-type-options"] == "nosniff"
        assert found.headers["referrer-policy"] == "same-origin"
        assert found.headers["x-frame-options"] == "SAMEORIGIN"
    assert "x-frame-options" not in door(may_be_framed=True).get("/").headers


def fastapi_app() -> FastAPI:
    app = FastAPI()

    @app.post("/echo")
    async def echo(document: dict) -> dict:
        return document

    @app.get("/who")
    def who(request: Request) -> str:
        return request.user.name

    @app.get("/boom")
    def boom() -> None:
        raise RuntimeError("the secret of /etc/shadow")

    @app.get("/framed")
    def framed() -> PlainTextResponse:
        return PlainTextResponse("x", headers={"X-Frame-Options": "DENY"})

    return app


def test_what_an_app_says_itself_stays(door: Callable) -> None:
    found = door(fastapi_app()).get("/framed")
    assert found.headers.get_list("x-frame-options") == ["DENY"]


def test_starlette_finds_the_user(door: Callable, users_path: Path) -> None:
    assert door(fastapi_app(), users_path=users_path).get("/who", basic("bo", "battery staple")).json() == "bo"


def test_a_mistake_of_ours_tells_nothing(door: Callable, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(scope: dict, receive: Callable, send: Callable) -> None:
        raise RuntimeError("the secret of /etc/shadow")

    found = door(broken).get("/")
    assert (found.status_code, error(found)["code"]) == (500, "internal")
    assert "shadow" not in found.text
    record = next(one for one in caplog.records if one.levelno == logging.ERROR)
    assert error(found)["id"] in record.getMessage()
    assert "shadow" in str(record.exc_info[1])


@pytest.mark.parametrize("size", [100, 101])
def test_bodies_have_a_limit(door: Callable, size: int) -> None:
    asking = door(body_limit_bytes=100, body_limits={"/upload": 1000, "/upload/small": 10})
    assert asking.post("/", content=b"x" * size).status_code == (200 if size <= 100 else 413)
    assert asking.post("/upload/image", content=b"x" * 1000).json()["body_bytes"] == 1000
    assert asking.post("/upload/small", content=b"x" * size).status_code == 413

    async def chunks() -> Any:
        for _ in range(size):
            yield b"x"

    assert asking.post("/", content=chunks()).status_code == (200 if size <= 100 else 413)


def test_an_app_that_makes_something_else_of_it_is_not_heard(door: Callable) -> None:
    async def chunks() -> Any:
        yield b'{"a":"'
        yield b"x" * 200

    found = door(fastapi_app(), body_limit_bytes=100).post("/echo", {"Content-Type": "application/json"}, content=chunks())
    assert (found.status_code, error(found)["code"]) == (413, "body_too_large")


def raw(access: Access, scope: dict, messages: list[dict]) -> list[dict]:
    """What the layer sends for a scope and what the server would hand in."""
    sent, waiting = [], iter(messages)

    async def receive() -> dict:
        return next(waiting)

    async def send(message: dict) -> None:
        sent.append(message)

    asyncio.run(access({"query_string": b"", "headers": [(b"host", b"localhost")], "client": None} | scope, receive, send))
    return sent


def test_half_an_answer_is_ended_at_the_limit(door: Callable) -> None:
    async def echo(scope: dict, receive: Callable, send: Callable) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": (await receive())["body"], "more_body": True})

    part = {"type": "http.request", "body": b"x" * 60, "more_body": True}
    sent = raw(door(echo, body_limit_bytes=100).access, {"type": "http", "method": "POST", "path": "/"}, [part, part])
    assert [message.get("body") for message in sent] == [None, b"x" * 60]


@pytest.mark.parametrize("is_open", [True, False])
def test_a_mistake_of_ours_on_a_websocket(door: Callable, is_open: bool) -> None:
    async def broken(scope: dict, receive: Callable, send: Callable) -> None:
        if is_open:
            await send({"type": "websocket.accept"})
        raise RuntimeError("the secret of /etc/shadow")

    scope = {"type": "websocket", "path": "/ws", "extensions": {"websocket.http.response": {}}}
    if is_open:  # the server closes it
        with pytest.raises(RuntimeError):
            raw(door(broken).access, scope, [])
        return
    sent = raw(door(broken).access, scope, [])
    assert sent[0]["status"] == 500
    assert b"shadow" not in sent[1]["body"]


def test_over_a_unix_socket(door: Callable) -> None:
    sent = raw(door().access, {"type": "http", "method": "GET", "path": "/"}, [{"type": "http.request"}])
    assert b'"client": ["127.0.0.1", 0]' in sent[1]["body"]


@pytest.mark.parametrize("length", ["-1", "x", "1e9", "²", "9" * 30])
def test_strange_lengths(door: Callable, length: str) -> None:
    found = door(body_limit_bytes=100).post("/", {"Content-Length": length.encode()}, content=b"x" * 50)
    assert found.status_code == (413 if length.startswith("9") else 200)


def test_a_body_that_breaks_off_is_nobodys_mistake(door: Callable, caplog: pytest.LogCaptureFixture, lines: Callable) -> None:
    async def reading(scope: dict, receive: Callable, send: Callable) -> None:
        await Request(scope, receive).body()

    half = [{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}]
    assert raw(door(reading).access, {"type": "http", "method": "POST", "path": "/"}, half) == []
    assert lines()[-1]["status"] is None
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]


def test_lifespan_passes_untouched() -> None:
    seen = []

    async def app(*given: Any) -> None:
        seen.append(given)

    given = ({"type": "lifespan"}, object(), object())
    asyncio.run(Access(app, AccessSettings(token=TOKEN))(*given))
    assert seen == [given]


def test_mistakes_at_the_start(tmp_path: Path, users_path: Path) -> None:
    with pytest.raises(InputError, match="Whoever can reach"):
        Access(None, AccessSettings(listen_host="0.0.0.0"))
    with pytest.raises(InputError, match="contradict"):
        Access(None, AccessSettings(token=TOKEN, users_path=users_path))
    with pytest.raises(UnreadableFileError, match="cannot be read"):
        Access(None, AccessSettings(users_path=tmp_path / "nobody.json"))
    for wrong in ({"allowed_hosts": ("http://x",)}, {"allowed_origins": ("x",)}, {"trusted_proxies": ("x",)}, {"root_path": "x y"}):
        with pytest.raises(InputError):
            Access(None, AccessSettings(**wrong))


@pytest.mark.parametrize("everybody_is_admin", [True, False])
def test_where_nobody_signs_in_all_are_admins_or_none(door: Callable, everybody_is_admin: bool) -> None:
    found = door(no_auth=True, everybody_is_admin=everybody_is_admin).get("/history").json()
    assert (found["user"], found["is_admin"]) == ("", everybody_is_admin)
