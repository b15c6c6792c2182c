"""Every recorded exchange over HTTP, asked again. Where the answer differs, the difference is named here, and meant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.comfy_house import STILL, WORKFLOW, House, house, recorded, replay

ERRORS, HTTP, ENTRIES = recorded("errors"), recorded("http"), recorded("entries")

# A 500 in plain text there, or a 200 for what makes no sense: a 400 with words here
REFUSED = (
    "error_bad_number", "error_empty_body", "error_extra_data_not_dict", "error_invalid_json", "error_invalid_json_free",
    "error_invalid_json_history", "error_invalid_json_interrupt", "error_invalid_json_queue", "error_no_content_type_form",
    "error_non_utf8", "error_prompt_list_nonempty", "error_prompt_null", "error_prompt_string", "error_queue_delete_string",
    "error_queue_list_body", "history_bad_max_items",
)  # fmt: skip
# An exception's text there, or no word of which node is meant: here the node and what is wrong with it
TOLD_BETTER = (
    "error_cycle", "error_link_bad_slot", "error_link_int_node_id", "error_link_to_missing_node", "error_many", "error_missing_class_type",
    "error_missing_inputs_key", "error_node_is_string", "error_unknown_class",
)  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("house")) as made:
        yield made


def without_words(value: Any) -> Any:
    """What comes from the files that are there, and what only we say."""
    if isinstance(value, dict):
        left_out = {"tooltip", "code", "hint", "exception_message", "prompt_id", "number"}
        if value.get("type") == "value_not_in_list":
            left_out |= {"details", "extra_info"}
        return {k: without_words(v) for k, v in value.items() if k not in left_out}
    return [without_words(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", ERRORS)
def test_what_is_wrong_is_said(server: House, name: str) -> None:
    wanted, answer = ERRORS[name]["response"], replay(server, f"user of {name}", ERRORS[name])
    assert answer.status_code == (400 if name in REFUSED else wanted["status"]), answer.text
    body = answer.json() if answer.content else None
    if answer.status_code == 400:
        assert list(body) == ["error", "node_errors"]
        assert body["error"]["code"]
        assert body["error"]["message"]
    if name in TOLD_BETTER:
        assert body["node_errors"]
        assert all(error["message"] for node in body["node_errors"].values() for error in node["errors"])
    elif name == "error_prompt_list":  # an empty list is no workflow, not one without outputs
        assert body["error"]["type"] == "no_prompt"
    elif name not in REFUSED and wanted["body"]:
        assert without_words(body) == without_words(wanted["body"])


def test_a_graph_may_be_sent_bare(server: House) -> None:
    answer = server.post("/prompt", "bare", json=STILL)
    assert answer.status_code == 200
    assert list(answer.json()) == list(ENTRIES["prompt_post_ok"])
    assert server.post("/prompt", "bare", json={"client_id": "c"}).json()["error"]["type"] == "no_prompt"


# Plain questions

PLAIN = (
    "embeddings", "features", "free", "history_after_clear", "history_after_delete", "history_all", "history_bad_max_items",
    "history_clear", "history_delete", "history_delete_unknown", "history_unknown", "interrupt_idle", "method_not_allowed",
    "models_checkpoints", "models_empty_folder", "models_unknown_folder", "object_info_unknown", "prompt_get", "queue_clear",
    "queue_delete_unknown", "queue_idle", "settings", "unknown_path", "users", "view_absolute", "view_bad_type", "view_dotdot",
    "view_metadata", "view_metadata_missing", "view_missing_file", "view_no_filename", "view_subfolder_escape",
)  # fmt: skip


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("idle")) as made:
        yield made


@pytest.mark.parametrize("name", PLAIN)
def test_plain_questions(idle: House, name: str) -> None:
    wanted, answer = HTTP[name]["response"], replay(idle, "ann", HTTP[name])
    assert answer.status_code == {"method_not_allowed": 405}.get(name, 400 if name in REFUSED else wanted["status"])
    if wanted["status"] == 200:
        assert answer.headers.get("Content-Type") == wanted["headers"].get("content-type")
        body = answer.json() if answer.content else ""
        if name == "models_checkpoints":
            assert body[: len(wanted["body"])] == wanted["body"]  # the demonstration's come after
        else:
            assert body == wanted["body"]
    elif name != "unknown_path":  # there an empty body
        assert answer.json()["error"]["message"]


def test_system_stats(idle: House) -> None:
    wanted = ENTRIES["system_stats"]
    idle.device = {"name": "cuda:0 NVIDIA", "type": "cuda", "index": 0, "vram_total": 8, "vram_free": 4}
    got = idle.get("/system_stats").json()
    assert {k: type(v) for k, v in got["system"].items() if k in wanted["system"]} == {
        k: type(v) for k, v in wanted["system"].items() if "required" not in k and "installed" not in k
    }
    assert 0 < got["system"]["ram_free"] <= got["system"]["ram_total"]
    assert [list(one) for one in got["devices"]] == [list(one) for one in wanted["devices"]]
    idle.device = None
    assert idle.get("/system_stats").json()["devices"] == []


def test_memory_is_freed_if_somebody_asks(idle: House) -> None:
    idle.released.clear()
    for body in ({}, {"unload_models": False}):
        idle.post("/free", json=body)
    assert idle.released == []
    assert replay(idle, "", HTTP["free"]).status_code == 200
    assert idle.released == [True]


def test_a_model_that_is_dropped_in_is_there_at_once(idle: House) -> None:
    new = idle.data_dir / "models" / "loras" / "sub" / "new.safetensors"
    assert idle.get("/models/loras").json() == []
    new.parent.mkdir(parents=True)
    new.write_bytes(b"")
    assert idle.get("/models/loras").json() == ["sub/new.safetensors"]
    assert "sub/new.safetensors" in idle.get("/object_info/LoraLoader").json()["LoraLoader"]["input"]["required"]["lora_name"][0]
    assert idle.get("/view_metadata/loras?filename=sub/new.safetensors").status_code == 404
    assert idle.get("/view_metadata/loras?filename=../checkpoints/LandscapeBING_v10.safetensors").status_code == 404


def test_every_node_is_described(idle: House) -> None:
    nodes = idle.get("/object_info").json()
    assert {node["class_type"] for node in WORKFLOW.values()} <= set(nodes)
    assert nodes["KSampler"] == idle.get("/object_info/KSampler").json()["KSampler"]
    assert list(nodes["KSampler"]["input"]["required"]) == [
        "model", "seed", "steps", "cfg", "sampler_name", "scheduler", "positive", "negative", "latent_image", "denoise"
    ]  # fmt: skip
