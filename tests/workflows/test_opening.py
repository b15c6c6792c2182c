from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.metadata import read_settings
from workflows.folders import Folders
from workflows.graph import Workflow, WorkflowError
from workflows.nodes import catalog
from workflows.opening import Opened, exact_text, open_workflow
from workflows.templates import FOLDER, fill, find_template, templates

DATA = Path(__file__).parents[1] / "data"
VENDOR = [DATA / "comfyui" / "two_stage.json", DATA / "workflows" / "two_stage_zh.json"]
UPSCALED = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "cat.png"}},
    "2": {"class_type": "ImageScaleBy", "inputs": {"image": ["1", 0], "upscale_method": "lanczos", "scale_by": "2"}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "big"}, "_meta": {"title": "The large one"}},
}


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    (tmp_path / "input").mkdir()
    for name in ("still.png", "film.mp4", "cat.png"):
        (tmp_path / "input" / name).touch()
    return Folders(tmp_path)


def opened(document: Any, folders: Folders, prefer: str = "") -> Opened:
    return open_workflow(document, catalog(), folders, prefer)


def shown(found: Opened) -> dict[str, list[str]]:
    return {group.title["en"]: [one.name for one in group.fields] for group in found.template.groups}


@pytest.mark.parametrize("name", templates())
def test_a_template_that_was_filled_is_that_template_again(name: str, folders: Folders) -> None:
    template = find_template(name)
    graph = fill(template, {})
    found = opened(graph, folders)
    assert (found.template, found.is_ours, found.missing, found.notes) == (template, True, (), ())
    assert fill(template, found.values) == graph


@pytest.mark.parametrize("path", VENDOR, ids=lambda path: path.stem)
def test_the_vendor_s_workflow_has_the_form_of_a_film_and_keeps_all_its_values(path: Path, folders: Folders) -> None:
    document = json.loads(path.read_text("utf-8"))
    found = opened(document, folders)
    assert (found.is_ours, found.like) == (False, "text_to_film")
    assert {**found.values, "seed": 367490676387803, "frames": 35, "prefix": "ComfyUI", "filename_prefix_19": "comfyUI"} == found.values
    assert fill(found.template, found.values) == document
    assert [(one.kind, one.name, one.folder) for one in found.missing] == [
        ("model", "LandscapeBING_v10.safetensors", "models/checkpoints"),
        ("model", "svd_xt_image_decoder.safetensors", "models/checkpoints"),
    ]
    assert any("35 frames are more than the 25" in note for note in found.notes)


@pytest.mark.parametrize("name", ["image.png", "video.mp4", "video.webp"])
def test_files_of_comfyui_open_as_what_they_carry(name: str, folders: Folders) -> None:
    settings = read_settings(DATA / "comfyui" / name)
    found = opened(settings, folders)
    assert found.values
    assert fill(found.template, found.values) == found.workflow


@pytest.mark.parametrize("change", [{}, {"denoise": 0.9}])
def test_what_follows_another_value_goes_on_to_follow_it(change: dict[str, Any], folders: Folders) -> None:
    graph = fill(find_template("text_to_film"), {"width": 256, "still_height": 512, "seed": 1, "motion_seed": 2})
    graph["3"]["inputs"] |= change
    found = opened(graph, folders)
    assert "still_width" not in found.values
    assert found.values["still_height"] == 512
    assert fill(found.template, found.values) == graph
    larger = fill(found.template, {**found.values, "width": 320, "height": 320})
    assert (larger["5"]["inputs"]["width"], larger["5"]["inputs"]["height"]) == (320, 512)


def test_a_film_with_another_curve_of_guidance_keeps_it(folders: Folders) -> None:
    graph = fill(find_template("text_to_film"), {"seed": 1, "motion_seed": 2})
    graph["17"]["class_type"] = "VideoTriangleCFGGuidance"
    graph["19"]["inputs"]["save_metadata"] = False
    found = opened(graph, folders)
    assert (found.is_ours, found.like) == (False, "text_to_film")
    assert found.values["save_metadata_19"] is False
    made = fill(found.template, found.values | {"prompt": "a cat", "vae": "soft.safetensors", "loras": "a"})
    assert (made["17"]["class_type"], made["6"]["inputs"]["text"]) == ("VideoTriangleCFGGuidance", "a cat")
    assert (made["8"]["inputs"]["vae"], made["3"]["inputs"]["model"]) == (["10", 0], ["20", 0])


def test_a_lora_of_two_strengths_is_shown_beside_the_template(folders: Folders) -> None:
    graph = fill(find_template("text_to_still"), {"loras": "a:0.5, b", "seed": 1})
    graph["3"]["inputs"]["denoise"] = 0.9
    found = opened(graph, folders)
    assert found.like == "text_to_still"
    assert {"lora_name_20", "strength_model_21", "denoise_3"} <= found.values.keys()
    assert fill(found.template, found.values) == graph
    graph["20"]["inputs"]["strength_clip"] = 0.25
    found = opened(graph, folders)
    assert (found.like, found.values["strength_clip_20"]) == ("", 0.25)
    assert fill(found.template, found.values) == graph


def test_a_workflow_of_ones_own_has_a_form_of_its_own(folders: Folders) -> None:
    found = opened(UPSCALED, folders)
    assert (found.is_ours, found.like, found.missing, found.notes) == (False, "", (), ())
    assert shown(found) == {
        "Load Image": ["image_1"], "Upscale Image By": ["upscale_method_2", "scale_by_2"], "The large one": ["filename_prefix_3"],
        "File": ["metadata"],
    }  # fmt: skip
    assert found.values["scale_by_2"] == 2.0
    assert Workflow.parse(fill(found.template, found.values), catalog(), folders).targets == ("3",)
    fields = found.template.fields()
    assert (fields["image_1"].main, fields["filename_prefix_3"].advanced) == (True, True)
    assert fields["scale_by_2"].title == {"en": "Factor", "zh": "倍数"}


def test_prompts_come_first_and_are_told_apart(folders: Folders) -> None:
    graph = fill(find_template("text_to_still"), {"seed": 1})
    del graph["9"]
    graph["30"] = {"class_type": "PreviewImage", "inputs": {"images": ["8", 0]}}
    fields = opened(graph, folders).template.fields()
    assert list(fields)[:2] == ["text_6", "text_7"]
    assert (fields["text_6"].title["en"], fields["text_7"].title["en"]) == ("What it shows", "What it should not show")
    assert (fields["text_6"].main, fields["text_7"].main, fields["seed_3"].seed) == (True, False, True)


def test_an_open_seed_of_a_form_of_its_own_is_drawn(folders: Folders) -> None:
    graph = fill(find_template("text_to_still"), {"seed": 1}) | UPSCALED_MORE
    found = opened(graph, folders)
    assert found.values["seed_3"] == 1
    drawn = fill(found.template, found.values | {"seed_3": ""})["3"]["inputs"]["seed"]
    assert isinstance(drawn, int)
    assert drawn != 1


UPSCALED_MORE = {f"u{i}": {"class_type": node["class_type"], "inputs": {}} for i, node in UPSCALED.items() if i == "1"}


def test_the_template_of_the_job_is_taken_if_several_fit(folders: Folders) -> None:
    (folders.data_dir / "templates").mkdir()
    (folders.data_dir / "templates" / "mine.json").write_bytes((FOLDER / "text_to_film.json").read_bytes())
    graph = fill(find_template("text_to_film"), {})
    assert opened(graph, folders).template.id == "text_to_film"
    assert opened(graph, folders, prefer="mine").template.id == "mine"


def test_one_still_is_one_and_four_are_to_choose_from(folders: Folders) -> None:
    several = find_template("stills_to_choose")
    assert opened(fill(several, {"count": 4}), folders).template.id == "stills_to_choose"
    assert opened(fill(several, {"count": 1}), folders).template.id == "text_to_still"
    assert opened(fill(several, {"count": 1}), folders, prefer="stills_to_choose").template.id == "stills_to_choose"


def test_values_that_mean_something_else_here_are_told(folders: Folders) -> None:
    graph = fill(find_template("text_to_film"), {"seed": "5", "motion_seed": 2})
    graph["3"]["inputs"]["steps"] = 20.7
    graph["15"]["inputs"]["lossless"] = "false"
    found = opened(graph, folders)
    assert found.notes == ("Node 3: steps was 20.7 and is 20 here.", "Node 15: lossless was 'false' and is False here.")
    assert (found.values["seed"], found.is_ours) == (5, True)


def test_an_unknown_node_stays_in_the_workflow(folders: Folders) -> None:
    graph = UPSCALED | {"4": {"class_type": "Sharpen", "inputs": {"image": ["2", 0], "by": 3}}, "5": 7, "6": {"class_type": "SaveImage"}}
    found = opened(graph, folders)
    assert {one.name for one in found.missing if one.kind == "node"} == {"Sharpen", ""}
    assert found.workflow["4"] == graph["4"]
    assert found.workflow["5"] == 7
    assert found.template.fields().keys() == {"image_1", "upscale_method_2", "scale_by_2", "filename_prefix_3", "metadata"}


@pytest.mark.parametrize("wrap", [lambda g: {"prompt": g}, lambda g: {"workflow": g}, lambda g: {"prompt": g, "workflow": {"nodes": []}},
                                  lambda g: {"client_id": "x", "prompt": g, "extra_data": {}}])  # fmt: skip
def test_a_workflow_may_be_wrapped(wrap: Any, folders: Folders) -> None:
    assert opened(wrap(UPSCALED), folders).values["image_1"] == "cat.png"


@pytest.mark.parametrize(
    "document",
    [{}, [], 5, None, "x", {"a": 1}, {"prompt": None}, {"prompt": {}}, {"prompt": "a cat", "steps": 3}, {"nodes": []},
     {"workflow": {"workflow": {"workflow": {"workflow": UPSCALED}}}}, {"a": {"class_type": 5}}, {"a": float("inf")},
     {str(i): {"class_type": "SaveImage", "inputs": {}} for i in range(3000)}],
)  # fmt: skip
def test_what_is_no_workflow_is_said_to_be_none(document: Any, folders: Folders) -> None:
    with pytest.raises(WorkflowError):
        opened(document, folders)


def test_browsers_get_seeds_as_text_and_values_are_not_rounded(folders: Folders) -> None:
    graph = fill(find_template("text_to_film"), {"seed": 2**64 - 1, "motion_seed": 7})
    found = opened(graph, folders)
    assert (found.exact_values()["seed"], found.exact_values()["motion_seed"]) == (str(2**64 - 1), "7")
    text = json.loads(json.dumps(exact_text(found.workflow)), parse_int=lambda digits: int(float(digits)))  # as JavaScript reads it
    assert (text["3"]["inputs"]["seed"], text["13"]["inputs"]["seed"]) == (str(2**64 - 1), "7")
    assert opened(text, folders).values == found.values
