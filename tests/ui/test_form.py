"""The form is the template's declaration, drawn; what is typed becomes what the job API takes."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from api import films
from api.job_context import JobApi
from jobs.progress import Board
from jobs.store import JobStore
from ui.endpoints import Endpoints
from ui.form import FormState, draw_fields, given_values, label_of
from ui.page import make_page
from workflows.folders import Folders
from workflows.nodes import catalog
from workflows.templates import templates


def document(name: str, data_dir: Path, language: str = "en") -> dict[str, Any]:
    return films.document(templates()[name], catalog(), Folders(data_dir), language)


def drawn(name: str, data_dir: Path, **state: Any) -> dict[str, gr.components.Component]:
    async def draw() -> dict[str, gr.components.Component]:  # in a loop, or Blocks makes several and leaves them open
        with gr.Blocks():
            shown = FormState(template=name, **state)
            return draw_fields(document(name, data_dir, shown.language), shown, lambda prompt: None).fields

    return asyncio.run(draw())


@pytest.mark.parametrize("name", list(templates()))
def test_every_field_of_every_template_is_drawn_with_its_bounds_and_its_help(name: str, tmp_path: Path) -> None:
    fields = drawn(name, tmp_path)
    declared = {one["name"]: one for group in document(name, tmp_path)["groups"] for one in group["fields"]}
    assert fields.keys() == declared.keys()
    for key, one in declared.items():
        assert fields[key].info or not one["help"]
        if one["kind"] == "integer" and (one.get("max") or 10**9) <= 16384 and one["default"] is not None:
            assert f"({one['min']:g}–{one['max']:g})" in fields[key].info


def test_help_is_the_template_s_in_the_language_of_the_person(tmp_path: Path) -> None:
    assert drawn("text_to_film", tmp_path)["negative_prompt"].info == "What you do not want to see; empty is fine."
    for one in drawn("text_to_film", tmp_path, language="zh").values():
        assert any("\u4e00" <= letter <= "\u9fff" for letter in one.info)


def test_values_and_language_are_the_states(tmp_path: Path) -> None:
    fields = drawn("text_to_film", tmp_path, values={"frames": 25, "prompt": "a boat"}, language="zh")
    assert (fields["frames"].value, fields["prompt"].value) == (25, "a boat")
    assert fields["frames"].label == "帧数 · frames"
    assert fields["steps"].value == 20


def test_seeds_are_text_since_browsers_round_large_numbers(tmp_path: Path) -> None:
    fields = drawn("text_to_film", tmp_path, values={"seed": 18446744073709551615})
    assert fields["seed"].value == "18446744073709551615"
    assert given_values(document("text_to_film", tmp_path), ["seed"], ["18446744073709551615"]) == {"seed": 18446744073709551615}


def test_what_is_left_open_is_left_out_and_what_is_no_number_is_passed_on_to_be_refused(tmp_path: Path) -> None:
    names = ["prompt", "seed", "motion_seed", "still_width", "vae", "frames", "negative_prompt"]
    given = given_values(document("text_to_film", tmp_path), names, ["a", " ", "seven", "", "", None, ""])
    assert given == {"prompt": "a", "motion_seed": "seven"}


def test_values_of_another_template_are_left_out_and_an_open_seed_of_an_opened_workflow_is_said(tmp_path: Path) -> None:
    form = document("text_to_still", tmp_path)
    assert given_values(form, ["motion_bucket_id", "prompt", "seed"], [90, "a", ""]) == {"prompt": "a"}
    assert given_values(form, ["prompt", "seed"], ["a", ""], is_own=True) == {"prompt": "a", "seed": ""}
    assert given_values(form, ["seed"], ["--5"]) == {"seed": "--5"}
    assert given_values(form, ["prompt"], [""]) == {"prompt": ""}  # cleared, where the template has one


@pytest.mark.parametrize("value", ["abc", {"a": 1}, 1e300, 2**70, [1]])
def test_what_an_opened_workflow_holds_is_drawn_whatever_it_is(value: Any, tmp_path: Path) -> None:
    fields = drawn("text_to_film", tmp_path, values={"steps": value, "guidance": value, "checkpoint": value, "prompt": value})
    assert fields["steps"].value == str(value)


@pytest.mark.parametrize("name", list(templates()))
def test_metadata_is_a_switch_among_the_fields_of_the_file(name: str, tmp_path: Path) -> None:
    assert drawn(name, tmp_path)["metadata"].value is True
    assert drawn(name, tmp_path, values={"metadata": False})["metadata"].value is False
    assert given_values(document(name, tmp_path), ["metadata"], [False]) == {"metadata": False}
    assert document(name, tmp_path)["groups"][-1]["fields"][-1]["name"] == "metadata"


def test_a_model_that_is_gone_stays_visible_in_its_field(tmp_path: Path) -> None:
    field = drawn("text_to_film", tmp_path, values={"checkpoint": "gone.safetensors"})["checkpoint"]
    assert field.value == "gone.safetensors"
    assert "gone.safetensors" in [value for _, value in field.choices]


def test_labels_name_what_experts_know_beside_the_plain_words() -> None:
    assert label_of({"name": "motion_bucket_id", "title": {"en": "Movement"}}, "en") == "Movement · motion_bucket_id"
    assert label_of({"name": "steps", "title": {"en": "Steps"}}, "en") == "Steps"
    assert label_of({"name": "x", "title": {"fr": "Pas"}}, "en") == "Pas · x"


def test_gradio_remembers_some_hundred_sessions_only(tmp_path: Path) -> None:
    with closing(JobStore(tmp_path / "jobs.sqlite")) as store:
        api = JobApi(store, Board(), catalog(), tmp_path)

        async def make() -> gr.Blocks:  # in a loop, as above
            return make_page(api, Endpoints(api))

        page = asyncio.run(make())
    assert (page.state_session_capacity, page._queue.max_thread_count) == (300, 1000)
