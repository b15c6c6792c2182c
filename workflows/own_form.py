"""A form for a workflow that is none of our templates: what its nodes have written in them, first what a person knows.

`own_form` draws it from the nodes' declarations. `adapted` keeps the form of a template where a workflow has its nodes and links, but
also values that the template's fields cannot say.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from workflows.declare import Catalog, Input
from workflows.graph import is_link
from workflows.matching import Match, inputs_of, links_of
from workflows.seeds import SEEDS
from workflows.templates import Field, Graph, Group, Template, find_template, templates
from workflows.texts import LANGUAGES, say

_TITLE = {"en": "Your workflow", "zh": "你的工作流"}
_ABOUT = {"en": "A workflow as it was opened; all its values can be changed here.", "zh": "已打开的工作流，可在此修改其中的所有参数。"}
_MORE = {"en": "Others", "zh": "其他"}
_FIRST = (
    ("CLIPTextEncode",), ("LoadImage", "LoadVideo"), ("KSampler", "KSamplerAdvanced"), ("EmptyLatentImage", "SVD_img2vid_Conditioning"),
    ("VideoLinearCFGGuidance", "VideoTriangleCFGGuidance", "StillmotionReuse"), ("CheckpointLoaderSimple", "ImageOnlyCheckpointLoader"),
    ("LoraLoader", "LoraLoaderModelOnly", "VAELoader"),
)  # fmt: skip
_SAVING = len(_FIRST) + 1  # after all that is not named
_PROMPTS = {"positive": {"en": "What it shows", "zh": "画面内容"}, "negative": {"en": "What it should not show", "zh": "不想出现的内容"}}


def own_form(graph: Graph, catalog: Catalog) -> Template:
    """Nodes that are not known are not shown; they stay in the workflow."""
    roles, names = _roles(graph), set()
    groups = []
    for i in sorted(graph, key=lambda i: _rank(graph[i], catalog, roles.get(i, ""))):
        fields = tuple(_fields(i, graph[i], _literals(i, graph, catalog), roles.get(i, ""), names))
        if fields:
            groups.append(Group(_group_title(graph[i], catalog), fields))
    return Template("", _TITLE, _ABOUT, (*groups, *_of_job()), graph)


def adapted(found: Match, graph: Graph, catalog: Catalog) -> Template:
    """The template's groups on this graph. A field whose inputs have several values here becomes several; other values that the template
    does not have are shown at the end."""
    names = set(found.template.fields())
    groups = [Group(one.title, tuple(_adapted_fields(one.fields, found, graph, names))) for one in found.template.groups]
    others: dict[str, list[str]] = {}
    for place in found.differing:
        node, name = place.split(".", 1)
        others.setdefault(node, []).append(name)
    more = [
        one
        for node, wanted in others.items()
        for one in _fields(node, graph[node], [i for i in _literals(node, graph, catalog) if i.name in wanted], "", names)
    ]
    groups += [Group(_MORE, tuple(more))] if more else []
    shown = tuple(group for group in groups if group.fields)
    fields = {one.name for group in shown for one in group.fields}
    follows = {name: other for name, other in found.template.follows.items() if {name, other} <= fields}
    return Template("", found.template.title, found.template.description, shown, graph, follows=follows)


def _of_job() -> list[Group]:
    """What our templates ask of the job and of no node."""
    asked = [(group, one) for group in find_template("text_to_film").groups for one in group.fields if one.replaces == "metadata"]
    return [Group(group.title, (one,)) for group, one in asked]


def _adapted_fields(fields: Iterable[Field], found: Match, graph: Graph, names: set[str]) -> Iterator[Field]:
    for one in fields:
        if one.replaces == "metadata":
            yield one
            continue
        if one.replaces:  # another may only be put in where none is
            of = found.nodes[one.of]
            if not found.values.get(one.name) and (one.replaces != "vae" or "10" not in graph):
                yield Field(one.name, (), one.title, one.advanced, replaces=one.replaces, of=of, main=one.main, help=one.help)
            continue
        places: dict[str, list[str]] = {}
        for place in found.places(one, graph):
            node, name = place.split(".", 1)
            places.setdefault(json.dumps(graph[node]["inputs"][name], sort_keys=True), []).append(place)
        for number, same in enumerate(places.values()):
            node, name = same[0].split(".", 1)
            own = one.name if number == 0 else _free_name(f"{name}_{node}", names)
            title = one.title if number == 0 else {language: f"{text} ({_node_title(graph[node])})" for language, text in one.title.items()}
            yield Field(own, tuple(same), title, one.advanced, one.seed, main=one.main and number == 0, help=one.help)


def _fields(i: str, node: Mapping[str, Any], literals: Iterable[Input], role: str, names: set[str]) -> Iterator[Field]:
    known = _known_fields()
    for declared in literals:
        of_template = known.get((node["class_type"], declared.name))
        yield Field(
            _free_name(f"{declared.name}_{i}", names),
            (f"{i}.{declared.name}",),
            _PROMPTS.get(role, {}) if declared.name == "text" and role else _title(declared.name),
            advanced=of_template.advanced if of_template else True,
            seed=declared.name in SEEDS,
            main=bool(of_template and of_template.main and role != "negative"),
        )


def _literals(i: str, graph: Graph, catalog: Catalog) -> list[Input]:
    """What is written in a node and can be changed. A number with a dot cannot be told from the name of an input."""
    node = graph[i]
    if node["class_type"] not in catalog or "." in i:
        return []
    given = inputs_of(node)
    declared = catalog[node["class_type"]].inputs
    return [one for name, one in declared.items() if one.declaration and name in given and not is_link(given[name])]


def _roles(graph: Graph) -> dict[str, str]:
    """Of nodes that samplers are told something by: positive or negative; of both, positive."""
    found: dict[str, str] = {}
    for node in graph.values():
        for name, (source, _) in links_of(node).items():
            if name in _PROMPTS and found.get(source) != "positive":
                found[source] = name
    return found


def _rank(node: Mapping[str, Any], catalog: Catalog, role: str) -> tuple[int, bool]:
    name = node["class_type"]
    place = next((number for number, classes in enumerate(_FIRST) if name in classes), None)
    if place is None:
        place = _SAVING if name in catalog and catalog[name].is_output else _SAVING - 1
    return place, role == "negative"


def _node_title(node: Mapping[str, Any]) -> str:
    """What its author calls it."""
    meta = node.get("_meta")
    title = meta.get("title") if isinstance(meta, dict) else None
    return title if isinstance(title, str) and title.strip() else node["class_type"]


def _group_title(node: Mapping[str, Any], catalog: Catalog) -> dict[str, str]:
    """Its author's title; else the declaration's in each language."""
    own, declared = _node_title(node), catalog[node["class_type"]].title
    if own not in (node["class_type"], declared):
        return dict.fromkeys(LANGUAGES, own)
    return {language: say(declared, language) for language in LANGUAGES}


def _free_name(name: str, names: set[str]) -> str:
    found, number = name, 1
    while found in names:
        number += 1
        found = f"{name}_{number}"
    names.add(found)
    return found


def _title(name: str) -> dict[str, str]:
    plain = name.replace("_", " ").strip().capitalize()
    return _titles().get(name) or dict.fromkeys(LANGUAGES, plain)


@cache
def _titles() -> dict[str, dict[str, str]]:
    """Of inputs that many nodes have."""
    return json.loads((Path(__file__).parent / "input_titles.json").read_text("utf-8"))


@cache
def _known_fields() -> dict[tuple[str, str], Field]:
    """How our templates show an input of a class."""
    found: dict[tuple[str, str], Field] = {}
    for template in templates().values():
        for one in template.fields().values():
            for place in one.inputs:
                node, name = place.split(".", 1)
                found.setdefault((template.workflow[node]["class_type"], name), one)
    return found
