"""A workflow that somebody brings becomes a form: one of our templates with its values, or a form of its own.

    document ─► API format (editor_graph.py) ─► is it a template, filled? (matching.py) ─yes─► its id and values
                                                                          └no─► a form drawn from it (own_form.py)
                                                what is missing (missing.py), advice

A workflow that is not a template's stays whole: it is run as it is, with the values that were changed in its form.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from workflows.advice import advice
from workflows.declare import Catalog, Input
from workflows.editor_graph import from_editor, is_editors
from workflows.folders import Folders
from workflows.graph import MAX_NODES, WorkflowError, check_readable, is_link
from workflows.literals import convert
from workflows.matching import Match, inputs_of, match
from workflows.missing import Lack, missing
from workflows.own_form import adapted, own_form
from workflows.seeds import SEEDS
from workflows.templates import Field, Graph, Template, all_templates

_EXACT = 2**53  # browsers round what is beyond
_HINT = "Open a workflow of ComfyUI, or a picture or film that was saved with its settings."


@dataclass(frozen=True)
class Opened:
    """`template`: one of ours if `is_ours`; otherwise drawn from the workflow, and filled and run from it alone. `like`: whose form it is
    then, "" if nobody's. `values`: what each field of the template has here, but for those that follow another. `notes`: what was
    changed, left out, or is seldom meant."""

    template: Template
    values: Mapping[str, Any]
    workflow: Graph
    is_ours: bool
    like: str = ""
    missing: tuple[Lack, ...] = ()
    notes: tuple[str, ...] = ()

    def exact_values(self) -> dict[str, Any]:
        """For browsers: seeds, and numbers that they would round, are text."""
        seeds = {name for name, one in self.template.fields().items() if one.seed}
        return {name: str(value) if name in seeds else exact_text(value) for name, value in self.values.items()}


def open_workflow(document: Any, catalog: Catalog, folders: Folders, prefer: str = "") -> Opened:
    """`document`: a workflow in API format or as ComfyUI's editor saves it, or the settings of a file that hold one. `prefer`: the template
    that is taken if several fit.

    Raises WorkflowError for what is no workflow."""
    check_readable(document)
    graph, notes = _graph(document, catalog)
    graph, changes = _converted(graph, catalog)
    lacks, workflow = missing(graph, catalog, folders)
    said = (*notes, *changes, *(advice(workflow, folders) if workflow else ()))
    found = _best(graph, all_templates(folders.data_dir), prefer) if all(map(_is_node, graph.values())) else None
    if found and found.is_whole:
        return Opened(found.template, _told(found.template, found.values), graph, True, "", tuple(lacks), said)
    drawn = adapted(found, graph, catalog) if found else own_form(_nodes_of(graph), catalog)
    template = Template("", drawn.title, drawn.description, drawn.groups, graph, follows=drawn.follows)
    values = template.defaults() | {name: _value(graph, one) for name, one in template.fields().items() if one.inputs}
    return Opened(template, _told(template, values), graph, False, found.template.id if found else "", tuple(lacks), said)


def exact_text(value: Any, name: str = "") -> Any:
    """A workflow, or a part of one, with every seed as text, and every number that a browser would round."""
    if isinstance(value, Mapping):
        return {key: exact_text(one, str(key)) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [exact_text(one) for one in value]
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if is_whole and (abs(value) > _EXACT or name in SEEDS) else value


def _best(graph: Graph, known: Mapping[str, Template], prefer: str) -> Match | None:
    """The first that is whole; else the one from which it differs least."""
    ordered: Iterable[Template] = sorted(known.values(), key=lambda one: one.id != prefer)
    found = [one for one in (match(template, graph) for template in ordered) if one]
    return min(found, key=lambda one: (not one.is_whole, len(one.differing)), default=None)


def _told(template: Template, values: Mapping[str, Any]) -> dict[str, Any]:
    """Without those that follow another and do: they go on to follow it."""
    following = {name for name, other in template.follows.items() if other in values and values.get(name) == values[other]}
    return {name: value for name, value in values.items() if name not in following}


def _value(graph: Graph, one: Field) -> Any:
    node, name = one.inputs[0].split(".", 1)
    return graph[node]["inputs"][name]


# What was brought, as a graph


def _graph(document: Any, catalog: Catalog, depth: int = 0) -> tuple[Graph, list[str]]:
    if not isinstance(document, dict) or not document:
        raise WorkflowError("no_prompt", "This is no workflow.", _HINT)
    if is_editors(document):
        return from_editor(document, catalog)
    for key in ("prompt", "workflow"):  # settings: both may be there, and the first can be run
        inner = document.get(key)
        if isinstance(inner, dict) and not _is_node(inner) and depth < 3:
            return _graph(inner, catalog, depth + 1)
    if len(document) > MAX_NODES:
        text = f"It has {len(document)} nodes; {MAX_NODES} are the most."
        raise WorkflowError("workflow_too_large", "The workflow is too large.", text)
    if not any(map(_is_node, document.values())):
        raise WorkflowError("no_prompt", "This is no workflow: nothing in it has a class_type.", _HINT)
    return copy.deepcopy(document), []


def _is_node(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("class_type"), str)


def _nodes_of(graph: Graph) -> Graph:
    return {i: node for i, node in graph.items() if _is_node(node)}


def _converted(graph: Graph, catalog: Catalog) -> tuple[Graph, list[str]]:
    """Values as the nodes take them, "2" as 2; and a line for each that means something else here."""
    notes = []
    for i, node in _nodes_of(graph).items():
        declared = catalog[node["class_type"]].inputs if node["class_type"] in catalog else {}
        for name, value in inputs_of(node).items():
            if name in declared and declared[name].declaration and not is_link(value):
                node["inputs"][name], is_changed = _as_taken(declared[name], value)
                if is_changed:
                    notes.append(f"Node {i}: {name} was {value!r} and is {node['inputs'][name]!r} here.")
    return graph, notes


def _as_taken(declared: Input, value: Any) -> tuple[Any, bool]:
    """What cannot be taken stays; it is said to be wrong elsewhere."""
    try:
        taken = convert(declared, value)
    except (TypeError, ValueError, OverflowError):
        return value, False
    if declared.type == "INT":
        return taken, isinstance(value, float) and taken != value
    return taken, declared.type == "BOOLEAN" and isinstance(value, str) and not taken
