from __future__ import annotations

import sys
import types

import pytest
import torch

from errors import InputError, MemoryExhaustedError, UnknownNameError
from pipelines import memory
from pipelines.memory import choose_placement


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def ampere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A100")


@pytest.mark.usefixtures("no_gpu")
def test_without_a_card_everything_is_float32_on_the_cpu() -> None:
    placement = choose_placement()
    described = placement.describe()
    assert described.items() >= {"device": "cpu", "dtype": "float32", "attention": "sdpa"}.items()
    assert "no CUDA device" in described["reason"]


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("device", ["cuda", "mps", "cuda:1"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(device: str) -> None:
    with pytest.raises(InputError, match=rf"There is no {device} device.*Choose one of: cpu"):
        choose_placement(device)


@pytest.mark.usefixtures("ampere")
def test_a_card_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match="There is no cuda:2 device"):
        choose_placement("cuda:2")


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_every_lack_of_memory_is_said_in_one_way(error: Exception) -> None:
    with pytest.raises(MemoryExhaustedError, match="smaller size or fewer frames"), memory.readable_memory_errors():
        raise error


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="sizes do not match"), memory.readable_memory_errors():
        raise RuntimeError("sizes do not match")


def test_unknown_names_are_answered_with_the_known() -> None:
    with pytest.raises(UnknownNameError, match="auto, cuda, cuda:0, mps, cpu"):
        choose_placement("tpu")
    with pytest.raises(UnknownNameError, match="auto, sdpa, xformers"):
        choose_placement(attention="flash")


@pytest.mark.usefixtures("no_gpu")
def test_xformers_without_cuda_is_refused_when_asked_for() -> None:
    with pytest.raises(InputError, match="xFormers cannot be used here: no CUDA device"):
        choose_placement(attention="xformers")


@pytest.mark.usefixtures("ampere")
def test_a_card_runs_half_precision_and_the_autoencoder_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_xformers_problem", lambda: "xformers is not installed")
    placement = choose_placement()
    assert (placement.device.type, placement.dtype, placement.vae_dtype) == ("cuda", torch.float16, torch.bfloat16)
    assert placement.attention == "sdpa"


@pytest.mark.usefixtures("ampere")
def test_xformers_is_taken_where_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    package = types.ModuleType("xformers")
    package.__spec__ = types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "xformers", package)
    calls = []
    monkeypatch.setitem(sys.modules, "xformers.ops", types.SimpleNamespace(memory_efficient_attention=lambda *args: calls.append(args)))
    monkeypatch.setattr(torch, "zeros", lambda *size, **options: None)  # there is no card to put them on
    assert choose_placement().attention == "xformers"
    assert len(calls) == 1
    assert choose_placement(attention="sdpa").attention == "sdpa"


@pytest.mark.usefixtures("ampere")
def test_a_broken_xformers_is_left_alone_and_the_reason_said(monkeypatch: pytest.MonkeyPatch) -> None:
    package = types.ModuleType("xformers")
    package.__spec__ = types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "xformers", package)
    monkeypatch.setitem(sys.modules, "xformers.ops", None)  # makes the import fail
    placement = choose_placement()
    assert placement.attention == "sdpa"
    assert "xformers does not work" in placement.reason
