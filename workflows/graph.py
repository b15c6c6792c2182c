"""A workflow: parsed, checked as a whole, in an order that can be run.

`Workflow.parse` takes ComfyUI's API format, `{"3": {"class_type": "KSampler", "inputs": {"seed": 7, "model": ["4", 0]}}}`, and says all
that is wrong with it at once, in the shapes that ComfyUI answers with. As there, a workflow of which one output can be made is accepted;
what is wrong with the others stays in `node_errors`. Values are converted first: "2" is 2, 2.9 is 2.
"""

from __future__ import annotations

import difflib
import heapq
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from errors import InputError
from workflows.declare import MISSING, Catalog, FileChoice, Input, NodeClass
from workflows.folders import Folders
from workflows.literals import error_entry, literal, said

MAX_NODES = 2000
MAX_DEPTH = 100  # what is nested deeper could be stored, and then not be read again


class Link(NamedTuple):
    """Output `slot` of node `node`."""

    node: str
    slot: int


@dataclass(frozen=True)
class Node:
    id: str
    node_class: NodeClass
    inputs: Mapping[str, Any]
    title: str = ""

    def links(self) -> dict[str, Link]:
        return {name: value for name, value in self.inputs.items() if isinstance(value, Link)}


class WorkflowError(InputError):
    """A workflow that cannot be run at all. `type` and `details` are ComfyUI's, `node_errors` says what is wrong with which node."""

    code = "bad_workflow"

    def __init__(self, type_: str, message: str, details: str = "", node_errors: Mapping[str, Any] | None = None) -> None:
        self.type, self.details, self.node_errors = type_, details, dict(node_errors or {})
        self.summary = message
        is_told = any(error["message"] == message for errors in self.node_errors.values() for error in errors["errors"])
        first = details if is_told else next((_in_words(node, errors) for node, errors in self.node_errors.items()), details)
        super().__init__(f"{message}{'' if message.endswith('.') else ':'} {first}".strip(" :"))

    def document(self) -> dict[str, Any]:
        """As ComfyUI's answer."""
        return {
            "error": {"type": self.type, "message": self.summary, "details": self.details, "extra_info": {}},
            "node_errors": self.node_errors,
        }


def _in_words(node: str, errors: Mapping[str, Any]) -> str:
    return "; ".join(f"node {node} ({errors['class_type']}): {error['message']}: {error['details']}" for error in errors["errors"])


@dataclass(frozen=True)
class Workflow:
    """`nodes`: those that the `targets` need, checked. `graph`: the whole document with its values converted, as files carry it."""

    nodes: Mapping[str, Node]
    targets: tuple[str, ...]
    graph: Mapping[str, Any]
    node_errors: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, document: Any, catalog: Catalog, folders: Folders, only: Iterable[str] | None = None) -> Workflow:
        """`document`: the graph, bare or under "prompt". `only`: the outputs that are wanted. Raises WorkflowError."""
        graph = bare_graph(document)
        _check_nodes(graph, catalog)
        wanted = None if only is None else set(only)
        outputs = [i for i in graph if catalog[graph[i]["class_type"]].is_output and (wanted is None or i in wanted)]
        if not outputs:
            raise WorkflowError("prompt_no_outputs", "Prompt has no outputs")
        return _Check(graph, catalog, folders).workflow(outputs)

    def order(self) -> list[Node]:
        """Every node after those it needs. First what needs nothing, so that a wrong file shows before any work; then outputs as soon as
        they can be, and what is near to one."""
        waiting = {i: {link.node for link in node.links().values()} for i, node in self.nodes.items()}
        users: dict[str, set[str]] = {i: set() for i in self.nodes}
        for i, needed in waiting.items():
            for other in needed:
                users[other].add(i)
        away = self._away_from_outputs()
        place = {i: k for k, i in enumerate(self.nodes)}
        ready = [(-1, place[i], i) for i, needed in waiting.items() if not needed]
        heapq.heapify(ready)
        found = []
        while ready:
            _, _, i = heapq.heappop(ready)
            found.append(self.nodes[i])
            for user in users[i]:
                waiting[user].discard(i)
                if not waiting[user]:
                    heapq.heappush(ready, (away[user], place[user], user))
        return found

    def _away_from_outputs(self) -> dict[str, int]:
        away, edge, distance = dict.fromkeys(self.targets, 0), list(self.targets), 0
        while edge:
            distance += 1
            edge = [link.node for i in edge for link in self.nodes[i].links().values() if link.node not in away]
            away |= dict.fromkeys(edge, distance)
        return away

    def needed(self, wanted: Iterable[str], is_there: Callable[[Node], bool]) -> set[str]:
        """The nodes that have to be worked for those that are wanted, where the results of some are there already."""
        needed: set[str] = set()
        seen: set[str] = set()
        edge = list(wanted)
        while edge:
            i = edge.pop()
            if i in seen:
                continue
            seen.add(i)
            if not is_there(self.nodes[i]):
                needed.add(i)
                edge += [link.node for link in self.nodes[i].links().values()]
        return needed

    def named(self, *names: str) -> list[Node]:
        """The nodes of these classes."""
        return [node for node in self.nodes.values() if node.node_class.name in names]


def read_json(text: bytes | str, what: str = "The request") -> Any:
    """`what` is read, for people. Raises WorkflowError that says where it is no JSON, and that Python's True, False and None are none; see
    also `check_readable`."""
    try:
        document = json.loads(text, parse_constant=lambda name: _no_constant(name))
    except (ValueError, RecursionError) as error:
        shown = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        place = getattr(error, "pos", 0)
        word = next((word for word in ("True", "False", "None") if shown[place:].startswith(word)), "")
        hint = f" {word} is Python's; JSON has {({'None': 'null'}).get(word, word.lower())}." if word else ""
        raise WorkflowError("invalid_json", f"{what} is no valid JSON.", f"{error}.{hint}") from error
    check_readable(document, what)
    return document


def check_readable(document: Any, what: str = "The request") -> None:
    """Whether it will come out of a table, and out of every program's parser, as it came in. Raises WorkflowError."""
    depth, edge = 0, [document]
    while edge:
        if any(isinstance(one, float) and not math.isfinite(one) for one in edge):
            raise WorkflowError("invalid_json", f"{what} is no valid JSON.", "It holds a number that is too large, such as 1e999.")
        depth += 1
        if depth > MAX_DEPTH:
            raise WorkflowError("invalid_json", f"{what} is nested too deeply.", f"{MAX_DEPTH} levels are the most.")
        inner = [one.values() if isinstance(one, dict) else one for one in edge if isinstance(one, dict | list)]
        edge = [value for values in inner for value in values]


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")


def bare_graph(document: Any) -> dict[str, Any]:
    """The graph of a document that is one or holds one. Raises WorkflowError."""
    if isinstance(document, dict) and "prompt" in document and not _is_node(document["prompt"]):
        document = document["prompt"]
        if document is None:
            raise WorkflowError("no_prompt", "No prompt provided", "The prompt is null.")
    if isinstance(document, dict) and isinstance(document.get("nodes"), list):
        hint = "This is the format of ComfyUI's editor. Export the workflow there for the API (Export (API)), and use that file."
        raise WorkflowError("invalid_prompt", "The workflow is not in API format.", hint)
    if not isinstance(document, dict):
        raise WorkflowError("no_prompt", "No prompt provided", f"A workflow is an object of nodes, not {type(document).__name__}.")
    return document


def _is_node(value: Any) -> bool:
    return isinstance(value, dict) and "class_type" in value


def _check_nodes(graph: Mapping[str, Any], catalog: Catalog) -> None:
    if len(graph) > MAX_NODES:
        raise WorkflowError("workflow_too_large", "The workflow is too large.", f"It has {len(graph)} nodes; {MAX_NODES} are the most.")
    problems = {i: problem for i, node in graph.items() if (problem := _node_problem(i, node, catalog))}
    if problems:
        first = next(iter(problems.values()))["errors"][0]
        raise WorkflowError("invalid_prompt", first["message"], first["details"], problems)


def _node_problem(i: str, node: Any, catalog: Catalog) -> dict[str, Any] | None:
    name = node.get("class_type") if isinstance(node, dict) else None
    if not isinstance(name, str):
        message, name = "Cannot execute because a node is missing the class_type property.", ""
        near = ""
    elif name not in catalog:
        message = f"Cannot execute because node {name} does not exist."
        nearest = difflib.get_close_matches(name, list(catalog), 1)
        near = f". Did you mean {nearest[0]}?" if nearest else ""
    elif not isinstance(node.get("inputs", {}), dict):
        message, near = f"The inputs of node {name} are no object.", ""
    else:
        return None
    return {"errors": [error_entry("invalid_prompt", message, f"Node ID '#{i}'{near}")], "dependent_outputs": [], "class_type": name}


class _Check:
    """One look at a graph; every node that an output needs is checked once."""

    def __init__(self, graph: Mapping[str, Any], catalog: Catalog, folders: Folders) -> None:
        self.graph, self.catalog, self.folders = graph, catalog, folders
        self.nodes: dict[str, Node] = {}
        self.errors: dict[str, list[dict[str, Any]]] = {}

    def workflow(self, outputs: Sequence[str]) -> Workflow:
        needs = {output: self._needed(output) for output in outputs}
        for i in dict.fromkeys(i for needed in needs.values() for i in needed):
            self.nodes[i] = self._node(i)
        for output, needed in needs.items():
            self._check_cycles(output, needed)
        good = tuple(output for output in outputs if not self.errors.keys() & needs[output])
        node_errors = {
            i: {"errors": errors, "dependent_outputs": [o for o in outputs if i in needs[o]], "class_type": self.graph[i]["class_type"]}
            for i, errors in self.errors.items()
        }
        if not good:
            said = [f"{error['message']}: {error['details']}" for o in outputs for error in self.errors.get(o, [])]
            raise WorkflowError("prompt_outputs_failed_validation", "Prompt outputs failed validation", "\n".join(said), node_errors)
        used = {i for output in good for i in needs[output]}
        return Workflow({i: self.nodes[i] for i in self.graph if i in used}, good, self._converted(), node_errors)

    def _needed(self, output: str) -> dict[str, None]:
        """The output and all that it needs, each after the node that was found to need it."""
        found, edge = {output: None}, [output]
        while edge:
            for value in self.graph[edge.pop()].get("inputs", {}).values():
                if is_link(value) and value[0] in self.graph and value[0] not in found:
                    found[value[0]] = None
                    edge.append(value[0])
        return found

    def _node(self, i: str) -> Node:
        node = self.graph[i]
        node_class, given = self.catalog[node["class_type"]], node.get("inputs", {})
        inputs = {}
        for name, declared in node_class.inputs.items():
            if name not in given:
                if declared.is_optional or declared.is_extra:
                    inputs[name] = None if declared.default is MISSING else declared.default
                else:
                    self._add(i, error_entry("required_input_missing", "Required input is missing", name, input_name=name))
                continue
            inputs[name] = self._value(i, declared, given[name])
        title = node.get("_meta", {}).get("title", "") if isinstance(node.get("_meta"), dict) else ""
        return Node(i, node_class, inputs, title if isinstance(title, str) else "")

    def _value(self, i: str, declared: Input, value: Any) -> Any:
        if isinstance(value, list):
            return self._link(i, declared, value)
        if declared.declaration is None:
            if not (declared.is_optional and value is None):
                self._bad_link(i, declared, value, "must be a length-2 list of [node_id, slot_index]")
            return None
        value, problems = literal(declared, value, self.folders)
        for error in problems:
            self._add(i, error)
        return value

    def _link(self, i: str, declared: Input, value: list[Any]) -> Link | None:
        if not is_link(value):
            return self._bad_link(i, declared, value, "must be a length-2 list of [node_id, slot_index]")
        if isinstance(declared.declaration, FileChoice):
            return self._bad_link(i, declared, value, "the name of a file has to be written")
        source, slot = value
        if source not in self.graph:
            return self._bad_link(i, declared, value, f"there is no node {source!r}")
        outputs = self.catalog[self.graph[source]["class_type"]].outputs
        if not 0 <= slot < len(outputs):
            return self._bad_link(i, declared, value, f"node {source!r} has no output {slot}; it has {len(outputs)}")
        if outputs[slot] != declared.type and not (declared.type == "COMBO" and outputs[slot] == "STRING"):
            details = f"{declared.name}, received_type({outputs[slot]}) mismatch input_type({declared.type})"
            extra = {"received_type": outputs[slot], "linked_node": [source, slot]}
            message = "Return type mismatch between linked nodes"
            self._add(i, error_entry("return_type_mismatch", message, details, **said(declared, self.folders), **extra))
        return Link(source, slot)

    def _bad_link(self, i: str, declared: Input, value: Any, what: str) -> None:
        extra = said(declared, self.folders) | {"received_value": value}
        self._add(i, error_entry("bad_linked_input", f"Bad linked input, {what}", declared.name, **extra))

    def _add(self, i: str, error: dict[str, Any]) -> None:
        self.errors.setdefault(i, []).append(error)

    def _check_cycles(self, output: str, needed: Iterable[str]) -> None:
        """Nodes that wait for each other, found by taking away what waits for nothing."""
        waiting = {i: {link.node for link in self.nodes[i].links().values()} for i in needed}
        while free := [i for i, others in waiting.items() if not others]:
            for i in free:
                del waiting[i]
            for others in waiting.values():
                others.difference_update(free)
        circle = self._circle(waiting)
        for i in circle:
            if not any(error["type"] == "dependency_cycle" for error in self.errors.get(i, [])):
                way = " -> ".join([*circle, circle[0]])
                self._add(i, error_entry("dependency_cycle", "Nodes need each other's results", way))

    @staticmethod
    def _circle(waiting: Mapping[str, set[str]]) -> list[str]:
        way, here = [], next(iter(waiting), None)
        while here is not None and here not in way:
            way.append(here)
            here = next(iter(sorted(waiting[here] & waiting.keys())), None)
        return way[way.index(here) :] if here is not None else []

    def _converted(self) -> dict[str, Any]:
        """The document with the converted values; what no output needs stays as it was."""
        graph = {}
        for i, node in self.graph.items():
            graph[i] = dict(node)
            if i in self.nodes:
                own = self.nodes[i].inputs
                given = node.get("inputs", {})
                graph[i]["inputs"] = {
                    name: value if isinstance(value, (list, dict)) or name not in own or own[name] is None else own[name]
                    for name, value in given.items()
                }
        return graph


def is_link(value: Any) -> bool:
    """Whether a value is a link: [node, slot]."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int)
        and not isinstance(value[1], bool)
    )
