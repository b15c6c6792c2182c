"""ComfyUI's description of nodes, made from their declarations."""

from __future__ import annotations

from typing import Any

from pipelines.parameters import Choice, Number, Text
from workflows.declare import MISSING, FileChoice, Input, NodeClass
from workflows.folders import Folders

HIDDEN = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}


def input_config(declared: Input, folders: Folders) -> list[Any]:
    """`[type, {"default": ..., "min": ...}]`; of a choice its names in place of the type."""
    declaration = declared.declaration
    config: dict[str, Any] = {} if declared.default is MISSING or declared.default is None else {"default": declared.default}
    if isinstance(declaration, Number):
        kind = float if declared.type == "FLOAT" else int
        config |= {"min": kind(declaration.low), "max": kind(declaration.high)}
    if isinstance(declaration, (Number, Text)):
        config |= declaration.wire
    if declared.help:
        config["tooltip"] = declared.help
    if isinstance(declaration, Choice):
        return [list(declaration.names), config | dict(declaration.wire)]
    if isinstance(declaration, FileChoice):
        return [folders.names(declaration.folder), config | ({"image_upload": True} if declaration.folder == "input" else {})]
    return [declared.type, config]


def describe(node: NodeClass, folders: Folders) -> dict[str, Any]:
    """A node's entry in `/object_info`."""
    shown = [declared for declared in node.inputs.values() if not declared.is_extra]
    groups = {
        "required": {i.name: input_config(i, folders) for i in shown if not i.is_optional},
        "optional": {i.name: input_config(i, folders) for i in shown if i.is_optional},
        "hidden": {name: HIDDEN[name] for name in node.hidden},
    }
    groups = {name: group for name, group in groups.items() if group or name == "required"}
    return {
        "input": groups,
        "input_order": {name: list(group) for name, group in groups.items()},
        "output": list(node.outputs),
        "output_is_list": [False] * len(node.outputs),
        "output_name": list(node.output_names),
        "name": node.name,
        "display_name": node.title,
        "description": node.help,
        "python_module": node.module,
        "category": node.category,
        "output_node": node.is_output,
    }
