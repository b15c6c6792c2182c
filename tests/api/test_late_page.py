"""The server answers before its page is made; browsers look again, programs wait."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from starlette.responses import PlainTextResponse

from api.late_page import LatePage
from tests.api.house import living, until

HTML = {"Accept": "text/html"}


def made() -> FastAPI:
    page = FastAPI()
    page.add_route("/", lambda request: PlainTextResponse("the page"))
    return page


def test_browsers_are_asked_to_look_again_and_programs_wait() -> None:
    may_go_on = threading.Event()

    def make() -> FastAPI:
        may_go_on.wait(10)
        return made()

    async def use() -> None:
        late = LatePage(make)
        async with late.lifespan(FastAPI()), httpx.AsyncClient(transport=httpx.ASGITransport(late), base_url="http://page") as client:
            early = await client.get("/", headers=HTML)
            assert (early.status_code, early.headers["retry-after"], "reload()" in early.text) == (503, "1", True)
            waiting = asyncio.create_task(client.get("/"))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            may_go_on.set()
            assert (await waiting).text == "the page"
            assert (await client.get("/", headers=HTML)).text == "the page"

    asyncio.run(use())


def test_what_the_api_does_not_have_is_no_page(tmp_path: Path) -> None:
    def page(app: FastAPI, api: object) -> None:
        app.add_route("/{path:path}", lambda request: PlainTextResponse("the page"))

    with living(tmp_path, works=False, page=page) as house:
        until(lambda: house.get("/anything").text == "the page")
        for path in ("/api/nothing", "/api/"):
            answer = house.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
        assert house.ask("PUT", "/api/about").json()["error"]["code"] == "wrong_method"


def test_a_page_that_cannot_be_made_leaves_the_rest_of_the_server_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    def make() -> FastAPI:
        raise RuntimeError("broken")

    async def use() -> None:
        late = LatePage(make)
        async with late.lifespan(FastAPI()), httpx.AsyncClient(transport=httpx.ASGITransport(late), base_url="http://page") as client:
            answer = await client.get("/")
            assert (answer.status_code, "could not be made" in answer.text) == (503, True)

    asyncio.run(use())
    assert "The page could not be made." in caplog.text
