"""What a device is and how much of its memory is free, in the words of ComfyUI's `/system_stats`."""

from __future__ import annotations

import os
from typing import Any

import torch

from pipelines.memory import free_bytes


def device_report(device: torch.device) -> dict[str, Any]:
    """name, type, index, and in bytes vram_total, vram_free, torch_vram_total, torch_vram_free; 0 where nobody knows."""
    if device.type != "cuda":
        return {"name": str(device), "type": device.type, "index": device.index, "vram_total": _host_bytes(),
                "vram_free": free_bytes(device) or 0, "torch_vram_total": 0, "torch_vram_free": 0}  # fmt: skip
    index = torch.cuda.current_device() if device.index is None else device.index
    free, total = torch.cuda.mem_get_info(index)
    reserved, used = torch.cuda.memory_reserved(index), torch.cuda.memory_allocated(index)
    name = f"cuda:{index} {torch.cuda.get_device_name(index)}"
    return {"name": name, "type": "cuda", "index": index, "vram_total": total, "vram_free": free + reserved - used,
            "torch_vram_total": reserved, "torch_vram_free": reserved - used}  # fmt: skip


def _host_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0
