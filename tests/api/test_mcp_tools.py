"""MCP with its own client, over a real port."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from PIL import Image

from api import users
from api.job_context import JobApi
from api.passwords import Cost
from jobs import database
from tests.api.house import House, living, until

mcp = pytest.importorskip("mcp", reason="MCP is optional: pip install -r requirements-mcp.txt")


def with_tools(app: FastAPI, api: JobApi) -> None:
    from api.mcp_tools import mcp_routes

    app.include_router(mcp_routes(api, "1.2.3"))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, str, str]]:
    """With the tokens of two users."""
    folder = tmp_path_factory.mktemp("mcp")
    path = folder / "users.json"
    for name in ("ann", "bo"):
        users.add(path, name, "correct horse", cost=Cost(n=16, r=1, p=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "_SYNCHRONOUS", "OFF")
        with living(folder / "data", page=with_tools, users_path=path, key_path=folder / "key") as house:
            yield house, users.new_token(path, "ann"), users.new_token(path, "bo")


def talk(url: str, token: str, say: Callable[[Any], Awaitable[Any]]) -> Any:
    """What `say(session)` gives."""

    @asynccontextmanager
    async def session() -> Any:
        from mcp.client.streamable_http import streamable_http_client

        async with (
            httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=60, trust_env=False) as http,
            streamable_http_client(f"{url}/mcp", http_client=http) as (read, write, _),
            mcp.ClientSession(read, write) as made,
        ):
            await made.initialize()
            yield made

    async def run() -> Any:
        async with asyncio.timeout(60), session() as made:
            return await say(made)

    return asyncio.run(run())


def text(result: Any) -> str:
    return result.content[0].text


def test_the_tools_are_told_with_their_parameters(served: tuple[House, str, str]) -> None:
    house, ann, _ = served
    tools = {tool.name: tool.inputSchema for tool in talk(house.url, ann, lambda session: session.list_tools()).tools}
    assert tools.keys() == {"film", "still", "animate"}
    assert tools["film"]["required"] == ["prompt"]
    assert tools["film"]["properties"]["frames"] | {"description": ""} == {"type": "integer", "default": 14, "description": ""}
    assert tools["animate"]["required"] == ["image"]


def test_a_still_comes_with_its_settings_and_as_a_picture(served: tuple[House, str, str]) -> None:
    house, ann, bo = served
    heard = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append(message)
        if message == "still 1/2":
            house.gpu.go.set()

    result = talk(house.url, ann, lambda s: s.call_tool("still", {"prompt": "wait for it", "seed": "7"}, progress_callback=hear))
    house.gpu.go.clear()
    told = json.loads(text(result))
    assert (result.isError, told["values"]["seed"], told["values"]["prompt"]) == (False, 7, "wait for it")
    assert heard[-1] == "still 1/2"
    (address,) = told["files"]
    assert house.ask("GET", address.removeprefix(house.url), token=ann).content == base64.b64decode(result.content[1].data)
    assert house.ask("GET", address.removeprefix(house.url), token=bo).status_code == 404


def test_a_picture_begins_to_move(served: tuple[House, str, str]) -> None:
    house, ann, _ = served
    made = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(made, "PNG")
    picture = "data:image/png;base64," + base64.b64encode(made.getvalue()).decode()
    told = json.loads(text(talk(house.url, ann, lambda session: session.call_tool("animate", {"image": picture, "frames": 3}))))
    assert (told["values"]["image"], told["values"]["frames"]) == ("picture.png", 3)
    assert [path.name for path in (house.service.settings.data_dir / "input" / "ann").iterdir()] == ["picture.png"]


@pytest.mark.parametrize(
    ("tool", "values", "says"),
    [("film", {"prompt": "x", "frames": 0}, "frames: Value 0 smaller than min of 1"), ("film", {}, "'prompt' is a required property"),
     ("still", {"prompt": "fail"}, "The boat sank. Take another boat."), ("sing", {}, "Unknown tool 'sing'"),
     ("animate", {"image": "data:image/png;base64,!"}, "The picture cannot be read."), ("animate", {"image": "no.png"}, "image: ")],
)  # fmt: skip
def test_what_is_wrong_is_said(served: tuple[House, str, str], tool: str, values: dict[str, Any], says: str) -> None:
    house, ann, _ = served
    result = talk(house.url, ann, lambda session: session.call_tool(tool, values))
    assert result.isError
    assert says in text(result)


def test_a_call_that_is_canceled_cancels_its_job(served: tuple[House, str, str]) -> None:
    house, ann, bo = served

    async def say(session: Any) -> None:
        from mcp.types import CancelledNotification, CancelledNotificationParams, ClientNotification

        number = session._request_id
        calling = asyncio.create_task(session.call_tool("still", {"prompt": "wait"}))
        await asyncio.to_thread(until, lambda: status() == "running")
        note = CancelledNotification(method="notifications/cancelled", params=CancelledNotificationParams(requestId=number))
        await session.send_notification(ClientNotification(note))
        await asyncio.to_thread(until, lambda: status() == "canceled")
        calling.cancel()

    def status() -> str:
        return next((job["status"] for job in house.get("/api/jobs", token=ann).json()["jobs"] if job["title"] == "wait"), "")

    talk(house.url, ann, say)
    assert house.get("/api/jobs", token=bo).json()["jobs"] == []


def test_nobody_comes_in_without_a_token(served: tuple[House, str, str]) -> None:
    house, _, _ = served
    assert house.post("/mcp", {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).status_code == 401
