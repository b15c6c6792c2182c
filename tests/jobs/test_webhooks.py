from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from errors import InputError, UnreadableFileError
from jobs.deliveries import PAUSES
from jobs.job import Failure, Outcome, Submission
from jobs.progress import Board
from jobs.store import JobStore
from jobs.webhooks import Webhooks, read_key, webhook_of

KEY = bytes(range(32))
URL = "https://films.example.com/done"


class Receiver:
    """Answers what it is told to, again and again."""

    def __init__(self) -> None:
        self.answer: int | Exception = 200
        self.seen: list[tuple[str, dict[str, Any], dict[str, str]]] = []

    def __call__(self, url: str, body: bytes, headers: dict[str, str], *, allows_private: bool) -> int:
        self.seen.append((url, json.loads(body), headers))
        self.body = body
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def webhooks(store: JobStore, receiver: Receiver) -> Webhooks:
    return Webhooks(store, Board(), KEY, post=receiver)


@pytest.fixture
def ended(store: JobStore) -> Callable[..., str]:
    def ended(url: object = URL, *, fails: bool = False) -> str:
        job = store.submit(Submission({"1": {}}, extra={"webhook": url}))
        store.claim("test")
        store.fail(job.id, Failure("x", "no")) if fails else store.finish(job.id, Outcome())
        return job.id

    return ended


def test_a_job_that_has_ended_is_told_once_with_a_signature(webhooks, receiver, ended) -> None:
    job_id = ended()
    webhooks.step()
    assert webhooks.step() > 0
    ((url, document, headers),) = receiver.seen
    assert (url, document["event"], document["job"]["id"], document["attempt"]) == (URL, "job.succeeded", job_id, 1)
    assert headers["X-Stillmotion-Signature"] == "sha256=" + hmac.new(KEY, receiver.body, hashlib.sha256).hexdigest()
    assert (headers["X-Stillmotion-Event"], headers["X-Stillmotion-Delivery"]) == ("job.succeeded", document["delivery"])
    (delivery,) = webhooks.deliveries.of(job_id)
    assert (delivery.status, delivery.attempts, delivery.due, delivery.problem) == ("succeeded", 1, None, "")


def test_each_end_of_a_job_is_told(webhooks, receiver, ended, store) -> None:
    job_id = ended(fails=True)
    store.retry(job_id)
    store.cancel(job_id)
    for _ in range(3):
        webhooks.step()
    assert [document["event"] for _, document, _ in receiver.seen] == ["job.failed", "job.canceled"]


@pytest.mark.parametrize("url", [None, 7, ["https://a.example"], {}])
def test_jobs_that_name_no_address_are_nobodys_business(webhooks, receiver, ended, url) -> None:
    job_id = ended(url)
    webhooks.step()
    assert receiver.seen == []
    assert webhooks.deliveries.of(job_id) == []
    assert webhook_of({"webhook": url}) is None


def test_what_is_deeper_than_the_database_reads_does_not_keep_a_job_from_ending(store) -> None:
    row = json.dumps({"webhook": URL, "x": 1})[:-1] + ',"deep":' + "[" * 2500 + "]" * 2500 + "}"
    job = store.submit(Submission({"1": {}}))
    store.database.write("UPDATE jobs SET extra = ? WHERE id = ?", (row, job.id))
    store.database.write("UPDATE jobs SET status = 'succeeded' WHERE id = ?", (job.id,))
    assert store.database.read("SELECT count(*) AS n FROM webhooks")[0]["n"] == 0


@pytest.mark.parametrize("answer", [500, 404, 302, OSError("no route"), HTTPException("no HTTP"), TimeoutError()])
def test_what_does_not_arrive_is_tried_again_for_about_a_day(webhooks, receiver, ended, clock, answer) -> None:
    job_id, receiver.answer = ended(), answer
    for pause in PAUSES:
        webhooks.step()
        (delivery,) = webhooks.deliveries.of(job_id)
        assert delivery.due == clock() + pause
        assert delivery.problem
        assert webhooks.step() == min(pause, 60)
        clock.advance(pause)
    webhooks.step()
    (delivery,) = webhooks.deliveries.of(job_id)
    assert (delivery.due, delivery.delivered, delivery.attempts) == (None, None, len(PAUSES) + 1)
    assert {document["delivery"] for _, document, _ in receiver.seen} == {str(delivery.id)}
    assert [document["attempt"] for _, document, _ in receiver.seen] == list(range(1, len(PAUSES) + 2))


@pytest.mark.parametrize("answer", [410, InputError("It leads home.")])
def test_what_can_never_arrive_is_given_up_at_once(webhooks, receiver, ended, answer) -> None:
    job_id, receiver.answer = ended(), answer
    webhooks.step()
    (delivery,) = webhooks.deliveries.of(job_id)
    assert (delivery.due, delivery.delivered) == (None, None)


def test_a_private_address_is_given_up_without_a_connection(store, ended) -> None:
    webhooks = Webhooks(store, Board(), KEY)
    job_id = ended("http://127.0.0.1:9/")
    webhooks.step()
    (delivery,) = webhooks.deliveries.of(job_id)
    assert delivery.due is None
    assert "this machine" in delivery.problem


def test_what_was_not_told_before_a_restart_is_told_after_it(webhooks, receiver, ended, store, path, clock) -> None:
    ended()
    receiver.answer = OSError("no route")
    webhooks.step()
    store.close()
    clock.advance(PAUSES[0])
    receiver.answer = 200
    again = JobStore(path, clock)
    Webhooks(again, Board(), KEY, post=receiver).step()
    again.close()
    assert [document["attempt"] for _, document, _ in receiver.seen] == [1, 2]


def test_the_thread_tells_as_soon_as_a_job_ends_and_ends_itself(path, receiver) -> None:
    board = Board()
    store = JobStore(path, tell=board.publish)
    webhooks = Webhooks(store, board, KEY, post=receiver)
    webhooks.start()
    job = store.submit(Submission({"1": {}}, extra={"webhook": URL}))
    store.cancel(job.id)
    webhooks.stop()
    store.close()
    assert [document["event"] for _, document, _ in receiver.seen] == ["job.canceled"]


def test_a_host_that_does_not_answer_delays_no_other(path) -> None:
    board, hangs, told = Board(), threading.Event(), threading.Event()
    store = JobStore(path, tell=board.publish)
    asked: list[str] = []

    def post(url: str, body: bytes, headers: dict[str, str], *, allows_private: bool) -> int:
        asked.append(url)
        told.set() if "dead" not in url else hangs.wait(10)
        return 200

    webhooks = Webhooks(store, board, KEY, post=post)
    webhooks.start()
    for url in [f"https://dead.example/{number}" for number in range(10)] + [URL]:
        store.cancel(store.submit(Submission({"1": {}}, extra={"webhook": url})).id)
    assert told.wait(5)
    assert sorted(asked) == ["https://dead.example/0", URL]  # its other nine wait behind the first
    hangs.set()
    webhooks.stop()
    store.close()
    assert len(asked) == len(set(asked)) == 11


def test_a_purged_job_is_told_of_no_more(webhooks, receiver, ended, store) -> None:
    store.purge([ended()])
    assert webhooks.step() > 0
    assert receiver.seen == []


def test_the_key_is_made_once_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "webhook.key"
    key = read_key(path)
    assert len(key) == 32
    assert read_key(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    assert [found.name for found in tmp_path.iterdir()] == ["webhook.key"]
    path.write_text("abc")
    with pytest.raises(UnreadableFileError):
        read_key(path)
