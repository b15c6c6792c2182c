"""The protocol as its own clients speak it: `requests` as the vendor's page has it, and `websocket-client`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import websocket
from fastapi import FastAPI

from api import users
from api.access import Access, AccessSettings
from api.comfy import comfy_routes
from api.passwords import Cost
from tests.api.comfy_house import ORDER, STILL, WORKFLOW, House, house, serving


@pytest.fixture
def server(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path) as made:
        yield made


def test_a_client_submits_polls_and_fetches(server: House) -> None:
    """The vendor's synchronous way: POST /prompt, GET /history/{id} until it is there, GET /view; all behind the service's address."""
    service_url, token = f"{server.url}/api/predict/comfyui_svd", "ann"
    with requests.session() as session:
        session.headers.update({"Authorization": token, "X-User": "ann"})
        answer = session.post(url=f"{service_url}/prompt", json={"prompt": WORKFLOW})
        assert answer.status_code == 200
        prompt_id = answer.json()["prompt_id"]
        assert session.get(url=f"{service_url}/history/{prompt_id}").json() == {}
        with server.at_work():
            end = time.monotonic() + 10
            while not (history := session.get(url=f"{service_url}/history/{prompt_id}").json()):
                assert time.monotonic() < end
        outputs = history[prompt_id]["outputs"]
        assert list(outputs) == ["9", "15", "19"]
        for node, kind in (("9", "images"), ("15", "images"), ("19", "gifs")):
            entry = outputs[node][kind][0]
            params = {name: entry[name] for name in ("filename", "subfolder", "type")}
            got = session.get(url=f"{service_url}/view", params=params)
            assert got.status_code == 200
            assert got.content == (server.data_dir / "output" / "ann" / entry["filename"]).read_bytes()


def test_a_client_listens(server: House) -> None:
    """The way of ComfyUI's own example: wait on the socket until `executing` says None for the prompt."""
    with server.listening("me", prefix="/api/predict/any") as listener:
        prompt_id = server.submit(client_id="me", prompt=WORKFLOW)
        server.work()
        seen = [one["data"] for one in listener.until_over() if one["type"] == "executing"]
    assert [one["node"] for one in seen] == [*ORDER, None]
    assert {one["prompt_id"] for one in seen} == {prompt_id}


def test_every_route_is_there_under_every_prefix(server: House) -> None:
    server.submit(prompt=STILL)
    server.work()
    for path in ("/prompt", "/queue", "/history", "/object_info", "/object_info/KSampler", "/view?filename=ComfyUI_00001_.png"):
        answers = [server.get(prefix + path) for prefix in ("", "/api", "/api/predict/svd")]
        assert {one.status_code for one in answers} == {200}
        assert len({one.content for one in answers}) == 1
    for path in ("/models", "/models/checkpoints", "/embeddings", "/extensions", "/features", "/users", "/settings"):
        assert server.get(path).content == server.get(f"/api{path}").content


@pytest.mark.parametrize(("method", "path"), [("GET", "/interrupt"), ("GET", "/free"), ("DELETE", "/queue"), ("PUT", "/api/prompt")])
def test_a_wrong_method_is_answered_with_the_right_ones(server: House, method: str, path: str) -> None:
    answer = server.ask(method, path)
    assert answer.status_code == 405
    assert "POST" in answer.headers["Allow"]
    assert answer.json()["error"]["code"] == "wrong_method"


def test_options_and_head(server: House) -> None:
    assert server.ask("OPTIONS", "/prompt").status_code == 200
    head, get = server.ask("HEAD", "/system_stats"), server.get("/system_stats")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Type"] == get.headers["Content-Type"] == "application/json; charset=utf-8"


def test_behind_the_door(server: House, tmp_path: Path) -> None:
    """With the layer that lets people in: each by his token, and nobody without."""
    path = tmp_path / "users.json"
    for name in ("ann", "bo"):
        users.add(path, name, "correct horse", cost=Cost(n=16, r=1, p=1))
    tokens = {name: {"Authorization": users.new_token(path, name)} for name in ("ann", "bo")}
    app = FastAPI()
    app.include_router(comfy_routes(server.context))
    with serving(Access(app, AccessSettings(users_path=path))) as url, requests.Session() as session:
        session.trust_env = False
        answer = session.post(f"{url}/prompt", json={"prompt": STILL}, headers=tokens["ann"])
        server.work()
        prompt_id = answer.json()["prompt_id"]
        assert list(session.get(f"{url}/history", headers=tokens["ann"]).json()) == [prompt_id]
        assert session.get(f"{url}/history", headers=tokens["bo"]).json() == {}
        statuses = [session.get(f"{url}/view?filename=ComfyUI_00001_.png", headers=token).status_code for token in tokens.values()]
        assert statuses == [200, 404]
        with pytest.raises(websocket.WebSocketBadStatusException):
            websocket.create_connection(f"ws{url[4:]}/ws?clientId=c")
        socket = websocket.create_connection(f"ws{url[4:]}/ws?clientId=c", header=tokens["bo"], timeout=5)
        assert json.loads(socket.recv())["type"] == "status"
        socket.close()
