"""What a workflow lacks to be run here: nodes, models, pictures, values, links. Each with the nearest that there is."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

from workflows.declare import MISSING, Catalog, FileChoice, Input
from workflows.folders import MODEL_KINDS, Folders
from workflows.graph import Workflow, WorkflowError
from workflows.literals import literal
from workflows.matching import inputs_of
from workflows.templates import Graph

_MOST_CHOICES = 20
_ALIKE = 0.7
_MOST_LACKS = 200  # nobody reads more


@dataclass(frozen=True)
class Lack:
    """`kind`: node, model, picture, value, link or workflow. `name`: what is not there, or the input that is wrong. `nearest`: "" if
    nothing is near. `folder`: where a file belongs, in the data directory."""

    kind: str
    text: str
    node: str = ""
    name: str = ""
    nearest: str = ""
    folder: str = ""


def missing(graph: Graph, catalog: Catalog, folders: Folders) -> tuple[list[Lack], Workflow | None]:
    """All that is missing; and the workflow, as it would be with the models that are missing, if nothing else is wrong with it."""
    known = {kind: folders.names(kind) for kind in (*MODEL_KINDS, "input")}
    found = list(islice((lack for i, node in graph.items() for lack in _of_node(i, node, catalog, folders, known)), _MOST_LACKS))
    try:
        workflow = Workflow.parse(_as_if(graph, found, known), catalog, folders)
        problems = workflow.node_errors
    except WorkflowError as error:
        workflow, problems = None, error.node_errors
        if not problems:
            found.append(Lack("workflow", error.message))
    return [*found, *_of_links(problems)], None if workflow is None or problems else workflow


def nearest(name: str, known: Iterable[str]) -> str:
    """The same file in another folder or other letters; else one that is written much the same. "" if there is none."""
    known = list(known)
    wanted = _plain(name)
    for one in known:
        if _plain(one) == wanted:
            return one
    found = difflib.get_close_matches(wanted, [_plain(one) for one in known], 1, _ALIKE)
    return next((one for one in known if found and _plain(one) == found[0]), "")


def _as_if(graph: Graph, lacks: Iterable[Lack], known: Mapping[str, list[str]]) -> Graph:
    """With other models in the place of those that are missing."""
    found = dict(graph)
    for lack in lacks:
        others = known.get(lack.folder.removeprefix("models/"), []) if lack.kind == "model" else []
        if others:
            inputs = inputs_of(found[lack.node])
            found[lack.node] = found[lack.node] | {"inputs": {k: others[0] if v == lack.name else v for k, v in inputs.items()}}
    return found


def _of_node(i: str, node: Any, catalog: Catalog, folders: Folders, known: dict[str, list[str]]) -> Iterator[Lack]:
    name = node.get("class_type") if isinstance(node, dict) else None
    if not isinstance(name, str):
        yield Lack("node", f"Node {i} is no node: it has no class_type.", i)
        return
    if name not in catalog:
        near = next(iter(difflib.get_close_matches(name, list(catalog), 1)), "")
        yield Lack("node", f"Node {i}: there is no {name} here.{_said(near)}", i, name, near)
        return
    for declared in catalog[name].inputs.values():
        value = inputs_of(node).get(declared.name, MISSING)
        if value is MISSING or isinstance(value, list) or declared.declaration is None:
            continue
        if isinstance(declared.declaration, FileChoice):
            yield from _of_file(i, declared.declaration.folder, value, folders, known)
        else:
            yield from _of_value(i, declared, value, folders)


def _of_file(i: str, folder: str, value: Any, folders: Folders, known: dict[str, list[str]]) -> Iterator[Lack]:
    name = str(value)
    is_model = folder in MODEL_KINDS
    if name in known[folder] or (not is_model and not _is_unfound(folders, name)):
        return
    near, place = nearest(name, known[folder]), f"models/{folder}" if is_model else "input"
    what = MODEL_KINDS.get(folder, "picture or film")
    where = f"Put it into {place} in the data directory." if is_model else "Choose one of your own."
    text = f"Node {i}: the {what} {name!r} is not there.{_said(near)} {where}"
    yield Lack("model" if is_model else "picture", text, i, name, near, place)


def _is_unfound(folders: Folders, name: str) -> bool:
    declared = Input("image", "COMBO", FileChoice("input", ""))
    return bool(literal(declared, name, folders)[1])


def _of_value(i: str, declared: Input, value: Any, folders: Folders) -> Iterator[Lack]:
    for problem in literal(declared, value, folders)[1]:
        names = getattr(declared.declaration, "names", ())
        near = nearest(str(value), names) if names else ""
        choices = f" Choose one of: {', '.join(names)}." if 0 < len(names) <= _MOST_CHOICES and not near else ""
        text = f"Node {i}: {declared.name} is {value!r:.100}. {problem['message']}.{_said(near)}{choices}"
        yield Lack("value", text, i, declared.name, near)


def _of_links(problems: dict[str, Any]) -> Iterator[Lack]:
    """What only the whole can tell."""
    for i, errors in problems.items():
        for problem in errors["errors"]:
            name, of_links = problem["extra_info"].get("input_name", ""), problem["type"] in _OF_LINKS
            if of_links:
                yield Lack("link", f"Node {i}: {problem['message']}: {problem['details']}.", i, name)


_OF_LINKS = ("required_input_missing", "bad_linked_input", "return_type_mismatch", "dependency_cycle")


def _plain(name: str) -> str:
    """Without folders, which other systems write with other slashes, and without its ending; in small letters."""
    return PurePosixPath(name.replace("\\", "/")).name.casefold().removesuffix(".safetensors")


def _said(near: str) -> str:
    return f" The nearest is {near}." if near else ""
