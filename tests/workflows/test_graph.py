from __future__ import annotations

import copy
import json
import random
from pathlib import Path

import pytest

from workflows.folders import Folders
from workflows.graph import Link, Workflow, WorkflowError, read_json
from workflows.nodes import catalog

DATA = Path(__file__).parent.parent / "data"
CONTRACT = DATA / "comfyui_contract"


def recorded() -> dict[str, dict]:
    """Every recorded answer to a workflow, by name: the workflow, the status, the body."""
    whole, found = json.loads((CONTRACT / "workflow.json").read_text()), {}
    for name, exchange in json.loads((CONTRACT / "errors.json").read_text()).items():
        asked, answer = exchange["request"].get("json"), exchange["response"]
        if not isinstance(asked, dict) or "prompt" not in asked or not isinstance(answer["body"], dict):
            continue
        prompt = asked["prompt"]
        if isinstance(prompt, dict) and "_changes" in prompt:
            prompt = {i: node for i, node in (whole | prompt["_changes"]).items() if node is not None}
        found[name.removeprefix("error_")] = {"prompt": prompt, "status": answer["status"], "body": answer["body"]}
    return found


RECORDED = recorded()
# What ComfyUI says of these is a defect, or a quirk of its order; what we say is tested below.
DIFFERENT = {
    "cycle", "link_bad_slot", "link_int_node_id", "link_length_3", "link_to_missing_node", "many", "missing_inputs_key", "prompt_list",
    "dangling_bad_node", "lossless_string", "partial_targets_none_match",  # (the last asks for outputs outside of the graph)
}  # fmt: skip
CATALOG = catalog()


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """With the two checkpoints of the vendor's workflow; a name is all that is looked at."""
    checkpoints = tmp_path / "models" / "checkpoints"
    checkpoints.mkdir(parents=True)
    for name in ("LandscapeBING_v10.safetensors", "svd_xt_image_decoder.safetensors"):
        (checkpoints / name).touch()
    return Folders(tmp_path)


@pytest.fixture
def seed() -> dict:
    return json.loads((DATA / "comfyui" / "two_stage.json").read_text())


def parse(document: object, folders: Folders, **more: object) -> Workflow:
    return Workflow.parse(document, CATALOG, folders, **more)


def errors_of(document: object, folders: Folders) -> dict:
    try:
        return parse(document, folders).node_errors
    except WorkflowError as error:
        return error.node_errors


def kinds(node_errors: dict) -> dict[str, list[str]]:
    return {i: [error["type"] for error in entry["errors"]] for i, entry in node_errors.items()}


def plain(value: object) -> object:
    """Without what belongs to an installation: help texts, and lists of what is there."""
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items() if name not in ("tooltip", "input_config", "exception_message")}
    return [plain(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", sorted(RECORDED.keys() - DIFFERENT))
def test_what_is_wrong_is_said_as_comfyui_says_it(name: str, folders: Folders) -> None:
    recorded = RECORDED[name]
    try:
        workflow = parse(recorded["prompt"], folders)
    except WorkflowError as error:
        assert recorded["status"] == 400
        ours, theirs = plain(error.document()), plain(recorded["body"])
        assert ours["error"] | {"details": ""} == theirs["error"] | {"details": ""} or "exist" in ours["error"]["message"]
        assert shortened(ours["node_errors"]) == shortened(theirs["node_errors"]) or name.startswith(
            ("missing_class", "unknown_class", "node_is")
        )
    else:
        assert recorded["status"] == 200
        assert shortened(plain(workflow.node_errors)) == shortened(plain(recorded["body"]["node_errors"]))


def shortened(node_errors: dict) -> dict:
    """Without the names of what is in a list, of which ours has fewer, and our hint at the nearest."""
    out = copy.deepcopy(node_errors)
    for entry in out.values():
        for error in entry["errors"]:
            error["details"] = error["details"].split(" not in ")[0].split(", invalid literal")[0]
    return out


def test_the_vendors_workflow_is_sound_and_its_values_are_converted(seed: dict, folders: Folders) -> None:
    workflow = parse({"prompt": seed}, folders)
    assert workflow.node_errors == {}
    assert workflow.targets == ("9", "15", "19")
    assert workflow.nodes["3"].inputs["cfg"] == 7.0
    assert isinstance(workflow.graph["3"]["inputs"]["cfg"], float)
    assert workflow.nodes["13"].inputs["model"] == Link("17", 0)
    assert workflow.nodes["19"].inputs["crf"] == 20
    assert parse(seed, folders).graph == workflow.graph


def test_every_node_comes_after_what_it_needs_and_files_as_soon_as_they_can(seed: dict, folders: Folders) -> None:
    for _ in range(20):
        shuffled = dict(random.sample(list(seed.items()), len(seed)))
        order = [node.id for node in parse(shuffled, folders).order()]
        assert sorted(order) == sorted(seed)
        for i, node in seed.items():
            for value in node["inputs"].values():
                if isinstance(value, list):
                    assert order.index(value[0]) < order.index(i)
        assert order.index("9") == order.index("8") + 1
        assert {*order[:3]} == {"4", "5", "18"}  # what needs nothing shows its mistakes before any work


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"3": {"latent_image": ["8", 0]}}, {"3": ["return_type_mismatch", "dependency_cycle"], "8": ["dependency_cycle"]}),
        ({"8": {"vae": ["4", 7]}}, {"8": ["bad_linked_input"]}),
        ({"8": {"vae": [4, 2]}}, {"8": ["bad_linked_input"]}),
        ({"8": {"vae": ["999", 0]}}, {"8": ["bad_linked_input"]}),
        ({"8": {"vae": 5}}, {"8": ["bad_linked_input"]}),
        ({"8": {"vae": None}}, {"8": ["bad_linked_input"]}),
        ({"15": {"lossless": "perhaps"}}, {"15": ["invalid_input_type"]}),
        ({"3": {"seed": float("inf")}}, {"3": ["invalid_input_type"]}),
        ({"3": {"cfg": float("nan")}}, {"3": ["invalid_input_type"]}),
        ({"3": {"seed": "9" * 5000}}, {"3": ["invalid_input_type"]}),
        ({"6": {"text": {"a": 1}}}, {"6": ["invalid_input_type"]}),
        ({"6": {"text": "x" * 30_000}}, {"6": ["invalid_input_type"]}),
        ({"3": {"steps": 0, "cfg": -1}, "13": {"steps": "x"}}, {"3": ["value_smaller_than_min"] * 2, "13": ["invalid_input_type"]}),
    ],
)
def test_mistakes_are_found_all_at_once(seed: dict, folders: Folders, change: dict, expected: dict) -> None:
    for i, inputs in change.items():
        seed[i]["inputs"] |= inputs
    assert kinds(errors_of(seed, folders)) == expected


def test_who_depends_on_a_mistake_is_told_truly(seed: dict, folders: Folders) -> None:
    seed["9"]["inputs"]["images"] = ["99", 0]
    seed["13"]["inputs"]["steps"] = 0
    errors = errors_of(seed, folders)
    assert errors["9"]["dependent_outputs"] == ["9"]
    assert errors["13"]["dependent_outputs"] == ["15", "19"]


def test_a_cycle_is_drawn(folders: Folders) -> None:
    graph = {
        "1": {"class_type": "RepeatLatentBatch", "inputs": {"samples": ["2", 0], "amount": 1}},
        "2": {"class_type": "RepeatLatentBatch", "inputs": {"samples": ["1", 0], "amount": 1}},
        "3": {"class_type": "VAEDecode", "inputs": {"samples": ["1", 0], "vae": ["4", 2]}},
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "LandscapeBING_v10.safetensors"}},
        "5": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "x"}},
    }
    with pytest.raises(WorkflowError) as caught:
        parse(graph, folders)
    assert caught.value.node_errors["1"]["errors"][0]["details"] == "1 -> 2 -> 1"
    assert caught.value.node_errors.keys() == {"1", "2"}


def test_text_that_says_false_is_false(seed: dict, folders: Folders) -> None:
    seed["15"]["inputs"]["lossless"] = "False"
    assert parse(seed, folders).nodes["15"].inputs["lossless"] is False


def test_the_nearest_name_is_told(seed: dict, folders: Folders) -> None:
    seed["3"]["inputs"]["sampler_name"] = "eulr"
    seed["4"]["inputs"]["ckpt_name"] = "LandscapeBING_v1.safetensors"
    errors = errors_of(seed, folders)
    assert "Did you mean 'euler'?" in errors["3"]["errors"][0]["details"]
    assert "Did you mean 'LandscapeBING_v10.safetensors'?" in errors["4"]["errors"][0]["details"]
    seed["3"]["class_type"] = "KSample"
    with pytest.raises(WorkflowError, match="Did you mean KSampler"):
        parse(seed, folders)


def test_only_some_outputs(seed: dict, folders: Folders) -> None:
    workflow = parse(seed, folders, only=["9"])
    assert workflow.targets == ("9",)
    assert workflow.nodes.keys() == {"3", "4", "5", "6", "7", "8", "9"}
    with pytest.raises(WorkflowError, match="no outputs"):
        parse(seed, folders, only=["3"])


def test_what_no_output_needs_is_not_looked_at(seed: dict, folders: Folders) -> None:
    seed["99"] = {"class_type": "KSampler", "inputs": {"steps": -5}}
    assert parse(seed, folders).node_errors == {}


@pytest.mark.parametrize("document", [None, 5, "x", [], {"prompt": None}, {"prompt": "x"}, {"prompt": [1]}, {}, {"prompt": {}}])
def test_what_is_no_workflow_is_said_to_be_none(document: object, folders: Folders) -> None:
    with pytest.raises(WorkflowError, match=r"No prompt provided|no outputs"):
        parse(document, folders)


def test_the_editors_format_is_recognised(folders: Folders) -> None:
    with pytest.raises(WorkflowError, match="Export"):
        parse({"nodes": [{"id": 1}], "links": []}, folders)


def test_too_many_nodes(seed: dict, folders: Folders) -> None:
    many = {str(k): seed["9"] for k in range(2001)}
    with pytest.raises(WorkflowError, match="2001 nodes"):
        parse(many, folders)


def test_a_long_chain_needs_no_deep_stack(folders: Folders) -> None:
    graph: dict = {"0": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}}}
    for k in range(1, 1900):
        graph[str(k)] = {"class_type": "RepeatLatentBatch", "inputs": {"samples": [str(k - 1), 0], "amount": 1}}
    graph["4"] |= {}
    graph["v"] = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "LandscapeBING_v10.safetensors"}}
    graph["d"] = {"class_type": "VAEDecode", "inputs": {"samples": ["1899", 0], "vae": ["v", 2]}}
    graph["s"] = {"class_type": "SaveImage", "inputs": {"images": ["d", 0], "filename_prefix": "x"}}
    assert len(parse(graph, folders).order()) == 1903


@pytest.mark.parametrize(
    ("text", "hint"),
    [('{"a": False}', "JSON has false"), ('{"a": True}', "JSON has true"), ('{"a": None}', "JSON has null"), ("{", "Expecting"),
     (b"\xff", "utf-8"),
     ("[" * 100_000, "recursion"), ('{"a": NaN}', "NaN is no number"), ('{"a": [1e999]}', "too large"), ('{"a": -1e999}', "too large"),
     ("[" * 101 + "]" * 101, "100 levels")],
)  # fmt: skip
def test_what_is_no_json_is_answered_with_what_is_wrong(text: str | bytes, hint: str) -> None:
    with pytest.raises(WorkflowError, match=hint):
        read_json(text)


def test_a_hundred_levels_are_read() -> None:
    assert read_json('{"a":' + "[" * 98 + "1.5" + "]" * 98 + "}")["a"]


def test_errors_are_one_line_for_people(seed: dict, folders: Folders) -> None:
    seed["3"]["inputs"]["steps"] = 0
    seed["13"]["inputs"]["steps"] = 0
    with pytest.raises(WorkflowError) as caught:
        parse(seed, folders)
    assert str(caught.value) == "Prompt outputs failed validation: node 3 (KSampler): Value 0 smaller than min of 1: steps"
    seed["3"]["class_type"] = "KSample"
    with pytest.raises(WorkflowError) as caught:
        parse(seed, folders)
    assert str(caught.value) == "Cannot execute because node KSample does not exist. Node ID '#3'. Did you mean KSampler?"
