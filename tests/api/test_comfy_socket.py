"""`/ws`: what a recorded ComfyUI said in the same situations, message for message; then what it does not do."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from errors import CheckpointError
from jobs.job import Outcome
from tests.api.comfy_house import FRAME, STILL, WORKFLOW, House, changed, house, recorded

RECORDED = recorded("sockets")
VARYING = ("timestamp", "sid", "filename", "workflow", "fullpath")
CACHED_STILL = ["4", "5", "6", "7"]
FLAGS = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("house")) as made:
        yield made


@pytest.fixture
def server(one_server: House) -> House:
    stand_in = one_server.stand_in
    stand_in.cached, stand_in.previews, stand_in.frame, stand_in.before, stand_in.fails = [], False, FRAME, {}, {}
    return one_server


def comparable(messages: list[Any], ids: dict[str, str]) -> list[str]:
    """As text, so that the order of keys counts, and 1 is not 1.0; without what differs from run to run."""
    return [json.dumps(_plain(_unfolded(one), ids)) for one in messages]


def _unfolded(one: Any) -> Any:
    """In the recordings the nodes of a progress_state are folded."""
    if isinstance(one, bytes):
        kind, value = struct.unpack(">II", one[:8])
        metadata = {"metadata": json.loads(one[8 : 8 + value])} if kind == 4 else {"image_type_uint32_be": value}
        return {"binary": {"event_type_uint32_be": kind} | metadata}
    if one.get("type") != "progress_state" or "nodes" in one:
        return one
    nodes = one["data"]["nodes"]
    entry = sorted(next(iter(nodes.values())))
    return {"type": "progress_state", "nodes": [[i, e["value"], e["max"], e["state"]] for i, e in nodes.items()], "entry": entry}


def _plain(value: Any, ids: dict[str, str]) -> Any:
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if k not in ("traceback", "exception_message", "current_inputs", "current_outputs")}
        kept = {k: sorted(v) if k == "executed" else v for k, v in kept.items()}
        return {k: "..." if k in VARYING or k == "exception_type" else _plain(v, ids) for k, v in kept.items()}
    if isinstance(value, list):
        return [_plain(one, ids) for one in value]
    return ids.get(value, value) if isinstance(value, str) else value


def expected(name: str, prompt_id: str) -> list[str]:
    messages = [one for one in RECORDED[name] if "sent" not in one]
    told = [one["data"]["prompt_id"] for one in messages if "prompt_id" in one.get("data", {})]
    return comparable(messages, {told[0]: prompt_id})


def without(messages: list[str], kind: str) -> list[str]:
    return [one for one in messages if not one.startswith(f'{{"{kind}"') and f'"type": "{kind}"' not in one]


def test_a_whole_run(server: House) -> None:
    with server.listening("full") as listener:
        prompt_id = server.submit(client_id="full", prompt=WORKFLOW)
        server.work()
        got = comparable(listener.until_over(), {})
    wanted = expected("ws_full_run", prompt_id)
    assert without(got, "status") == without(wanted, "status")  # another prompt came and went there
    assert [("status" in one) for one in got[:5]] == [True, True, True, False, False]
    assert [("status" in one) for one in got[-3:]] == [False, True, False]


def test_another_client_hears_only_of_the_queue(server: House) -> None:
    with server.listening("bystander") as listener, server.listening(None) as nameless:
        first = server.submit(client_id="full")
        server.stand_in.before["3"] = lambda: second.append(server.submit(client_id="full"))
        second: list[str] = []
        server.work()
        del server.stand_in.before["3"]
        server.work()
        assert first != second[0]
        wanted = comparable(RECORDED["ws_bystander"], {})
        for one in (listener, nameless):
            assert [comparable([one.next()], {})[0] for _ in wanted] == wanted
            assert one.is_silent()


@pytest.mark.parametrize(
    ("name", "cached", "body"),
    [
        ("cached_identical", sorted(WORKFLOW, key=int), {"prompt": WORKFLOW}),
        ("partial_execution", ["4", "6", "7"], {"prompt": changed(n3={"steps": 2}), "partial_execution_targets": ["9"]}),
    ],
)
def test_what_is_known_already(server: House, name: str, cached: list[str], body: dict) -> None:
    server.stand_in.cached = cached
    with server.listening("c") as listener:
        prompt_id = server.submit(client_id="c", **body)
        server.work()
        got = comparable(listener.until_over(), {})
    assert got == expected(name, prompt_id)


def test_a_failure(server: House) -> None:
    server.stand_in.fails["7"] = CheckpointError("It holds no text encoder.", "Use another.")
    with server.listening("c") as listener:
        prompt_id = server.submit(client_id="c")
        server.work()
        messages = listener.until_over()
    assert comparable(messages, {}) == expected("execution_error", prompt_id)
    error = next(one["data"] for one in messages if one["type"] == "execution_error")
    assert error["exception_message"] == "It holds no text encoder. Use another."
    assert error["exception_type"] == "bad_checkpoint"
    assert error["current_inputs"] == {"text": [""]}
    assert sorted(error["current_outputs"]) == sorted(STILL)


def test_an_interrupt_acts_before_the_next_step(server: House) -> None:
    server.stand_in.cached = ["3", "4", "5", "6", "7", "8", "9", "16", "17", "18"]
    server.stand_in.before["13 step 1"] = lambda: answers.append(server.post("/interrupt", json={"prompt_id": prompt_id}))
    answers: list[Any] = []
    with server.listening("c") as listener:
        prompt_id = server.submit(client_id="c", prompt=changed(n13={"steps": 12}))
        server.work()
        got = comparable(listener.until_over(), {})
    assert (answers[0].status_code, answers[0].content) == (200, b"")
    assert got == expected("interrupt_by_prompt_id", prompt_id)


def test_without_a_client_everybody_of_the_owner_sees_the_progress(server: House) -> None:
    with server.listening("bystander") as listener:
        prompt_id = server.submit(prompt=changed(STILL, n3={"steps": 2}))
        server.work()
        wanted = expected("ws_prompt_without_client_id", prompt_id)
        assert [comparable([listener.next()], {})[0] for _ in wanted] == wanted
        assert listener.is_silent()


@pytest.mark.parametrize("name", ["preview_binary_old", "preview_binary_with_metadata"])
def test_previews(server: House, name: str) -> None:
    server.stand_in.previews = True
    server.stand_in.cached = [] if name.endswith("old") else CACHED_STILL
    with server.listening("c") as listener:
        if name.endswith("metadata"):
            listener.socket.send(json.dumps(FLAGS))
            first = listener.until(lambda one: one["type"] == "feature_flags")
        prompt_id = server.submit(client_id="c", prompt=changed(STILL, n3={"steps": 2}))
        server.work()
        messages = [*(first if name.endswith("metadata") else []), *listener.until_over()]
    got, wanted = comparable(messages, {}), expected(name, prompt_id)
    assert without(got, "binary") == without(wanted, "binary")
    assert [one for one in got if one.startswith('{"binary"')] == [one for one in wanted if one.startswith('{"binary"')]
    assert all(one.endswith(FRAME) for one in messages if isinstance(one, bytes))


def test_one_who_comes_back_hears_where_it_is(server: House) -> None:
    server.stand_in.cached, server.stand_in.previews = CACHED_STILL, True
    sockets: list[Any] = []

    def come_back() -> None:
        sockets.append(listening.__enter__())
        sockets.append([sockets[0].next(), sockets[0].next()])

    listening = server.listening("c")
    server.stand_in.before["3 step 1"] = come_back
    prompt_id = server.submit(client_id="c", prompt=changed(STILL, n3={"steps": 6}))
    server.work()
    got = comparable([*sockets[1], *sockets[0].until_over()], {})
    listening.__exit__(None, None, None)
    wanted = expected("ws_reconnect", prompt_id)
    assert without(got, "binary") == without(wanted, "binary")
    assert [one for one in got if "binary" in one] == [one for one in wanted if "binary" in one]


def test_features_are_told_to_those_who_tell_theirs(server: House) -> None:
    with server.listening("flags-client") as listener:
        for odd in ('{"type": "other"}', "no json", "[]", '"x"', '{"type": "feature_flags"}', '{"type": "feature_flags", "data": 3}'):
            listener.socket.send(odd)
        listener.socket.send_binary(b"\xff\x00")
        listener.socket.send(json.dumps(FLAGS))
        got = [listener.next(), listener.next()]
    assert comparable(got, {}) == comparable([one for one in RECORDED["ws_feature_flags"] if "sent" not in one], {})


def test_a_second_socket_of_a_client_hears_everything_too(server: House) -> None:
    with server.listening("twin") as newer:
        with server.listening("twin") as older:
            server.submit(client_id="twin")
            server.work()
            assert older.until_over() == newer.until_over()
        server.submit(client_id="twin")
        server.work()
        assert newer.until_over()


def test_the_id_that_the_server_gives_is_a_client_id(server: House) -> None:
    with server.listening(None) as listener:
        server.submit(client_id=listener.next()["data"]["sid"])
        server.work()
        assert listener.until_over()


def test_users_hear_of_their_own_jobs_only(server: House) -> None:
    with server.listening("same", "ann") as ann, server.listening("same", "bo") as bo, server.listening("same", "root") as root:
        server.submit("ann", client_id="same")
        server.submit("ann")
        server.work()
        server.work()
        assert ann.until_over()
        for other in (bo, root):
            kinds = set()
            while (kind := other.next())["type"] == "status":
                kinds.add(kind["type"])
                if kind["data"]["status"]["exec_info"]["queue_remaining"] == 0 and len(kinds) and "sid" not in kind["data"]:
                    break
            assert kinds == {"status"}
            assert other.is_silent()


def test_a_job_that_is_put_back_and_begun_again(server: House) -> None:
    """As it happens when the server ends while it runs."""
    with server.listening("c") as listener:
        prompt_id = server.submit(client_id="c")
        server.store.claim("test")
        server.store.requeue(prompt_id)
        server.work()
        kinds = [one["type"] for one in listener.until_over() if one["type"] != "progress_state"]
    assert kinds[:6] == ["status", "status", "status", "execution_start", "status", "status"]
    assert kinds.count("execution_start") == 2
    assert kinds[-3:] == ["execution_success", "status", "executing"]


def test_files_of_an_earlier_run_are_told_too(server: House) -> None:
    """The server had ended under the job; what it had written then is not written again."""
    files = {"images": [{"filename": "a.png", "subfolder": "", "type": "output"}]}
    with server.listening("c") as listener:
        prompt_id = server.submit(client_id="c")
        server.store.claim("test")
        server.store.finish(prompt_id, Outcome({"9": files}))
        kinds = [
            (one["type"], one["data"].get("output")) for one in listener.until_over() if one["type"] not in ("status", "progress_state")
        ]
    assert kinds == [("execution_start", None), ("executed", files), ("execution_success", None), ("executing", None)]


def test_one_who_takes_nothing_is_let_go(tmp_path: Path) -> None:
    with house(tmp_path, stall_seconds=0.1) as server, server.listening("lazy", rcvbuf=4096) as lazy:
        server.stand_in.previews, server.stand_in.frame = True, FRAME + bytes(1_000_000)
        server.submit(client_id="lazy", prompt=changed(STILL, n3={"steps": 40}))
        server.work()
        time.sleep(0.5)
        heard = lazy.until(lambda one: one == "")
    assert "execution_success" not in [one["type"] for one in heard if isinstance(one, dict)]


def test_one_who_does_not_read_delays_nobody(server: House) -> None:
    """Once he reads again he hears all that matters, and of the old progress only the newest."""
    steps, server.stand_in.previews, server.stand_in.frame = 400, True, FRAME + bytes(100_000)
    with server.listening("lazy", rcvbuf=4096) as lazy, server.listening("quick") as quick:
        server.submit(client_id="lazy", prompt=changed(STILL, n3={"steps": steps}))
        server.work()
        server.submit(client_id="quick")
        server.work()
        assert quick.until_over()[-3]["type"] == "execution_success"
        heard = [one["type"] for one in lazy.until_over() if isinstance(one, dict)]
    assert [one for one in heard if one in ("execution_start", "executing", "executed", "execution_success")] == [
        "execution_start", *["executing"] * 7, "executed", "execution_success", "executing"
    ]  # fmt: skip
    assert heard.count("progress") < steps
