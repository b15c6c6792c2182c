"""Server-sent events of one job, and those who do not read them."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from api import job_events
from jobs import database
from jobs.progress import JobEvent
from tests.api.house import House, living, until


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "_SYNCHRONOUS", "OFF")
        with living(tmp_path_factory.mktemp("data")) as house:
            yield house


def frames(lines: Iterator[str]) -> Iterator[tuple[str, dict]]:
    kind = ""
    for line in lines:
        if line.startswith("event: "):
            kind = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield kind, json.loads(line.removeprefix("data: "))


def test_a_job_is_followed_from_the_line_to_its_end(house: House) -> None:
    house.service.store.pause()
    job = house.film("a boat")["id"]
    with house.client.stream("GET", f"{house.url}/api/jobs/{job}/events") as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        assert stream.headers["X-Accel-Buffering"] == "no"
        told = frames(stream.iter_lines())
        kind, document = next(told)
        assert (kind, document["status"], document["place"]) == ("job", "queued", 1)
        house.service.store.resume()
        rest = list(told)
    kinds = [kind for kind, _ in rest]
    assert [kind for kind in kinds if kind != "job"] == ["started", "cached", "node", "progress", "output", "succeeded"]
    assert dict(rest)["progress"] == {"stage": "still", "node": "3", "step": 1, "total": 2}
    assert dict(rest)["output"]["output"]["images"][0]["type"] == "output"
    assert dict(rest)["succeeded"]["outputs"]


def test_of_a_job_that_has_ended_the_end_is_told(house: House) -> None:
    job = house.film("fail", wait=10)["id"]
    told = list(frames(iter(house.get(f"/api/jobs/{job}/events").text.splitlines())))
    assert [kind for kind, _ in told] == ["job", "failed"]
    assert told[1][1]["error"]["hint"] == "Take another boat."


def test_a_change_by_another_process_is_seen_at_the_next_sign_of_life(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_events, "HEARTBEAT_SECONDS", 0.04)
    monkeypatch.setattr(job_events, "_LOOK_SECONDS", 0.02)
    house.service.store.pause()
    job = house.film("a boat")["id"]
    with house.client.stream("GET", f"{house.url}/api/jobs/{job}/events") as stream:
        told = frames(stream.iter_lines())
        assert [next(told)[0] for _ in range(3)] == ["job"] * 3
        monkeypatch.setattr(house.service.store, "tell", lambda event: None)  # as it is elsewhere
        house.service.store.cancel(job)
        assert [kind for kind, _ in told][-1] == "canceled"
    monkeypatch.undo()
    house.service.store.resume()


def test_one_who_does_not_read_delays_nobody_and_misses_steps_alone(house: House) -> None:
    house.gpu.go.clear()
    house.gpu.began.clear()
    job = house.film("wait")["id"]
    assert house.gpu.began.wait(5)
    host, port = house.url.removeprefix("http://").split(":")
    with socket.socket() as sleeper:
        sleeper.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        sleeper.connect((host, int(port)))
        sleeper.sendall(f"GET /api/jobs/{job}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert sleeper.recv(15) == b"HTTP/1.1 200 OK"
        stage = "still" * 200
        for step in range(3000):
            data = {"node_id": "3", "stage": stage, "step": step, "total": 3000}
            house.service.board.publish(JobEvent(job, "progress", data))
        house.gpu.go.set()
        until(lambda: house.job(job)["status"] == "succeeded")
        seen = b""
        while piece := sleeper.recv(65536):
            seen += piece
            if b"event: succeeded" in seen and seen.endswith(b"0\r\n\r\n"):
                break
    assert seen.count(b"event: progress") < 3000
    assert b"event: output" in seen
