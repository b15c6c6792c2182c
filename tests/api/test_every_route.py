"""All routes that there are: none is open without a token, and none shows or changes another's job. A new one cannot be forgotten."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websocket
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from api import users
from api.passwords import Cost
from jobs import database
from jobs.documents import job_document
from tests.api.house import House, living
from tests.api.test_jobs import GRAPH

TOKEN = "a-token-of-ours"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
OPEN = {(method, path) for method in ("GET", "HEAD") for path in ("/healthz", "/readyz")}
OF_THE_DOOR = ["/login", "/logout"]  # who comes in by them is asked there
SECRET = "what ann makes"


@pytest.fixture(scope="module", autouse=True)
def fast_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "_SYNCHRONOUS", "OFF")
        yield


def with_page(app: FastAPI) -> FastAPI:
    """As the page is mounted: under "/"."""
    page = [Route("/{path:path}", lambda request: PlainTextResponse("the page")), WebSocketRoute("/page/socket", WebSocket.accept)]
    app.mount("/", Starlette(routes=page))
    return app


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("data")
    with living(folder, works=False, add_page=with_page, token=TOKEN, key_path=folder / "key") as house:
        yield house


def routes(app: Any) -> list[BaseRoute]:
    """Of the app behind the door, and those of included routers. The page is an app of its own, behind the same door."""
    return [inner for route in app.app.routes for inner in leaves(route)]


def leaves(route: Any) -> Iterator[BaseRoute]:
    inside = route.routes if isinstance(route, Mount) else getattr(getattr(route, "original_router", None), "routes", None)
    if inside is None:
        yield route
    for inner in inside or ():
        yield from leaves(inner)


def filled(path: str, value: str = "x") -> str:
    return re.sub(r"\{.*?\}", value, path)


def asking(app: Any) -> Callable[..., httpx.Response]:
    """Without a socket, since there are many."""

    async def ask(method: str, path: str, **more: Any) -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
            return await client.request(method, path, **more)

    return lambda *arguments, **more: asyncio.run(ask(*arguments, **more))


def test_there_are_many_and_all_are_of_a_kind_that_is_looked_at(house: House) -> None:
    found = routes(house.app)
    assert len(found) > 80
    assert {type(route) for route in found if not isinstance(route, Route)} == {WebSocketRoute}
    paths = {route.path for route in found}
    assert paths > {"/prompt", "/api/ws", "/api/jobs/{job_id:path}", "/api/predict/{service}/sink", "/metrics", "/docs"}


def test_every_route_refuses_without_a_token(house: House) -> None:
    ask, asked = asking(house.app), 0
    paths = {filled(route.path) for route in routes(house.app) if isinstance(route, Route)} | {"/", "/nowhere", "/assets/x.css"}
    for path in sorted(paths):
        for method in METHODS:
            if (method, path) in OPEN:
                continue
            answer = ask(method, path)
            assert (answer.status_code, answer.headers["WWW-Authenticate"][:6]) == (401, "Bearer"), (method, path)
            assert method == "HEAD" or answer.json()["error"]["code"] == "unauthorized", (method, path)
            asked += 1
    assert asked > 500
    assert house.service.store.counts()["queued"] == 0


def test_every_socket_refuses_without_a_token(house: House) -> None:
    paths = {filled(route.path) for route in routes(house.app) if isinstance(route, WebSocketRoute)} | {"/nowhere", "/page/socket"}
    assert len(paths) > 5
    for path in sorted(paths):
        with pytest.raises(websocket.WebSocketBadStatusException) as caught:
            websocket.create_connection(f"ws{house.url[4:]}{path}", timeout=5)
        assert caught.value.status_code == 403, path


def test_with_the_token_none_of_them_says_that(house: House) -> None:
    ask = asking(house.app)
    for route in routes(house.app):
        if isinstance(route, Route) and not route.path.endswith("/events"):
            answer = ask("GET", filled(route.path), headers={"Authorization": TOKEN})
            assert answer.status_code not in (401, 403, 500), route.path


@pytest.mark.parametrize("path", OF_THE_DOOR)
def test_the_door_s_own_pages_give_nothing_away(house: House, path: str) -> None:
    for method in METHODS:
        answer = asking(house.app)(method, path)
        assert answer.status_code in (200, 303, 400, 401, 405), (method, answer.status_code)
        assert "set-cookie" not in answer.headers or "Max-Age=0" in answer.headers["set-cookie"]


@pytest.mark.parametrize("is_signed_in", [True, False], ids=["users", "browsers"])
def test_no_route_shows_or_changes_the_job_of_another(tmp_path: Path, is_signed_in: bool) -> None:
    """Whatever takes the id of a job, in its path or in its body."""
    path = tmp_path / "users.json"
    for name in ("ann", "bo"):
        users.add(path, name, "correct horse", cost=Cost(n=16, r=1, p=1))
    access = {"users_path": path} if is_signed_in else {"everybody_is_admin": False, "everybody_is_apart": True}
    with living(tmp_path / "data", works=False, key_path=tmp_path / "key", **access) as house:
        ann, bo = (authorization(path, name) if is_signed_in else cookie(house) for name in ("ann", "bo"))
        made = house.post("/api/jobs", {"workflow": GRAPH, "title": SECRET}, headers=ann)
        own = house.post("/api/jobs", {"workflow": GRAPH}, headers=bo).json()["id"]
        job_id = made.json()["id"]
        before, ask = job_document(house.service.store.get(job_id)), asking(house.app)
        bodies = [
            {}, {"prompt_id": job_id}, {"delete": [job_id]}, {"clear": True}, {"title": "mine"}, {"to": "front"}, {"is_favourite": True},
            {"prompt": GRAPH, "prompt_id": job_id}, {"before": job_id}, {"jobs": [job_id]},
        ]  # fmt: skip
        for route in (one for one in routes(house.app) if isinstance(one, Route)):
            has_id = "job_id" in route.path or "prompt_id" in route.path
            for method in set(route.methods) - {"HEAD", "OPTIONS"}:
                for body in bodies if method in ("POST", "PATCH", "PUT") else [None]:
                    answer = ask(method, filled(route.path, job_id), json=body, headers=bo)
                    assert SECRET not in answer.text, (method, route.path)
                    assert not has_id or answer.status_code in (400, 404, 405) or answer.json() == {}, (method, route.path, answer.text)
        house.post(f"/api/jobs/{own}/move", {"before": job_id}, headers=bo)
        assert job_document(house.service.store.get(job_id)) == before
        assert house.get(f"/api/jobs/{job_id}", headers=ann).json()["title"] == SECRET


def authorization(path: Path, name: str) -> dict[str, str]:
    return {"Authorization": users.new_token(path, name)}


def cookie(house: House) -> dict[str, str]:
    """Of a browser that comes for the first time."""
    house.client.cookies.clear()
    found = house.get("/api/about").headers["set-cookie"].partition(";")[0]
    house.client.cookies.clear()
    return {"Cookie": found}
