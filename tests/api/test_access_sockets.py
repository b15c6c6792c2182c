"""The same door on a real server and real sockets."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
import websocket
from fastapi import FastAPI, Request, WebSocket

from api.access import SERVER_OPTIONS, Access, AccessSettings

TOKEN = "a-token-of-ours"
LIMIT = 200_000


def make_app(arrived: list[int]) -> FastAPI:
    app = FastAPI()

    @app.post("/upload/image")
    async def upload(request: Request) -> int:
        async for part in request.stream():
            arrived.append(len(part))  # noqa: PERF401
        return sum(arrived)

    @app.get("/healthz")
    def healthz() -> str:
        return "ok"

    @app.get("/history")
    def history(request: Request) -> str:
        return str(request.url)

    @app.websocket("/ws")
    async def ws(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_json({"user": socket.user.is_admin, "query": socket.url.query})
        await socket.close()

    return app


@pytest.fixture(scope="module")
def server() -> Iterator[SimpleNamespace]:
    arrived: list[int] = []
    access = Access(make_app(arrived), AccessSettings(token=TOKEN, body_limits={"/upload": LIMIT}))
    listening = socket.create_server(("127.0.0.1", 0))
    # its access log is on, against our advice: it must not show a token all the same
    options = dict(SERVER_OPTIONS) | {"access_log": True}
    running = uvicorn.Server(uvicorn.Config(access, log_config=None, lifespan="off", **options))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
    thread.start()
    while not running.started:
        time.sleep(0.01)
    yield SimpleNamespace(port=listening.getsockname()[1], arrived=arrived)
    running.should_exit = True
    thread.join()
    listening.close()


@pytest.fixture
def ask(server: SimpleNamespace) -> Callable[..., tuple[int, Any]]:
    def asking(method: str, path: str, headers: dict | None = None, body: Any = None, **more: Any) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        try:
            connection.request(method, path, body, {"Authorization": TOKEN} if headers is None else headers, **more)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    return asking


def raw(server: SimpleNamespace, sent: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(65536), b""))


def chunks(count: int, size: int = 10_000) -> Iterator[bytes]:
    for _ in range(count):
        yield b"x" * size


def test_a_body_in_chunks_stops_at_the_limit(server: SimpleNamespace, ask: Callable) -> None:
    server.arrived.clear()
    assert ask("POST", "/upload/image", body=chunks(20), encode_chunked=True, headers=None) == (200, 200_000)
    server.arrived.clear()
    headers = {"Authorization": TOKEN, "Transfer-Encoding": "chunked"}
    status, answer = ask("POST", "/upload/image", headers, chunks(100), encode_chunked=True)
    assert (status, answer["error"]["code"]) == (413, "body_too_large")
    assert sum(server.arrived) <= LIMIT


def test_an_announced_body_is_not_read_at_all(server: SimpleNamespace, ask: Callable) -> None:
    server.arrived.clear()
    status, answer = ask("POST", "/upload/image", body=b"x" * (LIMIT + 1))
    assert (status, answer["error"]["code"], server.arrived) == (413, "body_too_large", [])


def test_a_body_without_credentials_is_not_read(server: SimpleNamespace, ask: Callable) -> None:
    server.arrived.clear()
    status, answer = ask("POST", "/upload/image", {}, b"x" * LIMIT)
    assert (status, answer["error"]["code"], server.arrived) == (401, "unauthorized", [])


def connect(server: SimpleNamespace, path: str = "/ws", **options: Any) -> dict:
    client = websocket.create_connection(f"ws://127.0.0.1:{server.port}{path}", timeout=10, **{"suppress_origin": True} | options)
    try:
        return json.loads(client.recv())
    finally:
        client.close()


def test_websockets_by_header_query_and_cookie(server: SimpleNamespace) -> None:
    assert connect(server, header={"Authorization": TOKEN}) == {"user": True, "query": ""}
    assert connect(server, f"/ws?clientId=1&token={TOKEN}") == {"user": True, "query": "clientId=1"}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("POST", "/login", f"password={TOKEN}")
    cookie = connection.getresponse().getheader("Set-Cookie").split(";")[0]
    connection.close()
    assert connect(server, cookie=cookie)["user"] is True
    same = f"http://127.0.0.1:{server.port}"
    assert connect(server, cookie=cookie, suppress_origin=False, origin=same)["user"] is True
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{server.port + 1}", "file://"):
        with pytest.raises(websocket.WebSocketBadStatusException) as caught:
            connect(server, cookie=cookie, suppress_origin=False, origin=origin)
        assert caught.value.status_code == 403
        assert json.loads(caught.value.resp_body)["error"]["code"] == "forbidden_origin"


@pytest.mark.parametrize(("path", "header"), [("/ws", {}), ("/ws?token=wrong", {}), ("/ws", {"Authorization": "wrong"}), ("/healthz", {})])
def test_a_websocket_without_credentials_is_not_opened(server: SimpleNamespace, path: str, header: dict) -> None:
    with pytest.raises(websocket.WebSocketBadStatusException) as caught:
        connect(server, path, header=header)
    assert caught.value.status_code == 403
    assert json.loads(caught.value.resp_body)["error"]["code"] == "unauthorized"


def test_the_token_is_in_no_log(server: SimpleNamespace, ask: Callable, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), caplog.at_level(logging.INFO, "uvicorn.access"):  # other servers have set it
        assert ask("GET", f"/history?token={TOKEN}&a=1", {}) == (200, f"http://127.0.0.1:{server.port}/history?a=1")
        assert ask("GET", f"/history?a=1&%74oken={TOKEN}", {})[0] == 200
        assert ask("GET", "/history?token=secret-guess", {})[0] == 401
        assert ask("GET", "/history", {"Authorization": f"Bearer {TOKEN}"})[0] == 200
        connect(server, f"/ws?token={TOKEN}")
        ask("POST", "/login", {}, f"password={TOKEN}")
    wrote = "\n".join(record.getMessage() for record in caplog.records)
    assert "/history?a=1" in wrote  # uvicorn's line
    assert "/ws" in wrote
    assert TOKEN not in wrote
    assert "secret-guess" not in wrote


def test_bad_clients(server: SimpleNamespace, ask: Callable) -> None:
    host = b"Host: 127.0.0.1\r\n"
    assert raw(server, b"GET /history HTTP/1.1\r\n" + host + b"X: \xff\xfe\x80\r\nAuthorization: \xff\xfe\r\n\r\n").startswith(
        b"HTTP/1.1 401"
    )
    assert raw(server, b"GET /history HTTP/1.1\r\n" + host + b"X: " + b"x" * 60_000 + b"\r\n\r\n").startswith(b"HTTP/1.1 401")
    many = b"".join(b"X-%d: y\r\n" % number for number in range(500))
    assert raw(server, b"GET /history HTTP/1.1\r\n" + host + many + b"\r\n").startswith(b"HTTP/1.1 431")
    twice = b"Authorization: %s\r\n" % TOKEN.encode()
    assert raw(server, b"GET /history HTTP/1.1\r\n" + host + twice * 2 + b"\r\n").startswith(b"HTTP/1.1 400")
    assert b"401" in raw(server, b"GET /history HTTP/1.0\r\n\r\n").split(b"\r\n")[0]
    for cut in (10, 40, 120, 150):  # disconnects in the middle
        whole = b"POST /upload/image HTTP/1.1\r\n" + host + twice + b"Content-Length: 1000\r\n\r\n" + b"x" * 500
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(whole[:cut])
    assert ask("GET", "/healthz", {}) == (200, "ok")
