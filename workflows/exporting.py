"""A job in the words of other programs: a workflow for ComfyUI, a curl command, a Python script, its settings as JSON.

What is one of our templates, filled, is asked for by the template's fields; anything else by its workflow. Either gives the very same job.
"""

from __future__ import annotations

import json
import pprint
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from errors import UnknownNameError
from workflows.matching import inputs_of, match
from workflows.templates import Graph, Template, fill, unsaid

FORMS = ("comfy", "curl", "python", "settings")
_ENDINGS = {"comfy": "json", "curl": "sh", "python": "py", "settings": "json"}
_SCRIPT = Path(__file__).parent / "scripts" / "ask_for_it.txt"


@dataclass(frozen=True)
class Order:
    """What the job API is to be sent, and where. `values`: of every field, if it is a template."""

    path: str
    body: Mapping[str, Any]
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Exported:
    text: str
    filename: str
    media_type: str


def export(form: str, graph: Graph, order: Order, server: str, name: str = "stillmotion") -> Exported:
    """`server`: its address, with the path under which a proxy shows it. Raises UnknownNameError."""
    if form not in FORMS:
        raise UnknownNameError("form", form, FORMS)
    text = {
        "comfy": lambda: _json(graph),
        "curl": lambda: _curl(order, server),
        "python": lambda: _python(order, server),
        "settings": lambda: _json(_settings(graph, order)),
    }[form]()
    ending = _ENDINGS[form]
    return Exported(text, f"{name}.{ending}", "application/json" if ending == "json" else "text/plain; charset=utf-8")


def order_of(graph: Graph, templates: Mapping[str, Template], prefer: str = "") -> Order:
    """How this very graph is asked for. `prefer`: the template that is taken if several fit."""
    for template in sorted(templates.values(), key=lambda one: one.id != prefer):
        found = match(template, graph)
        if found and found.is_whole and _is_same(again := fill(template, found.values), graph) and not unsaid(template, again):
            return Order("/api/films", {"template": template.id, **_needed(template, found.values, graph)}, found.values)
    return Order("/api/jobs", {"workflow": graph})


def _needed(template: Template, values: Mapping[str, Any], graph: Graph) -> dict[str, Any]:
    """Without what the template has anyway, unless it counts."""
    fields, defaults = template.fields(), template.defaults()
    short = {name: value for name, value in values.items() if fields[name].main or fields[name].seed or value != defaults[name]}
    return short if _is_same(fill(template, short), graph) else dict(values)


def _is_same(one: Graph, other: Graph) -> bool:
    """But for titles."""
    return {i: _bare(node) for i, node in one.items()} == {i: _bare(node) for i, node in other.items()}


def _bare(node: Any) -> tuple[Any, dict[str, Any]]:
    return node.get("class_type"), inputs_of(node)


def _settings(graph: Graph, order: Order) -> dict[str, Any]:
    """As a file carries them: it can be opened again here and in ComfyUI."""
    return {"prompt": graph} | ({"template": order.body["template"], "values": dict(order.values)} if order.values else {})


def _curl(order: Order, server: str) -> str:
    """The body comes from a here-document: nothing in it needs a thought, and no argument is too long."""
    return (
        f"curl -sS --fail-with-body {shlex.quote(server + order.path)} \\\n"
        '  -H "Authorization: Bearer $STILLMOTION_TOKEN" \\\n'
        "  -H 'Content-Type: application/json' \\\n"
        f"  --data-binary @- <<'JSON'\n{_json(order.body)}\nJSON\n"
    )


def _python(order: Order, server: str) -> str:
    script = _SCRIPT.read_text("utf-8")
    told = {"SERVER": repr(server), "PATH": repr(order.path), "BODY": pprint.pformat(dict(order.body), width=110, sort_dicts=False)}
    for word, text in told.items():
        script = script.replace(f"<{word}>", text, 1)
    return script


def _json(value: Any) -> str:
    """Readable where it can be; half of a surrogate pair stays escaped."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    return text if _is_unicode(text) else json.dumps(value, indent=1)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
