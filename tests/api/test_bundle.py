from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest

from api.bundle import Entry, Names, bundle


def opened(entries: list[Entry]) -> zipfile.ZipFile:
    made = zipfile.ZipFile(io.BytesIO(b"".join(bundle(entries))))
    assert made.testzip() is None
    return made


def test_files_and_settings_come_out_as_they_went_in(tmp_path: Path) -> None:
    (tmp_path / "水.mp4").write_bytes(bytes(range(256)) * 3000)
    with opened([Entry("水", [tmp_path / "水.mp4"], {"seed": 2**64 - 1, "text": "\ud800 水"})]) as made:
        assert made.namelist() == ["水.mp4", "水.settings.json"]
        assert made.read("水.mp4") == bytes(range(256)) * 3000
        assert json.loads(made.read("水.settings.json"))["seed"] == 2**64 - 1
        assert {one.compress_type for one in made.infolist()} == {zipfile.ZIP_STORED}
        assert [one.external_attr >> 16 & 0o777 for one in made.infolist()] == [0o644] * 2


def test_names_are_given_once_and_shared_files_too(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    one, other = tmp_path / "a.png", tmp_path / "other" / "A.PNG"
    one.write_bytes(b"1"), other.write_bytes(b"2")
    with opened([Entry("a", [one], {}), Entry("a", [one, other], {}, ["gone.png"])]) as made:
        assert made.namelist() == ["a.png", "a.settings.json", "A (2).PNG", "a.settings (2).json", "MISSING.txt"]
        assert made.read("MISSING.txt").decode().endswith("\ngone.png\n")
        assert made.read("A (2).PNG") == b"2"


def test_numbers_go_on_until_one_is_free() -> None:
    names = Names()
    assert [names.free(name) for name in ("a.b", "a (2).b", "a.b", "A.B")] == ["a.b", "a (2).b", "a (3).b", "A (4).B"]


def test_no_more_than_a_piece_is_held_in_memory(tmp_path: Path) -> None:
    (tmp_path / "large.mp4").write_bytes(bytes(5 * 2**20))
    pieces = list(bundle([Entry("large", [tmp_path / "large.mp4"], {})]))
    assert len(pieces) > 15
    assert max(map(len, pieces)) < 2**19


def test_a_file_that_goes_away_breaks_it_off(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(bytes(2**19))
    (tmp_path / "b.png").write_bytes(b"b")
    made = bundle([Entry("a", [tmp_path / "a.png", tmp_path / "b.png"], {})])
    next(made)
    (tmp_path / "b.png").unlink()
    with pytest.raises(FileNotFoundError):
        list(made)
