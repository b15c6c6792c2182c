"""From a request to exactly one result."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from api.queue_requests import deliver, reconcile, result, submit_request
from errors import InputError, QueueFullError, StorageError
from jobs.consumers import QueueName
from jobs.job import Failure, Job, JobStatus
from jobs.queue_items import Entry, Wanted
from jobs.queues import Queues

INPUT, SINK = QueueName("svd", "input"), QueueName("svd", "sink")
STILL, FILM = {"images": [{"filename": "a.png", "subfolder": "", "type": "output"}]}, {"gifs": [{"filename": "a.mp4"}]}


@pytest.fixture
def queues(tmp_path: Path) -> Iterator[Queues]:
    queues = Queues(tmp_path / "queues.db")
    yield queues
    queues.close()


def results(queues: Queues) -> list:
    return [json.loads(item.data) for item in queues.read(SINK, Wanted(length=100))]


def never(*_: object) -> None:
    raise AssertionError("not to be called")


def raising(error: Exception):
    def submit(task_id: str, workflow: bytes, tags: dict[str, str], owner: str) -> None:
        raise error

    return submit


def test_a_result_lists_what_ran_and_then_all_outputs_by_node() -> None:
    said = json.loads(result({"id": "p", "status": "succeeded", "outputs": {"9": STILL, "19": FILM}, "cached": ["4", "9"]}))
    assert said == [{"type": "executed", "data": {"node": "19", "output": FILM, "prompt_id": "p"}}, {"9": STILL, "19": FILM}]


def test_with_everything_from_the_cache_there_are_no_events() -> None:
    assert json.loads(result({"id": "p", "status": "succeeded", "outputs": {"9": STILL}, "cached": ["9"]})) == [{"9": STILL}]


def test_a_job_as_the_store_has_it_is_understood() -> None:
    workflow = {"9": {"class_type": "SaveImage", "inputs": {}}}
    values = {"title": "", "tags": (), "extra": {}, "targets": None, "work": "", "batch": None, "created": 0.0}
    error = Failure("out_of_memory", "Too little.", "Make it smaller.", "9", {"need": 3})
    job = Job(id="p", number=1, status=JobStatus.FAILED, owner="", workflow=workflow, outputs={"8": STILL}, error=error, **values)
    executed, why, outputs = json.loads(result(asdict(job)))
    assert executed["data"]["node"] == "8"
    assert why["type"] == "execution_error"
    assert why["data"] == {
        "prompt_id": "p", "node_id": "9", "node_type": "SaveImage", "executed": ["8"], "traceback": [],
        "exception_type": "out_of_memory", "exception_message": "Too little. Make it smaller.", "details": {"need": 3},
    }  # fmt: skip
    assert outputs == {"8": STILL}


def test_a_canceled_job_comes_out_as_interrupted() -> None:
    why, outputs = json.loads(result({"id": "p", "status": JobStatus.CANCELED, "outputs": {}, "error": None}))
    assert (why["type"], outputs) == ("execution_interrupted", {})


def test_submitting_passes_on_what_was_asked_for(queues: Queues) -> None:
    heard = []
    queues.accept(QueueName("svd", "input", "ann"), Entry(b"{}", {"task_id": "t", "colour": "red"}, priority=2))
    (request,) = queues.outstanding()
    submit_request(queues, lambda *said: heard.append(said), request)
    assert heard == [("t", b"{}", {"task_id": "t", "colour": "red", "requestId": request.id, "_priority_": "2"}, "ann")]
    assert queues.outstanding() == [request]


def test_what_cannot_be_a_job_has_an_error_for_a_result(queues: Queues) -> None:
    error = InputError("Node 3 is odd.", "Mend it.")
    error.details = {"node_errors": {"3": "odd"}}
    queues.accept(INPUT, Entry(b"{", {"task_id": "t"}))
    submit_request(queues, raising(error), queues.outstanding()[0])
    ((why, outputs),) = results(queues)
    assert (why["data"]["exception_type"], why["data"]["exception_message"]) == ("bad_input", "Node 3 is odd. Mend it.")
    assert (why["data"]["details"], outputs) == ({"node_errors": {"3": "odd"}}, {})
    assert queues.outstanding() == []


def test_a_bug_of_ours_is_a_result_too_and_its_words_stay_in_the_log(queues: Queues, caplog: pytest.LogCaptureFixture) -> None:
    queues.accept(INPUT, Entry(b"{}"))
    submit_request(queues, raising(ZeroDivisionError("secret")), queues.outstanding()[0])
    ((why, _),) = results(queues)
    assert "secret" not in json.dumps(why)
    assert "secret" in caplog.text


@pytest.mark.parametrize("error", [QueueFullError("full"), StorageError("no room")])
def test_what_passes_is_raised(queues: Queues, error: Exception) -> None:
    queues.accept(INPUT, Entry(b"{}"))
    with pytest.raises(type(error)):
        submit_request(queues, raising(error), queues.outstanding()[0])
    assert results(queues) == []


def test_a_result_is_delivered_once_and_only_to_those_who_asked(queues: Queues) -> None:
    item = queues.accept(INPUT, Entry(b"{}"))
    job = {"id": item.request_id, "status": "succeeded", "outputs": {"9": STILL}}
    assert deliver(queues, job)
    assert not deliver(queues, job)
    assert not deliver(queues, {**job, "id": "from another door"})
    assert len(results(queues)) == 1


def test_after_a_crash_everything_accepted_gets_its_result(queues: Queues) -> None:
    ids = [queues.accept(INPUT, Entry(str(number).encode())).request_id for number in range(4)]
    queues.delete(INPUT, [queues.accept(INPUT, Entry(b"deleted", {"task_id": "withdrawn"})).index])
    jobs = {ids[0]: {"id": ids[0], "status": "succeeded", "outputs": {}}, ids[1]: {"id": ids[1], "status": "queued", "outputs": {}}}
    submitted = []

    def submit(task_id: str, workflow: bytes, tags: dict[str, str], owner: str) -> None:
        submitted.append(workflow)
        if workflow == b"3":
            raise QueueFullError("Full.", "Later.")

    assert reconcile(queues, submit, jobs.get) == 4
    assert submitted == [b"2", b"3"]
    assert [request.id for request in queues.outstanding()] == [ids[1], ids[2]]
    assert [one[0].get("data", {}).get("exception_type") for one in results(queues)] == [None, "queue_full", None]
    assert results(queues)[-1][0]["type"] == "execution_interrupted"
    assert reconcile(queues, never, lambda _: {"status": "running"}) == 0
