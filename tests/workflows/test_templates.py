from __future__ import annotations

import json
from pathlib import Path

import pytest

from errors import InputError, UnknownNameError, UnreadableFileError
from workflows.advice import advice, title_of
from workflows.folders import Folders
from workflows.graph import Workflow
from workflows.nodes import catalog
from workflows.templates import (
    FOLDER,
    TAKEN,
    WITHOUT_METADATA,
    Template,
    Unsaid,
    all_templates,
    check_given,
    check_said,
    extra_of,
    fill,
    find_template,
    read_templates,
    templates,
)
from workflows.workload import workload

OFF = {WITHOUT_METADATA: True}


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    (tmp_path / "input").mkdir()
    for name in ("still.png", "film.mp4"):
        (tmp_path / "input" / name).touch()
    return Folders(tmp_path)


def parsed(graph: dict, folders: Folders) -> Workflow:
    workflow = Workflow.parse(graph, catalog(), folders)
    assert workflow.node_errors == {}
    return workflow


@pytest.mark.parametrize("name", templates())
@pytest.mark.parametrize("is_draft", [False, True])
def test_every_template_is_a_sound_workflow(name: str, is_draft: bool, folders: Folders) -> None:
    template = find_template(name)
    workflow = parsed(fill(template, {}, is_draft=is_draft), folders)
    assert workflow.targets
    assert advice(workflow, folders) == []


@pytest.mark.parametrize("name", templates())
def test_every_field_has_two_titles_and_inputs_that_are_there(name: str) -> None:
    template = find_template(name)
    for one in template.fields().values():
        assert set(one.title) == set(one.help) == {"en", "zh"}
        assert len(one.help["en"]) <= 90  # two lines on a phone
        assert one.inputs or one.replaces
    assert set(template.title) == set(template.description) == {"en", "zh"}
    assert template.draft.keys() | template.follows.keys() <= template.fields().keys()
    assert template.defaults().keys() == template.fields().keys()


@pytest.mark.parametrize(
    ("name", "field"), [("text_to_film", "prompt"), ("text_to_still", "prompt"), ("stills_to_choose", "prompt"), ("still_to_film", "image")]
)
def test_what_a_template_is_about_has_to_be_said(name: str, field: str) -> None:
    template = find_template(name)
    check_said(template, fill(template, {}))
    for empty in ("", " \n"):
        with pytest.raises(Unsaid, match=f"{field} is empty") as caught:
            check_said(template, fill(template, {field: empty}))
        assert caught.value.fields == {field: caught.value.hint}
    with pytest.raises(Unsaid, match=f"{field} is missing"):
        check_given(template, {"frames": 7})
    assert set(template.fields()[field].required) == {"en", "zh"}


def test_values_go_where_they_belong_and_followers_follow(folders: Folders) -> None:
    graph = fill(
        find_template("text_to_film"), {"prompt": "a cat", "width": 256, "height": 128, "frame_rate": 12, "seed": "18446744073709551615"}
    )
    workflow = parsed(graph, folders)
    assert graph["6"]["inputs"]["text"] == "a cat"
    assert (graph["5"]["inputs"]["width"], graph["16"]["inputs"]["width"]) == (256, 256)
    assert (graph["15"]["inputs"]["fps"], graph["19"]["inputs"]["frame_rate"]) == (12, 12)
    assert workflow.nodes["3"].inputs["seed"] == 2**64 - 1
    assert title_of(workflow) == "a cat"


def test_open_seeds_are_drawn_anew_each_time() -> None:
    template = find_template("text_to_film")
    seeds = {fill(template, {"seed": value})["3"]["inputs"]["seed"] for value in (None, "", "random", -1, "-1")}
    assert len(seeds) == 5
    assert fill(template, {"seed": 0})["3"]["inputs"]["seed"] == 0
    assert fill(template, {})["13"]["inputs"]["seed"] != fill(template, {})["13"]["inputs"]["seed"]


def test_filling_leaves_the_template_as_it_was() -> None:
    template = find_template("text_to_film")
    before = json.dumps(template.workflow)
    fill(template, {"prompt": "x", "loras": "a,b", "vae": "v"})
    assert json.dumps(template.workflow) == before


def test_a_draft_is_small_and_what_is_given_counts_more() -> None:
    template = find_template("text_to_film")
    assert fill(template, {}, is_draft=True)["3"]["inputs"]["steps"] < template.workflow["3"]["inputs"]["steps"]
    assert fill(template, {"steps": 33}, is_draft=True)["3"]["inputs"]["steps"] == 33


def test_unknown_names_are_answered_with_those_there_are() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'steps'"):
        fill(find_template("text_to_film"), {"step": 3})
    with pytest.raises(UnknownNameError, match="text_to_film"):
        find_template("text_to_fil")


@pytest.mark.parametrize(
    "change",
    [
        {"title": "text"}, {"title": {"en": 5}}, {"order": "first"}, {"draft": {"nothing": 1}}, {"draft": []}, {"follows": {"width": "x"}},
        {"workflow": {}}, {"workflow": []}, {"groups": [{"title": {}, "fields": [{"name": 5, "inputs": [], "title": {}}]}]},
        {"groups": [{"title": {}, "fields": [{"name": "a", "inputs": ["6"], "title": {}}]}]}, {"groups": 5}, {"colour": "red"},
    ],
)  # fmt: skip
def test_ones_own_templates_count_and_one_that_is_damaged_hides_no_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: dict
) -> None:
    own = tmp_path / "templates"
    own.mkdir()
    document = json.loads((FOLDER / "text_to_film.json").read_text("utf-8"))
    (own / "bad.json").write_text(json.dumps(document | change))
    (own / "worse.json").write_text('{"a": 1e999')
    (own / "mine.json").write_text(json.dumps(document))
    assert all_templates(tmp_path).keys() - templates().keys() == {"mine"}
    assert find_template("mine", tmp_path).id == "mine"
    assert "bad.json" in caplog.text
    assert "worse.json" in caplog.text
    with pytest.raises(UnknownNameError, match=r"text_to_film, .*mine"):
        find_template("bad", tmp_path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"groups": 5}', '{"groups": [], "title": {}, "description": {}, "workflow": {}, "x": 1}']
)
def test_a_file_that_is_no_template_is_said_to_be_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.json").write_text(text)
    with pytest.raises(UnreadableFileError, match=r"mine\.json is no template"):
        read_templates(tmp_path)


def work_of(template: Template, folders: Folders, **values: object) -> list[str]:
    return [str(one) for one in workload(parsed(fill(template, values), folders), folders)]


def test_the_work_is_told_from_the_nodes(folders: Folders) -> None:
    assert work_of(find_template("text_to_film"), folders) == ["still:20x192x192x1", "motion:16x192x192x14"]
    assert work_of(find_template("stills_to_choose"), folders, count=3, width=64) == ["still:20x64x192x3"]
    assert work_of(find_template("text_to_film"), folders, loras="") == ["still:20x192x192x1", "motion:16x192x192x14"]


def test_advice_is_given_and_nothing_refused(folders: Folders) -> None:
    values = {"frames": 35, "augmentation_level": 0.15, "fps": 15, "frame_rate": 7}
    said = " ".join(advice(parsed(fill(find_template("text_to_film"), values), folders), folders))
    assert "35 frames are more than the 25" in said
    assert "augmentation level of 0.15" in said
    assert "made for 15 frames a second and played at 7" in said


@pytest.mark.parametrize(
    ("name", "values", "nodes"),
    [("text_to_film", {"width": 100}, ["3"]), ("text_to_film", {"width": 100, "still_width": 99}, ["3", "13"]),
     ("text_to_still", {"width": 100}, ["3"]), ("still_to_film", {"width": 100}, ["13"])],
)  # fmt: skip
def test_a_size_that_becomes_another_is_said_once(name: str, values: dict[str, int], nodes: list[str], folders: Folders) -> None:
    said = advice(parsed(fill(find_template(name), values), folders), folders)
    assert [line.split(":")[0] for line in said] == [f"Node {i}" for i in nodes]
    assert all(line.endswith("pixels become 96x192: both sides are multiples of 8.") for line in said)


@pytest.mark.parametrize("name", ["template", "workflow", "title", "tags", "webhook", "front", "draft"])
def test_a_field_cannot_be_called_what_requests_have_already(tmp_path: Path, name: str) -> None:
    document = json.loads((FOLDER / "text_to_film.json").read_text("utf-8"))
    document["groups"][0]["fields"].append({"name": name, "inputs": ["3.steps"], "title": {"en": "x", "zh": "x"}})
    (tmp_path / "mine.json").write_text(json.dumps(document))
    with pytest.raises(UnreadableFileError, match=f"cannot be called '{name}'"):
        read_templates(tmp_path)


def test_metadata_is_said_of_the_job_and_of_no_node(tmp_path: Path) -> None:
    for template in templates().values():
        assert fill(template, {"metadata": False, **seeded(template)}) == fill(template, seeded(template))
        assert (extra_of(template, {"metadata": False}), extra_of(template, {"metadata": True}), extra_of(template, {})) == (OFF, {}, {})
        assert template.defaults()["metadata"] is True
    assert (extra_of(template, {"metadata": "off"}), extra_of(template, {"metadata": "True"})) == (OFF, {})  # of tables
    with pytest.raises(InputError, match="metadata is 'perhaps'"):
        extra_of(template, {"metadata": "perhaps"})
    document = json.loads((FOLDER / "text_to_film.json").read_text("utf-8"))
    document["groups"][-1]["fields"][-1]["name"] = "settings"
    (tmp_path / "mine.json").write_text(json.dumps(document))
    with pytest.raises(UnreadableFileError, match="must be called 'metadata'"):
        read_templates(tmp_path)


def seeded(template: Template) -> dict[str, int]:
    return {name: 1 for name, one in template.fields().items() if one.seed}


def test_all_that_requests_have_is_taken() -> None:
    from api.job_models import ExportRequest

    assert {one.alias or name for name, one in ExportRequest.model_fields.items()} == TAKEN
