from __future__ import annotations

from pathlib import Path

import pytest

from errors import InputError, UnknownNameError
from workflows.folders import Folders


@pytest.mark.parametrize("owner", ["../evil", "..", ".hidden", "a/b", "a\\b", "a\0b", "x" * 300])
def test_an_owner_stays_in_his_folder(tmp_path: Path, owner: str) -> None:
    with pytest.raises(InputError, match="cannot have a folder"):
        Folders(tmp_path, owner)
    assert Folders(tmp_path, "anna").of("output") == tmp_path / "output" / "anna"
    assert Folders(tmp_path).of("output") == tmp_path / "output"


def test_given_pictures_are_found_and_nothing_outside(tmp_path: Path) -> None:
    for name in ("input/a.png", "output/b.png", "secret.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    folders = Folders(tmp_path)
    assert folders.picture("a.png") == tmp_path / "input" / "a.png"
    assert folders.picture("b.png [output]") == tmp_path / "output" / "b.png"
    assert folders.names("input") == ["a.png"]
    for name in ("../secret.png", "/etc/passwd", "a\0.png"):
        with pytest.raises(InputError):
            folders.picture(name)
    with pytest.raises(UnknownNameError, match=r"a\.png"):
        folders.picture("c.png")


@pytest.mark.parametrize("name", ["a" * 5000, "a" * 5000 + " [output]", "a/" * 3000 + "b.png"])
def test_a_name_that_no_disk_can_hold_is_an_unknown_one(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError) as caught:
        Folders(tmp_path).picture(name)
    assert len(caught.value.message) < 300
