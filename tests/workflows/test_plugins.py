from __future__ import annotations

import sys
from pathlib import Path

import pytest

from workflows.nodes import catalog
from workflows.plugins import with_plugins

GOOD = '''
from __future__ import annotations
from typing import Annotated
from pipelines.parameters import Number
from pipelines.values import Latents
from workflows.declare import node

@node("{name}", title="Halve", category="mine")
def halve(bench, samples: Latents, factor: Annotated[float, Number(0, 1, "by how much")] = 0.5) -> Latents:
    """Latents made smaller."""
    return Latents(samples.samples * factor)

NODES = (halve,)
'''


@pytest.fixture(autouse=True)
def forget() -> object:
    yield
    for name in [name for name in sys.modules if name.startswith("stillmotion_custom_nodes_")]:
        del sys.modules[name]


def test_a_file_and_a_package_add_their_nodes(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(GOOD.format(name="Halve"))
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "__init__.py").write_text(GOOD.format(name="Third"))
    found, problems = with_plugins(catalog(), tmp_path)
    assert problems == []
    assert {"Halve", "Third", "KSampler"} <= set(found)
    assert found["Halve"].inputs["factor"].default == 0.5


BROKEN = {
    "syntax.py": "def",
    "raises.py": "1 / 0",
    "exits.py": "import sys; sys.exit(3)",
    "empty.py": "",
    "strange.py": "NODES = (5,)",
    "taken.py": GOOD.format(name="KSampler"),
    "foreign.py": "NODE_CLASS_MAPPINGS = {}",
    "plain.py": GOOD.format(name="Plain").replace('Annotated[float, Number(0, 1, "by how much")]', "float"),
}


def test_broken_ones_are_told_of_and_left_out(tmp_path: Path) -> None:
    for name, text in BROKEN.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "zz_good.py").write_text(GOOD.format(name="Halve"))
    (tmp_path / "notes.txt").write_text("x")
    found, problems = with_plugins(catalog(), tmp_path)
    assert "Halve" in found
    assert len(found.classes) == len(catalog().classes) + 1
    assert [line.split()[0] for line in problems] == sorted(BROKEN)
    said = dict(zip(sorted(BROKEN), problems, strict=True))
    assert "written for ComfyUI" in said["foreign.py"]
    assert "already a node KSampler" in said["taken.py"]
    assert "annotate it" in said["plain.py"]


def test_without_a_folder_there_is_nothing_to_add(tmp_path: Path) -> None:
    found, problems = with_plugins(catalog(), tmp_path / "none")
    assert (list(found), problems) == (list(catalog()), [])
