from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from errors import CheckpointError
from pipelines.model_files import file_key
from pipelines.shelf import Shelf, bytes_of


@dataclass
class Models:
    net: nn.Module
    name: str = "x"


def models(numbers: int) -> Models:
    return Models(nn.Linear(numbers, 1, bias=False))  # 4 bytes each


def test_what_was_loaded_is_not_loaded_again() -> None:
    shelf = Shelf(1000)
    first = shelf.take("a", lambda: models(10))
    assert shelf.take("a", lambda: models(10)) is first
    assert shelf.bytes == 40


def test_what_was_used_longest_ago_goes_first() -> None:
    shelf = Shelf(100)
    for key in ("a", "b", "a", "c"):
        shelf.take(key, lambda: models(10))
    loaded: list[str] = []
    for key in ("c", "a", "b"):
        shelf.take(key, lambda key=key: loaded.append(key) or models(1))
    assert loaded == ["b"]


def test_the_newest_stays_even_if_it_is_too_large_and_is_gone_before_the_next_is_loaded() -> None:
    shelf, seen = Shelf(0), []
    shelf.take("a", lambda: models(10))
    assert shelf.bytes == 40

    def load() -> Models:
        seen.append(shelf.bytes)
        return models(5)

    shelf.take("b", load)
    assert (seen, shelf.bytes) == ([0], 20)


def test_everything_else_can_be_dropped() -> None:
    shelf = Shelf(1000)
    for key in ("a", "b"):
        shelf.take(key, lambda: models(10))
    assert shelf.drop_others("b")
    assert shelf.bytes == 40
    assert not shelf.drop_others("b")
    assert shelf.drop_others()
    assert shelf.bytes == 0


def test_shared_weights_count_once() -> None:
    net = nn.Linear(10, 1, bias=False)
    assert bytes_of(Models(nn.ModuleList([net, net]))) == 40


def test_a_replaced_file_is_another_key(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(b"1")
    before = file_key(file, torch.float32)
    assert before == file_key(file, torch.float32) != file_key(file, torch.float16)
    os.utime(file, ns=(1, 1))
    assert file_key(file, torch.float32) != before
    with pytest.raises(CheckpointError, match=r"gone\.safetensors cannot be read"):
        file_key(tmp_path / "gone.safetensors")
    inside = file_key(tmp_path)
    file.write_bytes(b"22")
    assert file_key(tmp_path) != inside


def test_models_for_the_next_job_take_the_place_of_what_neither_wants() -> None:
    shelf = Shelf(120)
    shelf.take("old", lambda: models(10))
    shelf.begin_job()
    shelf.take("now", lambda: models(10))
    following = shelf.prepare("next", 40, lambda: models(10))
    assert all(key in shelf for key in ("old", "now", "next"))
    assert shelf.prepare("next", 40, lambda: models(10)) is following is shelf.take("next", lambda: models(10))
    shelf.prepare("more", 40, lambda: models(10))
    assert [key for key in ("old", "now", "next", "more") if key not in shelf] == ["old"]
    assert shelf.prepare("too much", 40, lambda: models(10)) is None
    assert all(key in shelf for key in ("now", "next", "more"))
    shelf.begin_job()
    shelf.take("next", lambda: models(10))
    assert shelf.prepare("too much", 40, lambda: models(10))
    assert "next" in shelf


def test_what_the_next_job_will_take_is_not_driven_out_by_what_is_prepared_for_it() -> None:
    shelf = Shelf(80)
    for key in ("a", "b"):
        shelf.take(key, lambda: models(10))
    shelf.begin_job()
    shelf.want(["a", "not there"])
    shelf.prepare("c", 40, lambda: models(10))
    assert [key for key in "abc" if key in shelf] == ["a", "c"]
    assert shelf.prepare("d", 40, lambda: models(10)) is None


def test_who_prepares_is_ended_before_memory_is_given_back() -> None:
    shelf, seen = Shelf(1000), []
    shelf.before_drop = lambda: seen.append(shelf.bytes)
    shelf.take("now", lambda: models(10))
    assert shelf.drop_others()
    assert (seen, shelf.bytes) == ([40], 0)
