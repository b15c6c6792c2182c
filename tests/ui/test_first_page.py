"""What Gradio serves at "/", by an app that serves its real template."""

from __future__ import annotations

import re
from pathlib import Path

import gradio
import pytest
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from ui.first_page import OwnHead

TEMPLATE = (Path(gradio.__file__).parent / "templates" / "frontend" / "index.html").read_text()


async def page(scope: Scope, receive: Receive, send: Send) -> None:
    as_text = "text" in Request(scope).query_params
    await (PlainTextResponse if as_text else HTMLResponse)(TEMPLATE, headers={"x-kept": "yes"})(scope, receive, send)


@pytest.fixture
def client() -> TestClient:
    return TestClient(OwnHead(page), root_path="/films")


def test_the_first_page_names_nobody_elses_addresses_and_has_our_icon(client: TestClient) -> None:
    answer = client.get("/films/")
    assert answer.headers["x-kept"] == "yes"
    assert int(answer.headers["content-length"]) == len(answer.content)
    head = answer.text.split("</head>")[0]
    assert '<link rel="icon" href="page/icon.svg">' in head
    links = re.findall(r"<(?:link|meta)[^>]*>", head)
    assert links
    assert not [link for link in links if "http" in link or 'href="/' in link or "Gradio" in link]


def test_all_else_is_as_it_was(client: TestClient) -> None:
    assert client.get("/films/other").text == TEMPLATE
    assert client.get("/films/?text").text == TEMPLATE
