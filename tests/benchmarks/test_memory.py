from __future__ import annotations

import dataclasses
import json
import sys
from unittest import mock

import pytest
import torch
from torch import nn

from benchmarks import memory
from pipelines.pieces import Demand, Plan, Relief
from pipelines.reuse import BOTH, Reuse


def test_what_is_alive_at_once_is_counted_and_no_more() -> None:
    with torch.device("meta"):
        layers = nn.Sequential(*(nn.Linear(1000, 1000, bias=False) for _ in range(5)))
    x = memory.empty(10, 1000, dtype=torch.float32)
    assert memory.most_alive(lambda: layers(x), [x]) == 3 * 40_000  # what goes in, and of all others two at a time
    assert memory.most_alive(lambda: torch.cat([layer(x) for layer in layers]), [x]) == (1 + 5 + 5) * 40_000


def test_attention_is_counted_without_its_matrix() -> None:
    query = memory.empty(1, 2, 500, 8)
    assert memory.most_alive(lambda: nn.functional.scaled_dot_product_attention(query, query, query), [query]) == 2 * 2 * 500 * 8 * 2


def test_weights_in_eight_bits_are_counted_as_such() -> None:
    usual, small = (memory.Models.of("svd", memory.ALL, is_tiny=True, is_float8=is_small) for is_small in (False, True))
    assert 0.5 < small.sizes["unet"] / usual.sizes["unet"] < 0.8  # of a tiny model much is in biases and at its ends
    assert {part: size for part, size in small.sizes.items() if part != "unet"} == {
        part: size for part, size in usual.sizes.items() if part != "unet"
    }


@torch.inference_mode()
@pytest.mark.parametrize(("family", "frames", "told"), [("sd1", 1, (2, 77, 768)), ("svd", 3, (2, 1, 1024))])
def test_plans_count_the_features_that_the_real_models_keep(family: str, frames: int, told: tuple[int, ...]) -> None:
    unet, (height, width) = memory.Models.of(family, memory.NONE, is_tiny=False).unet, (8, 16)
    film = [memory.empty(2, frames, 8, height, width), torch.empty((), device="meta"), memory.empty(*told), memory.empty(2, 3)]
    still = [memory.empty(2, 4, height, width), torch.empty((), device="meta"), memory.empty(*told)]
    reuse = Reuse(unet, 2)
    with mock.patch("torch.nn.functional.scaled_dot_product_attention", memory.attended), reuse.listening(Relief()):
        for _ in range(3):
            reuse.begin_call()
            reuse(BOTH, *(film if family == "svd" else still))
        kept = sum(features.nbytes for calls in reuse._kept.values() for _, features in calls)
    demand = Demand(0, 0, 0, height * width, height * width, frames, 2, 2, is_temporal=False)
    stage = "motion" if family == "svd" else "still"
    more = dataclasses.replace(demand, keeps_features=True).activations(Plan())[stage] - demand.activations(Plan())[stage]
    assert more == (kept if family == "svd" else 0)  # a still's decoder needs more than its UNet
    if family == "sd1":
        large = dataclasses.replace(demand, item_bytes=8)
        assert dataclasses.replace(large, keeps_features=True).activations(Plan())[stage] - large.activations(Plan())[stage] == 4 * kept


def test_what_is_left_out_is_work_that_is_not_done() -> None:
    plain, lean = (memory.motion_flops(memory.Models.of("svd", savings, is_tiny=True), 64, 48, 3) for savings in (memory.NONE, memory.ALL))
    assert 0.5 < lean / plain < 0.99


@pytest.mark.long
def test_a_table_and_one_json_document(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["memory", "--size", "tiny"])
    assert memory.main() == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {row["plan"]: row for row in json.loads(lines[-1])["rows"]}
    assert lines[2].split()[:2] == ["64x48x4", "auto"]
    for less, more in (("low", "medium"), ("medium", "high")):
        assert rows[less]["together"] < rows[more]["together"]
    for row in rows.values():
        assert all(row["activations"][stage] <= row["estimate"][stage] for stage in row["estimate"])  # never too little
