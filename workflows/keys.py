"""What a node's result depends on, as one hash: who has the same key has the same result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from errors import blamed_on
from pipelines.memory import Placement
from pipelines.model_files import file_key
from workflows.declare import FileChoice
from workflows.folders import Folders
from workflows.graph import Link, Node


def keys_of(order: Iterable[Node], folders: Folders, placement: Placement) -> dict[str, str]:
    """A hash of all that a node's result depends on: its function, its values, its files, its inputs, and what it is computed with. Raises
    CheckpointError, UnreadableFileError for files that are gone."""
    machine = placement.describe()
    computed_with = [
        machine["device"].split(":")[0],
        machine["dtype"],
        machine["attention"],
        *(["compiled"] if placement.is_compiled else []),
        *(["float8"] if placement.is_float8 else []),
    ]
    keys: dict[str, str] = {}
    for node in order:
        values = {name: _key_part(node, name, value, folders, keys) for name, value in node.inputs.items()}
        said = json.dumps([node.node_class.name, node.node_class.version, values, computed_with], sort_keys=True, default=str)
        keys[node.id] = hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()
    return keys


def _key_part(node: Node, name: str, value: Any, folders: Folders, keys: Mapping[str, str]) -> Any:
    if isinstance(value, Link):
        return [keys[value.node], value.slot]
    declaration = node.node_class.inputs[name].declaration
    if isinstance(declaration, FileChoice) and isinstance(value, str):
        with blamed_on(node.id):
            if declaration.folder == "input":
                with folders.picture(value).open("rb") as file:
                    return hashlib.file_digest(file, "sha256").hexdigest()
            return [value, file_key(folders.model(declaration.folder, value))]
    return value
