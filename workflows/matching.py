"""A graph held against a template: whether it is the template filled, and with which values. The inverse of `templates.fill`.

Nodes are paired by their classes and links, whatever their numbers are. What fields change of the graph is undone first: a chain of LoRAs
behind a loader, another autoencoder in place of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from errors import InputError
from pipelines.parameters import parse_loras
from workflows.graph import is_link
from workflows.templates import OPEN, Field, Graph, Template

_MOST_NODES = 200
_MOST_TRIES = 500  # of pairing outputs of the same class
_SAME_KIND = {"VideoTriangleCFGGuidance": "VideoLinearCFGGuidance"}  # the same inputs, another curve


@dataclass(frozen=True)
class Match:
    """`nodes`: the template's to the graph's. `values`: of every field that has one value. `differing`: places of the graph, as
    "node.input", that the template has otherwise and no field sets. `is_whole`: filling the template with the values gives this graph."""

    template: Template
    nodes: Mapping[str, str]
    values: Mapping[str, Any]
    differing: tuple[str, ...]
    is_whole: bool

    def places(self, one: Field, graph: Graph) -> list[str]:
        """What the field sets in the graph, as far as it is there."""
        found = [(self.nodes[node], name) for node, name in (place.split(".", 1) for place in one.inputs)]
        return [f"{node}.{name}" for node, name in found if name in inputs_of(graph[node])]


@dataclass
class _Bare:
    """A graph without what fields have changed; `values`: by which; `taken`: the nodes that are no longer in it."""

    graph: Graph
    values: dict[str, str] = field(default_factory=dict)
    taken: list[str] = field(default_factory=list)


def match(template: Template, graph: Graph) -> Match | None:
    """None if classes or links are others."""
    if not 0 < len(template.workflow) <= _MOST_NODES or len(graph) > 2 * _MOST_NODES:
        return None
    if not all(isinstance(node, dict) for node in graph.values()):
        return None
    bare = _Bare(graph)
    nodes = _pairs(template.workflow, graph)
    if nodes is None and any(one.of for one in template.fields().values()):
        bare = _bare(template, graph)
        nodes = _pairs(template.workflow, bare.graph)
    return None if nodes is None else _read(template, graph, bare, nodes)


def inputs_of(node: Any) -> dict[str, Any]:
    """Of what may be a node."""
    inputs = node.get("inputs") if isinstance(node, dict) else None
    return inputs if isinstance(inputs, dict) else {}


def links_of(node: Any) -> dict[str, list[Any]]:
    return {name: value for name, value in inputs_of(node).items() if is_link(value)}


def _read(template: Template, graph: Graph, bare: _Bare, nodes: Mapping[str, str]) -> Match:
    values, is_whole = {}, True
    for one in template.fields().values():
        kept = [] if one.inputs else [bare.values.get(one.name, template.default(one))]
        found = kept or [value for place in one.inputs for value in _at(graph, nodes, place)]
        is_one = len(found) == max(1, len(one.inputs)) and all(_is_same(value, found[0]) for value in found)
        if is_one:
            values[one.name] = found[0]
        is_whole &= is_one and not (one.seed and found[0] in OPEN)
    differing = tuple(_differing(template, graph, nodes))
    same_classes = all(graph[i]["class_type"] == template.workflow[t]["class_type"] for t, i in nodes.items())
    others = tuple(f"{i}.{name}" for i in bare.taken for name in inputs_of(graph[i]) if name not in links_of(graph[i]))
    if not is_whole or not same_classes or differing:
        return Match(template, nodes, values, (*differing, *others), False)
    return Match(template, nodes, values, (), True)


def _at(graph: Graph, nodes: Mapping[str, str], place: str) -> list[Any]:
    node, name = place.split(".", 1)
    inputs = inputs_of(graph[nodes[node]])
    return [inputs[name]] if name in inputs else []


def _differing(template: Template, graph: Graph, nodes: Mapping[str, str]) -> Iterator[str]:
    """What no field sets."""
    places = {place for one in template.fields().values() for place in one.inputs}
    for own, i in nodes.items():
        theirs, ours = inputs_of(graph[i]), inputs_of(template.workflow[own])
        for name in theirs.keys() | ours.keys():
            if f"{own}.{name}" in places or is_link(theirs.get(name)):
                continue
            if name not in theirs or name not in ours or not _is_same(theirs[name], ours[name]):
                yield f"{i}.{name}"


def _is_same(one: Any, other: Any) -> bool:
    """7 is 7.0, and 1 is not true."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


# Nodes in pairs


def _pairs(own: Mapping[str, Any], graph: Graph) -> dict[str, str] | None:
    if len(own) != len(graph) or Counter(map(_kind, own.values())) != Counter(map(_kind, graph.values())):
        return None
    return _paired(own, graph, _ends(own), _ends(graph), {}, [_MOST_TRIES])


def _paired(
    own: Mapping[str, Any], graph: Graph, ends: list[str], others: list[str], pairs: dict[str, str], tries: list[int]
) -> dict[str, str] | None:
    """End after end; those of the same number first. All else follows from the links."""
    if not ends:
        return pairs if len(pairs) == len(own) else None
    for other in sorted(others, key=lambda other: other != ends[0]):
        tries[0] -= 1
        more = _followed(own, graph, ends[0], other, pairs) if tries[0] > 0 else None
        found = more and _paired(own, graph, ends[1:], [one for one in others if one != other], more, tries)
        if found:
            return found
    return None


def _followed(own: Mapping[str, Any], graph: Graph, end: str, other: str, pairs: Mapping[str, str]) -> dict[str, str] | None:
    """The pairs with these two, and with all that they need."""
    found, edge = dict(pairs), [(end, other)]
    taken = set(found.values())
    while edge:
        ours, theirs = edge.pop()
        if found.get(ours) == theirs:
            continue
        if ours in found or theirs in taken or theirs not in graph or ours not in own or _kind(own[ours]) != _kind(graph[theirs]):
            return None
        one, two = links_of(own[ours]), links_of(graph[theirs])
        if one.keys() != two.keys() or any(one[name][1] != two[name][1] for name in one):
            return None
        found[ours] = theirs
        taken.add(theirs)
        edge += [(one[name][0], two[name][0]) for name in one]
    return found


def _kind(node: Any) -> str:
    name = node.get("class_type") if isinstance(node, dict) else None
    return _SAME_KIND.get(name, name) if isinstance(name, str) else ""


def _ends(graph: Mapping[str, Any]) -> list[str]:
    """Nodes that no other needs."""
    needed = {value[0] for node in graph.values() for value in links_of(node).values()}
    return [i for i in graph if i not in needed]


# What fields change of a graph, undone


def _bare(template: Template, graph: Graph) -> _Bare:
    bare = _Bare(dict(graph))
    for one in template.fields().values():
        of_class = template.workflow[one.of]["class_type"] if one.of else ""
        loaders = [i for i, node in bare.graph.items() if one.of and node.get("class_type") == of_class]
        if len(loaders) == 1:
            undo = _without_loras if one.replaces == "loras" else _without_vae
            undo(bare, one.name, loaders[0])
    return bare


def _without_vae(bare: _Bare, name: str, loader: str) -> None:
    found = [i for i, node in bare.graph.items() if node.get("class_type") == "VAELoader"]
    own = inputs_of(bare.graph[found[0]]) if len(found) == 1 else {}
    if own.keys() == {"vae_name"} and isinstance(own["vae_name"], str) and own["vae_name"] and not _users(bare.graph, [loader, 2]):
        bare.values[name] = own["vae_name"]
        _take_out(bare, found, {(found[0], 0): [loader, 2]})


def _without_loras(bare: _Bare, name: str, loader: str) -> None:
    chain: list[str] = []
    while True:
        model, clip = ([chain[-1] if chain else loader, slot] for slot in (0, 1))
        users = _users(bare.graph, model) | _users(bare.graph, clip)
        after = users.pop() if len(users) == 1 else None
        if after is None or after in chain or not _is_lora(bare.graph[after], model, clip):
            break
        chain.append(after)
    loras = [inputs_of(bare.graph[i]) for i in chain]
    text = ", ".join(f"{one['lora_name']}:{one['strength_model']!r}" for one in loras)
    if chain and _says(text, [(one["lora_name"], one["strength_model"]) for one in loras]):
        bare.values[name] = text
        _take_out(bare, chain, {(chain[-1], slot): [loader, slot] for slot in (0, 1)})


def _is_lora(node: Any, model: list[Any], clip: list[Any]) -> bool:
    inputs = inputs_of(node)
    strengths = [inputs.get("strength_model"), inputs.get("strength_clip")]
    is_plain = all(isinstance(one, int | float) for one in strengths) and isinstance(inputs.get("lora_name"), str)
    return node.get("class_type") == "LoraLoader" and is_plain and strengths[0] == strengths[1] and links_of(node) == {
        "model": model, "clip": clip,
    }  # fmt: skip


def _says(text: str, loras: list[tuple[str, float]]) -> bool:
    """Not, of names with commas."""
    try:
        return list(parse_loras(text)) == loras
    except InputError:
        return False


def _users(graph: Graph, link: list[Any]) -> set[str]:
    return {i for i, node in graph.items() if link in links_of(node).values()}


def _take_out(bare: _Bare, nodes: list[str], instead: Mapping[tuple[str, int], list[Any]]) -> None:
    """The nodes are gone, and who needed them is served by others."""
    bare.taken += nodes

    def served(node: Any) -> dict[str, Any]:
        inputs = {name: instead.get(tuple(value), value) if is_link(value) else value for name, value in inputs_of(node).items()}
        return node | {"inputs": inputs}

    bare.graph = {i: served(node) for i, node in bare.graph.items() if i not in nodes}
