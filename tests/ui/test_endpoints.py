"""The endpoints as the real `gradio_client` calls them, over a real port."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from api import users
from api.passwords import Cost
from tests.api.house import PNG, until
from tests.ui.conftest import PATIENCE

pytestmark = pytest.mark.page  # no browser, but servers with the page
ROOT = Path(__file__).parents[2]


@dataclass
class Endpoints:
    url: str
    folder: Path
    http: httpx.Client

    def client(self, token: str = "") -> Client:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return Client(self.url, verbose=False, analytics_enabled=False, download_files=self.folder / "got", headers=headers)

    def ask(self, method: str, path: str, token: str = "", **more: Any) -> httpx.Response:
        headers = more.pop("headers", {}) | ({"Authorization": f"Bearer {token}"} if token else {})
        return self.http.request(method, self.url + path, headers=headers, **more)

    def jobs(self, token: str = "") -> list[dict[str, Any]]:
        return self.ask("GET", "/api/jobs", token).json()["jobs"]

    def cached(self) -> list[str]:
        """What Gradio keeps."""
        return sorted(path.name for path in (self.folder / "gradio").rglob("*") if path.is_file())

    def job(self, title: str, status: str) -> dict[str, Any]:
        """As soon as there is one."""
        return until(lambda: next((one for one in self.jobs() if (one["title"], one["status"]) == (title, status)), None), 20)


@contextlib.contextmanager
def serving(folder: Path, who: str = "", **access: Any) -> Iterator[Endpoints]:
    """Once its page is made, for which somebody asks who is let in by the token `who`."""
    command = [sys.executable, "-m", "tests.ui.endpoints_server", str(folder / "data"), json.dumps(access)]
    surroundings = os.environ | {"GRADIO_TEMP_DIR": str(folder / "gradio")}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=surroundings) as started:
        try:
            url = started.stdout.readline().strip()
            with httpx.Client(timeout=20, trust_env=False) as http:
                found = Endpoints(url, folder, http)
                assert found.ask("GET", "/theme.css", who, timeout=PATIENCE / 1000).status_code == 200
                yield found
        finally:
            started.stdin.close()
            started.wait(20)


@pytest.fixture(scope="module")
def endpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    with serving(tmp_path_factory.mktemp("endpoints")) as found:
        yield found


@pytest.fixture(scope="module")
def client(endpoints: Endpoints) -> Client:
    return endpoints.client()


def made(client: Client, *values: Any, **named: Any) -> Any:
    return client.submit(*values, **named).result(timeout=60)


def test_a_film_with_its_files_and_settings(endpoints: Endpoints, client: Client) -> None:
    mp4, webp, png, settings = made(client, "a red boat", frames=5, seed=str(2**63), motion_seed="7", api_name="/film")
    assert [Path(one).suffix for one in (mp4, webp, png)] == [".mp4", ".webp", ".png"]
    assert (Path(mp4).read_bytes(), Path(png).read_bytes()) == (b".mp4", PNG)
    values = settings["values"]
    assert (values["prompt"], values["seed"], values["motion_seed"], values["frames"]) == ("a red boat", 2**63, 7, 5)
    assert (settings["stage_seconds"], settings["device"], settings["warnings"]) == ({"still": 0.25}, "cpu", [])
    workflow = endpoints.ask("GET", f"/api/jobs/{settings['job']}/workflow").json()
    assert (workflow["3"]["inputs"]["seed"], workflow["13"]["inputs"]["seed"]) == (2**63, 7)
    assert endpoints.cached() == []


def test_metadata_can_be_left_out(endpoints: Endpoints, client: Client) -> None:
    *_, settings = made(client, "a red boat", metadata=False, api_name="/film")
    assert settings["values"]["metadata"] is False
    assert endpoints.ask("POST", "/api/open", json={"job": settings["job"]}).json()["values"]["metadata"] is False
    assert made(client, "a red boat", api_name="/still")[-1]["values"]["metadata"] is True


def test_a_still(endpoints: Endpoints, client: Client) -> None:
    png, settings = made(client, "a green balloon", api_name="/still")
    assert Path(png).name == f"{settings['job'][:8]}.png"
    assert settings["values"]["seed"] < 2**32


def test_a_picture_that_is_sent_begins_to_move(endpoints: Endpoints, client: Client) -> None:
    source = endpoints.folder / "my still.png"
    Image.new("RGB", (64, 64), "red").save(source)
    mp4, webp, settings = made(client, handle_file(source), frames=3, api_name="/animate")
    assert (Path(mp4).suffix, Path(webp).suffix, settings["values"]["frames"]) == (".mp4", ".webp", 3)
    assert settings["values"]["image"] == "my still.png"
    assert (endpoints.folder / "data" / "input" / "my still.png").read_bytes() == source.read_bytes()


def test_what_a_caller_can_read_about_them(endpoints: Endpoints, client: Client) -> None:
    told = client.view_api(return_format="dict")["named_endpoints"]
    assert told.keys() == {"/film", "/still", "/animate"}
    fields = {one["name"]: one for group in template(endpoints, "text_to_film")["groups"] for one in group["fields"]}
    shown = {one["parameter_name"]: one for one in told["/film"]["parameters"]}
    assert shown.keys() == {name for name, one in fields.items() if not one["is_advanced"]}
    assert all(shown[name]["parameter_default"] in (fields[name]["default"], None) for name in shown if not name.endswith("seed"))
    assert (shown["seed"]["parameter_default"], shown["frames"]["python_type"]["type"]) == ("", "int")
    assert [one["parameter_name"] for one in told["/animate"]["parameters"] if not one["parameter_has_default"]] == ["image"]


def template(endpoints: Endpoints, name: str) -> dict[str, Any]:
    return endpoints.ask("GET", f"/api/templates/{name}").json()


@pytest.mark.parametrize(
    ("values", "says"),
    [({"frames": 0}, "frames: 0 is less than 1"), ({"seed": "seven"}, "seed: "), ({"checkpoint": "none"}, "checkpoint: "),
     ({"steps": "many"}, "steps: "), ({"width": 10**6, "height": 10**6}, "width: ")],
)  # fmt: skip
def test_a_wrong_value_is_refused_before_anything_is_begun(endpoints: Endpoints, client: Client, values: Any, says: str) -> None:
    before = len(endpoints.jobs())
    with pytest.raises(AppError, match=says) as caught:
        made(client, "a boat", **values, api_name="/film")
    assert caught.value.title == "bad_input"
    assert len(endpoints.jobs()) == before


@pytest.mark.parametrize("call", ["/film", "/still"])
def test_a_film_of_nothing_is_refused(endpoints: Endpoints, client: Client, call: str) -> None:
    before = len(endpoints.jobs())
    for empty in ("", " "):
        with pytest.raises(AppError, match=r"prompt is empty\. Say what"):
            made(client, empty, api_name=call)
    assert len(endpoints.jobs()) == before


def test_what_is_no_picture_is_refused(endpoints: Endpoints, client: Client) -> None:
    text = endpoints.folder / "text.png"
    text.write_text("This is no picture.")
    with pytest.raises(AppError, match=r"text\.png cannot be read"):
        made(client, handle_file(text), api_name="/animate")
    for other in ("nothing.png", {"path": "/etc/hostname"}, {"path": str(ROOT / "README.md"), "meta": {"_type": "gradio.FileData"}}, None):
        with pytest.raises(AppError):
            client.submit(other, api_name="/animate").result(timeout=60)


def test_a_job_that_fails_says_why(client: Client) -> None:
    with pytest.raises(AppError, match=r"The boat sank\. Take another boat\.") as caught:
        made(client, "fail", api_name="/still")
    assert caught.value.title == "bad_input"


def test_progress_is_told_and_a_cancel_stops_the_one_that_is_meant(endpoints: Endpoints, client: Client) -> None:
    first = client.submit("wait one", api_name="/film")
    running = endpoints.job("wait one", "running")
    second = client.submit("wait two", api_name="/film")
    waiting = endpoints.job("wait two", "queued")
    until(lambda: told(first) == (1, 2, "still"), 20)  # it may have waited before
    assert told(second) == (0, None, "waits")
    second.cancel()
    assert endpoints.job("wait two", "canceled")["id"] == waiting["id"]
    with pytest.raises((CancelledError, AppError)):
        second.result(timeout=20)
    assert endpoints.job("wait one", "running")["id"] == running["id"]
    assert not first.done()
    first.cancel()
    assert endpoints.job("wait one", "canceled")["id"] == running["id"]
    assert made(client, "and then", api_name="/still")


def told(job: Any) -> tuple[Any, ...]:
    """The newest progress, as soon as there is some."""
    unit = until(lambda: (status := job.status()).progress_data and status.progress_data[0], 20)
    return unit.index, unit.length, unit.desc


def test_a_caller_that_goes_away_leaves_its_job_as_it_is(endpoints: Endpoints) -> None:
    body = {"data": ["wait for nobody"], "session_hash": "gone", "fn_index": 1}
    body["data"] += [
        one["parameter_default"] for one in endpoints.ask("GET", "/gradio_api/info").json()["named_endpoints"]["/still"]["parameters"][1:]
    ]
    event = endpoints.ask("POST", "/gradio_api/queue/join", json=body).json()["event_id"]
    with endpoints.http.stream("GET", endpoints.url + "/gradio_api/queue/data?session_hash=gone") as stream:
        next(stream.iter_lines())
        job = endpoints.job("wait for nobody", "running")
    assert endpoints.job("wait for nobody", "running")["id"] == job["id"]
    assert endpoints.ask("POST", "/gradio_api/cancel", json={"event_id": event}).json() == {"success": True}
    endpoints.job("wait for nobody", "canceled")


def test_no_address_is_fetched_and_nothing_is_written_for_anybody(endpoints: Endpoints, client: Client) -> None:
    for path in ("file/https://example.com/a.png", f"deep_link?session_hash={client.session_hash}", "proxy=https://a.hf.space/file=a"):
        assert endpoints.ask("GET", f"/gradio_api/{path}").status_code == 404
    elsewhere = {"path": "https://example.com/a.png", "meta": {"_type": "gradio.FileData"}}
    for route in ("call/animate", "run/animate", "queue/join"):
        answer = endpoints.ask("POST", f"/gradio_api/{route}", json={"data": [elsewhere], "session_hash": "x", "fn_index": 2})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "outside")
    with pytest.raises(Exception, match="403"):
        client.submit(handle_file("https://example.com/a.png"), api_name="/animate").result(timeout=60)


def test_every_call_is_a_job_at_once(endpoints: Endpoints) -> None:
    many, defaults = 45, endpoints.ask("GET", "/gradio_api/info").json()["named_endpoints"]["/still"]["parameters"][1:]
    body = {"data": ["wait in the crowd", *(one["parameter_default"] for one in defaults)], "session_hash": "crowd", "fn_index": 1}
    events = [endpoints.ask("POST", "/gradio_api/queue/join", json=body).json()["event_id"] for _ in range(many)]
    until(lambda: len(crowd(endpoints)) == many, 20)
    for event in events:
        endpoints.ask("POST", "/gradio_api/cancel", json={"event_id": event})
    until(lambda: {one["status"] for one in crowd(endpoints)} == {"canceled"}, 20)


def crowd(endpoints: Endpoints) -> list[dict[str, Any]]:
    return [one for one in endpoints.ask("GET", "/api/jobs?limit=100").json()["jobs"] if one["title"] == "wait in the crowd"]


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"event_id": 7}'])
def test_a_cancel_that_names_nothing(endpoints: Endpoints, body: bytes) -> None:
    assert endpoints.ask("POST", "/gradio_api/cancel", content=body).status_code == 400
    assert endpoints.ask("POST", "/gradio_api/cancel", json={"event_id": "unknown"}).status_code == 200


def test_the_documentation_s_examples_run(endpoints: Endpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "gradio_client.md").read_text("utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)).replace("http://127.0.0.1:8000", endpoints.url)
    said: list[tuple[Any, ...]] = []
    exec(code, {"print": lambda *words: said.append(words)})
    assert said[0][1] == 7
    assert (said[-1][0], str(said[-1][1]).startswith("frames: 0 is less than 1")) == ("bad_input", True)
    assert {path.suffix for path in (tmp_path / "films").rglob("*.*")} == {".mp4", ".webp", ".png"}


def test_nobody_reaches_the_files_or_stops_the_jobs_of_another(tmp_path: Path) -> None:
    path = tmp_path / "users.json"
    for name in ("ann", "bo"):
        users.add(path, name, "correct horse", cost=Cost(n=16, r=1, p=1))
    ann, bo = (users.new_token(path, name) for name in ("ann", "bo"))
    with serving(tmp_path, ann, users_path=str(path), key_path=str(tmp_path / "key")) as served:
        with pytest.raises(Exception, match="credentials were not provided"):
            served.client()
        mp4, *_, settings = made(served.client(ann), "a boat", api_name="/film")
        assert Path(mp4).read_bytes() == b"ann.mp4"
        name = f"{settings['job'][:8]}.mp4"
        plain = f"/api/jobs/{settings['job']}/files/{name}"
        through = f"/gradio_api/file={quote(served.url + plain, safe='/')}"
        on_disk = served.folder / "data" / "output" / "ann" / name
        for address in (plain, through):
            assert served.ask("GET", address, ann).content == b"ann.mp4"
            assert served.ask("GET", address, ann, headers={"Range": "bytes=1-2"}).content == b"nn"
            assert (served.ask("GET", address, bo).status_code, served.ask("GET", address).status_code) == (404, 401)
        assert served.ask("GET", f"/gradio_api/file={on_disk}", ann).status_code == 403  # nobody's, by its place on the disk
        assert served.ask("GET", f"/api/jobs/{settings['job']}/files/..%2Fjobs.sqlite", ann).status_code == 404
        for elsewhere in ("http://example.com/a.png", "https://127.0.0.1/view?filename=a.png", "http://x/api/jobs/1"):
            assert served.ask("GET", f"/gradio_api/file={elsewhere}", ann).status_code == 403
        waiting = served.client(ann).submit("wait", api_name="/still")
        until(lambda: served.jobs(ann)[0]["status"] == "running", 20)
        event = until(lambda: waiting.communicator.event_id, 20)
        assert served.ask("POST", "/gradio_api/cancel", bo, json={"event_id": event}).status_code == 404
        assert (served.jobs(ann)[0]["status"], served.jobs(bo)) == ("running", [])
        waiting.cancel()
        until(lambda: served.jobs(ann)[0]["status"] == "canceled", 20)


def test_without_signing_in_each_client_is_somebody_of_its_own(tmp_path: Path) -> None:
    apart = {"everybody_is_admin": False, "everybody_is_apart": True, "key_path": str(tmp_path / "key")}
    with serving(tmp_path, **apart) as served:
        ann, bo = served.client(), served.client()
        mp4, *_, settings = made(ann, "a boat", api_name="/film")
        owner = Path(mp4).read_bytes().decode().removesuffix(".mp4")
        assert owner.startswith("visitor-")
        name = f"{settings['job'][:8]}.mp4"
        for address in (f"/api/jobs/{settings['job']}/files/{name}", f"/api/jobs/{settings['job']}"):
            told = [httpx.get(served.url + address, cookies=one.cookies).status_code for one in (ann, bo)]
            assert told == [200, 404]
        waiting = ann.submit("wait", api_name="/still")
        mine = lambda one: httpx.get(f"{served.url}/api/jobs", cookies=one.cookies).json()["jobs"]  # noqa: E731
        until(lambda: mine(ann)[0]["status"] == "running", 20)
        event = until(lambda: waiting.communicator.event_id, 20)
        assert httpx.post(f"{served.url}/gradio_api/cancel", json={"event_id": event}, cookies=bo.cookies).status_code == 404
        assert (mine(ann)[0]["status"], mine(bo)) == ("running", [])
        waiting.cancel()
        until(lambda: mine(ann)[0]["status"] == "canceled", 20)


@pytest.mark.demo
def test_a_real_film_of_the_page_s_own_server(served: Any, tmp_path: Path) -> None:
    client = Client(served.url, verbose=False, analytics_enabled=False, download_files=tmp_path)
    job = client.submit("a red boat", width=64, height=64, frames=3, steps=2, motion_steps=2, seed="7", api_name="/film")
    mp4, webp, png, settings = job.result(timeout=300)
    with Image.open(png) as still, Image.open(webp) as film:
        assert (still.size, film.n_frames) == ((64, 64), 3)
    assert Path(mp4).read_bytes()[4:8] == b"ftyp"
    assert (settings["values"]["seed"], settings["stage_seconds"].keys() >= {"still", "motion"}) == (7, True)
