"""Templates as the job API shows them, and films made from their fields."""

from __future__ import annotations

import json
import math
from collections.abc import Container, Mapping
from typing import Any

from errors import InputError
from pipelines.parameters import Choice, Number, Switch, parse_loras
from workflows.declare import Catalog, FileChoice, Input
from workflows.folders import Folders
from workflows.graph import WorkflowError
from workflows.templates import Field, Template
from workflows.texts import say

_PUTS = {"loras": "LoraLoader", "vae": "VAELoader"}  # nodes that a field puts into the graph
_KINDS = {"INT": "integer", "FLOAT": "number", "STRING": "text", "BOOLEAN": "switch"}


class BadFields(InputError):
    """`fields`: what is wrong with which field of a template."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        super().__init__(
            " ".join(f"{name}: {text.rstrip('.')}." for name, text in fields.items()), "`GET /api/templates` says what each field takes."
        )
        self.fields = dict(fields)


def document(template: Template, catalog: Catalog, folders: Folders, language: str = "en") -> dict[str, Any]:
    """As the job API tells it; the help in that language."""
    defaults = template.defaults()
    groups = [
        {"title": group.title, "fields": [_field(one, template, defaults[one.name], catalog, folders) for one in group.fields]}
        for group in template.groups
    ]
    for one in (one for group in groups for one in group["fields"]):
        own = template.fields()[one["name"]].help
        one["help"] = own.get(language) or own.get("en") or say(one["help"], language)
    return {"id": template.id, "title": template.title, "description": template.description, "groups": groups}


def misfits(template: Template, given: Mapping[str, Any], catalog: Catalog) -> dict[str, str]:
    """What is wrong with which field, before a workflow is made of them. A form's values are what they say: ComfyUI would take 14.7 frames
    for 14, true for 1, and a list for a link."""
    found = {name: _misfit(_type_of(template, name, catalog), value) for name, value in given.items() if name in template.fields()}
    for name in (name for name, one in template.fields().items() if one.replaces == "loras" and given.get(name)):
        try:
            parse_loras(given[name], "This")
        except InputError as error:
            found[name] = error.message
    return {name: text for name, text in found.items() if text}


def _type_of(template: Template, name: str, catalog: Catalog) -> str:
    """As on the wire, of what a field sets; "" if nobody knows."""
    node, _, of = (template.fields()[name].inputs or ("",))[0].partition(".")
    node_class = catalog.classes.get(template.workflow[node]["class_type"]) if node else None
    return node_class.inputs[of].type if node_class is not None and of in node_class.inputs else ""


def _misfit(kind: str, value: Any) -> str:
    """What is wrong with it; "" for what fits, or is checked with its node."""
    shown = json.dumps(value)[:100]
    if isinstance(value, dict | list) or (kind == "STRING" and not isinstance(value, str)):
        return f"{shown} is no text" if kind == "STRING" else f"{shown} is no single value"
    if kind in ("INT", "FLOAT") and (isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value))):
        return f"{shown} is no number"
    if kind == "INT" and isinstance(value, float) and not value.is_integer():
        return f"{value:g} is no whole number; use {math.floor(value)} or {math.ceil(value)}"
    return ""


def in_fields(error: WorkflowError, template: Template, given: Container[str], wrong: Mapping[str, str] | None = None) -> InputError:
    """What is wrong with nodes, said of the fields that set them, first of all of those that were given; the same error if it is about
    something else. `wrong`: what is known to be wrong with fields besides."""
    places = {place: name for name, one in template.fields().items() for place in one.inputs}
    behind = {_PUTS.get(one.replaces): name for name, one in template.fields().items()}
    found: dict[str, str] = {}
    for node, problems in error.node_errors.items():
        for problem in problems["errors"]:
            name = places.get(f"{node}.{problem['extra_info'].get('input_name')}") or behind.get(problems["class_type"])
            if name is None:
                return error
            found[name] = _plainly(problem)
    own = {name: text for name, text in found.items() if name in given}
    return BadFields({**(wrong or {}), **(own or found)}) if found else error


def _plainly(problem: Mapping[str, Any]) -> str:
    """One problem of a node in words for people."""
    extra, details = problem["extra_info"], problem["details"]
    value, config = extra.get("received_value"), extra.get("input_config") or ("", {})
    match problem["type"]:
        case "invalid_input_type" if "exception_message" in extra:
            wanted = {"INT": "whole number", "FLOAT": "number", "BOOLEAN": "switch (true or false)"}.get(config[0], "text")
            return f"{str(value)[:100]!r} is no {wanted}"
        case "value_smaller_than_min":
            return f"{value} is less than {config[1].get('min')}, the least there can be"
        case "value_bigger_than_max":
            return f"{value} is more than {config[1].get('max')}, the most there can be"
        case "value_not_in_list":
            shown, _, names = details.partition(": ")[2].partition(" not in ")
            names, _, near = names.removesuffix("?").partition(". Did you mean ")
            if names == "[]":
                return f"{shown} is not there"
            return f"{shown} is none of {names}. Did you mean {near}?" if near else f"{shown} is none of {names}"
        case "custom_validation_failed":
            return details.partition(" - ")[2]
        case _:
            return problem["message"]


def _field(one: Field, template: Template, default: Any, catalog: Catalog, folders: Folders) -> dict[str, Any]:
    shown = {
        "name": one.name,
        "title": one.title,
        "is_advanced": one.advanced,
        "is_main": one.main,
        "default": default,
        "follows": template.follows.get(one.name),
        "is_required": bool(one.required),
    }
    if not one.inputs:
        return shown | _change(one, folders)
    node, name = one.inputs[0].split(".", 1)
    node_class = catalog.classes.get(template.workflow[node]["class_type"])
    if node_class is None or name not in node_class.inputs:  # somebody's own, for nodes that are not loaded
        return shown | {"kind": "text", "help": ""}
    declared = node_class.inputs[name]
    return shown | {"kind": _KINDS.get(declared.type, "text"), "help": declared.help} | _bounds(declared, folders)


def _change(one: Field, folders: Folders) -> dict[str, Any]:
    """A field that sets no input."""
    if one.replaces == "vae":
        return {"kind": "file", "choices": folders.names("vae"), "help": "Another autoencoder."}
    if one.replaces == "metadata":
        return {"kind": "switch", "help": "keep prompt, seeds and settings inside the files"}
    return {"kind": "loras", "choices": folders.names("loras"), "help": "With strengths: soft:0.8, sharp:0.5"}


def _bounds(declared: Input, folders: Folders) -> dict[str, Any]:
    match declared.declaration:
        case Number(low=low, high=high):
            return {"min": low, "max": high}
        case Choice(names=names):
            return {"kind": "choice", "choices": list(names)}
        case FileChoice(folder=folder):
            return {"kind": "file", "choices": folders.names(folder)}
        case Switch():
            return {"kind": "switch"}
        case _:
            return {}
