from __future__ import annotations

import ast
import json
from typing import Any

import pytest

from errors import UnknownNameError
from workflows.exporting import FORMS, Order, export, order_of
from workflows.templates import fill, find_template, templates

SERVER = "http://127.0.0.1:8000/films"


@pytest.mark.parametrize("name", templates())
def test_a_template_that_was_filled_is_asked_for_by_its_fields(name: str) -> None:
    template = find_template(name)
    graph = fill(template, {"frame_rate": 12} if "frame_rate" in template.fields() else {"steps": 3})
    order = order_of(graph, templates(), name)
    assert (order.path, order.body["template"]) == ("/api/films", name)
    assert fill(template, {name: value for name, value in order.body.items() if name != "template"}) == graph
    assert len(order.body) < 8
    assert order.values.keys() == template.fields().keys()


def test_a_default_that_counts_is_said() -> None:
    graph = fill(find_template("text_to_film"), {"width": 256, "still_width": 192})
    assert order_of(graph, templates()).body["still_width"] == 192


@pytest.mark.parametrize("change", [{"denoise": 0.5}, {"more": 1}])
def test_anything_else_is_asked_for_by_its_workflow(change: dict[str, Any]) -> None:
    graph = fill(find_template("text_to_film"), {})
    graph["3"]["inputs"] |= change
    assert order_of(graph, templates()) == Order("/api/jobs", {"workflow": graph})
    renamed = {"4": {"class_type": "A", "inputs": {}}}
    assert order_of(renamed, templates()).path == "/api/jobs"


def test_a_workflow_that_may_say_nothing_is_no_template_that_must() -> None:
    graph = fill(find_template("text_to_film"), {"prompt": ""})
    assert order_of(graph, templates()) == Order("/api/jobs", {"workflow": graph})


def test_other_numbers_of_nodes_are_kept() -> None:
    graph = fill(find_template("text_to_still"), {})
    graph["90"] = graph.pop("9")
    assert order_of(graph, templates()).path == "/api/jobs"


def test_comfyui_and_the_settings_have_the_whole_workflow() -> None:
    graph = fill(find_template("text_to_still"), {"prompt": "一只猫", "seed": 2**64 - 1})
    order = order_of(graph, templates())
    comfy, settings = (export(form, graph, order, SERVER, "cat") for form in ("comfy", "settings"))
    assert json.loads(comfy.text) == graph
    assert "一只猫" in comfy.text
    assert (comfy.filename, comfy.media_type) == ("cat.json", "application/json")
    document = json.loads(settings.text)
    assert (document["prompt"], document["template"], document["values"]["steps"]) == (graph, "text_to_still", 20)
    other = json.loads(export("settings", graph, Order("/api/jobs", {"workflow": graph}), SERVER).text)
    assert other == {"prompt": graph}


@pytest.mark.parametrize("text", ['it\'s "so" $HOME `ls`\n\\JSON\nJSON\n', "<BODY> <PATH>", "\ud800", "'''\n\"\"\"", "\0"])
def test_scripts_hold_any_text(text: str) -> None:
    order = Order("/api/films", {"template": "text_to_film", "prompt": text, "seed": 2**64 - 1, "pingpong": True})
    script = export("python", {}, order, SERVER)
    named = {one.targets[0].id: ast.literal_eval(one.value) for one in ast.parse(script.text).body[:12] if isinstance(one, ast.Assign)}
    assert named == {"SERVER": SERVER, "PATH": "/api/films", "BODY": dict(order.body)}
    curl = export("curl", {}, order, SERVER).text
    head, body = curl.split("<<'JSON'\n")
    assert json.loads(body.removesuffix("\nJSON\n")) == order.body
    assert body.split("\n").count("JSON") == 1
    assert head.startswith("curl -sS --fail-with-body http://127.0.0.1:8000/films/api/films \\\n")
    assert '"Authorization: Bearer $STILLMOTION_TOKEN"' in head
    curl.encode()


def test_an_unknown_form_is_answered_with_those_there_are() -> None:
    with pytest.raises(UnknownNameError, match=", ".join(FORMS)):
        export("perl", {}, Order("", {}), SERVER)
