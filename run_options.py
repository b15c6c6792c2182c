"""The options of `run`, `keep`, `reindex`, `backup` and `restore`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errors import InputError
from job_options import add_database
from jobs.service_settings import StoreSettings
from pipelines.parameters import MachineSettings
from server_options import add_machine, machine_settings, number, store_settings

GIB = 2**30


@dataclass(frozen=True)
class RunCommand:
    """`workflow` is a file, or with `template` None and `values` are those of its fields; else `values` are by "node.input"."""

    data_dir: Path
    workflow: Path | None
    template: str | None
    values: Mapping[str, str]
    is_draft: bool
    machine: MachineSettings
    has_custom_nodes: bool
    is_json: bool
    is_quiet: bool


@dataclass(frozen=True)
class KeepCommand:
    store: StoreSettings
    keep_days: float | None
    keep_bytes: int | None
    is_dry: bool
    is_json: bool


@dataclass(frozen=True)
class ReindexCommand:
    store: StoreSettings


@dataclass(frozen=True)
class BackupCommand:
    """`like`: an earlier backup."""

    store: StoreSettings
    folder: Path
    like: Path | None
    has_models: bool


@dataclass(frozen=True)
class RestoreCommand:
    store: StoreSettings
    folder: Path


def add_run(run: argparse.ArgumentParser) -> None:
    run.description = "Run a workflow in ComfyUI's API format, or a template, here and now. What was sampled before is found again."
    run.add_argument("workflow", nargs="?", type=Path, metavar="WORKFLOW.json", help="a workflow as ComfyUI exports it for its API")
    run.add_argument("--template", metavar="NAME", help="a template instead; --set then names its fields")
    run.add_argument(
        "--set", action="append", default=[], dest="values", metavar="NAME=VALUE", help="6.text=a cat, or of a template prompt=a cat"
    )
    run.add_argument("--draft", action="store_true", dest="is_draft", help="of a template: few steps, small")
    run.add_argument(
        "--enable-custom-nodes", action="store_true", dest="has_custom_nodes",
        help="load DATA_DIR/custom_nodes, which runs their code with all rights of this program",
    )  # fmt: skip
    run.add_argument("--json", action="store_true", dest="is_json", help="end with one line of JSON: outputs, files, seconds and more")
    run.add_argument("--quiet", action="store_true", dest="is_quiet", help="no progress bar")
    add_machine(run)


def add_keep(keep: argparse.ArgumentParser) -> None:
    keep.description = "Remove results that are too old or too much. Favourites stay."
    add_database(keep)
    keep.add_argument("--keep-days", type=number, metavar="DAYS", help="what ended earlier goes")
    keep.add_argument("--keep-gib", type=number, metavar="GIB", help="the oldest go until the rest fits")
    keep.add_argument("--dry-run", action="store_true", dest="is_dry", help="only say what would go")
    keep.add_argument("--json", action="store_true", dest="is_json", help="JSON instead of a table")


def add_reindex(reindex: argparse.ArgumentParser) -> None:
    reindex.description = (
        "Make the library again from what lies in the data directory, if the database is lost. Jobs that have not succeeded, favourites, "
        "usage and messages of queues are only in the database, and stay lost."
    )
    add_database(reindex)


def add_backup(backup: argparse.ArgumentParser) -> None:
    backup.description = "Copy jobs, films and keys into a new folder, while a server runs or not."
    backup.add_argument("folder", type=Path, metavar="DIR", help="a new folder, outside the data directory")
    backup.add_argument("--like", type=Path, metavar="EARLIER", help="an earlier backup: what has not changed is shared with it")
    backup.add_argument("--models", action="store_true", dest="has_models", help="the models too, which are large and can be fetched again")
    add_database(backup)


def add_restore(restore: argparse.ArgumentParser) -> None:
    restore.description = "Put a backup into a data directory that has no jobs yet. Nothing is overwritten."
    restore.add_argument("folder", type=Path, metavar="DIR", help="a folder that `app.py backup` has made")
    add_database(restore)


def run_command(options: argparse.Namespace, environment: Mapping[str, str], data_dir: Path) -> RunCommand:
    """Raises InputError."""
    if (options.workflow is None) == (options.template is None):
        raise InputError("There is neither a workflow nor a template, or there are both.", "Give one: app.py run WORKFLOW.json.")
    if options.is_draft and not options.template:
        raise InputError("--draft is for templates.", "Set steps and sizes with --set.")
    same = ("workflow", "template", "is_draft", "has_custom_nodes", "is_json", "is_quiet")
    return RunCommand(
        data_dir=data_dir, values=_values(options.values, options.template), machine=machine_settings(options, environment),
        **{name: getattr(options, name) for name in same},
    )  # fmt: skip


def _values(given: list[str], template: str | None) -> dict[str, str]:
    pattern = r"([^=]+)=(.*)" if template else r"([^=.]+\.[^=]+)=(.*)"
    found = {}
    for text in given:
        match = re.fullmatch(pattern, text, re.DOTALL)
        if not match:
            raise InputError(f"--set {text!r} sets nothing.", "Write it as prompt=a cat." if template else "Write it as 6.text=a cat.")
        found[match[1].strip()] = match[2]
    return found


def keep_command(options: argparse.Namespace, environment: Mapping[str, str], data_dir: Path) -> KeepCommand:
    """Raises InputError."""
    keep_bytes = None if options.keep_gib is None else int(options.keep_gib * GIB)
    return KeepCommand(store_settings(options, environment, data_dir), options.keep_days, keep_bytes, options.is_dry, options.is_json)


def reindex_command(options: argparse.Namespace, environment: Mapping[str, str], data_dir: Path) -> ReindexCommand:
    """Raises InputError."""
    return ReindexCommand(store_settings(options, environment, data_dir))


def backup_command(options: argparse.Namespace, environment: Mapping[str, str], data_dir: Path) -> BackupCommand:
    """Raises InputError."""
    return BackupCommand(store_settings(options, environment, data_dir), options.folder, options.like, options.has_models)


def restore_command(options: argparse.Namespace, environment: Mapping[str, str], data_dir: Path) -> RestoreCommand:
    """Raises InputError."""
    return RestoreCommand(store_settings(options, environment, data_dir), options.folder)


def set_inputs(graph: dict[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    """The workflow with these inputs, by "node.input". Raises InputError for a node that is not there."""
    for place, value in values.items():
        node, name = place.split(".", 1)
        if not isinstance(graph.get(node), dict):
            raise InputError(f"--set {place}: there is no node {node!r}.", f"There are: {', '.join(graph) or 'none'}.")
        graph[node].setdefault("inputs", {})[name] = value
    return graph
