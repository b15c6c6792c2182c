"""All models of a data directory, what each is and what it serves; and what the templates lack, with where it goes and where to get it.

Everything is looked up when it is asked for: a file that is dropped into a folder is there at once.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.families import PICKLES
from pipelines.fetch import FOLDERS, Record, records
from pipelines.model_facts import KnownFacts
from pipelines.model_files import BUNDLED, is_folder, list_checkpoints, list_files
from workflows.known_models import KnownModel, known_file, known_models
from workflows.templates import Template, all_templates

KINDS = ("still", "motion", "vae", "lora")
# class of a node -> what kind of model it loads, and which input names it
LOADERS = {
    "CheckpointLoaderSimple": ("still", "checkpoints", "ckpt_name"),
    "ImageOnlyCheckpointLoader": ("motion", "checkpoints", "ckpt_name"),
    "VAELoader": ("vae", "vae", "vae_name"),
    "LoraLoader": ("lora", "loras", "lora_name"),
    "LoraLoaderModelOnly": ("lora", "loras", "lora_name"),
}
Names = Mapping[str, Mapping[str, Path]]  # folder -> the names in it
_REPLACING = {"vae": "vae", "loras": "lora"}  # fields of templates that put a model into the graph


@dataclass(frozen=True)
class Need:
    """A model that a workflow names: node, kind, folder and name."""

    node: str
    kind: str
    folder: str
    name: str


def needs_of(graph: Mapping[str, Any]) -> list[Need]:
    """Of a workflow in ComfyUI's API format, whatever else is in it."""
    found = []
    for i, node in graph.items():
        class_type, inputs = (node.get("class_type"), node.get("inputs")) if isinstance(node, Mapping) else (None, None)
        if isinstance(class_type, str) and class_type in LOADERS and isinstance(inputs, Mapping):
            kind, folder, name = LOADERS[class_type]
            if isinstance(inputs.get(name), str):
                found.append(Need(str(i), kind, folder, inputs[name]))
    return found


def missing(need: Need, there: Mapping[str, Path]) -> dict[str, Any] | None:
    """What is lacking and how it is got; None if it is there. `there`: the names in its folder."""
    if need.name in there:
        return None
    known = known_file(need.folder, need.name)
    names = {Path(name).stem.lower(): name for name in there}  # without what all end in
    near = difflib.get_close_matches(Path(need.name).stem.lower(), names, n=1)
    return {
        "node": need.node, "kind": need.kind, "folder": need.folder, "name": need.name, "path": f"models/{need.folder}/{need.name}",
        "nearest": names[near[0]] if near else None, "known": known.id if known else None,
    }  # fmt: skip


class ModelList:
    """Of one data directory. Headers that were read are remembered."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir, self.models_dir = data_dir, data_dir / "models"
        self._facts = KnownFacts()

    def document(self, *, shows_paths: bool = True) -> dict[str, Any]:
        """`shows_paths`: where the folders really are, which is nobody's business but the owner's."""
        templates, coming = all_templates(self.data_dir), records(self.models_dir)
        names = {folder: self.names(folder) for folder in FOLDERS}
        models = [*self._models(list(templates.values()), names), *(_coming(record) for record in coming)]
        return {
            "models": models,
            "templates": [_template(one, names) for one in templates.values()],
            "known": [_known(one, models, coming) for one in known_models().values()],
            "folders": {folder: str((self.models_dir / folder).absolute()) if shows_paths else f"models/{folder}" for folder in FOLDERS},
        }

    def names(self, folder: str) -> dict[str, Path]:
        return list_checkpoints(self.models_dir) if folder == "checkpoints" else list_files(self.models_dir / folder)

    def _models(self, templates: Sequence[Template], names: Names) -> list[dict[str, Any]]:
        found, seen = [], set()
        for folder in FOLDERS:
            for name, path in (names[folder] | dict(_pickles(self.models_dir / folder))).items():
                facts = self._facts.of(path, folder)
                seen.add(path)
                serves = [one.id for one in templates if facts.state == "complete" and facts.kind in kinds_of(one)]
                found.append({"name": name, "folder": folder, **asdict(facts), "serves": serves, "is_bundled": path.parent == BUNDLED})
        self._facts.keep_only(seen)
        return found


def kinds_of(template: Template) -> list[str]:
    """The kinds of models that it can be made with."""
    fields = {_REPLACING[one.replaces] for one in template.fields().values() if one.replaces in _REPLACING}
    found = fields | {need.kind for need in needs_of(template.workflow)}
    return [kind for kind in KINDS if kind in found]


def _template(template: Template, names: Names) -> dict[str, Any]:
    """`missing`: what its workflow names and is not there."""
    needs = needs_of(template.workflow)
    return {
        "id": template.id, "title": dict(template.title), "kinds": kinds_of(template),
        "missing": [lacking for need in needs if (lacking := missing(need, names[need.folder]))],
    }  # fmt: skip


def _known(one: KnownModel, models: Sequence[Mapping[str, Any]], coming: Sequence[Record]) -> dict[str, Any]:
    """With whether it is there: missing, downloading, or the state of the file."""
    same = (model for model in models if (model["folder"], model["name"].rsplit("/", 1)[-1]) == (one.folder, one.name))
    state = next((model["state"] for model in same), "missing")
    return asdict(one) | {"name": one.name, "path": f"models/{one.folder}/{one.name}", "state": state}


def _coming(record: Record) -> dict[str, Any]:
    """A file of which only a part is there."""
    wanted, known = record.wanted, known_file(record.wanted.folder, record.wanted.name)
    shown = {"kind": known.kind, "family": known.family, "title": known.title} if known else {"kind": "", "family": "", "title": ""}
    some = {"bytes": record.bytes, "state": "downloading", "problem": "", "hint": "", "serves": [], "is_bundled": False}
    return {"name": wanted.name, "folder": wanted.folder} | shown | some


def _pickles(root: Path) -> Iterator[tuple[str, Path]]:
    """Files that are not used here, so that whoever puts one there learns why."""
    for folder, inside, files in os.walk(root):
        if is_folder(Path(folder)):
            inside.clear()
            continue
        for file in sorted(files):
            if Path(file).suffix in PICKLES:
                yield Path(folder, file).relative_to(root).as_posix(), Path(folder, file)
