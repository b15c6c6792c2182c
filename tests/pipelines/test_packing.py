from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import nn

from pipelines import packing
from pipelines.lean_blocks import slim
from pipelines.memory import STREAMED, choose_placement, place
from pipelines.models import Single
from pipelines.packing import PackedConv2d, PackedOverTime, allow_packing
from pipelines.savings import ALL
from pipelines.shelf import bytes_of

ROUNDING = 1e-5  # of outputs near 1: another kernel sums in another order


@pytest.fixture(autouse=True)
def small_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_LEAST_WEIGHTS", 500)


@torch.inference_mode()
@pytest.mark.parametrize("conv", [{}, {"stride": 2}, {"padding": (1, 0)}, {"dilation": 2}, {"groups": 4}, {"bias": False}], ids=str)
def test_a_packed_convolution_gives_the_same_at_every_size(conv: dict) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(16, 32, 3, **{"padding": 1} | conv)
    packed = copy.deepcopy(plain)
    allow_packing(nn.Sequential(packed))
    for n, height, width in ((1, 8, 8), (2, 5, 7), (6, 40, 24), (3, 16, 16)):
        x = torch.randn(n, 16, height, width)
        for given in (x, x, x.to(memory_format=torch.channels_last)):
            assert (packed(given) - plain(x)).abs().max() < ROUNDING
        assert packed.weight.is_mkldnn == (n * height * width <= 2048)
        assert packed(x).is_contiguous()


@torch.inference_mode()
def test_it_is_packed_for_a_size_that_stays_and_unpacked_for_another() -> None:
    conv, sizes = nn.Conv2d(16, 32, 3, padding=1), ((1, 8), (1, 8), (1, 8), (2, 8), (1, 8), (2, 8), (2, 8))
    plain = conv.weight.clone()
    allow_packing(nn.Sequential(conv))
    packed = []
    for n, side in sizes:
        conv(torch.zeros(n, 16, side, side))
        packed.append(conv.weight.is_mkldnn)
    assert packed == [False, True, True, False, False, False, True]
    conv(torch.zeros(1, 16, 4, 4))
    assert torch.equal(conv.weight, plain)


@torch.inference_mode()
def test_a_kernel_over_time_is_packed_too() -> None:
    torch.manual_seed(0)
    plain = nn.Conv3d(16, 16, (3, 1, 1), padding=(1, 0, 0))
    packed, x = nn.Sequential(copy.deepcopy(plain)), torch.randn(2, 16, 5, 4, 6)
    slim(packed)
    allow_packing(packed)
    assert isinstance(packed[0], PackedOverTime)
    for given in (x, x, x, torch.randn(1, 16, 2, 4, 6)):
        assert (packed(given) - plain(given)).abs().max() < ROUNDING
    assert torch.equal(packed[0].weight, plain.weight)


def test_packed_weights_are_counted_and_there() -> None:
    model = nn.Sequential(nn.Conv2d(16, 32, 3), nn.Conv2d(2, 2, 1))
    before = bytes_of(Single(model))
    allow_packing(model)
    for _ in range(2):
        model[0](torch.zeros(1, 16, 8, 8))
    assert next(model.parameters()).is_mkldnn
    assert bytes_of(Single(model)) == before
    assert next(model.parameters()).device.type == "cpu"
    assert next(model.parameters()).dtype == torch.float32


def test_what_would_not_gain_or_cannot_is_left_alone() -> None:
    small, half, meta = nn.Conv2d(2, 2, 1), nn.Conv2d(16, 32, 3).to(torch.bfloat16), nn.Conv2d(16, 32, 3, device="meta")
    around, same = nn.Conv2d(16, 32, 3, padding=1, padding_mode="circular"), nn.Conv2d(16, 32, 3, padding="same")
    model = nn.Sequential(small, half, meta, around, same, nn.Conv3d(16, 32, 3))
    allow_packing(model)
    assert not any(isinstance(module, PackedConv2d) for module in model)


def test_only_models_that_stay_on_the_cpu_are_packed() -> None:
    for savings, residence in ((dataclasses.replace(ALL, packs_weights=False), "all"), (ALL, STREAMED)):
        model = place(nn.Sequential(nn.Conv2d(16, 32, 3)), choose_placement("cpu", savings=savings), residence)
        assert not isinstance(model[0], PackedConv2d)
    assert isinstance(place(nn.Sequential(nn.Conv2d(16, 32, 3)), choose_placement("cpu"))[0], PackedConv2d)
