from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from pipelines import attention
from pipelines.attention import KERNELS, SMALL, Case, Timed, attending, best, measured, measured_once, told

CPU = torch.device("cpu")
CASES = (Case(2, 32, 2, 40), Case(20, 5, 2, 8, is_over_time=True))


def test_what_works_here_is_measured_and_what_does_not_is_said() -> None:
    found = {one.name: one for one in measured(CPU, torch.float32, cases=CASES)}
    assert tuple(found) == KERNELS
    assert found["sdpa"].seconds > 0
    assert found["flash"].seconds > 0
    for name in ("xformers", "cudnn", "efficient"):  # all of them are for cards
        assert found[name].seconds is None
        assert found[name].problem


def with_xformers(monkeypatch: pytest.MonkeyPatch, attend: object) -> None:
    package = types.ModuleType("xformers")
    monkeypatch.setitem(sys.modules, "xformers", package)
    monkeypatch.setitem(sys.modules, "xformers.ops", types.SimpleNamespace(memory_efficient_attention=attend))


def test_xformers_has_to_work_at_every_width_and_is_not_asked_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        seen.append(tuple(query.shape))
        return scaled_dot_product_attention(*(one.transpose(1, 2) for one in (query, key, value))).transpose(1, 2)

    with_xformers(monkeypatch, attend)
    (found,) = measured(CPU, torch.float32, ["xformers"], CASES)
    assert found.seconds > 0
    assert {shape[-1] for shape in seen} == {40, 64, 80, 160}
    assert {shape[1] for shape in seen} == {256, 32}


@pytest.mark.parametrize(
    ("attend", "problem"),
    [
        (lambda query, key, value: query, "it is off by"),
        (lambda *tokens: 1 / 0, "division by zero"),
        (lambda *tokens: None.shape, "'NoneType' object has no attribute 'shape'"),
    ],
)
def test_a_kernel_that_is_broken_or_wrong_is_left_out(monkeypatch: pytest.MonkeyPatch, attend: object, problem: str) -> None:
    with_xformers(monkeypatch, attend)
    (found,) = measured(CPU, torch.float32, ["xformers"], SMALL)
    assert found.seconds is None
    assert problem in found.problem


def test_a_kernel_that_is_half_as_good_as_the_first_is_not_chosen_and_one_that_does_not_work_never() -> None:
    assert best([Timed("xformers", None, "broken"), Timed("sdpa", 1.0), Timed("flash", 0.96), Timed("cudnn", 2.0)]) == "sdpa"
    assert best([Timed("xformers", 1.0), Timed("sdpa", 0.94)]) == "sdpa"
    assert best([]) == "sdpa"
    assert told([Timed("a", 0.002), Timed("b", None, "no"), Timed("c", 0.001)]) == "c 1.00 ms, a 2.00 ms"


def test_the_kernel_is_asked_for_as_long_as_the_block_lasts_and_another_serves_where_it_cannot() -> None:
    query = torch.randn(1, 2, 8, 16)
    usual = scaled_dot_product_attention(query, query, query)
    before = torch._C._get_sdp_priority_order()
    for name in ("sdpa", "xformers"):
        with attending(name):
            assert torch._C._get_sdp_priority_order() == before
    with attending("flash"):
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        assert torch.allclose(scaled_dot_product_attention(query, query, query), usual, atol=1e-6)
    with attending("cudnn"):  # which is not there on a CPU
        assert torch._C._get_sdp_priority_order() != before
        assert torch.allclose(scaled_dot_product_attention(query, query, query), usual, atol=1e-6)
    assert torch._C._get_sdp_priority_order() == before
    assert torch.backends.cuda.cudnn_sdp_enabled()


def test_what_was_measured_is_remembered_for_the_same_card_and_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, calls = tmp_path / "cache" / "attention.json", []
    found = [Timed("xformers", None, "not there"), Timed("sdpa", 0.5)]
    monkeypatch.setattr(attention, "measured", lambda *arguments: calls.append(arguments) or found)
    for _ in range(2):
        assert measured_once(CPU, torch.float32, file) == found
    assert len(calls) == 1
    assert measured_once(CPU, torch.float16, file) == found
    assert len(calls) == 2
    monkeypatch.setattr(attention, "_version", lambda library: "another")
    measured_once(CPU, torch.float32, file)
    assert len(calls) == 3
    for damaged in ("", "[]", json.dumps(dict.fromkeys(json.loads(file.read_text()), 3))):
        file.write_text(damaged)
        assert measured_once(CPU, torch.float32, file) == found
    assert len(calls) == 6
    assert measured_once(CPU, torch.float32, None) == found
    assert [path.name for path in file.parent.iterdir()] == ["attention.json"]


def test_a_card_that_was_full_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, calls = [Timed("sdpa", 0.5), Timed("flash", None, "CUDA out of memory. Tried to allocate 20.00 MiB")], []
    monkeypatch.setattr(attention, "measured", lambda *arguments: calls.append(1) or found)
    for _ in range(2):
        assert measured_once(CPU, torch.float32, tmp_path / "attention.json") == found
    assert calls == [1, 1]
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_written_it_is_measured_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "measured", lambda *arguments: [Timed("sdpa", 0.5)])
    (tmp_path / "file").touch()
    assert measured_once(CPU, torch.float32, tmp_path / "file" / "attention.json")
