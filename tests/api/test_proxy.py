"""A real nginx in front, with the very lines that docs/proxy.md shows."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import httpx
import pytest
import websocket
from PIL import Image

from jobs import database
from tests.api.house import PNG, House, living, until
from tests.api.nginx_house import needed_nginx, nginx_before
from tests.api.test_jobs import GRAPH

TOKEN = "a secret"
PAGE = {"Accept": "text/html"}


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A server whose `url` is nginx's."""
    needed_nginx()
    folder = tmp_path_factory.mktemp("nginx")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "_SYNCHRONOUS", "OFF")
        settings = {"root_path": "/films", "trusted_proxies": ("127.0.0.1",), "token": TOKEN}
        with living(folder / "data", **settings) as house, nginx_before(house.url, folder) as house.url:
            yield house


def test_whoever_leaves_the_slash_out_is_led_on(behind: House) -> None:
    assert httpx.get(behind.url, trust_env=False).headers["location"] == "/films/"


def test_the_pages_know_where_they_are(behind: House) -> None:
    assert behind.get("/docs", headers=PAGE).headers["location"] == "/films/login?next=/docs"
    page = behind.get("/login", headers=PAGE)
    assert 'action="/films/login' in page.text
    assert 'href="openapi.json"' in behind.get("/docs", token=TOKEN).text
    assert behind.get("/openapi.json", token=TOKEN).json()["servers"] == [{"url": "/films"}]


def test_the_cookie_of_the_login_is_for_this_path(behind: House) -> None:
    origin = behind.url.removesuffix("/films")
    with httpx.Client(trust_env=False) as browser:
        answer = browser.post(f"{behind.url}/login?next=/docs", data={"password": TOKEN}, headers=PAGE | {"Origin": origin})
        assert (answer.status_code, answer.headers["location"]) == (303, "/films/docs")
        cookie = answer.headers["set-cookie"]
        assert "Path=/films;" in cookie + ";"
        assert "HttpOnly" in cookie
        assert browser.get(f"{behind.url}/api/jobs").status_code == 200
        assert browser.post(f"{behind.url}/api/films", json={"prompt": "x"}, headers={"Origin": origin}).status_code == 202
        foreign = browser.post(f"{behind.url}/api/films", json={"prompt": "x"}, headers={"Origin": "http://evil.example"})
        assert (foreign.status_code, foreign.json()["error"]["code"]) == (403, "forbidden_origin")


def test_jobs_and_their_files(behind: House) -> None:
    job = behind.film("a boat", token=TOKEN, wait=10)
    address = job["outputs"][0]["url"]
    assert address.startswith("/films/view?")
    shown = behind.get(address.removeprefix("/films"), token=TOKEN)
    assert (shown.status_code, shown.content) == (200, PNG)
    part = behind.get(address.removeprefix("/films"), token=TOKEN, headers={"Range": "bytes=1-3"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"PNG", f"bytes 1-3/{len(PNG)}")
    prompt_id = behind.post("/prompt", {"prompt": GRAPH}, token=TOKEN).json()["prompt_id"]
    history = until(lambda: behind.get(f"/history/{prompt_id}", token=TOKEN).json())
    assert history[prompt_id]["status"]["status_str"] == "success"


def test_events_come_at_once(behind: House) -> None:
    behind.gpu.go.clear()
    job = behind.film("wait", token=TOKEN, title="wait")
    seen = []
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with behind.client.stream("GET", f"{behind.url}/api/jobs/{job['id']}/events", headers=headers) as answer:
        for line in answer.iter_lines():
            if line.startswith("event: "):
                seen.append(line.removeprefix("event: "))
                behind.gpu.go.set()  # it goes on only once something has come through
    assert seen[0] == "job"
    assert seen[-1] == "succeeded"


def test_sockets_are_handed_on(behind: House) -> None:
    socket_url = f"ws{behind.url[4:]}"
    headers = [f"Authorization: {TOKEN}"]
    told = websocket.create_connection(f"{socket_url}/ws?clientId=me", header=headers, timeout=10)
    assert json.loads(told.recv())["type"] == "status"
    query = "_watch_=true&_index_=0&_window_=1&_index_only_=false&_auto_commit_=true"
    watching = websocket.create_connection(f"{socket_url}/api/predict/svd/sink?{query}", header=headers, timeout=10)
    behind.post("/api_prompt?task_id=mine", GRAPH, token=TOKEN)
    result = watching.recv()
    assert b"mine" in result
    assert b'"images"' in result
    watching.close()
    told.close()


def test_a_large_picture_is_uploaded(behind: House) -> None:
    picture = io.BytesIO()
    Image.frombytes("RGB", (2646, 2646), bytes(3 * 2646 * 2646)).save(picture, "PNG", compress_level=0)
    assert len(picture.getvalue()) > 20_000_000
    answer = behind.ask("POST", "/upload/image", token=TOKEN, files={"image": ("large.png", picture.getvalue(), "image/png")})
    assert (answer.status_code, answer.json()["name"]) == (200, "large.png")
