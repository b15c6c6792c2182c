"""A workflow as ComfyUI's editor saves it, `{"nodes": [...], "links": [...]}`, in API format, as far as the nodes' declarations allow.

The editor keeps the values of a node as a list without names, in the order of its inputs, with a word after each seed that says what
becomes of it. Some boxes are for the eye alone: reroutes, primitives, notes. Boxes that are muted are left out, those that are bypassed let
through what comes in. What cannot be told is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from workflows.declare import Catalog, NodeClass
from workflows.graph import MAX_NODES, WorkflowError
from workflows.templates import Graph

_AFTER_SEED = ("fixed", "increment", "decrement", "randomize")
_NOTES = ("Note", "MarkdownNote")
_MUTED, _BYPASSED = 2, 4
_MOST_STEPS = 200  # of a link through boxes
_HINT = "Export it in ComfyUI for the API (Export (API)), and open that file."


@dataclass(frozen=True)
class _Box:
    """`inputs`: name to the number of the link, if there is one. `slots`: the types of the inputs in order, with the same numbers."""

    id: str
    type: str
    title: str
    mode: int
    widgets: list[Any] | dict[str, Any]
    inputs: Mapping[str, Any]
    slots: tuple[tuple[str, Any], ...]
    outputs: tuple[str, ...]
    widget_names: tuple[str, ...]

    @property
    def is_drawn_only(self) -> bool:
        return self.type.startswith("Reroute") or self.type in ("PrimitiveNode", "GetNode", "SetNode", *_NOTES)

    @property
    def first(self) -> Any:
        return self.widgets[0] if isinstance(self.widgets, list) and self.widgets else None

    def __str__(self) -> str:
        return f"node {self.id} ({self.title or self.type})"


@dataclass
class _Editor:
    boxes: dict[str, _Box]
    links: dict[Any, tuple[str, int, str]]  # number to box, output and type
    subgraphs: dict[str, str]
    notes: list[str] = field(default_factory=list)


def is_editors(document: Any) -> bool:
    return isinstance(document, dict) and isinstance(document.get("nodes"), list)


def from_editor(document: Mapping[str, Any], catalog: Catalog) -> tuple[Graph, list[str]]:
    """The graph, and a line for each thing that could not be told. Raises WorkflowError for what is no such document."""
    editor = _read(document)
    graph: Graph = {}
    for box in editor.boxes.values():
        if box.is_drawn_only:
            continue
        if box.mode in (_MUTED, _BYPASSED):
            word = "muted: it is left out" if box.mode == _MUTED else "bypassed: it lets through what comes in"
            editor.notes.append(f"{_capital(box)} is {word}.")
            continue
        graph[box.id] = {
            "class_type": box.type,
            "inputs": _inputs(editor, box, catalog.classes.get(box.type)),
            "_meta": {"title": box.title or (catalog[box.type].title if box.type in catalog else box.type)},
        }
    if not graph:
        raise WorkflowError("invalid_prompt", "There is no node in this workflow that does anything.", _HINT)
    return graph, editor.notes


def _inputs(editor: _Editor, box: _Box, node_class: NodeClass | None) -> dict[str, Any]:
    if box.type in editor.subgraphs:
        editor.notes.append(f"{_capital(box)} is a group of nodes in one, {editor.subgraphs[box.type]!r}. Unpack it in ComfyUI. {_HINT}")
    found = dict(_values(editor, box, node_class))
    for name, number in box.inputs.items():
        if number is None:
            continue
        source = _source(editor, number)
        if source is not None:
            found[name] = source
        elif name not in found:
            editor.notes.append(f"{_capital(box)}: what came into {name!r} is muted or missing.")
    return found


# Values


def _values(editor: _Editor, box: _Box, node_class: NodeClass | None) -> Iterator[tuple[str, Any]]:
    if isinstance(box.widgets, dict):  # VideoHelperSuite names them
        wanted = node_class.inputs if node_class else box.widgets
        yield from ((name, value) for name, value in box.widgets.items() if name in wanted)
        return
    names = [one.name for one in node_class.inputs.values() if one.declaration and not one.is_extra] if node_class else box.widget_names
    values = list(_without_words(box.widgets, names))
    if node_class is None and len(values) != len(names):
        if values:
            editor.notes.append(f"{_capital(box)}: its {len(values)} values have no names here and are left out. {_HINT}")
        return
    if len(values) > len(names) and box.type not in ("LoadImage", "LoadVideo"):  # these keep a button as well
        left = f"{values[len(names) :]!r:.200}"
        editor.notes.append(f"{_capital(box)} has {len(values)} values, of which {len(names)} are known; left out: {left}.")
    yield from zip(names, values, strict=False)


def _without_words(values: Iterable[Any], names: Iterable[str]) -> Iterator[Any]:
    """Without what the editor keeps after a seed."""
    waiting, was_seed = iter(names), False
    for value in values:
        if was_seed and value in _AFTER_SEED:
            was_seed = False
            continue
        was_seed = next(waiting, "") in ("seed", "noise_seed")
        yield value


# Links


def _source(editor: _Editor, number: Any, steps: int = 0) -> Any:
    """Where a link comes from in the end: [node, slot], or a primitive's value; None if from nothing."""
    found = editor.links.get(number)
    box = editor.boxes.get(found[0]) if found else None
    if box is None or steps > _MOST_STEPS or box.mode == _MUTED:
        return None
    _, slot, type_ = found
    if box.type == "PrimitiveNode":
        return box.first
    if box.type == "GetNode":
        box = next((one for one in editor.boxes.values() if one.type == "SetNode" and one.first == box.first), None)
    if box is not None and box.is_drawn_only:
        return _through(editor, next((link for _, link in box.slots), None), steps)
    if box is None:
        return None
    if box.mode == _BYPASSED:
        return _through(editor, _let_through(box, slot, type_), steps)
    return [box.id, slot]


def _through(editor: _Editor, number: Any, steps: int) -> Any:
    return None if number is None else _source(editor, number, steps + 1)


def _let_through(box: _Box, slot: int, type_: str) -> Any:
    """The link of the input that stands for this output: of its type, at its place if that one is."""
    wanted = box.outputs[slot] if slot < len(box.outputs) else type_
    at_its_place = [link for kind, link in box.slots[slot : slot + 1] if kind == wanted]
    return next(iter([*at_its_place, *(link for kind, link in box.slots if kind == wanted)]), None)


# What is written in the document


def _read(document: Mapping[str, Any]) -> _Editor:
    boxes = document["nodes"]
    if len(boxes) > MAX_NODES:
        raise WorkflowError("workflow_too_large", "The workflow is too large.", f"It has {len(boxes)} nodes; {MAX_NODES} are the most.")
    try:
        found = [_box(one) for one in boxes]
        links = dict(_link(one) for one in document.get("links") or [] if one is not None)
        definitions = (document.get("definitions") or {}).get("subgraphs") or []
        subgraphs = {str(one["id"]): str(one.get("name") or "") for one in definitions}
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise WorkflowError("invalid_prompt", "The workflow of ComfyUI's editor is damaged.", f"{error!r:.200}. {_HINT}") from error
    return _Editor({one.id: one for one in found}, links, subgraphs)


def _box(one: Mapping[str, Any]) -> _Box:
    inputs = list(one.get("inputs") or [])
    widgets, title = one.get("widgets_values"), one.get("title")
    return _Box(
        id=str(one["id"]), type=str(one["type"]), title=title if isinstance(title, str) else "", mode=int(one.get("mode") or 0),
        widgets=widgets if isinstance(widgets, list | dict) else [],
        inputs={str(each["name"]): _number(each.get("link")) for each in inputs},
        slots=tuple((str(each.get("type")), _number(each.get("link"))) for each in inputs),
        outputs=tuple(str(each.get("type")) for each in one.get("outputs") or []),
        widget_names=tuple(str(each["name"]) for each in inputs if each.get("widget")),
    )  # fmt: skip


def _link(one: Any) -> tuple[Any, tuple[str, int, str]]:
    if isinstance(one, Mapping):
        return _number(one["id"]), (str(one["origin_id"]), int(one["origin_slot"]), str(one.get("type")))
    return _number(one[0]), (str(one[1]), int(one[2]), str(one[5]) if len(one) > 5 else "")


def _number(value: Any) -> Any:
    """Of a link. Raises TypeError for what can be none."""
    if value is not None and not isinstance(value, int | str):
        raise TypeError(f"{value!r} is no number of a link")
    return value


def _capital(box: _Box) -> str:
    return f"N{str(box)[1:]}"
