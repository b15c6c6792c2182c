"""What reaches Gradio, by an app that notes what reaches it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from ui.door import GradioDoor

ADDRESS = "https://example.com/film.mp4"


async def gradio(scope: Scope, receive: Receive, send: Send) -> None:
    body = await Request(scope, receive).body()
    await Response(body or scope["path"].encode(), 200)(scope, receive, send)


@pytest.fixture
def client() -> TestClient:
    return TestClient(GradioDoor(gradio))


@pytest.mark.parametrize(
    "path",
    ["file/" + ADDRESS, "deep_link?session_hash=x", "proxy=" + ADDRESS, "component_server", "runs", "vibe-edit/", "monitoring",
     "dev/reload", "stream/a/b/1/playlist.m3u8", "custom_component/a/client/b/c.js", "mcp/sse", "",
     "process_recording", "%66ile/" + ADDRESS],
)  # fmt: skip
def test_what_nobody_here_uses_is_not_there(client: TestClient, path: str) -> None:
    answer = client.get(f"/gradio_api/{path}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "info?serialize=False"), ("POST", "queue/join"), ("GET", "queue/data?session_hash=x"), ("GET", "heartbeat/x"),
     ("POST", "upload?upload_id=1"), ("GET", "upload_progress?upload_id=1"), ("POST", "run/predict"), ("POST", "call/film"),
     ("GET", "call/film/ab12"), ("POST", "call/v2/film"), ("POST", "cancel"), ("POST", "reset"), ("GET", "startup-events"),
     ("GET", "file=/tmp/a.png"), ("GET", "theme.css"), ("POST", "api/predict/")],
)  # fmt: skip
def test_what_the_page_and_clients_use_passes(client: TestClient, method: str, path: str) -> None:
    assert client.request(method, f"/gradio_api/{path}").status_code == 200


def test_all_else_of_the_page_passes(client: TestClient) -> None:
    assert client.get("/assets/index.js").text == "/assets/index.js"
    assert client.post("/anything", json={"path": ADDRESS}).status_code == 200


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize("path", [ADDRESS, "http://127.0.0.1:1/x", "HTTPS://example.com", " http://example.com"])
@pytest.mark.parametrize("route", ["queue/join", "run/predict", "call/animate", "call/v2/animate", "api/predict/"])
def test_a_file_that_is_an_address_is_refused(client: TestClient, route: str, path: str) -> None:
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    for data in ([file], {"data": ["a", {"deep": [file]}]}):
        answer = client.post(f"/gradio_api/{route}", json=data)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "outside")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"data": ["https://example.com in a prompt"]}', nested(5).encode(),
     json.dumps({"data": [{"path": "/tmp/a.png", "url": "http://here/gradio_api/file=/tmp/a.png"}]}).encode()],
)  # fmt: skip
def test_all_else_arrives_as_it_was_sent(client: TestClient, body: bytes) -> None:
    answer = client.post("/gradio_api/queue/join", content=body)
    assert answer.content == (body or b"/gradio_api/queue/join")


def test_what_is_nested_too_deeply_is_refused(client: TestClient) -> None:
    assert client.post("/gradio_api/queue/join", content=nested(200_000).encode()).json()["error"]["code"] == "bad_input"


def test_a_body_in_pieces(client: TestClient) -> None:
    def pieces() -> Any:
        yield b'{"data": '
        yield b"[1]}"

    assert client.post("/gradio_api/queue/join", content=pieces()).json() == {"data": [1]}


def test_after_the_body_comes_what_the_server_says() -> None:
    """Such as that the client has gone."""
    told = [{"type": "http.request", "body": b"{}", "more_body": False}, {"type": "http.disconnect"}]
    heard = []

    async def curious(scope: Scope, receive: Receive, send: Send) -> None:
        heard.extend([(await receive())["type"], (await receive())["type"]])

    async def receive() -> Message:
        return told.pop(0)

    scope = {"type": "http", "method": "POST", "path": "/gradio_api/queue/join", "headers": []}
    asyncio.run(GradioDoor(curious)(scope, receive, None))
    assert heard == ["http.request", "http.disconnect"]


@pytest.mark.parametrize("root", ["/films", "/a/b"])
def test_a_path_under_which_a_proxy_shows_us_opens_nothing(root: str) -> None:
    client = TestClient(GradioDoor(gradio), root_path=root)
    assert client.get(f"{root}/gradio_api/deep_link").status_code == 404
    assert client.post(f"{root}/gradio_api/run/predict", json={"data": [{"path": ADDRESS}]}).status_code == 403
    assert client.get("/gradio_api/deep_link").status_code == 404  # a proxy may have taken it away
    assert client.get(f"{root}/gradio_api/info").status_code == 200
