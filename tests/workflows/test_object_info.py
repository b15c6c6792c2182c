from __future__ import annotations

import json
from pathlib import Path

import pytest

from workflows.folders import Folders
from workflows.nodes import catalog
from workflows.object_info import describe

RECORDED = json.loads((Path(__file__).parent.parent / "data" / "comfyui_contract" / "object_info.json").read_text())
SAME = ("input_order", "output", "output_is_list", "output_name", "name", "display_name", "python_module", "category", "output_node")


def bare(config: list) -> list:
    """Of a choice only that it is one: ours has other files and fewer samplers. Numbers' upper bounds may be where ComfyUI has none."""
    options = {name: value for name, value in (config[1] if len(config) > 1 else {}).items() if name not in ("tooltip", "max")}
    return ["choice" if isinstance(config[0], list) else config[0], {} if isinstance(config[0], list) else options]


@pytest.mark.parametrize("name", RECORDED)
def test_a_node_is_described_as_comfyui_describes_it(name: str, tmp_path: Path) -> None:
    ours, theirs = describe(catalog()[name], Folders(tmp_path)), RECORDED[name]
    order = theirs["input_order"] | ({} if name != "VHS_VideoCombine" else {"hidden": ["prompt", "extra_pnginfo"]})
    order.pop("optional", None)  # sound, and batches of films, are not there
    ours["input_order"].pop("optional", None)
    assert {key: ours[key] for key in SAME} == {key: theirs[key] for key in SAME} | {"input_order": order}
    for key, config in theirs["input"]["required"].items():
        assert bare(ours["input"]["required"][key]) == bare(config), key
        if len(config) > 1 and "max" in config[1]:
            assert ours["input"]["required"][key][1]["max"] == config[1]["max"]


def test_every_node_and_every_value_has_a_help_text(tmp_path: Path) -> None:
    for name in catalog():
        node = catalog()[name]
        assert node.help, name
        assert node.help[0].isupper()
        for declared in node.inputs.values():
            assert declared.help or declared.declaration is None, f"{name}.{declared.name}"
