"""Device, dtype and attention, chosen once, each with the reason for it; and what of a model is where.

`choose_placement` looks at the machine. `place` prepares a loaded model, `on_device` brings one to the device for as long as it works
there. How a job is cut so that it fits is in pipelines/pieces.py.
"""

from __future__ import annotations

import gc
import logging
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from errors import InputError, UnknownNameError
from pipelines.attention import OWN_CHOICE, SMALL, XFORMERS, Timed, best, measured, measured_once, told
from pipelines.compiling import as_written, check_compiler, compile_blocks
from pipelines.packing import allow_packing
from pipelines.parameters import ATTENTIONS, DTYPES, WEIGHTS
from pipelines.savings import ALL, Savings

log = logging.getLogger(__name__)

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
GIB = 2**30
# What of the models is on the device: all of them, the one that works, or of that one only the layer that works.
ALL_STAY, ONE_STAYS, STREAMED = "all", "one", "streamed"
_HALF_FAILS = re.compile(r"GTX 16\d\d|T[456]00|T1000|T1200|T2000")  # Turing without tensor cores: float16 gives black pictures


@dataclass(frozen=True)
class Placement:
    """Where and how the models run."""

    device: torch.device
    dtype: torch.dtype
    vae_dtype: torch.dtype
    attention: str
    reason: str
    savings: Savings = ALL
    is_compiled: bool = False
    is_float8: bool = False  # the UNets' weights; what they compute is in `dtype`

    def describe(self) -> dict[str, str]:
        dtype = str(self.dtype).removeprefix("torch.")
        kept = {"weights": "float8"} if self.is_float8 else {}
        return {"device": str(self.device), "dtype": dtype, **kept, "attention": self.attention, "reason": self.reason}

    def item_bytes(self, part: str) -> int:
        """Of a weight of this part of a model, but for the few of a UNet that are never in eight bits."""
        if part == "vae":
            return self.vae_dtype.itemsize
        return 1 if part == "unet" and self.is_float8 else self.dtype.itemsize

    def home(self, residence: str) -> torch.device:
        """Where weights wait while they do not work."""
        return self.device if residence == ALL_STAY else torch.device("cpu")


def choose_placement(
    device: str = "auto",
    attention: str = "auto",
    dtype: str = "auto",
    savings: Savings = ALL,
    *,
    is_compiled: bool = False,
    weights: str = "auto",
    remembered: Path | None = None,
) -> Placement:
    """The best this machine has. `remembered`: a file for what was measured of a card, so that it chooses alike the next time. Raises
    InputError for a device or a compiler that is not there and for what cannot go together, UnknownNameError for other names."""
    if attention not in ATTENTIONS:
        raise UnknownNameError("attention", attention, ATTENTIONS)
    if dtype not in DTYPES:
        raise UnknownNameError("dtype", dtype, DTYPES)
    if weights not in WEIGHTS:
        raise UnknownNameError("weights", weights, WEIGHTS)
    chosen, is_float8 = _device(device), weights == "float8"
    if is_float8:
        _check_float8(chosen, is_compiled=is_compiled)
    if is_compiled:
        check_compiler()
    precision, vae_precision, why = _precision(dtype, chosen)
    kernel, kernel_why = _attention(attention, chosen, precision, remembered)
    more = "; compiled" if is_compiled else "; the UNets' weights in float8, which is lossy" if is_float8 else ""
    placement = Placement(chosen, precision, vae_precision, kernel, f"{why}; {kernel_why}{more}", savings, is_compiled, is_float8)
    log.info("placement: %s", placement.reason)
    return placement


def _device(name: str) -> torch.device:
    available = ["cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    if name == "auto":
        return torch.device(available[0])
    if not re.fullmatch(r"cpu|mps|cuda(:\d{1,3})?", name):
        raise UnknownNameError("device", name, ("auto", "cuda", "cuda:0", "mps", "cpu"))
    kind, _, index = name.partition(":")
    if kind not in available or (index and int(index) >= torch.cuda.device_count()):
        raise InputError(f"There is no {name} device for PyTorch {torch.__version__} here.", f"Choose one of: {', '.join(available)}.")
    return torch.device(name)


def _check_float8(device: torch.device, *, is_compiled: bool) -> None:
    if device.type == "mps":
        raise InputError("float8 weights cannot be used on mps: it does not know such numbers.", "Leave --weights at auto.")
    if is_compiled:
        told = "--compile and float8 weights do not go together: on many cards the compiler does not know such numbers."
        raise InputError(told, "Leave one of them out.")


def _precision(asked: str, device: torch.device) -> tuple[torch.dtype, torch.dtype, str]:
    """Of the networks, of the autoencoder, and why. The autoencoders of Stable Diffusion overflow in float16."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    has_bf16 = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    for_vae = torch.bfloat16 if has_bf16 else torch.float32
    if asked != "auto":
        precision = _DTYPES[asked]
        return precision, for_vae if precision is torch.float16 else precision, f"{name}: {asked} as asked"
    if device.type != "cuda":
        return torch.float32, torch.float32, f"{name}: float32"
    if _HALF_FAILS.search(name):
        return torch.float32, torch.float32, f"{name}: float32, since float16 fails on this card"
    why = f"half precision, autoencoder in {str(for_vae).removeprefix('torch.')} since float16 overflows in it"
    return torch.float16, for_vae, f"{name}: {why}"


def _attention(asked: str, device: torch.device, precision: torch.dtype, remembered: Path | None) -> tuple[str, str]:
    """As asked; on a card else the quickest of those that work there, and PyTorch's own choice on other devices, which have no other."""
    if asked == OWN_CHOICE:
        return OWN_CHOICE, "PyTorch attention as asked"
    if asked != "auto":
        (found,) = measured(device, precision, [asked], SMALL) if device.type == "cuda" else [Timed(asked, None, "no CUDA device")]
        if found.seconds is None:
            name = "xFormers" if asked == XFORMERS else f"The attention kernel {asked!r}"
            raise InputError(f"{name} cannot be used here: {found.problem}.", "Leave the attention at auto, or choose sdpa.")
        return asked, f"{asked} attention as asked"
    if device.type != "cuda":
        return OWN_CHOICE, "PyTorch attention (no CUDA device)"
    found = measured_once(device, precision, remembered)
    release(device)
    problems, name = [f"; {one.name}: {one.problem}" for one in found if one.name == XFORMERS and one.problem], best(found)
    return name, f"{name} attention, as measured here: {told(found)}{''.join(problems)}"


def place(module: nn.Module, placement: Placement, residence: str = ALL_STAY) -> nn.Module:
    """A loaded module, whose weights are at home already, or on their way there: in eval mode, its attention set, without what can be
    saved, its weights as they are to be kept, streamed if it is to be."""
    module = module.eval().requires_grad_(False)
    if placement.attention == XFORMERS and is_unet(module):
        module.set_attn_processor({name: _processor(name) for name in module.attn_processors})
    _save(module, placement)
    if placement.is_float8 and is_unet(module):
        from pipelines.float8 import keep_in_float8

        keep_in_float8(module)
        move(module, placement.home(residence))
    if residence == STREAMED:
        stream(module, placement.device)
    elif placement.is_compiled and is_unet(module):
        compile_blocks(module)
    elif placement.savings.packs_weights and placement.device.type == "cpu":
        allow_packing(module)
    return module


def _save(module: nn.Module, placement: Placement) -> None:
    from pipelines.lean_blocks import LeanAttention, slim
    from pipelines.lean_motion import slim_transformers

    savings = placement.savings
    if savings.spares_copies:
        slim(module)
        if placement.attention != XFORMERS and is_unet(module):
            module.set_attn_processor(LeanAttention())
    if savings.spares_copies or savings.folds or savings.keeps_positions:
        slim_transformers(module)


def is_unet(module: nn.Module) -> bool:
    return hasattr(module, "down_blocks")


def _processor(name: str) -> Any:
    """xFormers for attention over a picture. Over time, every pixel is a row of its own in the batch: tens of thousands, more than a
    kernel's grid takes, and too few frames to gain anything."""
    from diffusers.models.attention_processor import AttnProcessor2_0, XFormersAttnProcessor

    return AttnProcessor2_0() if "temporal" in name else XFormersAttnProcessor()


def stream(module: nn.Module, device: torch.device) -> bool:
    """From now on each layer's weights come to the device when it works, and leave after. False if that was so before, or is nothing to
    gain: encoders and autoencoders are small enough to come whole."""
    if is_streamed(module) or not is_unet(module):
        return False
    as_written(module)
    with torch.inference_mode(False):
        module.to("cpu")
        module.enable_group_offload(device, torch.device("cpu"), offload_type="leaf_level", use_stream=device.type == "cuda")
    module.is_streamed = True
    return True


def is_streamed(module: nn.Module) -> bool:
    return getattr(module, "is_streamed", False)


@contextmanager
def on_device(module: nn.Module, device: torch.device) -> Iterator[nn.Module]:
    """The module is there for the length of the block. If it came for that, it leaves after it, however the block ends."""
    came_from = next(module.parameters()).device
    if is_streamed(module) or came_from.type == device.type:
        yield module
        return
    try:
        move(module, device)
        yield module
    finally:
        if not is_streamed(module):  # as it may have become meanwhile
            move(module, came_from)
        release(device)


def beside(device: torch.device) -> AbstractContextManager[Any]:
    """For another thread than the one that works on this device: what it does there does not wait for the other's work, as it would on the
    same stream. It has to be `ready` before anybody else uses it."""
    return torch.cuda.stream(torch.cuda.Stream(device)) if device.type == "cuda" else nullcontext()


def ready(device: torch.device) -> None:
    """Waits for what this thread has asked the device for."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def move(module: nn.Module, device: torch.device) -> None:
    with torch.inference_mode(False):  # weights that are moved within it could never be changed again
        module.to(device)


def release(device: torch.device) -> None:
    """Give back what nobody holds any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def limit(device: torch.device, gib: float) -> None:
    """Of a card, this process takes that much at most from now on; 0 is all there is. Elsewhere nothing can hold it to that."""
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        total = torch.cuda.get_device_properties(index).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, gib * GIB / total) if gib else 1.0, index)


def free_bytes(device: torch.device) -> int | None:
    """What can still be taken: of the card, or of the host, whose control group may have less than the machine. None: nobody knows."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return _free_host_bytes()


def taken_bytes(device: torch.device) -> int:
    """What this process has taken of it, of whatever kind, and could give back; 0 where it is not told apart from the rest."""
    return torch.cuda.memory_reserved(device) if device.type == "cuda" else 0


def spare_bytes(device: torch.device, limit_gib: float = 0) -> int:
    """What can still be taken within the limit; 0 if nobody knows."""
    free = free_bytes(device) or 0
    return min(free, round(limit_gib * GIB) - taken_bytes(device)) if limit_gib and device.type == "cuda" else free


def budget_bytes(device: torch.device, limit_gib: float = 0) -> int:
    """What models may take while others work: half of what is free, or of the limit if that is less; a little where nobody knows."""
    free = free_bytes(device)
    known = [*([] if free is None else [free]), *([round(limit_gib * GIB)] if limit_gib else [])]
    return min(known, default=2 * GIB) // 2


def _free_host_bytes(proc: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Linux tells. Of what a control group has used, the cache of files that are not in use is given back when it is needed."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", proc.read_text()) if proc.is_file() else None
    free = int(found[1]) * 1024 if found else None
    try:
        limit, used, statistics = ((group / name).read_text().strip() for name in ("memory.max", "memory.current", "memory.stat"))
    except OSError:
        return free
    cache = re.search(r"^inactive_file (\d+)$", statistics, re.MULTILINE)
    if not limit.isdigit():
        return free
    left = max(0, int(limit) - int(used) + (int(cache[1]) if cache else 0))
    return left if free is None else min(free, left)


def reset_peak(device: torch.device) -> None:
    """From here on `peak_bytes` counts anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):  # Linux: the process's own high-water mark
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes(device: torch.device) -> int:
    """The most that was taken since: of the card, or of the host by this process; 0 if nobody knows."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.is_file() else None
    return int(found[1]) * 1024 if found else 0
