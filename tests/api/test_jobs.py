"""The job API over a real port."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from api import users
from api.jobs import preferred_wait
from api.passwords import Cost
from jobs import database
from jobs.job import Submission
from tests.api.house import House, living, until
from workflows.templates import WITHOUT_METADATA, fill, find_template

GRAPH = {
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "stillmotion_demo_still.safetensors"}},
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["4", 2]}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "x"}},
}


@pytest.fixture(scope="module")
def fast_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "_SYNCHRONOUS", "OFF")
        yield


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, fast_disk: None) -> Iterator[House]:
    with living(tmp_path_factory.mktemp("data")) as house:
        yield house


@pytest.fixture
def waiting(house: House) -> Iterator[House]:
    """Nothing is begun."""
    house.service.store.pause()
    yield house
    for job in house.service.store.list_jobs(status="queued").jobs:
        house.service.store.cancel(job.id)
    house.service.store.resume()


def test_a_film_is_asked_for_and_followed_to_its_files(house: House) -> None:
    answer = house.post("/api/films", {"prompt": "a red boat", "seed": 7, "frames": 5, "tags": ["sea"], "title": "My boat"})
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["Location"] == f"/api/jobs/{job['id']}"
    assert (job["title"], job["tags"], job["owner"]) == ("My boat", ["sea"], "")
    done = until(lambda: (found := house.job(job["id"]))["status"] == "succeeded" and found)
    (output,) = done["outputs"]
    assert re.fullmatch(r"/view\?filename=film_\d+_\.png&subfolder=&type=output", output["url"])
    assert (done["cached"], done["stage_seconds"], done["place"], done["progress"]) == (["4"], {"still": 0.25}, None, None)
    workflow = house.get(f"/api/jobs/{job['id']}/workflow").json()
    assert workflow["6"]["inputs"]["text"] == "a red boat"
    assert (workflow["3"]["inputs"]["seed"], workflow["16"]["inputs"]["video_frames"]) == (7, 5)


def test_what_is_made_of_a_film_is_called_as_that_film(house: House) -> None:
    made = house.post("/api/films", {"prompt": "a boat that is gone on with"}, headers={"Prefer": "wait=10"}).json()
    image = f"{made['outputs'][0]['filename']} [output]"
    following = house.post("/api/films", {"template": "still_to_film", "image": image}, headers={"Prefer": "wait=10"}).json()
    assert following["title"] == "a boat that is gone on with"
    found = house.get("/api/jobs?text=gone+on").json()["jobs"]
    assert [one["id"] for one in found] == [following["id"], made["id"]]


def test_whoever_prefers_to_wait_gets_the_finished_job(house: House) -> None:
    answer = house.post("/api/films", {"prompt": "a boat"}, headers={"Prefer": "respond-async, wait=10"})
    assert (answer.status_code, answer.headers["Preference-Applied"]) == (200, "wait=10")
    assert answer.json()["status"] == "succeeded"


def test_a_wait_that_is_too_short_ends_with_the_job_as_it_is(house: House) -> None:
    house.gpu.go.clear()
    began = time.monotonic()
    answer = house.post("/api/films", {"prompt": "wait a second"}, headers={"Prefer": "wait=1"})
    assert 0.9 < time.monotonic() - began < 5
    assert answer.status_code == 202
    job = answer.json()
    assert (job["status"], job["place"]) == ("running", None)
    assert job["progress"] == job["progress"] | {"stage": "still", "node": "3", "step": 1, "total": 2}
    house.gpu.go.set()
    until(lambda: house.job(job["id"])["status"] == "succeeded")


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("wait=5", 5), ("wait = 5", 5), ("respond-async, wait=5", 5), ('wait="5"', 5), ("wait=99999", 600),
     ("", None), ("await=5", None), ("wait=-1", None)],
)  # fmt: skip
def test_how_long_a_client_would_wait(header: str, seconds: int | None) -> None:
    assert preferred_wait(header) == seconds


def test_a_failure_says_what_to_do_and_a_mistake_of_ours_only_its_number(house: House, caplog: pytest.LogCaptureFixture) -> None:
    error = house.film("fail", wait=10)["error"]
    assert error == {"code": "bad_input", "message": "The boat sank.", "hint": "Take another boat.", "node": "", "id": None}
    broken = house.film("break", wait=10)
    assert broken["error"]["code"] == "internal"
    assert re.fullmatch("[0-9a-f]{8}", broken["error"]["id"])
    assert "secret" not in json.dumps(broken)
    assert "secret" in caplog.text


@pytest.mark.parametrize("empty", ["", "  \n"])
def test_a_film_of_nothing_is_refused_by_its_field_and_a_workflow_of_nothing_is_run(waiting: House, empty: str) -> None:
    before = len(waiting.get("/api/jobs").json()["jobs"])
    refused = waiting.post("/api/films", {"prompt": empty})
    assert (refused.status_code, refused.json()["error"]["fields"]) == (400, {"prompt": "Say what the film shows."})
    many = waiting.post("/api/films/batch", {"csv": "prompt,seed\na boat,1\n", "values": {"prompt": empty}}).status_code
    assert (many, len(waiting.get("/api/jobs").json()["jobs"])) == (202, before + 1)  # the row says it
    assert waiting.post("/api/films/batch", {"csv": "seed\n1\n", "values": {"prompt": empty}}).status_code == 400
    graph = fill(find_template("text_to_film"), {"prompt": empty})
    assert waiting.post("/prompt", {"prompt": graph}).status_code == 200
    assert waiting.post("/api/jobs", {"workflow": graph}).status_code == 202


def test_a_size_that_becomes_another_is_said_at_every_door(waiting: House) -> None:
    plainly = ["100x192 pixels become 96x192: both sides are multiples of 8."]  # who fills in a form has never seen a node
    says = [f"Node 3: {plainly[0]}"]
    asked, graph = {"prompt": "a boat", "width": 100}, fill(find_template("text_to_film"), {"prompt": "a boat", "width": 100})
    assert waiting.post("/api/films", asked).json()["warnings"] == plainly
    assert waiting.post("/api/estimate", asked).json()["warnings"] == plainly
    assert waiting.post("/api/estimate", {"workflow": graph}).json()["warnings"] == says
    assert waiting.post("/api/jobs", {"workflow": graph}).json()["warnings"] == says
    assert waiting.job(waiting.post("/prompt", {"prompt": graph}).json()["prompt_id"])["warnings"] == says
    assert waiting.post("/api/open", {"workflow": graph}).json()["notes"] == says


def test_metadata_can_be_left_out_by_every_request_and_is_remembered(waiting: House) -> None:
    graph = fill(find_template("text_to_film"), {"prompt": "a boat", "frames": 5})
    asked = {"prompt": "a boat", "metadata": False}
    made = [
        waiting.post("/api/films", asked).json(), waiting.post("/api/films", {"workflow": graph, "metadata": False}).json(),
        waiting.post("/api/jobs", {"workflow": graph, "metadata": False}).json(),
        *waiting.post("/api/films/batch", {"csv": "prompt,metadata\na boat,false\n"}).json()["jobs"],
        *waiting.post("/api/films/batch", {"lines": "a boat", "metadata": False}).json()["jobs"],
        *waiting.post("/api/films/batch", {"lines": "a boat", "values": {"metadata": False}}).json()["jobs"],
    ]  # fmt: skip
    made.append(waiting.post(f"/api/jobs/{made[0]['id']}/duplicate", {"new_seeds": True}).json())
    for one in made:
        assert waiting.service.store.get(one["id"]).extra[WITHOUT_METADATA] is True
        assert waiting.post("/api/open", {"job": one["id"]}).json()["values"]["metadata"] is False
        assert '"metadata": false' in waiting.get(f"/api/jobs/{one['id']}/export?as=curl").text
    with_them = waiting.post("/api/films", {"prompt": "a boat", "metadata": True}).json()["id"]
    assert WITHOUT_METADATA not in waiting.service.store.get(with_them).extra
    assert waiting.post("/api/open", {"job": with_them}).json()["values"]["metadata"] is True
    assert '"metadata": false' in waiting.post("/api/export", {**asked, "as": "curl"}).text
    assert waiting.post("/api/films", {"prompt": "x", "metadata": "perhaps"}).status_code == 400


@pytest.mark.parametrize("path", ["/api/films", "/api/estimate"])
def test_a_part_of_a_frame_is_refused_with_the_nearest_whole_numbers(house: House, path: str) -> None:
    error = house.post(path, {"prompt": "a boat", "frames": 14.7, "steps": 20.0}).json()["error"]
    assert error["fields"] == {"frames": "14.7 is no whole number; use 14 or 15"}


def test_all_that_is_wrong_is_said_at_once(house: House) -> None:
    wrong = {"loras": "ink:abc", "seed": True, "width": 100_000, "motion_steps": 0, "prefix": "../evil", "frames": 2.5}
    error = house.post("/api/films", {"prompt": "a boat", **wrong}).json()["error"]
    assert error["fields"].keys() == wrong.keys()
    assert "whose strength is no number" in error["fields"]["loras"]


def test_what_is_wrong_with_a_film_is_said_of_its_fields(house: House) -> None:
    answer = house.post("/api/films", {"prompt": "x", "steps": 0, "width": "wide"})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert set(error["fields"]) == {"steps", "width"}
    assert "less than 1" in error["fields"]["steps"]


@pytest.mark.parametrize(
    ("body", "status", "code", "says"),
    [
        ({"frames": 7}, 400, "bad_input", "prompt is missing."),
        ({"prompt": 1}, 400, "bad_input", "prompt: 1 is no text."),
        ({"prompt": ["a", "b"]}, 400, "bad_input", 'prompt: ["a", "b"] is no text.'),
        ({"prompt": "x", "seed": True}, 400, "bad_input", "seed: true is no number."),
        ({"prompt": "x", "guidance": {}}, 400, "bad_input", "guidance: {} is no single value."),
        ({"prompt": "x", "pix_fmt": "rgb99"}, 400, "bad_input", "pix_fmt: 'rgb99' is none of"),
        ({"prompt": "x", "pix_fmt": "yuva420p"}, 400, "unknown_name", "Unknown pixel format of video/h264-mp4 'yuva420p'"),
        ({"prompt": "x", "loras": "nosuch:0.5"}, 400, "bad_input", "loras: 'nosuch.safetensors' is not there"),
        ({"prompt": "x", "vae": "nosuch"}, 400, "bad_input", "vae: 'nosuch' is not there"),
        ({"prompt": "x (big:1e308)"}, 400, "bad_input", "The weight 1e+308 of 'big' is too large to compute with."),
        ({"prompt": "x", "colour": "red"}, 400, "unknown_name", "'colour'"),
        ({"prompt": "x", "template": "opera"}, 400, "unknown_name", "Unknown template 'opera'"),
        ({"prompt": "x", "title": 5}, 400, "bad_input", "title is wrong: '5'."),
        ({"prompt": "x", "tags": ["a"] * 51}, 400, "bad_input", "tags is wrong"),
        ({"prompt": "x", "webhook": "ftp://a"}, 400, "bad_input", "'ftp://a'"),
        ({"prompt": "x", "checkpoint": "nope"}, 400, "bad_input", "nope"),
        ({"prompt": "x", "webhook": "http://u:p@a.example"}, 400, "bad_input", "password"),
        ([], 400, "bad_input", "The body is wrong"),
        (None, 400, "bad_input", "The body is wrong"),
    ],
)
def test_a_film_that_cannot_be(house: House, body: object, status: int, code: str, says: str) -> None:
    answer = house.post("/api/films", body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert says in answer.json()["error"]["message"]
    assert set(answer.json()["error"]) >= {"code", "message", "hint", "id"}


def test_a_body_that_is_no_json(house: House) -> None:
    answer = house.ask("POST", "/api/films", content=b'{"prompt": ', headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("The body is no valid JSON")


def test_a_workflow_is_run_as_it_is_or_not_at_all(house: House) -> None:
    answer = house.post("/api/jobs", {"workflow": GRAPH, "title": "mine"}, headers={"Prefer": "wait=10"})
    assert (answer.status_code, answer.json()["title"]) == (200, "mine")
    half = GRAPH | {"10": {"class_type": "SaveImage", "inputs": {"images": ["8", 0]}}, "11": {"class_type": "SaveImage", "inputs": {}}}
    refused = house.post("/api/jobs", {"workflow": half})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "bad_workflow")
    assert "11" in refused.json()["node_errors"]
    assert house.post("/api/jobs", {"workflow": {}}).status_code == 400


def test_jobs_are_listed_filtered_and_paged(house: House) -> None:
    made = [house.film(f"list {n}", wait=10, tags=["listed"])["id"] for n in range(5)]
    page = house.get("/api/jobs?tag=listed&limit=2").json()
    assert [job["id"] for job in page["jobs"]] == made[:2:-1]
    rest = house.get(f"/api/jobs?tag=listed&cursor={page['cursor']}").json()
    assert [job["id"] for job in rest["jobs"]] == made[2::-1]
    assert rest["cursor"] is None
    assert [job["id"] for job in house.get("/api/jobs?text=LIST 3").json()["jobs"]] == [made[3]]
    assert house.get("/api/jobs?tag=listed&status=failed&status=canceled").json()["jobs"] == []
    assert page["counts"]["succeeded"] >= 5


@pytest.mark.parametrize("query", ["limit=0", "limit=1000", "cursor=-1", f"cursor={2**63}", "status=lost", "favourite=perhaps"])
def test_a_filter_that_makes_no_sense(house: House, query: str) -> None:
    answer = house.get(f"/api/jobs?{query}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_input")
    assert query.split("=")[0] in answer.json()["error"]["message"]


def test_waiting_jobs_have_a_place_can_be_moved_and_canceled(waiting: House) -> None:
    first, second, third = (waiting.film(f"n{n}")["id"] for n in range(3))
    places = {job["id"]: job["place"] for job in waiting.get("/api/jobs?status=queued").json()["jobs"]}
    assert [places[one] for one in (first, second, third)] == [1, 2, 3]
    assert waiting.post(f"/api/jobs/{third}/move", {"to": "front"}).json()["place"] == 1
    assert waiting.post(f"/api/jobs/{third}/move", {"before": second}).json()["place"] == 2
    assert waiting.post(f"/api/jobs/{third}/move", {"to": 3}).json()["place"] == 3
    assert waiting.post(f"/api/jobs/{third}/move", {"to": "up"}).status_code == 400
    assert waiting.post(f"/api/jobs/{third}/move", {"to": 3.0}).json()["place"] == 3
    refused = waiting.post(f"/api/jobs/{third}/move", {"to": -5})
    assert refused.status_code == 400
    assert refused.json()["error"]["message"] == ("to is wrong: '-5'. It must be front, back, or a place from 1 on.")
    assert waiting.post(f"/api/jobs/{third}/move", {"before": "nobody"}).status_code == 404
    assert waiting.post(f"/api/jobs/{first}/cancel").json()["status"] == "canceled"
    assert waiting.post(f"/api/jobs/{first}/cancel").json()["error"]["code"] == "wrong_state"
    assert waiting.post(f"/api/jobs/{first}/move", {"to": "front"}).status_code == 409


def test_a_running_job_is_canceled_and_tried_again(house: House) -> None:
    house.gpu.go.clear()
    job = house.film("wait for it")["id"]
    until(lambda: house.job(job)["status"] == "running")
    assert house.ask("DELETE", f"/api/jobs/{job}").status_code == 409
    assert house.post(f"/api/jobs/{job}/cancel").json()["is_cancel_requested"]
    until(lambda: house.job(job)["status"] == "canceled")
    house.gpu.go.set()
    assert house.post(f"/api/jobs/{job}/retry").status_code == 200
    until(lambda: house.job(job)["status"] == "succeeded")
    assert house.post(f"/api/jobs/{job}/retry").status_code == 409


def test_a_duplicate_is_the_same_or_with_other_seeds(house: House) -> None:
    job = house.film("a boat", wait=10, seed=7, motion_seed=8)["id"]
    same = house.post(f"/api/jobs/{job}/duplicate").json()["id"]
    other = house.post(f"/api/jobs/{job}/duplicate", {"new_seeds": True}).json()["id"]
    seeds = [[house.get(f"/api/jobs/{one}/workflow").json()[node]["inputs"]["seed"] for node in ("3", "13")] for one in (job, same, other)]
    assert seeds[0] == seeds[1] == [7, 8]
    assert seeds[2] != [7, 8]


def test_title_tags_and_favourite_are_changed_alone_or_together(house: House) -> None:
    job = house.film("a boat", wait=10)["id"]
    changed = house.ask("PATCH", f"/api/jobs/{job}", json={"title": "Best", "is_favourite": True}).json()
    assert (changed["title"], changed["tags"], changed["is_favourite"]) == ("Best", [], True)
    changed = house.ask("PATCH", f"/api/jobs/{job}", json={"tags": ["a", "b"], "is_favourite": False}).json()
    assert (changed["title"], changed["tags"], changed["is_favourite"]) == ("Best", ["a", "b"], False)
    assert house.ask("PATCH", f"/api/jobs/{job}", json={"colour": 1}).status_code == 400


def test_a_deleted_job_is_out_of_sight_and_can_be_had_back(house: House) -> None:
    job = house.film("gone", wait=10, tags=["gone"])["id"]
    assert house.ask("DELETE", f"/api/jobs/{job}").json()["deleted"].endswith("Z")
    assert house.get("/api/jobs?tag=gone").json()["jobs"] == []
    assert [one["id"] for one in house.get("/api/jobs?tag=gone&deleted=true").json()["jobs"]] == [job]
    assert house.post(f"/api/jobs/{job}/undo").json()["deleted"] is None
    assert [one["id"] for one in house.get("/api/jobs?tag=gone").json()["jobs"]] == [job]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("DELETE", ""), ("GET", "/workflow"), ("GET", "/events"), ("POST", "/cancel"), ("POST", "/retry"), ("POST", "/duplicate"),
     ("POST", "/undo")],
)  # fmt: skip
def test_an_unknown_job_is_a_404(house: House, method: str, path: str) -> None:
    answer = house.ask(method, f"/api/jobs/nobody{path}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_job")


def test_an_id_may_have_slashes(waiting: House) -> None:
    job_id = "films/2026/the boat?#%"
    house, address = waiting, f"/api/jobs/{quote(job_id, safe='')}"
    made = house.post("/prompt", {"prompt": GRAPH, "prompt_id": job_id})
    assert made.json()["prompt_id"] == job_id
    assert house.get(address).json()["id"] == job_id
    assert house.get("/api/jobs/films/2026/the boat%3F%23%25").json()["id"] == job_id
    assert house.get(f"{address}/workflow").json().keys() == GRAPH.keys()
    assert house.ask("PATCH", address, json={"title": "Slashes"}).json()["title"] == "Slashes"
    assert house.post(f"{address}/cancel").json()["status"] == "canceled"
    assert '"canceled"' in house.get(f"{address}/events").text
    assert house.ask("DELETE", address).json()["deleted"]


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity", "[" * 200 + "]" * 200])
def test_what_could_not_be_read_again_is_refused(house: House, number: str) -> None:
    before = house.service.store.counts()
    for path, body in (("/api/jobs", json.dumps({"workflow": GRAPH})), ("/api/films", '{"prompt": "a boat", "cfg": 5}')):
        text = body.replace("64" if "jobs" in path else "5", number, 1)
        answer = house.ask("POST", path, content=text, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400, (path, answer.text)
    assert house.service.store.counts() == before


def test_templates_tell_what_their_fields_take(house: House) -> None:
    found = {one["id"]: one for one in house.get("/api/templates").json()["templates"]}
    assert "text_to_film" in found
    fields = {one["name"]: one for group in found["text_to_film"]["groups"] for one in group["fields"]}
    assert fields["frames"] == fields["frames"] | {"kind": "integer", "min": 1, "max": 4096}
    assert "euler" in fields["sampler"]["choices"]
    assert fields["seed"]["default"] is None
    assert fields["checkpoint"]["kind"] == "file"
    assert house.get("/api/templates/text_to_film").json() == found["text_to_film"]
    assert house.get("/api/templates/opera").status_code == 404


def test_a_template_of_ones_own_counts_and_a_damaged_one_hides_nothing(tmp_path: Path, fast_disk: None) -> None:
    from workflows.templates import FOLDER

    own = tmp_path / "templates"
    own.mkdir()
    (own / "mine.json").write_text((FOLDER / "text_to_still.json").read_text("utf-8"), "utf-8")
    with living(tmp_path) as house:
        assert house.film("a boat", template="mine", wait=10)["status"] == "succeeded"
        (own / "bad.json").write_text("{")
        strange = json.loads((own / "mine.json").read_text("utf-8").replace("SaveImage", "NodeOfSomebody"))
        (own / "strange.json").write_text(json.dumps(strange))
        (own / "untitled.json").write_text(json.dumps(strange | {"title": "no languages"}))
        assert {one["id"] for one in house.get("/api/templates").json()["templates"]} >= {"text_to_film", "mine", "strange"}
        assert house.get("/api/templates/untitled").status_code == 404
        assert house.film("a boat", template="mine", wait=10)["status"] == "succeeded"


def test_usage_is_counted(house: House) -> None:
    house.film("a boat", wait=10)
    found = house.get("/api/usage").json()
    assert found["usage"][0]["runs"] >= 1
    assert house.get("/api/usage?since=2999-01-01").json() == {"usage": [], "seconds": 0}
    assert house.get("/api/usage?since=yesterday").status_code == 400
    table = house.get("/api/usage.csv")
    assert table.headers["content-type"].startswith("text/csv")
    assert table.text.splitlines()[0] == "owner,day,runs,seconds"
    assert table.text.splitlines()[1].startswith(f",{found['usage'][0]['day']},")
    assert house.get("/api/usage.csv?since=2999-01-01").text == "owner,day,runs,seconds\n"


def test_a_full_queue_says_when_to_come_back(tmp_path: Path, fast_disk: None) -> None:
    with living(tmp_path, max_queued=1, works=False) as house:
        house.film("one")
        answer = house.post("/api/films", {"prompt": "two"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue_full")
        assert int(answer.headers["Retry-After"]) > 0


def test_work_that_is_too_large_is_refused(tmp_path: Path, fast_disk: None) -> None:
    with living(tmp_path, max_pixel_steps=10**6, works=False) as house:
        answer = house.post("/api/films", {"prompt": "x", "width": 1024, "height": 576})
        assert answer.status_code == 400
        assert "times the work that one job may be" in answer.json()["error"]["message"]


def test_users_see_and_touch_their_own_alone_and_an_admin_all(tmp_path: Path, fast_disk: None) -> None:
    path = tmp_path / "users.json"
    for name, role in (("ada", "admin"), ("bo", "user"), ("cy", "user")):
        users.add(path, name, "a password", role, Cost(n=16, r=1, p=1))
    ada, bo, cy = (users.new_token(path, name) for name in ("ada", "bo", "cy"))
    with living(tmp_path / "data", users_path=path) as house:
        job = house.film("bo's", token=bo, wait=10)
        assert (job["owner"], job["outputs"][0]["url"].endswith("&owner=bo")) == ("bo", True)
        other = house.film("cy's", token=cy, wait=10)["id"]
        for method, way in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("POST", "/retry"), ("POST", "/duplicate"), ("POST", "/undo"),
                            ("GET", "/events"), ("GET", "/workflow")):  # fmt: skip
            assert house.ask(method, f"/api/jobs/{job['id']}{way}", token=cy).status_code == 404
        assert house.ask("PATCH", f"/api/jobs/{job['id']}", token=cy, json={"title": "x"}).status_code == 404
        assert house.post(f"/api/jobs/{job['id']}/move", {"before": other}, token=bo).status_code == 404
        assert [one["id"] for one in house.get("/api/jobs?owner=bo", token=cy).json()["jobs"]] == [other]
        assert {one["owner"] for one in house.get("/api/jobs", token=ada).json()["jobs"]} == {"bo", "cy"}
        assert {one["owner"] for one in house.get("/api/jobs?owner=bo", token=ada).json()["jobs"]} == {"bo"}
        assert {one["owner"] for one in house.get("/api/usage?owner=bo", token=cy).json()["usage"]} == {"cy"}
        owners = {who: [line.split(",")[0] for line in house.get("/api/usage.csv", token=who).text.splitlines()[1:]] for who in (ada, cy)}
        assert owners == {ada: ["bo", "cy"], cy: ["cy"]}
        assert house.job(job["id"], token=ada)["title"] == "bo's"
        assert house.get("/api/jobs").status_code == 401


def test_a_webhook_is_told_and_the_job_says_so(house: House) -> None:
    import http.server

    told = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append((self.headers, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Receiver) as receiver:
        thread = threading.Thread(target=receiver.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            job = house.film("a boat", webhook=f"http://127.0.0.1:{receiver.server_port}/done?x=1", wait=10)
            until(lambda: house.job(job["id"])["deliveries"][0]["delivered"])
        finally:
            receiver.shutdown()
            thread.join()
    (headers, body), = told  # fmt: skip
    assert (headers["X-Stillmotion-Event"], body["event"], body["job"]["id"]) == ("job.succeeded", "job.succeeded", job["id"])


def test_jobs_of_before_the_start_are_done(tmp_path: Path, fast_disk: None) -> None:
    with living(tmp_path, works=False) as house:
        house.service.store.submit(Submission(GRAPH, job_id="early"))
    with living(tmp_path) as house:
        until(lambda: house.job("early")["status"] == "succeeded")


def test_a_bad_start_of_file_names_is_refused_at_every_door(house: House) -> None:
    answer = house.post("/api/films", {"prompt": "a boat", "prefix": "../out"})
    assert (answer.status_code, list(answer.json()["error"]["fields"])) == (400, ["prefix"])
    graph = {i: node | {"inputs": dict(node["inputs"])} for i, node in GRAPH.items()}
    (saving,) = [i for i, node in graph.items() if "filename_prefix" in node["inputs"]]
    graph[saving]["inputs"]["filename_prefix"] = "a/../../b"
    for path, body in (("/api/jobs", {"workflow": graph}), ("/prompt", {"prompt": graph})):
        answer = house.post(path, body)
        assert answer.status_code == 400, path
        assert "leads out of the output folder" in answer.text, path
    house.post("/api_prompt?task_id=leaves", graph)
    sink = house.get("/api/predict/svd/sink?_index_=0&_length_=1&_timeout_=10s&_raw_=true&task_id=leaves")
    assert "leads out of the output folder" in sink.text
