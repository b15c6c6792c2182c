from __future__ import annotations

import torch

from pipelines.device_report import device_report


def test_a_processor_has_the_memory_of_the_machine() -> None:
    report = device_report(torch.device("cpu"))
    assert set(report) == {"name", "type", "index", "vram_total", "vram_free", "torch_vram_total", "torch_vram_free"}
    assert (report["name"], report["type"], report["index"]) == ("cpu", "cpu", None)
    assert 0 <= report["vram_free"] <= report["vram_total"]
