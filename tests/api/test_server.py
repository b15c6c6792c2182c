"""What the one app answers besides jobs: health, metrics, documentation, and errors."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api.access import AccessSettings
from api.server import BODY_LIMITS
from errors import StorageError
from jobs import database
from tests.api.house import House, living, until


async def break_down(request: Request) -> Response:
    raise ZeroDivisionError("secret")


async def fill_the_disk(request: Request) -> Response:
    raise StorageError("The disk is full.", "Free some space.")


def other_routes() -> APIRouter:
    router = APIRouter()
    router.add_route("/break", break_down)
    router.add_route("/full", fill_the_disk)
    return router


@pytest.fixture(scope="module", autouse=True)
def fast_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "_SYNCHRONOUS", "OFF")
        yield


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with living(tmp_path_factory.mktemp("data"), routers=[other_routes()]) as house:
        yield house


def test_it_is_ready_while_it_works_and_says_why_when_not(tmp_path: Path) -> None:
    with living(tmp_path, works=False) as house:
        assert house.get("/healthz").json() == {"status": "alive"}
        answer = house.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (503, "starting")
    with living(tmp_path) as house:
        assert house.get("/readyz").json() == {"status": "ready"}
        house.gpu.go.clear()
        job = house.film("wait")["id"]
        until(lambda: house.job(job)["status"] == "running")
        house.service.drain(30)
        answer = house.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (503, "draining")
        assert answer.json()["reason"]
        assert answer.headers["Retry-After"]
        assert house.film("still taken")["status"] == "queued"
        house.gpu.go.set()
        until(lambda: house.service.is_over)
        assert house.job(job)["status"] == "succeeded"
        assert house.client.head(house.url + "/healthz").status_code == 200


def test_the_numbers_of_prometheus(house: House) -> None:
    house.film("a boat", wait=10)
    answer = house.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    samples = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert all(re.fullmatch(r'[a-z_]+(\{[a-z]+="[^"]*"\})?', name) for name in samples)
    assert float(samples['stillmotion_stage_seconds_total{stage="still"}']) >= 0.25
    assert float(samples['stillmotion_jobs{status="succeeded"}']) >= 1
    assert float(samples['stillmotion_jobs_ended_total{status="succeeded"}']) >= 1
    assert (samples["stillmotion_ready"], samples["stillmotion_queue_length"]) == ("1", "0")
    families = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(families) == len(set(families))


def test_the_schema_documents_every_answer_and_the_page_every_route(house: House) -> None:
    document = house.get("/openapi.json").json()
    page = house.get("/docs")
    assert page.headers["Content-Type"].startswith("text/html")
    assert not re.search(r"<script|https?://|src=", page.text.replace("https://example.com", ""))
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert "422" not in operation["responses"]
            assert {"400", "401", "403", "507"} <= set(operation["responses"])
            assert f"<code>{method.upper()} {path}</code>" in page.text
            assert operation["description"], path
    assert "ValidationError" not in json.dumps(document)
    for name in ("FilmRequest", "JobModel", "MoveRequest"):
        assert document["components"]["schemas"][name]["example"]


def test_the_page_is_well_formed(house: House) -> None:
    class Reader(HTMLParser):
        open: list[str] = []  # noqa: RUF012
        ids: set[str] = set()  # noqa: RUF012
        links: set[str] = set()  # noqa: RUF012

        def handle_starttag(self, tag: str, attributes: list) -> None:
            attributes = dict(attributes)
            self.ids |= {attributes["id"]} if "id" in attributes else set()
            self.links |= {attributes["href"]} if "href" in attributes else set()
            if tag not in ("meta", "br"):
                self.open.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag

    reader = Reader()
    reader.feed(house.get("/docs").text)
    assert reader.open == []
    assert {link[1:] for link in reader.links if link.startswith("#")} <= reader.ids


def test_without_a_page_the_root_leads_to_the_documentation(house: House) -> None:
    assert house.client.get(house.url + "/", follow_redirects=True).url.path == "/docs"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("PUT", "/api/jobs", 405, "wrong_method"),
        ("GET", "/break", 500, "internal"),
        ("GET", "/full", 507, "storage"),
    ],
)
def test_every_error_has_the_same_form_and_an_id_that_the_log_knows(
    house: House, method: str, path: str, status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "stillmotion.api"):
        answer = house.ask(method, path)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert set(error) == {"code", "message", "hint", "id"}
    assert error["id"] in caplog.text
    assert "secret" not in answer.text
    assert ("secret" in caplog.text) == (status == 500)


def test_a_body_that_is_too_long_is_refused_by_the_layer_in_front(tmp_path: Path) -> None:
    with living(tmp_path, works=False, body_limit_bytes=1000) as house:
        for content in (b"x" * 2000, iter([b"x" * 800] * 3)):
            answer = house.ask("POST", "/api/films", content=content, headers={"Content-Type": "application/json"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


def test_under_a_path_of_a_proxy_all_addresses_have_it(tmp_path: Path) -> None:
    with living(tmp_path, root_path="/films") as house:
        answer = house.post("/api/films", {"prompt": "a boat"}, headers={"Prefer": "wait=10"})
        assert answer.headers["Location"].startswith("/films/api/jobs/")
        assert answer.json()["outputs"][0]["url"].startswith("/films/view?")
        assert house.get("/films/openapi.json").json()["servers"] == [{"url": "/films"}]
        assert house.get(answer.headers["Location"]).json()["id"] == answer.json()["id"]


def test_every_route_needs_the_token(tmp_path: Path) -> None:
    with living(tmp_path, works=False, token="sesame") as house:
        paths = house.get("/openapi.json", token="sesame").json()["paths"]
        for path in [*paths, "/metrics", "/docs", "/openapi.json", "/", "/nothing", "/api_prompt"]:
            for method in ("GET", "POST", "PATCH", "DELETE"):
                assert house.ask(method, path.replace("{job_id}", "x").replace("{name}", "x")).status_code == 401
        assert house.get("/healthz").status_code == 200
        assert house.get("/readyz").status_code == 503


@pytest.mark.parametrize("path", ["/upload/image", "/api/open", "/gradio_api/upload"])
def test_all_that_take_a_picture_or_a_film_take_the_same_size(path: str) -> None:
    assert AccessSettings(body_limits=BODY_LIMITS).body_limit(path) == 110 * 2**20
