from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from workflows.editor_graph import from_editor
from workflows.graph import WorkflowError
from workflows.nodes import catalog

API = json.loads((Path(__file__).parents[1] / "data" / "workflows" / "two_stage_zh.json").read_text("utf-8"))
NODES = catalog()


class Editor:
    """Draws as ComfyUI's editor saves: values without names, a word after each seed."""

    def __init__(self, graph: dict[str, Any]) -> None:
        self.links: list[list[Any]] = []
        self.nodes = [self._node(i, node) for i, node in graph.items()]
        for i, node in graph.items():
            for name, value in node["inputs"].items():
                if isinstance(value, list):
                    self.link(int(value[0]), value[1], int(i), name)

    def _node(self, i: str, node: dict[str, Any]) -> dict[str, Any]:
        declared = NODES[node["class_type"]]
        values: list[Any] = []
        for one in declared.inputs.values():
            if one.declaration and not one.is_extra:
                values.append(node["inputs"][one.name])
                values += ["randomize"] if one.name == "seed" else []
        return {
            "id": int(i), "type": node["class_type"], "mode": 0, "title": node["_meta"]["title"],
            "inputs": [{"name": one.name, "type": one.type, "link": None} for one in declared.inputs.values() if not one.declaration],
            "outputs": [{"name": name, "type": name} for name in declared.outputs],
            "widgets_values": {k: v for k, v in node["inputs"].items() if k != "images"} if "VHS" in node["class_type"] else values,
        }  # fmt: skip

    def box(self, i: int) -> dict[str, Any]:
        return next(one for one in self.nodes if one["id"] == i)

    def add(self, i: int, type: str, kind: str, values: list[Any] | None = None, **more: Any) -> None:
        box = {"id": i, "type": type, "inputs": [{"name": "", "type": kind, "link": None}], "outputs": [{"name": "", "type": kind}]}
        self.nodes.append(box | {"widgets_values": values} | more)

    def link(self, source: int, slot: int, target: int, name: str) -> None:
        inputs = self.box(target)["inputs"]
        if not any(one["name"] == name for one in inputs):
            inputs.append({"name": name, "type": "*", "widget": {"name": name}})
        place = next(number for number, one in enumerate(inputs) if one["name"] == name)
        self.links.append([len(self.links) + 1, source, slot, target, place, self.box(source)["outputs"][slot]["type"]])
        inputs[place]["link"] = len(self.links)

    def converted(self) -> tuple[dict[str, Any], list[str]]:
        return from_editor({"nodes": self.nodes, "links": self.links, "version": 0.4}, NODES)


def test_the_vendor_s_workflow_comes_out_of_the_editor_as_it_was_exported() -> None:
    graph, notes = Editor(API).converted()
    assert graph == API
    assert notes == []


def test_links_may_be_objects() -> None:
    editor = Editor(API)
    names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    links = [dict(zip(names, link, strict=True)) for link in editor.links]
    assert from_editor({"nodes": editor.nodes, "links": links}, NODES)[0] == API


def test_reroutes_and_named_ways_are_followed() -> None:
    editor = Editor(API)
    editor.add(30, "Reroute", "IMAGE")
    editor.add(31, "SetNode", "IMAGE", ["still"])
    editor.add(32, "GetNode", "IMAGE", ["still"])
    editor.add(33, "Note", "", ["hello"])
    editor.link(8, 0, 30, "")
    editor.link(30, 0, 31, "")
    editor.link(32, 0, 9, "images")
    assert editor.converted() == (API, [])


def test_a_primitive_is_the_value_of_what_it_is_linked_to() -> None:
    editor = Editor(API)
    editor.add(30, "PrimitiveNode", "INT", [77, "fixed"])
    editor.link(30, 0, 3, "seed")
    assert editor.converted()[0]["3"]["inputs"]["seed"] == 77


def test_a_muted_node_is_left_out_and_that_is_said() -> None:
    editor = Editor(API)
    editor.box(15)["mode"] = 2
    editor.box(7)["mode"] = 2
    graph, notes = editor.converted()
    assert graph.keys() == API.keys() - {"15", "7"}
    assert "negative" not in graph["3"]["inputs"]
    assert any("'negative' is muted or missing" in note for note in notes)
    assert any(note.startswith("Node 15") and "left out" in note for note in notes)


def test_a_bypassed_node_lets_through_what_is_of_its_kind() -> None:
    editor = Editor(API)
    editor.box(17)["mode"] = 4
    graph, notes = editor.converted()
    assert graph["13"]["inputs"]["model"] == ["18", 0]
    assert len(notes) == 1
    editor.box(14)["mode"] = 4  # latents are no pictures
    assert "images" not in editor.converted()[0]["15"]["inputs"]


def test_values_of_an_unknown_node_have_names_if_the_editor_wrote_them() -> None:
    editor = Editor(API)
    editor.add(40, "Sharpen", "IMAGE", [0.5, 7, "fixed", "soft"])
    box = editor.box(40)
    box["inputs"] = [{"name": name, "type": "X", "widget": {"name": name}, "link": None} for name in ("by", "seed", "how")]
    graph, notes = editor.converted()
    assert graph["40"]["inputs"] == {"by": 0.5, "seed": 7, "how": "soft"}
    assert notes == []
    box["inputs"] = []
    graph, notes = editor.converted()
    assert graph["40"]["inputs"] == {}
    assert notes[0].startswith("Node 40 (Sharpen): its 4 values have no names here")


def test_values_beyond_those_that_are_known_are_told() -> None:
    editor = Editor(API)
    editor.box(5)["widgets_values"] += ["more"]
    graph, notes = editor.converted()
    assert graph == API
    assert "of which 3 are known; left out: ['more']" in notes[0]


def test_a_group_of_nodes_in_one_has_to_be_unpacked() -> None:
    editor = Editor(API)
    editor.add(50, "a-b-c", "IMAGE")
    definitions = {"subgraphs": [{"id": "a-b-c", "name": "My upscaler"}]}
    _, notes = from_editor({"nodes": editor.nodes, "links": editor.links, "definitions": definitions}, NODES)
    assert any("'My upscaler'. Unpack it in ComfyUI" in note for note in notes)


def test_a_circle_of_reroutes_leads_nowhere() -> None:
    editor = Editor(API)
    editor.add(30, "Reroute", "IMAGE")
    editor.add(31, "Reroute", "IMAGE")
    editor.link(30, 0, 31, "")
    editor.link(31, 0, 30, "")
    editor.link(31, 0, 9, "images")
    graph, notes = editor.converted()
    assert "images" not in graph["9"]["inputs"]
    assert len(notes) == 1


@pytest.mark.parametrize(
    "document",
    [
        {"nodes": [5]}, {"nodes": [{}]}, {"nodes": [{"id": 1, "type": "X", "mode": "loud"}]}, {"nodes": [], "links": []},
        {"nodes": [{"id": 1, "type": "X", "inputs": [{"name": "a", "link": [1]}]}]}, {"nodes": [{"id": 1, "type": "X"}], "links": [[1]]},
        {"nodes": [{"id": 1, "type": "X"}], "links": 5}, {"nodes": [{"id": 1, "type": "X"}], "definitions": []},
        {"nodes": [{"id": 1, "type": "Note"}]}, {"nodes": [{"id": 1, "type": "X", "outputs": [5]}]}, {"nodes": [{}] * 3000},
        {"nodes": [{"id": 1, "type": "X"}], "definitions": [1]},
    ],
)  # fmt: skip
def test_what_is_damaged_is_said_to_be(document: dict[str, Any]) -> None:
    if document.get("definitions") == []:
        assert from_editor(document, NODES)[0]
    else:
        with pytest.raises(WorkflowError):
            from_editor(document, NODES)
