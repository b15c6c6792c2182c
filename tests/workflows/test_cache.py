from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipelines.values import Draw, Latents, ModelSource, Pictures
from workflows import cache as cache_file
from workflows.cache import Cache, size_of

LATENTS = Latents(np.arange(4 * 4 * 4, dtype=np.float32).reshape(1, 4, 4, 4), Draw(2**64 - 1, (1, 4, 4, 4)))
PICTURES = Pictures(np.random.default_rng(0).random((2, 8, 8, 3), np.float32))


def same(a: Latents | Pictures, b: Latents | Pictures) -> bool:
    (x, y), (u, v) = vars(a).values(), vars(b).values()
    return np.array_equal(x, u) and y == v


@pytest.mark.parametrize("value", [LATENTS, PICTURES])
def test_what_is_kept_on_the_disk_comes_back_to_the_bit(tmp_path: Path, value: Latents | Pictures) -> None:
    Cache(tmp_path).put("k", (value,), on_disk=True)
    (again,) = Cache(tmp_path).get("k")
    assert same(again, value)
    assert not list(tmp_path.glob("*.part"))


def test_what_is_not_worth_the_disk_is_kept_in_memory_alone(tmp_path: Path) -> None:
    kept = Cache(tmp_path)
    kept.put("k", (LATENTS,))
    kept.put("m", (ModelSource(Path("x"), "still"),), on_disk=True)
    assert kept.get("k") == (LATENTS,)
    assert list(tmp_path.iterdir()) == []
    assert Cache(tmp_path).get("k") is None


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_a_damaged_file_is_a_miss_and_goes(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    Cache(tmp_path).put("k", (PICTURES,), on_disk=True)
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes({"cut": bytes(data[:-50]), "flipped": bytes(data), "empty": b"", "text": b"hello"}[damage])
    kept = Cache(tmp_path)
    assert kept.get("k") is None
    assert "damaged" in caplog.text
    assert not path.exists()
    assert (kept.hits, kept.misses) == (0, 1)


def test_several_may_keep_the_same_and_none_cuts_short_what_another_reads(tmp_path: Path) -> None:
    first, second = Cache(tmp_path), Cache(tmp_path)
    first.put("k", (PICTURES,), on_disk=True)
    (path,) = tmp_path.iterdir()
    number = path.stat().st_ino
    second.put("k", (PICTURES,), on_disk=True)
    assert [(one, one.stat().st_ino) for one in tmp_path.iterdir()] == [(path, number)]
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])  # another has not come to its end yet
    third = Cache(tmp_path)
    assert third.get("k") is None
    third.put("k", (PICTURES,), on_disk=True)
    assert same(Cache(tmp_path).get("k")[0], PICTURES)


def test_memory_has_a_budget_and_the_oldest_goes_first(tmp_path: Path) -> None:
    kept = Cache(memory_bytes=2 * size_of(PICTURES) + 10)
    for key in "abc":
        kept.put(key, (PICTURES,))
        kept.get("a")
    assert [key for key in "abc" if kept.get(key)] == ["a", "c"]
    kept.put("huge", (Pictures(np.zeros((9, 64, 64, 3), np.float32)),))
    assert kept.get("huge") is None
    assert kept.forget()
    assert not kept.forget()
    assert kept.bytes == 0


def test_the_disk_has_a_budget_and_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    for number, key in enumerate("abc"):
        Cache(tmp_path, disk_bytes=2 * size_of(PICTURES) + 10).put(key, (PICTURES,), on_disk=True)
        os.utime(tmp_path / f"{key}.safetensors", (1000 + number, 1000 + number))
        if key == "b":
            assert Cache(tmp_path).get("a")  # used just now
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["a", "c"]


def test_a_full_disk_costs_the_cache_and_not_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_file, "_save", full)
    kept = Cache(tmp_path)
    kept.put("k", (PICTURES,), on_disk=True)
    assert kept.get("k") == (PICTURES,)
    assert "could not be kept" in caplog.text
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(cache_file.shutil, "disk_usage", lambda path: usage._replace(free=2**20))
    monkeypatch.undo()
    monkeypatch.setattr(cache_file.shutil, "disk_usage", lambda path: usage._replace(free=2**20))
    kept.put("n", (PICTURES,), on_disk=True)
    assert not list(tmp_path.iterdir())


def test_what_else_lies_in_the_folder_is_left_alone_however_old(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """PyTorch's compiler has its place there."""
    (tmp_path / "compiled").mkdir()
    for name in ("attention.json", "old.part"):
        (tmp_path / name).touch()
    for path in tmp_path.iterdir():
        os.utime(path, (1, 1))
    Cache(tmp_path).put("k", (PICTURES,), on_disk=True)
    assert {path.name for path in tmp_path.iterdir()} == {"compiled", "attention.json", "k.safetensors"}
    assert caplog.text == ""
