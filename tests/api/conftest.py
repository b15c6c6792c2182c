"""An app that tells what it got, and ways to ask it through the door."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from api import users
from api.access import Access, AccessSettings
from api.passwords import Cost

CHEAP = Cost(n=16, r=1, p=1)
PAGE = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


async def telling_app(scope: dict, receive: Callable, send: Callable) -> None:
    """Answers with what it sees, as JSON; the body is read to its end."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": json.dumps(seen(scope, b""))})
        await send({"type": "websocket.close"})
        return
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    scope["state"]["job_id"] = "job-1"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(seen(scope, body)).encode()})


def seen(scope: dict, body: bytes) -> dict[str, Any]:
    kept = {key: scope.get(key) for key in ("path", "root_path", "scheme", "client", "type")}
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    user = {"user": scope["user"].name, "is_admin": scope["user"].is_admin}
    return kept | user | {"query": scope["query_string"].decode(), "headers": headers, "body_bytes": len(body)}


class Clock:
    def __init__(self) -> None:
        self.seconds = 1_000_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def door(clock: Clock) -> Callable[..., SimpleNamespace]:
    """`door(token="...", ...)`: the layer with these settings, `get`, `post` and `ask`, which return httpx's responses."""

    def make(app: Callable = telling_app, **settings: Any) -> SimpleNamespace:
        access = Access(app, AccessSettings(**settings), now=clock, clock=clock)

        def ask(method: str, path: str, headers: Any = None, client: str = "203.0.113.7", base: str = "http://localhost:8000", **more: Any):
            async def run() -> httpx.Response:
                transport = httpx.ASGITransport(access, client=(client, 5000))
                async with httpx.AsyncClient(transport=transport, base_url=base) as asking:
                    return await asking.request(method, path, headers=headers, **more)

            return asyncio.run(run())

        def get(path: str = "/", headers: Any = None, **more: Any) -> httpx.Response:
            return ask("GET", path, headers, **more)

        def post(path: str = "/", headers: Any = None, **more: Any) -> httpx.Response:
            return ask("POST", path, headers, **more)

        return SimpleNamespace(access=access, ask=ask, get=get, post=post)

    return make


@pytest.fixture
def users_path(tmp_path: Path) -> Path:
    """Ada is an admin with the password "correct horse", Bo a user with "battery staple"."""
    path = tmp_path / "users.json"
    users.add(path, "ada", "correct horse", "admin", CHEAP)
    users.add(path, "bo", "battery staple", cost=CHEAP)
    return path


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[dict]]]:
    """The lines of the access log so far."""
    with caplog.at_level(logging.INFO, "stillmotion.access"):
        yield lambda: [json.loads(r.getMessage()) for r in caplog.records if r.name == "stillmotion.access" and r.getMessage()[0] == "{"]
