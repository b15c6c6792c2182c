"""Workflows come in and go out over a real port; what goes out is run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api import users
from api.passwords import Cost
from jobs import database
from tests.api.house import PNG, House, living
from tests.api.test_jobs import GRAPH

DATA = Path(__file__).parents[1] / "data"
VENDOR = json.loads((DATA / "comfyui" / "two_stage.json").read_text("utf-8"))
TOKEN = "a-token-of-ours"
SEED = 2**64 - 1


@pytest.fixture(scope="module", autouse=True)
def fast_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "_SYNCHRONOUS", "OFF")
        yield


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with living(tmp_path_factory.mktemp("data")) as house:
        yield house


def opened(house: House, body: Any = None, **more: Any) -> dict[str, Any]:
    answer = house.post("/api/open", body, **more)
    assert answer.status_code == 200, answer.text
    return answer.json()


def fields_of(document: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: one for group in document["fields"]["groups"] for one in group["fields"]}


# Opening


def test_a_job_opens_as_the_template_that_it_was(house: House) -> None:
    job = house.film("a boat", seed=SEED, motion_seed=7, frames=5, wait=10)
    found = opened(house, {"job": job["id"]})
    assert (found["template"], found["fields"], found["missing"], found["notes"]) == ("text_to_film", None, [], [])
    assert {name: found["values"][name] for name in ("prompt", "seed", "motion_seed", "frames")} == {
        "prompt": "a boat", "seed": str(SEED), "motion_seed": "7", "frames": 5,
    }  # fmt: skip
    again = house.post("/api/films", {"template": "text_to_film", **found["values"]}).json()
    first, second = (house.get(f"/api/jobs/{one['id']}/workflow").json() for one in (job, again))
    assert first == second
    assert second["3"]["inputs"]["seed"] == SEED


def test_a_workflow_of_ones_own_has_a_form_and_is_run_with_its_values(house: House) -> None:
    found = opened(house, {"workflow": GRAPH})
    assert (found["template"], found["like"], found["missing"]) == (None, "", [])
    fields = fields_of(found)
    assert (fields["width_5"]["kind"], fields["width_5"]["default"], fields["width_5"]["min"]) == ("integer", 64, 16)
    assert (fields["ckpt_name_4"]["kind"], "stillmotion_demo_still.safetensors" in fields["ckpt_name_4"]["choices"]) == ("file", True)
    job = house.post("/api/films", {"workflow": found["workflow"], "width_5": 128}).json()
    made = house.get(f"/api/jobs/{job['id']}/workflow").json()
    assert (made["5"]["inputs"]["width"], made["5"]["inputs"]["height"]) == (128, 64)
    wrong = house.post("/api/films", {"workflow": found["workflow"], "width_5": 1, "nothing": 2})
    assert "Unknown field of this workflow 'nothing'" in wrong.json()["error"]["message"]
    wrong = house.post("/api/films", {"workflow": found["workflow"], "width_5": 1})
    assert set(wrong.json()["error"]["fields"]) == {"width_5"}


def test_the_vendor_s_workflow_names_its_models(house: House) -> None:
    found = opened(house, {"workflow": VENDOR})
    assert (found["template"], found["like"]) == (None, "text_to_film")
    assert [(one["kind"], one["node"], one["folder"]) for one in found["missing"]] == [
        ("model", "4", "models/checkpoints"), ("model", "18", "models/checkpoints"),
    ]  # fmt: skip
    models = {"checkpoint": "stillmotion_demo_still.safetensors", "motion_checkpoint": "stillmotion_demo_motion.safetensors"}
    job = house.post("/api/films", {"workflow": found["workflow"], **models}).json()
    made = house.get(f"/api/jobs/{job['id']}/workflow").json()
    assert made["19"]["inputs"]["filename_prefix"] == "comfyUI"
    assert made["3"]["inputs"]["seed"] == VENDOR["3"]["inputs"]["seed"]


@pytest.mark.parametrize("name", ["image.png", "video.mp4", "video.webp", "two_stage.json"])
def test_a_file_opens(house: House, name: str) -> None:
    with (DATA / "comfyui" / name).open("rb") as file:
        found = opened(house, files={"file": (name, file)})
    assert found["workflow"]
    assert found["values"]
    assert house.get("/api/jobs?status=queued").json()["jobs"] == []


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.png", PNG, "a.png carries no settings."), ("a.png", PNG[:20], "a.png"), ("a.txt", b"hello", "a.txt"),
        ("a.json", b"{", "a.json"),
        ("a.json", b"[]", "a.json"), ("a.json", b"{}", "carries no settings"), ("a.json", b'{"a": 1}', "This is no workflow"),
        ("a.json", b"True", "a.json"), ("../../x.png", b"", "x.png"), ("..", b"", "The file"), ("a\nb\xff.png", b"", "b\xff.png is empty"),
        ("a.json", b'{"nodes": [], "links": 1e999}', "no valid JSON"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_opened_says_why(house: House, name: str, content: bytes, says: str) -> None:
    answer = house.post("/api/open", files={"file": (name, content)})
    assert answer.status_code == 400
    assert says in answer.json()["error"]["message"]
    assert answer.json()["error"]["hint"] or answer.json()["error"]["code"] == "bad_workflow"


@pytest.mark.parametrize(
    "request_", [{}, {"json": {}}, {"json": []}, {"json": {"workflow": GRAPH, "job": "x"}}, {"json": {"workflow": 5}}, {"content": b"{"},
                 {"json": {"workflow": {}}}, {"files": {"other": ("a.png", PNG)}}, {"data": {"file": "x"}}, {"json": {"more": 1}},
                 {"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=a"}},
                 {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
                 {"files": [("file", ("a.png", PNG)), ("file", ("b.png", PNG))]}],
)  # fmt: skip
def test_a_request_that_makes_no_sense(house: House, request_: dict[str, Any]) -> None:
    answer = house.ask("POST", "/api/open", **request_)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["hint"] or answer.json()["error"]["code"] == "bad_workflow"


def test_more_than_is_taken_is_refused(house: House) -> None:
    assert house.post("/api/open", files={"file": ("a.png", bytes(111 * 2**20))}).status_code == 413


def test_an_unknown_job_is_a_404(house: House) -> None:
    assert house.post("/api/open", {"job": "nothing"}).json()["error"]["code"] == "unknown_job"
    assert house.get("/api/jobs/nothing/export").status_code == 404


def test_nobody_opens_or_exports_the_job_of_another(tmp_path: Path) -> None:
    path = tmp_path / "users.json"
    for name, role in (("ann", "user"), ("bo", "user"), ("zoe", "admin")):
        users.add(path, name, "correct horse", role, Cost(n=16, r=1, p=1))
    ann, bo, zoe = (users.new_token(path, name) for name in ("ann", "bo", "zoe"))
    with living(tmp_path / "data", works=False, users_path=path, key_path=tmp_path / "key") as house:
        job_id = house.film("a boat", token=ann)["id"]
        for token, status in ((ann, 200), (bo, 404), (zoe, 200)):
            assert house.post("/api/open", {"job": job_id}, token=token).status_code == status
            assert house.get(f"/api/jobs/{job_id}/export?as=curl", token=token).status_code == status


# Exporting


def run(command: list[str], folder: Path, *, token: str = "") -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    environment |= {"STILLMOTION_TOKEN": token, "PYTHONWARNINGS": "error"}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=60, check=False)


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl here")
@pytest.mark.parametrize("token", ["", TOKEN])
def test_the_curl_command_asks_for_the_same_job(tmp_path: Path, token: str) -> None:
    with living(tmp_path / "data", token=token, key_path=tmp_path / "key") as house:
        for job in (
            house.film("it's $HOME\n一只猫", token=token, seed=SEED, frames=5),
            house.post("/api/jobs", {"workflow": GRAPH}, token=token).json(),
        ):
            answer = house.get(f"/api/jobs/{job['id']}/export?as=curl", token=token)
            assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
            done = run(["bash", "-euo", "pipefail", "-c", answer.text], tmp_path, token=token)
            assert done.returncode == 0, done.stdout + done.stderr
            made = json.loads(done.stdout)
            assert made["id"] != job["id"]
            first, second = (house.get(f"/api/jobs/{one['id']}/workflow", token=token).json() for one in (job, made))
            assert first == second


@pytest.mark.parametrize("token", ["", TOKEN])
def test_the_python_script_makes_the_same_job_and_saves_its_files(tmp_path: Path, token: str) -> None:
    with living(tmp_path / "data", token=token, key_path=tmp_path / "key") as house:
        job = house.film('three """ quotes', token=token, seed=SEED)
        answer = house.get(f"/api/jobs/{job['id']}/export?as=python", token=token)
        (tmp_path / "film.py").write_text(answer.text, "utf-8")
        done = run([sys.executable, "film.py"], tmp_path, token=token)
        assert done.returncode == 0, done.stdout + done.stderr
        newest = house.get("/api/jobs", token=token).json()["jobs"][0]
        assert (tmp_path / newest["outputs"][0]["filename"]).read_bytes() == PNG
        first, second = (house.get(f"/api/jobs/{one['id']}/workflow", token=token).json() for one in (job, newest))
        assert first == second


def test_the_python_script_says_what_went_wrong(house: House, tmp_path: Path) -> None:
    answer = house.post("/api/export", {"as": "python", "prompt": "fail", "seed": 1})
    (tmp_path / "film.py").write_text(answer.text, "utf-8")
    done = run([sys.executable, "film.py"], tmp_path)
    assert (done.returncode, done.stderr.strip()) == (1, "The boat sank. Take another boat.")
    answer = house.post("/api/export", {"as": "python", "prompt": "a boat", "steps": 0})
    (tmp_path / "film.py").write_text(answer.text, "utf-8")
    assert "less than 1" in run([sys.executable, "film.py"], tmp_path).stderr


def test_comfyui_gets_its_own_format_as_a_file(house: House) -> None:
    job = house.film("a boat", seed=SEED)
    answer = house.get(f"/api/jobs/{job['id']}/export")
    assert answer.headers["Content-Disposition"] == f'attachment; filename="stillmotion-{job["id"][:8]}.json"'
    assert answer.json() == house.get(f"/api/jobs/{job['id']}/workflow").json()
    taken = house.post("/prompt", {"prompt": answer.json()})
    assert taken.status_code == 200


def test_settings_that_were_exported_open_again(house: House) -> None:
    job = house.film("a boat", seed=SEED, motion_seed=1)
    settings = house.get(f"/api/jobs/{job['id']}/export?as=settings").content
    found = opened(house, files={"file": ("settings.json", settings)})
    assert (found["template"], found["values"]["seed"]) == ("text_to_film", str(SEED))
    assert json.loads(settings)["values"]["seed"] == SEED


def test_values_that_were_not_submitted_are_exported_as_they_are(house: House) -> None:
    before = house.get("/api/jobs").json()["counts"]
    answer = house.post(
        "/api/export", {"as": "curl", "template": "text_to_still", "draft": True, "prompt": "a cat", "checkpoint": "not.here"}
    )
    body = json.loads(answer.text.split("<<'JSON'\n")[1].removesuffix("\nJSON\n"))
    assert body == {"template": "text_to_still", "draft": True, "prompt": "a cat", "checkpoint": "not.here"}
    comfy = house.post("/api/export", {"prompt": "a cat"}).json()
    assert (comfy["6"]["inputs"]["text"], isinstance(comfy["3"]["inputs"]["seed"], int)) == ("a cat", True)
    own = house.post("/api/export", {"as": "curl", "workflow": GRAPH, "width_5": 128})
    assert "/api/jobs" in own.text
    assert '"width": 128' in own.text
    assert house.get("/api/jobs").json()["counts"] == before


@pytest.mark.parametrize(
    "body", [{"as": "perl"}, {"template": "opera"}, {"colour": "red"}, {"workflow": {}}, {"workflow": GRAPH, "colour": "red"}, [], None]
)
def test_an_export_that_cannot_be(house: House, body: Any) -> None:
    assert house.post("/api/export", body).status_code == 400


def test_behind_a_proxy_the_commands_name_its_address(tmp_path: Path) -> None:
    with living(tmp_path / "data", works=False, root_path="/films", allowed_hosts=("example.com",)) as house:
        answer = house.post("/api/export", {"as": "curl", "prompt": "x"}, headers={"Host": "example.com", "X-Forwarded-Proto": "https"})
        assert answer.text.startswith("curl -sS --fail-with-body https://example.com/films/api/films ")


# Estimating


def test_an_estimate_comes_from_jobs_that_have_been(tmp_path: Path) -> None:
    with living(tmp_path / "data") as house:
        asked = {"prompt": "a boat", "frames": 7}
        first = house.post("/api/estimate", asked).json()
        nothing = dict.fromkeys(("seconds", "seconds_basis", "bytes", "memory_bytes"))
        assert first == nothing | {"frames": 7, "film_seconds": 1.0, "warnings": [], "queue_seconds": 0.0, "is_held": False}
        house.film(**asked, wait=10)
        second = house.post("/api/estimate", asked).json()
        assert second["seconds_basis"] == "1 similar job"
        assert second["seconds"] >= 0
        other = house.post("/api/estimate", asked | {"frames": 14, "fps": 15}).json()
        assert other["seconds_basis"] == "scaled from 1 job of other sizes"
        assert "too fast or too slow" in other["warnings"][0]
        own = house.post("/api/estimate", {"workflow": GRAPH}).json()
        assert (own["seconds"], own["frames"]) == (None, None)
        assert len(house.get("/api/jobs").json()["jobs"]) == 1


@pytest.mark.parametrize(
    "body", [{"prompt": "x", "steps": 0}, {"prompt": "x", "colour": "red"}, {"template": "opera"}, {"prompt": "x", "checkpoint": "nope"},
             {"workflow": {"a": 1}}, {"prompt": "x", "webhook": "ftp://a"}, [], {"prompt": ""}],
)  # fmt: skip
def test_what_could_not_be_submitted_cannot_be_estimated_and_says_the_same(house: House, body: Any) -> None:
    wished, asked = (house.post(path, body) for path in ("/api/estimate", "/api/films"))
    one, other = (dict(answer.json()["error"], id="") for answer in (wished, asked))
    assert (wished.status_code, one) == (asked.status_code, other)
    assert wished.status_code == 400
