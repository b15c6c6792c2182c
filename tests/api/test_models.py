from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from api import users
from api.passwords import Cost
from jobs import database
from pipelines.hub import HubSettings
from pipelines.model_files import BUNDLED, DEMO_STILL
from tests.api.house import House, living, until
from tests.pipelines.hub_server import HubServer, hub_server

DEMO = (BUNDLED / DEMO_STILL).read_bytes()
BODY = {"repo": "ann/models", "file": "boat.safetensors"}


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_SYNCHRONOUS", "OFF")


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with hub_server(files={"ann/models/boat.safetensors": DEMO}) as server:
        yield server


@pytest.fixture
def house(hub: HubServer, tmp_path: Path) -> Iterator[House]:
    with living(tmp_path / "data", works=False, no_auth=True, hub=HubSettings(hub.url, timeout_seconds=5)) as house:
        yield house


def names(house: House) -> dict[str, str]:
    return {one["name"]: one["state"] for one in house.get("/api/models/files").json()["models"]}


def test_a_file_that_is_dropped_in_is_there_at_once(house: House, tmp_path: Path) -> None:
    before = names(house)
    assert set(before.values()) == {"complete"}
    shutil.copy(BUNDLED / DEMO_STILL, tmp_path / "data" / "models" / "checkpoints" / "mine.safetensors")
    assert names(house).keys() - before.keys() == {"mine.safetensors"}


def test_from_the_wish_to_the_model(house: House, hub: HubServer) -> None:
    hub.go.clear()
    answer = house.post("/api/models/downloads", BODY)
    assert (answer.status_code, answer.json()["state"] in ("waiting", "checking")) == (202, True)
    until(lambda: house.get("/api/models/downloads").json()["downloads"][0]["bytes"] == len(DEMO) // 2)
    assert names(house)["boat.safetensors"] == "downloading"
    assert house.get("/models/checkpoints").json() == [name for name in names(house) if name != "boat.safetensors"]
    assert house.post("/api/models/downloads", BODY).status_code == 409
    hub.go.set()
    until(lambda: names(house)["boat.safetensors"] == "complete")
    assert "boat.safetensors" in house.get("/models/checkpoints").json()
    until(lambda: house.get("/api/models/downloads").json()["downloads"][0]["state"] == "done")
    download_id = house.get("/api/models/downloads").json()["downloads"][0]["id"]
    assert house.ask("DELETE", f"/api/models/downloads/{download_id}").status_code == 200
    assert house.get("/api/models/downloads").json() == {"downloads": []}


def test_broken_off_resumed_and_removed(house: House, hub: HubServer) -> None:
    hub.go.clear()
    one = f"/api/models/downloads/{house.post('/api/models/downloads', BODY).json()['id']}"
    until(lambda: house.get("/api/models/downloads").json()["downloads"][0]["bytes"])
    assert house.ask("DELETE", one).json()["state"] == "canceled"
    hub.go.set()
    assert house.post(f"{one}/resume").status_code == 202
    until(lambda: names(house)["boat.safetensors"] == "complete")
    for method, path in (("POST", "/api/models/downloads/none/resume"), ("DELETE", "/api/models/downloads/none")):
        assert (house.ask(method, path).status_code, house.ask(method, path).json()["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    "body",
    [
        {}, {"model": "none"}, {"model": "sd15", "repo": "a/b", "file": "x.safetensors"}, {"repo": "a/b"}, {"file": "x.safetensors"},
        BODY | {"folder": "../output"}, BODY | {"name": "../x.safetensors"}, BODY | {"file": "../x.safetensors"}, BODY | {"file": "x.ckpt"},
        BODY | {"repo": "a/../b"}, BODY | {"more": 1}, BODY | {"file": "\ud800.safetensors"},
    ],
)  # fmt: skip
def test_what_is_refused(house: House, hub: HubServer, body: dict) -> None:
    import json

    answer = house.ask("POST", "/api/models/downloads", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["hint"]
    assert not hub.asked


def test_only_admins_start_and_stop_downloads_and_see_real_paths(hub: HubServer, tmp_path: Path) -> None:
    path = tmp_path / "users.json"
    for name, role in (("ada", "admin"), ("bo", "user")):
        users.add(path, name, "correct horse", role, Cost(n=16, r=1, p=1))
    ada, bo = (users.new_token(path, name) for name in ("ada", "bo"))
    settings = HubSettings(hub.url, timeout_seconds=5)
    with living(tmp_path / "data", works=False, users_path=path, key_path=tmp_path / "key", hub=settings) as house:
        answer = house.post("/api/models/downloads", BODY, token=bo)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "admins_only")
        assert not hub.asked
        made = house.post("/api/models/downloads", BODY, token=ada).json()
        assert house.ask("DELETE", f"/api/models/downloads/{made['id']}", token=bo).status_code == 403
        assert house.post(f"/api/models/downloads/{made['id']}/resume", token=bo).status_code == 403
        seen = [house.get("/api/models/files", token=token).json() for token in (ada, bo)]
        assert [one["can_download"] for one in seen] == [True, False]
        assert seen[0]["folders"]["vae"] == str(tmp_path / "data" / "models" / "vae")
        assert str(tmp_path) not in str(seen[1])
        assert house.get("/api/models/downloads", token=bo).json()["downloads"][0]["id"] == made["id"]


def test_offline_says_so(tmp_path: Path) -> None:
    with living(tmp_path / "data", works=False, no_auth=True) as house:
        assert house.get("/api/models/files").json()["is_offline"]
        house.post("/api/models/downloads", {"model": "svd_xt"})
        failed = until(lambda: [one for one in house.get("/api/models/downloads").json()["downloads"] if one["state"] == "failed"])
        assert failed[0]["error"]["code"] == "hub_offline"


def test_visitors_of_an_open_space_fetch_nothing_and_stop_nothing(hub: HubServer, tmp_path: Path) -> None:
    settings = HubSettings(hub.url, timeout_seconds=5)
    with living(tmp_path / "data", works=False, no_auth=True, everybody_is_admin=False, hub=settings) as house:
        assert house.post("/api/models/downloads", BODY).status_code == 403
        assert house.post("/api/line/pause").status_code == 403
        assert house.get("/api/line").json()["may_pause"] is False
        assert (house.film("a boat")["status"], len(house.get("/api/jobs").json()["jobs"])) == ("queued", 1)
        assert not hub.asked


def test_the_password_of_a_mirror_is_told_to_nobody(tmp_path: Path) -> None:
    settings = HubSettings("http://ann:secret@mirror.example/hf", is_offline=True)
    with living(tmp_path / "data", works=False, no_auth=True, hub=settings) as house:
        assert house.get("/api/models/files").json()["endpoint"] == "http://mirror.example/hf"
