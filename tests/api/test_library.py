"""The library's own routes over a real port."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from api import users
from api.passwords import Cost
from jobs import database
from jobs.job import VERIFIES, Outcome, Output, Submission
from pipelines.compare import Likeness
from pipelines.encode import save_png, save_video
from tests.api.house import House, living, until
from tests.api.test_jobs import GRAPH

FRAMES = np.full((2, 32, 32, 3), 0.4, np.float32)


@pytest.fixture(scope="module", autouse=True)
def fast_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "_SYNCHRONOUS", "OFF")
        yield


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with living(tmp_path_factory.mktemp("data")) as house:
        yield house


def films(house: House, name: str, brightness: float = 0.0, owner: str = "", frames: int = 2) -> str:
    """A job that has made a still and a film."""
    folder = house.gpu.data_dir / "output" / owner
    folder.mkdir(parents=True, exist_ok=True)
    save_png(FRAMES[0], folder / f"{name}_.png", None)
    save_video(FRAMES[:frames] + brightness, folder / f"{name}.mp4", format="video/h264-mp4", fps=7, metadata=None)
    files = (Output("9", "images", f"{name}_.png"), Output("19", "gifs", f"{name}.mp4"), Output("19", "beside", f"{name}.png"))
    house.service.store.restore(Submission(GRAPH, owner, name, job_id=name), Outcome(files=files), 1_700_000_000.0)
    return name


def names(content: bytes) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(content)) as made:
        assert made.testzip() is None
        return made.namelist()


def test_files_of_several_jobs_come_as_one_zip(house: House) -> None:
    one, other = films(house, "zip_a"), films(house, "zip_b")
    answer = house.get(f"/api/files.zip?job={one}&job={other}&job={one}")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/zip"
    assert answer.headers["Content-Disposition"].startswith('attachment; filename="stillmotion-')
    wanted = ["zip_a_.png", "zip_a.mp4", "zip_a_.settings.json", "zip_b_.png", "zip_b.mp4", "zip_b_.settings.json", "MISSING.txt"]
    assert names(answer.content) == wanted
    sent = house.ask("POST", "/api/files.zip", data={"job": [one, other]})
    assert names(sent.content) == wanted
    with zipfile.ZipFile(io.BytesIO(answer.content)) as made:
        settings = json.loads(made.read("zip_a_.settings.json"))
        assert made.read("MISSING.txt").decode().count("zip_") == 2  # the posters were never written
    assert (settings["job"]["id"], settings["prompt"]) == (one, GRAPH)


def test_a_batch_as_one_zip(house: House) -> None:
    store = house.service.store
    made = [job.id for job in store.submit_many([Submission(GRAPH, title=f"b{n}") for n in range(3)], batch="night")]
    for job_id in made:
        until(lambda job_id=job_id: store.get(job_id).status == "succeeded")
    found = names(house.get("/api/files.zip?batch=night").content)
    assert len([name for name in found if name.endswith(".png")]) == 3
    assert house.get("/api/files.zip?batch=day").json()["error"]["code"] == "not_found"


def test_a_head_makes_nothing(house: House) -> None:
    answer = house.ask("HEAD", f"/api/files.zip?job={films(house, 'head')}")
    assert (answer.status_code, answer.content, answer.headers["Content-Type"]) == (200, b"", "application/zip")
    assert house.ask("HEAD", "/api/files.zip?job=nobody").status_code == 404


@pytest.mark.parametrize(
    ("query", "status", "code"), [("", 400, "bad_input"), ("?job=nobody", 404, "unknown_job"), ("?job=empty", 404, "not_found")]
)
def test_a_zip_of_nothing(house: House, query: str, status: int, code: str) -> None:
    house.service.store.restore(Submission(GRAPH, job_id="empty"), Outcome(), 0.0)
    answer = house.get(f"/api/files.zip{query}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_seeds_are_told_as_text(house: House) -> None:
    job = house.film("a boat", seed=2**64 - 1, wait=10)["id"]
    found = house.get(f"/api/jobs/{job}/details").json()
    assert found["template"] == "text_to_film"
    assert {one["place"]: one["value"] for one in found["settings"]}["3.seed"] == "18446744073709551615"


def test_a_job_is_verified_by_doing_it_again(house: House) -> None:
    job = house.film("a boat", wait=10)["id"]
    again = house.post(f"/api/jobs/{job}/verify").json()
    assert again["id"] != job
    assert house.service.store.get(again["id"]).extra[VERIFIES] == job
    until(lambda: house.job(again["id"])["status"] == "succeeded")
    found = house.get(f"/api/jobs/{job}/comparison?with={again['id']}").json()
    assert (found["is_identical"], [pair["kind"] for pair in found["pairs"]]) == (True, ["still"])
    assert house.get(f"/api/jobs/{again['id']}/details").json()["verifies"] == job
    failed = house.film("fail", wait=10)["id"]
    assert house.post(f"/api/jobs/{failed}/verify").json()["error"]["code"] == "wrong_state"


def test_how_alike_two_jobs_are_is_told_of_each_file(house: House) -> None:
    one, other = films(house, "dark"), films(house, "light", 0.1)
    found = house.get(f"/api/jobs/{one}/comparison?with={other}").json()
    still, film = found["pairs"]
    assert (found["jobs"], found["is_identical"]) == ([one, other], False)
    assert (still["is_identical"], still["psnr"], still["files"]) == (True, None, ["dark_.png", "light_.png"])
    assert (film["kind"], film["frames"], film["sizes"]) == ("film", [2, 2], [[32, 32], [32, 32]])
    assert film["psnr"] == pytest.approx(20, abs=0.5)


def test_what_only_one_has_is_said(house: House) -> None:
    film, still = films(house, "whole"), house.film("a boat", wait=10)["id"]
    found = house.get(f"/api/jobs/{film}/comparison?with={still}").json()
    assert found["pairs"][1] == found["pairs"][1] | {"files": ["whole.mp4", None], "psnr": None, "is_identical": False}
    assert found["pairs"][0]["sizes"] == [[32, 32], [1, 1]]


def test_what_cannot_be_compared(house: House) -> None:
    one, gone = films(house, "here"), films(house, "gone")
    (house.gpu.data_dir / "output" / "gone.mp4").unlink()
    house.service.store.restore(Submission(GRAPH, job_id="nothing"), Outcome(), 0.0)
    for query, status, code in [
        ("?with=gone", 404, "not_found"), ("?with=nobody", 404, "unknown_job"), ("?with=here", 400, "bad_input"), ("", 400, "bad_input"),
        ("?with=nothing", 409, "wrong_state"),
    ]:  # fmt: skip
        answer = house.get(f"/api/jobs/{one}/comparison{query}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), query
    assert house.get(f"/api/jobs/nobody/comparison?with={gone}").status_code == 404


def test_the_list_of_a_library(house: House) -> None:
    film = films(house, "listed")
    still = house.film("listed too", wait=10, tags=["pick"])["id"]
    house.film("fail listed", wait=10)

    def listed(query: str) -> list[str]:
        return [job["id"] for job in house.get(f"/api/jobs?text=listed&{query}").json()["jobs"]]

    assert [job["id"] for job in house.get("/api/jobs?text=listed&has_files=true").json()["jobs"]] == [still, film]
    assert listed("makes=film") == [film]
    assert listed("makes=still&has_files=true") == [still]
    assert listed("template=text_to_film&has_files=true&tag=pick") == [still]
    assert listed("until=2024-01-01") == [film]
    assert listed("since=2024-01-01T00:00:00%2B02:00&has_files=true") == [still]
    for query in ("since=yesterday", "makes=opera", "has_files=perhaps"):
        assert house.get(f"/api/jobs?{query}").status_code == 400


def test_nobody_gets_the_files_of_another(tmp_path: Path) -> None:
    path = tmp_path / "users.json"
    for name, role in (("ada", "admin"), ("bo", "user"), ("cy", "user")):
        users.add(path, name, "a password", role, Cost(n=16, r=1, p=1))
    ada, bo, cy = (users.new_token(path, name) for name in ("ada", "bo", "cy"))
    with living(tmp_path / "data", users_path=path) as house:
        film, own = films(house, "bos", owner="bo"), films(house, "cys", owner="cy")
        house.service.store.submit_many([Submission(GRAPH, "bo")], batch="night")
        for method, way in (
            ("GET", "files.zip?job=bos"), ("GET", "files.zip?job=cys&job=bos"), ("GET", "files.zip?batch=night"),
            ("GET", "jobs/bos/details"), ("POST", "jobs/bos/verify"),
            ("GET", "jobs/bos/comparison?with=cys"), ("GET", "jobs/cys/comparison?with=bos"),
        ):  # fmt: skip
            assert house.ask(method, f"/api/{way}", token=cy).status_code == 404, way
        assert house.ask("POST", "/api/files.zip", token=cy, data={"job": [film]}).status_code == 404
        assert "bos.mp4" in names(house.get("/api/files.zip?job=bos", token=bo).content)
        assert {"bos.mp4", "cys.mp4"} <= set(names(house.get(f"/api/files.zip?job={film}&job={own}", token=ada).content))
        assert house.get("/api/jobs/bos/comparison?with=cys", token=ada).json()["is_identical"]
        assert house.post("/api/jobs/bos/verify", token=ada).json()["owner"] == "bo"


def test_whoever_waits_for_a_comparison_holds_up_nobody(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = films(house, "slow"), films(house, "slower")
    go, begun, at_once = threading.Event(), [], []

    def compare(*paths: Path) -> Likeness:
        begun.append(paths)
        at_once.append(len(begun))
        assert go.wait(20)
        begun.pop()
        return Likeness(True, ((1, 1), (1, 1)), (1, 1), None, None)

    monkeypatch.setattr("api.library.compare", compare)
    with ThreadPoolExecutor(50) as many:
        asked = [many.submit(httpx.get, f"{house.url}/api/jobs/{one}/comparison?with={other}", timeout=20) for _ in range(50)]
        until(lambda: begun)
        assert {house.get("/api/line").status_code for _ in range(50)} == {200}  # each needs a thread too, while the others come
        go.set()
        assert {each.result().status_code for each in asked} == {200}
    assert set(at_once) == {1}
