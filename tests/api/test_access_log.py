from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

TOKEN = "a-token-of-ours"


def test_one_line_for_each_request(door: Callable, lines: Callable, users_path: Path) -> None:
    asking = door(users_path=users_path)
    asking.post("/prompt?x=a-secret-prompt", content=b"x", auth=("bo", "battery staple"))
    asking.get("/history")
    first, second = lines()
    assert isinstance(first.pop("ms"), float)
    assert first == {"method": "POST", "path": "/prompt", "status": 200, "user": "bo", "client": "203.0.113.7", "job_id": "job-1"}
    assert (second["status"], second["user"], len(second["error_id"])) == (401, None, 8)


def test_an_error_is_found_by_its_id(door: Callable, lines: Callable, caplog: pytest.LogCaptureFixture) -> None:
    found = door().get("/", {"Host": "evil.example"}).json()["error"]["id"]
    assert lines()[-1]["error_id"] == found
    assert any(found in record.getMessage() and "evil.example" in record.getMessage() for record in caplog.records)


def test_secrets_are_in_no_line(door: Callable, lines: Callable, caplog: pytest.LogCaptureFixture, users_path: Path) -> None:
    asking = door(token=TOKEN)
    asking.get(f"/x?token={TOKEN}", {"Accept": "text/html"})
    asking.get(f"/x?token={TOKEN}x")
    asking.get("/x", {"Authorization": f"Bearer {TOKEN}"})
    asking.get("/x", {"Authorization": f"Bearer {TOKEN}y"})
    asking.post("/login", data={"password": TOKEN})
    asking.post("/login", data={"password": f"{TOKEN}z"})
    door(users_path=users_path).get("/x", auth=("bo", "battery staple"))
    assert len(lines()) == 7
    assert TOKEN not in caplog.text
    assert "battery" not in caplog.text


def test_no_line_can_be_forged(door: Callable, lines: Callable) -> None:
    door().get('/a%0A%22%7D%0A{"user": "ada"}%1b[31m')
    assert lines()[-1]["path"] == '/a\n"}\n{"user": "ada"}\x1b[31m'  # in one line of JSON
    door().get("/" + "x" * 10_000)
    assert len(lines()[-1]["path"]) == 300


@pytest.mark.parametrize(("accepts", "status"), [(True, 101), (False, 403)])
def test_websockets_have_a_line_too(door: Callable, lines: Callable, accepts: bool, status: int) -> None:
    async def app(scope: dict, receive: Callable, send: Callable) -> None:
        if accepts:
            await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})

    async def send(message: dict) -> None:
        pass

    scope = {"type": "websocket", "path": "/ws", "query_string": b"", "headers": [(b"host", b"localhost")], "client": None}
    asyncio.run(door(app).access(scope, None, send))
    assert (lines()[-1]["method"], lines()[-1]["status"]) == ("WEBSOCKET", status)


def test_a_server_that_knows_no_answers_to_websockets(door: Callable) -> None:
    sent = []

    async def send(message: dict) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/ws", "query_string": b"", "headers": [(b"host", b"localhost")], "client": ("203.0.113.7", 1)}
    asyncio.run(door(token=TOKEN).access(scope, None, send))
    assert [message["type"] for message in sent] == ["websocket.close"]
