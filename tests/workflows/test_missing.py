from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from workflows.folders import Folders
from workflows.missing import missing, nearest
from workflows.nodes import catalog
from workflows.templates import fill, find_template


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    for name in ("models/checkpoints/svd_xt.safetensors", "models/loras/anime/Soft.safetensors", "input/cat.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return Folders(tmp_path)


def found(folders: Folders, template: str = "text_to_film", change: Any = None, **values: Any) -> list[tuple[str, ...]]:
    graph = fill(find_template(template), values)
    if change:
        change(graph)
    return [(one.kind, one.node, one.name, one.nearest, one.folder) for one in missing(graph, catalog(), folders)[0]]


def test_nothing_is_missing(folders: Folders) -> None:
    lacks, workflow = missing(fill(find_template("text_to_film"), {}), catalog(), folders)
    assert lacks == []
    assert workflow.targets


def test_a_model_is_named_with_its_folder_and_the_nearest_there_is(folders: Folders) -> None:
    assert found(folders, motion_checkpoint="video\\SVD_XT.safetensors", loras="soft") == [
        ("model", "18", "video\\SVD_XT.safetensors", "svd_xt.safetensors", "models/checkpoints"),
        ("model", "20", "soft.safetensors", "anime/Soft.safetensors", "models/loras"),
    ]
    assert found(folders, checkpoint="LandscapeBING_v10.safetensors")[0][3] == ""


def test_advice_is_given_as_if_the_models_were_there(folders: Folders) -> None:
    _, workflow = missing(fill(find_template("text_to_film"), {"checkpoint": "gone.safetensors"}), catalog(), folders)
    assert workflow is not None


def test_a_picture_a_value_and_a_link_are_named(folders: Folders) -> None:
    assert found(folders, "still_to_film", image="Cat.PNG") == [("picture", "8", "Cat.PNG", "cat.png", "input")]
    assert found(folders, steps=0, sampler="eulr") == [("value", "3", "steps", "", ""), ("value", "3", "sampler_name", "euler", "")]
    assert found(folders, change=lambda graph: graph["8"]["inputs"].pop("vae")) == [("link", "8", "vae", "", "")]
    assert found(folders, change=lambda graph: graph["8"]["inputs"].update(vae=["6", 0])) == [("link", "8", "vae", "", "")]


def test_an_unknown_node_hides_nothing_else(folders: Folders) -> None:
    def change(graph: dict[str, Any]) -> None:
        graph["8"]["class_type"] = "VAEDecodeTile"
        graph["99"] = "no node"

    lacks = found(folders, change=change, checkpoint="gone", steps=0)
    assert ("node", "8", "VAEDecodeTile", "VAEDecodeTiled", "") in lacks
    assert ("node", "99", "", "", "") in lacks
    assert {one[0] for one in lacks} == {"node", "model", "value"}


def test_a_workflow_that_writes_nothing_says_so(folders: Folders) -> None:
    graph = fill(find_template("text_to_still"), {})
    del graph["9"]
    assert [one.kind for one in missing(graph, catalog(), folders)[0]] == ["workflow"]


@pytest.mark.parametrize(("name", "near"), [("A.safetensors", "x/a.safetensors"), ("svd-xt", "svd_xt.safetensors"), ("zzz", ""), ("", "")])
def test_the_nearest(name: str, near: str) -> None:
    assert nearest(name, ["x/a.safetensors", "svd_xt.safetensors", "other.safetensors"]) == near
