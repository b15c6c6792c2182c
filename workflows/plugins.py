"""Nodes of people's own: Python files in `<data-dir>/custom_nodes` that declare nodes as ours are declared, in a tuple `NODES`.

They run with all that this program may do, so they are loaded only when that was asked for. One that is broken is told of and left out.
"""

from __future__ import annotations

import importlib.util
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from workflows.declare import Catalog, NodeClass

log = logging.getLogger(__name__)


def all_nodes(data_dir: Path, has_custom_nodes: bool) -> Catalog:
    """Ours, and people's own if they are asked for."""
    from workflows.nodes import catalog

    if not has_custom_nodes:
        return catalog()
    found, problems = with_plugins(catalog(), data_dir / "custom_nodes")
    for problem in problems:
        logging.getLogger("stillmotion").warning("custom node %s", problem)
    return found


def with_plugins(catalog: Catalog, folder: Path) -> tuple[Catalog, list[str]]:
    """The catalog with the nodes of every file or package in the folder, and a line for each that could not be used."""
    classes, problems = dict(catalog.classes), []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not _is_plugin(path):
            continue
        try:
            found = list(_nodes(_load(path), classes))
        except (Exception, SystemExit) as error:  # it is somebody else's code: anything can happen
            problems.append(f"{path.name} is left out: {_said(error)}")
            log.debug("custom node %s", problems[-1], exc_info=True)
            continue
        classes |= {node.name: node for node in found}
    return Catalog(classes), problems


def _is_plugin(path: Path) -> bool:
    if path.name.startswith((".", "_")):
        return False
    return path.suffix == ".py" if path.is_file() else (path / "__init__.py").is_file()


def _load(path: Path) -> ModuleType:
    """Imported under a name of its own, so that it cannot stand in for a module of ours."""
    file = path if path.is_file() else path / "__init__.py"
    name = "stillmotion_custom_nodes_" + re.sub(r"\W", "_", path.stem)
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=None if path.is_file() else [str(path)])
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _nodes(module: ModuleType, known: dict[str, NodeClass]) -> Iterator[NodeClass]:
    """Raises ValueError that says what is wrong with them."""
    nodes = getattr(module, "NODES", None)
    if nodes is None and hasattr(module, "NODE_CLASS_MAPPINGS"):
        raise ValueError("it is written for ComfyUI; docs/nodes.md says how nodes are declared here")
    if not isinstance(nodes, (tuple, list)) or not all(isinstance(node, NodeClass) for node in nodes):
        raise ValueError("it has no tuple NODES of declared nodes")
    for node in nodes:
        if node.name in known:
            raise ValueError(f"there is already a node {node.name}")
        yield node


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if not isinstance(error, ValueError) else str(error)
