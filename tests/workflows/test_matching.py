from __future__ import annotations

import copy
import random
import string
from typing import Any

import pytest

from pipelines.parameters import Choice, Number, Switch
from workflows.declare import FileChoice
from workflows.matching import match
from workflows.nodes import catalog
from workflows.templates import Template, fill, find_template, templates

NODES = catalog()


def read_back(template: Template, graph: dict[str, Any]) -> dict[str, Any] | None:
    """The values with which `fill` makes this graph; None if it is another."""
    found = match(template, graph)
    return dict(found.values) if found and found.is_whole else None


def chance_value(template: Template, name: str, chance: random.Random) -> Any:
    """Anything that the field takes."""
    one = template.fields()[name]
    word = "".join(chance.choices(string.printable + "文字，", k=chance.randrange(12)))
    if one.replaces == "vae":
        return chance.choice(["", "soft.safetensors", "a/b.safetensors"])
    if one.replaces == "loras":
        names = chance.sample(["a.safetensors", "b:c.safetensors", "deep/d e.safetensors"], chance.randrange(4))
        return ", ".join(f"{name}:{chance.choice([1.0, -0.5, 1e-07, chance.uniform(-9, 9)])!r}" for name in names)
    if one.replaces == "metadata":
        return True  # a graph does not know
    node, place = one.inputs[0].split(".", 1)
    declared = NODES[template.workflow[node]["class_type"]].inputs[place]
    match declared.declaration:
        case Number(low=low, high=high):
            return chance.randint(int(low), int(high)) if declared.type == "INT" else chance.uniform(low, high)
        case Choice(names=names):
            return chance.choice(names)
        case Switch():
            return chance.random() < 0.5
        case FileChoice():
            return f"{word}.safetensors"
        case _:
            return word


def all_values(template: Template, seed: int) -> dict[str, Any]:
    chance = random.Random(seed)
    return {name: chance_value(template, name, chance) for name in template.fields()}


@pytest.mark.parametrize("name", templates())
@pytest.mark.parametrize("seed", range(40))
def test_what_was_filled_in_is_read_back(name: str, seed: int) -> None:
    template = find_template(name)
    values = all_values(template, seed)
    assert read_back(template, fill(template, values)) == values


@pytest.mark.parametrize("name", templates())
def test_what_was_left_open_is_read_back_as_it_was_settled(name: str) -> None:
    template = find_template(name)
    graph = fill(template, {}, is_draft=True)
    assert fill(template, read_back(template, graph)) == graph


@pytest.mark.parametrize("name", templates())
def test_numbers_and_order_of_nodes_do_not_matter(name: str) -> None:
    template = find_template(name)
    values = all_values(template, 99)
    graph = list(fill(template, values).items())
    random.Random(5).shuffle(graph)
    new = {i: str(number) for number, (i, _) in enumerate(graph, start=100)}
    moved = {
        new[i]: node | {"inputs": {k: [new[v[0]], v[1]] if isinstance(v, list) else v for k, v in node["inputs"].items()}}
        for i, node in graph
    }
    assert read_back(template, moved) == values


def changed(**changes: Any) -> dict[str, Any]:
    graph = fill(find_template("text_to_film"), {"seed": 1, "motion_seed": 2, "loras": "a:0.5, b"})
    for place, value in changes.items():
        node, name = place.lstrip("_").split("_", 1)
        graph[node]["inputs"][name] = value
    return graph


@pytest.mark.parametrize(
    "changes",
    [
        {"_20_strength_clip": 0.25}, {"_20_lora_name": "a, b.safetensors"}, {"_3_denoise": 0.5}, {"_19_filename_prefix": "another"},
        {"_19_save_metadata": False}, {"_3_positive": ["7", 0]}, {"_14_vae": ["4", 2]}, {"_5_batch_size": 2}, {"_3_seed": -1},
        {"_16_clip_vision": ["18", 2]}, {"_8_samples": ["99", 0]}, {"_8_samples": ["8", 0]}, {"_9_more": 1},
        {"_21_model": ["4", 0]}, {"_13_denoise": None}, {"_6_text": ["9", 0]},
    ],
)  # fmt: skip
def test_another_graph_is_not_the_template_filled(changes: dict[str, Any]) -> None:
    assert read_back(find_template("text_to_film"), changed(**changes)) is None


def test_what_is_no_graph_is_no_template() -> None:
    template = find_template("text_to_film")
    for graph in ({}, {"3": {}}, dict.fromkeys(template.workflow, 5), {i: {"class_type": []} for i in template.workflow}):
        assert match(template, graph) is None


def test_what_differs_is_named() -> None:
    graph = changed(_3_denoise=0.5, _19_filename_prefix="another", _19_save_metadata=False)
    graph["17"]["class_type"] = "VideoTriangleCFGGuidance"
    found = match(find_template("text_to_film"), graph)
    assert sorted(set(found.differing) - {place for place in found.differing if place[:2] in ("20", "21")}) == [
        "19.save_metadata",
        "3.denoise",
    ]
    assert "prefix" not in found.values
    assert found.values["steps"] == 20
    assert not found.is_whole


def test_many_ends_of_one_class_are_paired_by_their_numbers_and_soon_given_up() -> None:
    template = find_template("text_to_still")
    many = {f"p{number}": {"class_type": "PreviewImage", "inputs": {"images": ["8", 0]}} for number in range(60)}
    own = Template("many", {}, {}, (), {**template.workflow, **many})
    graph = copy.deepcopy(dict(own.workflow))
    assert match(own, graph).is_whole
    graph["p59"]["inputs"]["images"] = ["9", 0]
    assert match(own, graph) is None
