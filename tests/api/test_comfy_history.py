"""`/history`: as recorded, from the table; of one's own jobs only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from errors import CheckpointError
from tests.api.comfy_house import STILL, WORKFLOW, House, house, recorded

ENTRIES = recorded("entries")


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("house")) as made:
        yield made


@pytest.fixture
def server(one_server: House) -> House:
    stand_in = one_server.stand_in
    stand_in.cached, stand_in.before, stand_in.fails = [], {}, {}
    return one_server


@pytest.mark.parametrize("name", ["history_finished", "history_interrupted_no_client", "history_error_no_client"])
def test_entries(server: House, name: str) -> None:
    ((wanted_id, wanted),) = ENTRIES[name].items()
    server.stand_in.cached = dict(wanted["status"]["messages"])["execution_cached"]["nodes"]
    if "interrupted" in name:
        server.stand_in.before["13"] = lambda: server.post("/interrupt")
    if "error" in name:
        server.stand_in.fails["7"] = CheckpointError("No clip.")
    graph, client = STILL if "error" in name else WORKFLOW, wanted["prompt"][3].get("client_id")
    prompt_id = server.submit(prompt=graph, **({"client_id": client} if client else {}))
    server.work()
    (got,) = server.get(f"/history/{prompt_id}").json().values()
    assert got["prompt"][1:] == [prompt_id, graph, *wanted["prompt"][3:]]
    assert shape(got, prompt_id) == shape(wanted, wanted_id)


def shape(entry: dict[str, Any], prompt_id: str) -> str:
    """As text, so that the order of keys counts; without names of files, times, and the words of an exception."""
    entry = json.loads(json.dumps({k: v for k, v in entry.items() if k != "prompt"}).replace(prompt_id, "ID"))
    for _, data in entry["status"]["messages"]:
        for name in ("timestamp", "exception_message", "exception_type", "traceback", "current_inputs", "current_outputs"):
            data.pop(name, None)
    for output in entry["outputs"].values():
        for shown in (one for kind in ("images", "gifs") for one in output.get(kind, ())):
            shown |= dict.fromkeys(("filename", "workflow", "fullpath") & shown.keys(), "")
    return json.dumps({k: sorted(v.items()) if k in ("outputs", "meta") else v for k, v in entry.items()})


def test_times_are_milliseconds(server: House) -> None:
    prompt_id = server.submit("ann")
    job = server.work()
    messages = dict(server.get(f"/history/{prompt_id}", "ann").json()[prompt_id]["status"]["messages"])
    assert messages["execution_start"]["timestamp"] == round(job.started * 1000)
    assert messages["execution_success"]["timestamp"] == round(job.ended * 1000)


def test_pages_deletion_and_clearing(server: House) -> None:
    wanted, ids = ENTRIES["history_pages"], []
    known = wanted["all"][:-1]  # the last one ended while this was recorded
    for _ in known:
        ids.append(server.submit("pages"))
        server.work()
    assert list(server.get("/history", "pages").json()) == ids
    for query, entries in wanted.items():
        if "=" in query:
            got = list(server.get(f"/history?{query}", "pages").json())
            assert (query, got) == (query, [ids[known.index(one)] for one in entries])
    assert server.get("/history?max_items=-1", "pages").json() == {}
    assert list(server.get("/history?max_items=99999999999999999999&offset=10", "pages").json()) == ids[10:]
    server.post("/history", "pages", json={"delete": [ids[0], "nope"]})
    assert list(server.get("/history", "pages").json()) == ids[1:]
    assert server.get(f"/history/{ids[0]}", "pages").json() == {}
    server.store.favourite(ids[3])
    server.post("/history", "pages", json={"clear": True})
    assert list(server.get("/history", "pages").json()) == [ids[3]]


def test_only_what_has_ended_is_history(server: House) -> None:
    waiting, prompt_id = server.submit("later", number=9), server.submit("later", number=1)
    running = server.store.claim("test")
    assert running.id == prompt_id
    assert server.get("/history", "later").json() == {}
    server.post("/history", "later", json={"delete": [waiting, prompt_id]})
    assert server.store.get(waiting).deleted_at is None
    server.store.finish_canceled(running.id)
    server.store.cancel(waiting)  # it had never begun
    assert list(server.get("/history", "later").json()) == [prompt_id]


def test_users_see_and_delete_their_own(server: House) -> None:
    prompt_id = server.submit("one")
    server.work()
    assert server.get("/history", "two").json() == server.get(f"/history/{prompt_id}", "two").json() == {}
    for body in ({"delete": [prompt_id]}, {"clear": True}):
        server.post("/history", "two", json=body)
    server.post("/history", "root", json={"clear": True})
    assert list(server.get("/history", "one").json()) == list(server.get(f"/history/{prompt_id}", "root").json()) == [prompt_id]
    assert prompt_id in server.get("/history", "root").json()
    server.post("/history", "root", json={"delete": [prompt_id]})
    assert server.get("/history", "one").json() == {}
