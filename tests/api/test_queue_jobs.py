"""What PAI-EAS's clients put becomes a job, and its result comes out of the sink, once, whatever dies in between."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import database
from jobs.consumers import QueueName
from jobs.queue_items import Entry, Wanted
from tests.api.house import House, living, until
from tests.api.test_jobs import GRAPH

DOOR = "/api/predict/svd"


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_SYNCHRONOUS", "OFF")


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with living(tmp_path) as house:
        yield house


def put(house: House, document: object = GRAPH, query: str = "task_id=t1") -> str:
    answer = house.post(f"{DOOR}/api_prompt?{query}", document)
    assert answer.status_code == 200, answer.text
    return answer.headers["X-Eas-Queueservice-Request-Id"]


def sink(house: House) -> list[list]:
    items = house.service.queues.read(QueueName("svd", "sink"), Wanted(length=100))
    return [json.loads(item.data) for item in items]


def test_a_workflow_is_run_and_its_result_fetched(house: House) -> None:
    request = put(house, {"prompt": GRAPH, "extra_data": {"mine": 1}})
    until(lambda: len(sink(house)) == 1)
    job = house.job(request)
    assert (job["status"], job["outputs"][0]["filename"]) == ("succeeded", "film_00001_.png")
    assert house.service.store.get(request).extra == {"mine": 1, "eas": {"task_id": "t1"}}
    (result,) = sink(house)
    assert result[-1]["9"]["images"][0]["filename"] == "film_00001_.png"
    assert house.service.queues.outstanding() == []


def test_what_is_wrong_comes_out_of_the_sink_too(house: House) -> None:
    put(house, {"1": {"class_type": "Nothing", "inputs": {}}})
    until(lambda: len(sink(house)) == 1)
    assert "Nothing does not exist" in json.dumps(sink(house))


def test_a_request_that_is_taken_out_is_not_worked(house: House) -> None:
    house.service.store.pause()
    request = put(house)
    index = house.service.queues.read(QueueName("svd", "input"), Wanted())[0].index
    assert house.ask("DELETE", f"{DOOR}?_indexes_={index}").status_code == 200
    assert house.job(request)["status"] == "canceled"
    until(lambda: len(sink(house)) == 1)
    assert [one.get("type") for one in sink(house)[0]] == ["execution_interrupted", None]


def test_a_request_that_is_taken_out_before_it_is_a_job_has_a_result_too(house: House) -> None:
    item = house.service.queues.accept(QueueName("svd", "input"), Entry(b"{}", {"task_id": "t2"}))
    assert house.ask("DELETE", f"{DOOR}?_indexes_={item.index}").status_code == 200
    (result,) = house.service.queues.read(QueueName("svd", "sink"), Wanted())
    assert (result.tags["task_id"], result.request_id) == ("t2", item.request_id)
    assert json.loads(result.data)[0]["type"] == "execution_interrupted"


@pytest.mark.parametrize("text", ['{"prompt": {}, "extra_data": {"x": 1e999}}', "[" * 200 + "]" * 200])
def test_what_could_not_be_read_again_is_refused(house: House, text: str) -> None:
    assert house.ask("POST", f"{DOOR}/api_prompt", content=text).status_code == 200
    until(lambda: len(sink(house)) == 1)
    assert sink(house)[0][0]["data"]["exception_type"] == "bad_workflow"


def test_the_urgent_comes_first(house: House) -> None:
    house.service.store.pause()
    usual = put(house)
    urgent = house.ask("POST", f"{DOOR}/api_prompt", json=GRAPH, headers={"X-EAS-QueueService-Priority": "2"})
    places = house.service.store.positions()
    assert places[urgent.headers["X-Eas-Queueservice-Request-Id"]] < places[usual]


def test_what_ended_while_nobody_delivered_is_delivered_at_the_next_start(tmp_path: Path) -> None:
    with living(tmp_path, works=False) as house:
        request = put(house)
        house.service.store.claim("test")
        house.gpu.go.set()
        house.service.store.finish(request, house.gpu(house.service.store.get(request), lambda *_: None, lambda: False, None))
        lost = put(house)
        house.service.store.cancel(lost)
        house.service.store.purge([lost])  # as if it had never become a job
    with living(tmp_path) as house:
        until(lambda: len(sink(house)) == 2)
        assert house.service.queues.outstanding() == []
