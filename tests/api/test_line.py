"""The waiting line as a whole, over a real port."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from api import users
from api.passwords import Cost
from jobs import database
from jobs.job import Outcome
from jobs.progress import JobEvent
from tests.api.house import House, living, until

JPEG = b"\xff\xd8\xff a small picture"


@pytest.fixture(scope="module")
def fast_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "_SYNCHRONOUS", "OFF")
        yield


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, fast_disk: None) -> Iterator[House]:
    with living(tmp_path_factory.mktemp("data")) as house:
        yield house


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, fast_disk: None) -> Iterator[House]:
    """Of ada, an admin, and bo; nobody works."""
    folder = tmp_path_factory.mktemp("shared")
    path = folder / "users.json"
    for name, role in (("ada", "admin"), ("bo", "user")):
        users.add(path, name, "correct horse", role, Cost(n=16, r=1, p=1))
    with living(folder / "data", works=False, users_path=path, key_path=folder / "key") as house:
        house.ada, house.bo = users.new_token(path, "ada"), users.new_token(path, "bo")
        yield house


@pytest.fixture
def paused(house: House) -> Iterator[House]:
    assert house.post("/api/line/pause").json()["is_paused"]
    yield house
    house.post("/api/line/cancel")
    house.post("/api/line/resume")


def batch(house: House, token: str = "", **body: object) -> dict:
    answer = house.post("/api/films/batch", body, token=token)
    assert answer.status_code == 202, answer.text
    return answer.json()


def refused(house: House, **body: object) -> dict:
    before = house.get("/api/line").json()["queued"]
    answer = house.post("/api/films/batch", body)
    assert answer.status_code == 400, answer.text
    assert house.get("/api/line").json()["queued"] == before
    return answer.json()["error"]


def test_a_paused_line_begins_nothing_until_it_is_resumed(house: House) -> None:
    assert house.post("/api/line/pause").json() == {
        "is_paused": True, "may_pause": True, "queued": 0, "running": 0, "own": 0, "remaining_seconds": 0.0, "jobs": [],
    }  # fmt: skip
    job = house.film("a boat")
    line = house.get("/api/line").json()
    assert (line["queued"], line["remaining_seconds"]) == (1, None)  # nobody knows when it goes on
    assert not house.post("/api/line/resume").json()["is_paused"]
    until(lambda: house.job(job["id"])["status"] == "succeeded")
    assert house.get("/api/line").json()["queued"] == 0


def test_only_admins_pause_what_is_everybodys(shared: House) -> None:
    answer = shared.post("/api/line/pause", token=shared.bo)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "admins_only")
    assert shared.post("/api/line/resume", token=shared.bo).status_code == 403
    assert not shared.get("/api/line", token=shared.bo).json()["may_pause"]
    assert shared.post("/api/line/pause", token=shared.ada).json()["is_paused"]
    assert shared.get("/api/line", token=shared.bo).json()["is_paused"]
    assert not shared.post("/api/line/resume", token=shared.ada).json()["is_paused"]


def test_how_long_until_all_of_mine_is_done(shared: House) -> None:
    """Those of others that come between count; those behind do not."""
    store = shared.service.store
    for seconds in (2.0, 2.0):
        shared.film("a boat", token=shared.bo)
        job = store.claim("test")
        store._began[job.id] -= seconds
        store.finish(job.id, Outcome(device="cpu"))
    shared.film("a boat", token=shared.bo)
    shared.film("a boat", token=shared.ada)
    mine, all_ = (shared.get("/api/line", token=token).json() for token in (shared.bo, shared.ada))
    assert (mine["queued"], mine["own"], all_["queued"], all_["own"]) == (1, 1, 2, 1)
    assert all_["remaining_seconds"] == pytest.approx(4, abs=0.5)
    assert mine["remaining_seconds"] <= all_["remaining_seconds"]
    for token in (shared.ada, shared.bo):
        assert len(shared.post("/api/line/cancel", token=token).json()["jobs"]) == 1  # only one's own, also an admin's


def test_all_that_wait_are_canceled_and_had_back_in_their_order(paused: House) -> None:
    made = [paused.film(f"boat {number}")["id"] for number in range(3)]
    paused.post(f"/api/jobs/{made[2]}/move", {"to": "front"})
    ids = paused.post("/api/line/cancel").json()["jobs"]
    assert ids == [made[2], made[0], made[1]]
    assert paused.job(made[0])["status"] == "canceled"
    assert paused.post("/api/line/retry", {"jobs": ids}).json() == {"jobs": ids}
    assert [paused.job(job_id)["place"] for job_id in ids] == [1, 2, 3]


def test_what_was_canceled_while_it_waited_gets_its_place_back(paused: House) -> None:
    made = [paused.film(f"boat {number}")["id"] for number in range(3)]
    paused.post(f"/api/jobs/{made[0]}/cancel")
    assert paused.post("/api/line/retry", {"jobs": [made[0]], "in_place": True}).status_code == 200
    assert list(paused.service.store.positions()) == made
    paused.post(f"/api/jobs/{made[0]}/cancel")
    paused.post("/api/line/retry", {"jobs": [made[0]]})
    assert list(paused.service.store.positions()) == [*made[1:], made[0]]


def test_batches_of_any_size_are_counted_and_are_ones_own(shared: House) -> None:
    made = batch(shared, lines="boat\n" * 250, token=shared.bo)
    shared.film("another", token=shared.bo)
    batch(shared, lines="alone", token=shared.bo)
    shared.post(f"/api/jobs/{made['jobs'][3]['id']}/cancel", token=shared.bo)
    (found,) = shared.get("/api/batches", token=shared.bo).json()["batches"]
    assert (found["id"], found["title"], found["count"]) == (made["batch"], "boat", 250)
    assert found["counts"] == {"queued": 249, "running": 0, "succeeded": 0, "failed": 0, "canceled": 1}
    assert shared.get("/api/batches", token=shared.ada).json() == {"batches": []}
    shared.post("/api/line/cancel", token=shared.bo)


def test_the_line_lists_jobs_in_the_order_in_which_they_will_be_done(paused: House) -> None:
    made = [paused.film(f"boat {number}")["id"] for number in range(3)]
    paused.post(f"/api/jobs/{made[2]}/move", {"to": "front"})
    jobs = paused.get("/api/line").json()["jobs"]
    assert [(job["id"], job["place"]) for job in jobs] == [(made[2], 1), (made[0], 2), (made[1], 3)]
    line = paused.get("/api/line?limit=1").json()
    assert (line["queued"], [job["id"] for job in line["jobs"]]) == (3, [made[2]])
    assert paused.get("/api/line?limit=0").json()["jobs"] == []


def test_what_cannot_be_tried_again_keeps_the_others_back(paused: House) -> None:
    made = [paused.film("a boat")["id"] for _ in range(2)]
    paused.post(f"/api/jobs/{made[0]}/cancel")
    answer = paused.post("/api/line/retry", {"jobs": made})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "wrong_state")
    assert paused.job(made[0])["status"] == "canceled"
    assert paused.post("/api/line/retry", {"jobs": [made[0], "nobody"]}).status_code == 404


def test_lines_become_a_batch_in_their_order(paused: House) -> None:
    made = batch(paused, lines="a boat\n\n一辆车\n", values={"frames": 5, "seed": 2**63}, tags=["night"])
    assert [job["title"] for job in made["jobs"]] == ["a boat", "一辆车"]
    assert {(job["batch"], *job["tags"]) for job in made["jobs"]} == {(made["batch"], "night")}
    listed = paused.get(f"/api/jobs?batch={made['batch']}").json()["jobs"]
    assert [job["id"] for job in listed][::-1] == [job["id"] for job in made["jobs"]]
    workflow = paused.service.store.get(made["jobs"][1]["id"]).workflow
    assert (workflow["16"]["inputs"]["video_frames"], workflow["3"]["inputs"]["seed"]) == (5, 2**63)


def test_a_table_becomes_a_batch(paused: House) -> None:
    made = batch(paused, csv='\ufeffprompt,seed,frames\r\n"a boat, red",7,5\r\na car,,\r\n', values={"frames": 4})
    first, second = (paused.service.store.get(job["id"]).workflow for job in made["jobs"])
    assert (first["3"]["inputs"]["seed"], first["16"]["inputs"]["video_frames"]) == (7, 5)
    assert second["16"]["inputs"]["video_frames"] == 4


def test_several_of_each_and_before_the_others(paused: House) -> None:
    waits = paused.film("a boat")
    made = batch(paused, lines="a\nb", seeds=2, front=True)
    assert [(job["title"], job["place"]) for job in made["jobs"]] == [("a", 1), ("a", 2), ("b", 3), ("b", 4)]
    seeds = {paused.service.store.get(job["id"]).workflow["3"]["inputs"]["seed"] for job in made["jobs"]}
    assert len(seeds) == 4
    assert paused.job(waits["id"])["place"] == 5


def test_one_line_is_a_batch_too(paused: House) -> None:
    made = batch(paused, lines="a boat")
    assert made["jobs"][0]["batch"] == made["batch"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "Exactly one of `lines` and `csv`"),
        ({"lines": "a", "csv": "prompt\na"}, "Exactly one of `lines` and `csv`"),
        ({"lines": "\n"}, "There is no film to make."),
        ({"csv": "prompt,sed\na,7\n"}, "Line 1: Unknown column 'sed'. Did you mean 'seed'?"),
        ({"csv": "prompt,steps\na,0\nb,2\nc,x\n"}, "Line 2: steps: 0 is less than 1"),
        ({"lines": "a", "values": {"colour": 1}}, "Unknown field of text_to_film 'colour'."),
        ({"lines": "a", "template": "still_to_film"}, "still_to_film has no field `prompt`."),
        ({"lines": "a\nb", "seeds": 600}, "These are 1200 films; 1000 are the most at once."),
        ({"lines": "a", "template": "opera"}, "Unknown template 'opera'."),
        ({"lines": "a", "webhook": "ftp://a"}, "no http or https address"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_is_made(paused: House, body: dict, says: str) -> None:
    assert says in refused(paused, **body)["message"]


def test_every_row_that_is_wrong_is_named_with_its_field(paused: House) -> None:
    rows = refused(paused, csv="prompt,steps\na,0\nb,2\nc,x\n")["rows"]
    assert list(rows) == ["Line 2", "Line 4"]
    assert all(text.startswith("steps: ") for text in rows.values())


def test_a_full_queue_takes_all_or_nothing(tmp_path: Path, fast_disk: None) -> None:
    with living(tmp_path, works=False, max_queued=2) as house:
        answer = house.post("/api/films/batch", {"lines": "a\nb\nc"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue_full")
        assert house.get("/api/line").json()["queued"] == 0
        batch(house, lines="a\nb")


def test_the_newest_preview_of_a_job_that_runs(house: House) -> None:
    house.gpu.began.clear()
    job = house.film("wait")
    house.gpu.began.wait(10)
    assert house.job(job["id"])["progress"]["preview"] is None
    assert house.get(f"/api/jobs/{job['id']}/preview.jpg").status_code == 204
    assert house.get("/api/jobs/nobody/preview.jpg").status_code == 404
    for number, picture in enumerate((JPEG, JPEG + b"2"), start=1):
        house.service.board.publish(JobEvent(job["id"], "preview", {"node_id": "3", "image": picture, "format": "jpeg"}))
        address = house.job(job["id"])["progress"]["preview"]
        assert address.endswith(f"?number={number}")
        answer = house.get(address)
        assert (answer.content, answer.headers["content-type"]) == (picture, "image/jpeg")
    house.gpu.go.set()
    until(lambda: house.job(job["id"])["status"] == "succeeded")
    house.gpu.go.clear()
    assert house.get(f"/api/jobs/{job['id']}/preview.jpg").status_code == 204
