from __future__ import annotations

import json
import sys

import pytest
import torch
from torch import nn

from benchmarks import memory


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
