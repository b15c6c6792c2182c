from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from errors import Canceled, CheckpointError
from pipelines.families import read_safetensors_header
from pipelines.weights import read_tensors


def places(path: Path) -> dict:
    return {name: (path, info) for name, info in read_safetensors_header(path)[0].items()}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_tensors_are_the_files_whatever_their_type(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    drawn = {"a": torch.randn(3, 5), "b.c": torch.randn(7), "empty": torch.zeros(0, 2), "one": torch.ones(())}
    tensors = {name: tensor.to(dtype) for name, tensor in drawn.items()}
    save_file(tensors, tmp_path / "x.safetensors")
    read = dict(read_tensors(places(tmp_path / "x.safetensors"), lambda count: None))
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == dtype
        assert read[name].shape == tensor.shape
        assert torch.equal(read[name].float(), tensor.float())


def test_they_come_in_the_order_in_which_they_lie_there_file_after_file(tmp_path: Path) -> None:
    names = [f"t{k}" for k in range(20)]
    for file in ("a", "b"):
        save_file({f"{file}.{name}": torch.zeros(k + 1) for k, name in enumerate(names)}, tmp_path / f"{file}.safetensors")
    asked = dict(sorted((places(tmp_path / "b.safetensors") | places(tmp_path / "a.safetensors")).items(), key=lambda item: hash(item[0])))
    order = [name for name, _ in read_tensors(asked, lambda count: None)]
    where = {name: (path.name, info.begin) for name, (path, info) in asked.items()}
    assert order == sorted(asked, key=where.__getitem__)


def test_each_is_told_before_it_is_read_and_the_listener_may_stop_it(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(4), "b": torch.zeros(8)}, tmp_path / "x.safetensors")
    told: list[int] = []

    def listen(count: int) -> None:
        told.append(count)
        if len(told) == 2:
            raise Canceled

    with pytest.raises(Canceled):
        list(read_tensors(places(tmp_path / "x.safetensors"), listen))
    assert sorted(told) == [16, 32]


def test_a_file_that_shrinks_meanwhile_is_said(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(1000)}, path)
    known = places(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=r"x\.safetensors ends before its last tensor"):
        list(read_tensors(known, lambda count: None))
