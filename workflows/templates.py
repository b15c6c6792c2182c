"""Templates: a workflow, and which of its inputs a person is shown, in groups, with titles in two languages.

They are JSON files in `workflows/templates`; people's own go into `<data-dir>/templates`. A field stands for one or more inputs,
"6.text"; some stand for a change of the graph: `replaces` "vae" puts another autoencoder in the place of a loader's, "loras" puts LoRAs
behind it. `follows` says which fields have another's value if they are left open; `draft` has values for a quick look.
"""

from __future__ import annotations

import copy
import logging
import secrets
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from errors import InputError, UnknownNameError, UnreadableFileError
from pipelines.parameters import parse_loras
from workflows.graph import WorkflowError, read_json
from workflows.literals import truth

log = logging.getLogger("stillmotion.templates")

FOLDER = Path(__file__).parent / "templates"
RANDOM_SEEDS = 2**32  # as many as every program can say without rounding
TAKEN = frozenset({"template", "workflow", "title", "tags", "webhook", "front", "metadata", "draft", "as"})  # by requests with fields
OPEN = (None, "", "random", -1, "-1")
WITHOUT_METADATA = "without_metadata"  # of a job: nothing is kept in its files
Graph = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Field:
    """`inputs`: "node.input" of each input that it sets. `seed`: drawn at random if it is left open. `replaces`: what it stands for if it
    sets none: `vae` and `loras` change the graph behind the loader `of`, `metadata` is the job's and no node's.
    `main`: what everybody sets, shown first; the others are folded away. `required`: what is said to whoever leaves it empty.
    `help`: what turning it up or down does, in place of what the node says."""

    name: str
    inputs: tuple[str, ...]
    title: Mapping[str, str]
    advanced: bool = False
    seed: bool = False
    replaces: str = ""
    of: str = ""
    main: bool = False
    required: Mapping[str, str] = field(default_factory=dict)
    help: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    title: Mapping[str, str]
    fields: tuple[Field, ...]


class Unsaid(InputError):
    """A field that has to be given is empty, or missing. `field`: which; `fields`: what to do, for those who show it beside the field."""

    def __init__(self, one: Field, *, is_missing: bool = False) -> None:
        hint = one.required.get("en", "")
        super().__init__(f"{one.name} is missing." if is_missing else f"{one.name} is empty.", hint)
        self.field, self.fields = one, {one.name: hint}


@dataclass(frozen=True)
class Template:
    id: str
    title: Mapping[str, str]
    description: Mapping[str, str]
    groups: tuple[Group, ...]
    workflow: Mapping[str, Any]
    draft: Mapping[str, Any] = field(default_factory=dict)
    follows: Mapping[str, str] = field(default_factory=dict)
    order: int = 1000

    def fields(self) -> dict[str, Field]:
        return {one.name: one for group in self.groups for one in group.fields}

    def defaults(self) -> dict[str, Any]:
        """What each field has if it is left open; of seeds None: one is drawn."""
        return {name: self.default(one) for name, one in self.fields().items()}

    def default(self, one: Field) -> Any:
        if one.seed or not one.inputs:
            return None if one.seed else True if one.replaces == "metadata" else ""
        node, name = one.inputs[0].split(".", 1)
        return self.workflow[node]["inputs"][name]


def all_templates(data_dir: Path) -> dict[str, Template]:
    """Those of the program and those of the data directory. One that is damaged is named in the log, and hides no others."""
    own = []
    for path in sorted((data_dir / "templates").glob("*.json")):
        try:
            own.append(_read(path))
        except UnreadableFileError as error:
            log.warning("A template of your own is left out: %s", error)
    return templates() | _in_order(own)


@cache
def templates() -> dict[str, Template]:
    """Those that come with the program, by id, in the order in which they are shown."""
    return read_templates(FOLDER)


def read_templates(folder: Path) -> dict[str, Template]:
    """Raises UnreadableFileError for a file that is no template."""
    return _in_order([_read(path) for path in sorted(folder.glob("*.json"))])


def _in_order(found: list[Template]) -> dict[str, Template]:
    return {one.id: one for one in sorted(found, key=lambda one: (one.order, one.id))}


def find_template(name: str, data_dir: Path | None = None) -> Template:
    """One that comes with the program, or with a data directory also one of its own. Raises UnknownNameError."""
    known = templates() if data_dir is None else all_templates(data_dir)
    if name not in known:
        raise UnknownNameError("template", name, known)
    return known[name]


def fill(template: Template, values: Mapping[str, Any], *, is_draft: bool = False) -> Graph:
    """The workflow with these values in its fields. What is left open has the template's value, seeds are drawn. The values are not
    checked here: the workflow is, as a whole. Raises UnknownNameError for a field that is not there, InputError for LoRAs."""
    fields = template.fields()
    unknown = next((name for name in values if name not in fields), None)
    if unknown is not None:
        raise UnknownNameError(f"field of {template.id or 'this workflow'}", unknown, fields)
    given = {name: value for name, value in values.items() if not (fields[name].seed and value in OPEN)}
    settled = (dict(template.draft) if is_draft else {}) | given
    for name, other in template.follows.items():
        if name not in settled and other in settled:
            settled[name] = settled[other]
    for name, one in fields.items():
        if one.seed and name not in settled:
            settled[name] = secrets.randbelow(RANDOM_SEEDS)
    graph = copy.deepcopy(dict(template.workflow))
    for name, value in settled.items():
        _set(graph, fields[name], value)
    return graph


def unsaid(template: Template, graph: Graph) -> Field | None:
    """The first field that has to be given and is empty in a graph that was filled. As a workflow it may be run all the same."""
    for one in template.fields().values():
        node, _, name = (one.inputs or ("",))[0].partition(".")
        if one.required and not str(graph[node]["inputs"][name]).strip():
            return one
    return None


def check_said(template: Template, graph: Graph) -> None:
    """Raises Unsaid."""
    if found := unsaid(template, graph):
        raise Unsaid(found)


def check_given(template: Template, given: Container[str]) -> None:
    """What a template has there is an example, and nobody's wish. Raises Unsaid."""
    for one in template.fields().values():
        if one.required and one.name not in given:
            raise Unsaid(one, is_missing=True)


def extra_of(template: Template, values: Mapping[str, Any]) -> dict[str, Any]:
    """What fields say of the job and of no node. Raises InputError."""
    for name in (name for name, one in template.fields().items() if one.replaces == "metadata" and name in values):
        try:
            return {} if truth(values[name]) else {WITHOUT_METADATA: True}
        except (TypeError, ValueError) as error:
            raise InputError(f"{name} is {values[name]!r}; it is either on or off.", "Use true or false.") from error
    return {}


def node(class_type: str, title: str, **inputs: Any) -> dict[str, Any]:
    """A node in ComfyUI's API format."""
    return {"class_type": class_type, "inputs": inputs, "_meta": {"title": title}}


def _set(graph: Graph, one: Field, value: Any) -> None:
    for place in one.inputs:
        i, name = place.split(".", 1)
        graph[i]["inputs"][name] = value
    if one.replaces == "vae" and value:
        _put_behind(graph, {f"{one.of}:2": ["10", 0]})
        graph["10"] = node("VAELoader", "VAE of the still", vae_name=value)
    if one.replaces == "loras" and value:
        _add_loras(graph, one.of, value)


def _add_loras(graph: Graph, loader: str, text: str) -> None:
    """A chain of nodes from 20 on, one a LoRA, between a loader and all that uses its model and its text encoder."""
    chain, model, clip = {}, [loader, 0], [loader, 1]
    first = next(number for number in range(20, 10_000, 10) if str(number) not in graph)
    for number, (name, strength) in enumerate(parse_loras(text), start=first):
        strengths = {"strength_model": strength, "strength_clip": strength}
        chain[str(number)] = node("LoraLoader", f"LoRA {name}", lora_name=name, **strengths, model=model, clip=clip)
        model, clip = [str(number), 0], [str(number), 1]
    if taken := next((i for i in chain if i in graph), None):
        raise InputError(f"So many LoRAs do not fit between the nodes: {taken} is there already.", "Use fewer.")
    _put_behind(graph, {f"{loader}:0": model, f"{loader}:1": clip})
    graph |= chain


def _put_behind(graph: Graph, instead: Mapping[str, list[Any]]) -> None:
    """Every link to "node:slot" leads to another place."""
    for each in graph.values():
        for name, value in each["inputs"].items():
            if isinstance(value, list) and len(value) == 2:
                each["inputs"][name] = list(instead.get(f"{value[0]}:{value[1]}", value))


def _read(path: Path) -> Template:
    try:
        document = read_json(path.read_bytes())
        groups = tuple(
            Group(group["title"], tuple(Field(**one | {"inputs": tuple(one["inputs"])}) for one in group["fields"]))
            for group in document.pop("groups")
        )
        found = Template(path.stem, groups=groups, **document)
        _check(found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, WorkflowError) as error:
        raise UnreadableFileError(f"{path.name} is no template: {error!r}.", "See docs/nodes.md for what one looks like.") from error
    return found


def _check(template: Template) -> None:
    """Whether all is of its kind, so that nobody who uses it needs to look. Raises KeyError, ValueError, TypeError, AttributeError."""
    fields = template.fields().values()
    titles = [template.title, template.description, *(one.title for one in (*template.groups, *fields))]
    titles += [text for one in fields for text in (one.required, one.help)]
    if not all(isinstance(text, str) for title in titles for text in dict(title).values()):
        raise TypeError("a title that is no text")
    if not isinstance(template.order, int) or not all(isinstance(name, str) for name in template.fields()):
        raise TypeError("an order that is no number, or a name that is no text")
    if taken := TAKEN & {one.name for one in fields if one.replaces != "metadata"}:
        raise ValueError(f"a field cannot be called {min(taken)!r}")
    if lost := [one.name for one in fields if one.replaces == "metadata" and one.name != "metadata"]:
        raise ValueError(f"{lost[0]!r} must be called 'metadata'")
    if nowhere := [one.name for one in fields if one.required and not one.inputs]:
        raise ValueError(f"{nowhere[0]!r} sets nothing, so it cannot have to be given")
    unknown = {*template.draft.keys(), *template.follows.keys(), *template.follows.values()} - template.fields().keys()
    if unknown:
        raise ValueError(f"no field {unknown}")
    for node, name in (place.split(".", 1) for one in template.fields().values() for place in one.inputs):
        template.workflow[node]["class_type"], template.workflow[node]["inputs"][name]
    template.defaults()
