"""`/prompt`, `/queue` and `/interrupt`: as recorded, and nobody touches what is somebody else's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.comfy_house import STILL, WORKFLOW, House, changed, house, recorded

ENTRIES = recorded("entries")


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("house")) as made:
        yield made


@pytest.fixture
def server(one_server: House) -> Iterator[House]:
    """Nothing waits and nothing runs after a test."""
    yield one_server
    one_server.stand_in.before = {}
    while job := one_server.store.claim("test"):
        one_server.store.finish_canceled(job.id)


def pending(server: House, user: str) -> list[str]:
    return [one[1] for one in server.get("/queue", user).json()["queue_pending"]]


def test_what_runs_and_what_waits(server: House) -> None:
    first = server.submit("ann", WORKFLOW, client_id="c")
    second = server.submit("ann", WORKFLOW, client_id="c", extra_data={"extra_pnginfo": {"workflow": {"x": 1}}})
    server.store.claim("test")
    got, wanted = server.get("/queue", "ann").json(), ENTRIES["queue_running_and_pending"]
    assert list(got) == list(wanted)
    for name, prompt_id in (("queue_running", first), ("queue_pending", second)):
        ((number, *rest),) = got[name]
        ((_, _, _, extra, targets),) = wanted[name]
        assert isinstance(number, int)
        assert rest == [prompt_id, WORKFLOW, {k: "c" if k == "client_id" else v for k, v in extra.items()}, targets]
        assert list(rest[2]) == list(extra)
    assert server.get("/prompt", "bo").json() == {"exec_info": {"queue_remaining": 2}}
    server.store.finish_canceled(first)


def test_the_order(server: House) -> None:
    wanted = ENTRIES["queue_order"]
    posts = [server.post("/prompt", "ann", json={**post, "prompt": STILL}).json() for post in wanted["posts"]]
    numbers, ids = [post["number"] for post in posts], [post["prompt_id"] for post in posts]
    assert numbers[0] < numbers[1] == -numbers[2] - 1 < numbers[4]
    assert (numbers[3], ids[4]) == (0.5, "my-own-id")
    assert pending(server, "ann") == [ids[2], ids[3], ids[0], ids[1], ids[4]]  # as they will run; ComfyUI lists its heap


def test_what_waits_can_be_taken_out(server: House) -> None:
    ids = [server.submit("ann") for _ in range(3)]
    running = server.store.claim("test")
    server.post("/queue", "ann", json={"delete": [running.id, ids[1], "nope"]})
    assert pending(server, "ann") == [ids[2]]
    assert server.get(f"/history/{ids[1]}", "ann").json() == {}
    server.post("/queue", "ann", json={"clear": True})
    assert pending(server, "ann") == []
    assert (server.store.get(running.id).status, server.store.is_cancel_requested(running.id)) == ("running", False)
    server.store.finish_canceled(running.id)


def test_a_name_is_used_once(server: House) -> None:
    server.submit("ann", prompt_id="mine")
    for user in ("ann", "bo"):
        again = server.post("/prompt", user, json={"prompt": STILL, "prompt_id": "mine"})
        assert (again.status_code, again.json()["error"]["code"]) == (400, "bad_input")


def test_names_may_hold_slashes(server: House) -> None:
    server.submit("ann", prompt_id="a/b c?d")
    server.work()
    assert list(server.get("/history/a/b%20c%3Fd", "ann").json()) == ["a/b c?d"]


def test_an_interrupt(server: House) -> None:
    stopped: list[str] = []
    server.stand_in.before["3 step 1"] = lambda: stopped.append(server.post("/interrupt", "ann").text)
    prompt_id = server.submit("ann")
    assert server.work().status == "canceled"
    (entry,) = server.get(f"/history/{prompt_id}", "ann").json().values()
    assert entry["status"]["messages"][-1][0] == "execution_interrupted"
    assert entry["status"]["messages"][-1][1]["node_id"] == "3"
    assert stopped == [""]


def test_nobody_sees_or_stops_what_is_somebody_else_s(server: House) -> None:
    running, waiting = server.submit("ann", prompt=changed(STILL, n6={"text": "secret"})), server.submit("ann")
    server.store.claim("test")
    answer = server.get("/queue", "bo")
    assert "secret" not in answer.text
    for entries, prompt_id in zip(answer.json().values(), (running, waiting), strict=True):
        ((_, *rest),) = entries
        assert rest == [prompt_id, {}, {"title": "someone's job"}, []]
    for body in ({"delete": [running, waiting]}, {"clear": True}):
        assert server.post("/queue", "bo", json=body).status_code == 200
    for body in ({"prompt_id": running}, {}, {"prompt_id": waiting}):
        assert server.post("/interrupt", "bo", json=body).status_code == 200
    assert (server.store.get(waiting).status, server.store.is_cancel_requested(running)) == ("queued", False)
    assert server.get("/queue", "root").json()["queue_pending"][0][2] == STILL
    server.post("/queue", "root", json={"clear": True})  # his own
    server.post("/interrupt", "root")
    assert (server.store.get(waiting).status, server.store.is_cancel_requested(running)) == ("queued", False)
    server.post("/queue", "root", json={"delete": [waiting]})
    server.post("/interrupt", "root", json={"prompt_id": running})
    assert (server.store.get(waiting).status, server.store.is_cancel_requested(running)) == ("canceled", True)
    server.store.finish_canceled(running)


@pytest.mark.parametrize(
    "more",
    [
        {"prompt_id": 5}, {"client_id": {}}, {"number": "1e999"}, {"number": []}, {"number": 10**400}, {"extra_data": [1]},
        {"partial_execution_targets": "9"}, {"partial_execution_targets": [9]}, {"prompt_id": ""}, {"prompt_id": "a\nb"},
        {"prompt_id": "x" * 500},
    ],
)  # fmt: skip
def test_odd_wishes(server: House, more: dict) -> None:
    answer = server.post("/prompt", "ann", json={"prompt": STILL, **more})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]
    assert pending(server, "ann") == []


@pytest.mark.parametrize(
    "raw", ["[" * 100_000, '{"prompt": NaN}', '{"prompt": {"1": {"class_type": "\\ud800", "inputs": {}}}}', "\0", "{}x"]
)
def test_odd_bodies(server: House, raw: str) -> None:
    answer = server.post("/prompt", "ann", data=raw)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_half_a_character_in_a_prompt_comes_back_as_it_was(server: House) -> None:
    graph = changed(STILL, n7={"text": "a \ud800 b"})
    assert server.post("/prompt", "ann", data=json.dumps({"prompt": graph})).status_code == 200
    assert server.get("/queue", "ann").json()["queue_pending"][0][2] == graph


def test_keys_of_paid_services_are_not_kept(server: House) -> None:
    server.submit("ann", extra_data={"api_key_comfy_org": "k", "auth_token_comfy_org": "t", "kept": 1})
    assert server.get("/queue", "ann").json()["queue_pending"][0][3] == {"kept": 1}


def test_a_full_queue_says_when_to_come_back(tmp_path: Path) -> None:
    with house(tmp_path, max_pixel_steps=64 * 128 * 3) as server:
        server.store.max_queued = 1
        server.submit()
        answer = server.post("/prompt", json={"prompt": STILL})
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "5")
        assert answer.json()["error"]["type"] == "queue_full"
        too_much = server.post("/prompt", json={"prompt": changed(STILL, n3={"steps": 4})})
        assert (too_much.status_code, too_much.json()["error"]["code"]) == (400, "bad_input")
