from __future__ import annotations

import json

import pytest

from errors import InputError
from jobs.documents import day_start, job_document, progress_document, utc
from jobs.job import Failure, Outcome, Output
from jobs.progress import Snapshot


def test_a_job_as_json(store, submit, run_one) -> None:
    submit(owner="bo", title="Boats & more", tags=("a",))
    job = run_one(3, Outcome(files=(Output("9", "images", "a b.png", "x/y", "output", 12),)))
    document = json.loads(json.dumps(job_document(job, "/films")))
    assert (document["status"], document["owner"], document["tags"], document["run_seconds"]) == ("succeeded", "bo", ["a"], 3)
    assert document["created"] == "2023-11-14T22:13:20.000Z"
    assert document["outputs"][0]["url"] == "/films/view?filename=a+b.png&subfolder=x%2Fy&type=output&owner=bo"


def test_a_mistake_of_ours_shows_its_number_and_not_its_log(store, submit) -> None:
    job = submit()
    store.claim("test")
    store.fail(job.id, Failure("internal", "Oh.", "", "3", {"id": "ab", "path": "/secret"}), log="Traceback")
    document = job_document(store.get(job.id))
    assert document["error"] == {"code": "internal", "message": "Oh.", "hint": "", "node": "3", "id": "ab"}
    assert "Traceback" not in json.dumps(document)


def test_only_who_sent_a_workflow_is_told_of_nodes(store, submit) -> None:
    said = ("Node 16: 99 frames are more than the 25 that such models learnt.", "fewer memory was used: Node 3: slowly.")
    own, form = submit(warnings=said), submit(warnings=said, extra={"template": "text_to_film"})
    assert job_document(own)["warnings"] == list(said)
    assert job_document(form)["warnings"] == ["99 frames are more than the 25 that such models learnt.", said[1]]


def test_progress_is_of_running_jobs() -> None:
    assert progress_document(None) is None
    assert progress_document(Snapshot("a", 1, status="succeeded")) is None
    assert progress_document(Snapshot("a", 1, stage="still", node="3", step=1, total=2, seconds=1.23456)) == {
        "stage": "still", "node": "3", "step": 1, "total": 2, "seconds": 1.235, "has_moved": False, "preview": None,
    }  # fmt: skip


def test_days_and_times() -> None:
    assert utc(None) is None
    assert utc(day_start("2026-03-07")) == "2026-03-07T00:00:00.000Z"
    for text in ("", "7.3.2026", "2026-02-30"):
        with pytest.raises(InputError):
            day_start(text)
