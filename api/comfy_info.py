"""What there is: nodes, models, the machine. Everything is looked up when it is asked for, so a new model is there at once."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from starlette.responses import Response

from api.comfy_context import Call, Missing
from errors import StillmotionError
from pipelines.families import read_safetensors_header
from workflows.folders import MODEL_KINDS
from workflows.object_info import describe

_SPOKEN = "0.3.64"  # the ComfyUI whose protocol this is; some clients want to know
_MEMORY = Path("/proc/meminfo")
_DEVICE = ("vram_total", "vram_free", "torch_vram_total", "torch_vram_free")


def nodes(call: Call) -> dict[str, Any]:
    return {name: describe(call.context.catalog[name], call.folders) for name in call.context.catalog}


def node(call: Call) -> dict[str, Any]:
    """Empty for an unknown one."""
    name = call.request.path_params["name"]
    return {name: describe(call.context.catalog[name], call.folders)} if name in call.context.catalog else {}


def model_folders(call: Call) -> list[str]:
    return list(MODEL_KINDS)


def models(call: Call) -> list[str]:
    """Raises Missing."""
    return call.folders.names(_kind(call))


def model_metadata(call: Call) -> dict[str, Any]:
    """What the file says of itself. Raises Missing."""
    name = call.query.get("filename", "")
    try:
        found = read_safetensors_header(call.folders.model(_kind(call), name))[1]
    except (StillmotionError, OSError) as error:
        raise Missing(f"{name[:200]!r} is no model that can be read.", getattr(error, "hint", "")) from error
    if not found:
        raise Missing(f"{name!r} says nothing of itself.")
    return found


def nothing_listed(call: Call) -> list[str]:
    """There are no embeddings and no extensions."""
    return []


def features(call: Call) -> dict[str, Any]:
    return call.context.features


def users(call: Call) -> dict[str, Any]:
    return {"storage": "server", "migrated": True}


def settings(call: Call) -> dict[str, Any]:
    return {}


def system(call: Call) -> dict[str, Any]:
    total, free = memory_bytes()
    device = call.context.device()
    known = {"name": "", "type": "", "index": None} | dict.fromkeys(_DEVICE, 0)
    machine = {
        "os": os.name,
        "ram_total": total,
        "ram_free": free,
        "comfyui_version": _SPOKEN,
        "stillmotion_version": call.context.version,
        "python_version": sys.version,
        "pytorch_version": _version_of("torch"),
        "embedded_python": False,
        "argv": [],  # a token may stand there
    }
    return {"system": machine, "devices": [] if device is None else [known | dict(device)]}


def free(call: Call) -> Response:
    """Raises InputError."""
    document = call.document()
    if document.get("unload_models") or document.get("free_memory"):
        call.context.release()
    return Response()


def memory_bytes(path: Path = _MEMORY) -> tuple[int, int]:
    """All and free; zeros where nobody says."""
    try:
        lines = dict(line.split(":", 1) for line in path.read_text().splitlines())
        total, free = (int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError):
        return 0, 0
    return total, free


def _kind(call: Call) -> str:
    kind = call.request.path_params["folder"]
    if kind not in MODEL_KINDS:
        raise Missing(f"There is no kind of model {kind[:200]!r}.", f"Known are {', '.join(MODEL_KINDS)}.")
    return kind


def _version_of(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
