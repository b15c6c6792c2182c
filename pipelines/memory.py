"""Device, dtype and attention, chosen once, each with the reason for it."""

from __future__ import annotations

import importlib.util
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from errors import InputError, MemoryExhaustedError, UnknownNameError

log = logging.getLogger(__name__)

ATTENTIONS = ("auto", "sdpa", "xformers")


@dataclass(frozen=True)
class Placement:
    """Where and how the models run."""

    device: torch.device
    dtype: torch.dtype
    vae_dtype: torch.dtype
    attention: str
    reason: str

    def describe(self) -> dict[str, str]:
        dtype = str(self.dtype).removeprefix("torch.")
        return {"device": str(self.device), "dtype": dtype, "attention": self.attention, "reason": self.reason}


def choose_placement(device: str = "auto", attention: str = "auto") -> Placement:
    """The best this machine has. Raises InputError for a device that is not there, UnknownNameError for other names."""
    if attention not in ATTENTIONS:
        raise UnknownNameError("attention", attention, ATTENTIONS)
    chosen = _device(device)
    if chosen.type == "cuda":
        has_bf16 = torch.cuda.get_device_capability(chosen) >= (8, 0)
        dtype, vae_dtype = torch.float16, torch.bfloat16 if has_bf16 else torch.float32
        why = f"{torch.cuda.get_device_name(chosen)}: half precision, autoencoder in {vae_dtype} since float16 overflows in it"
    else:
        dtype = vae_dtype = torch.float32
        why = f"{chosen.type}: float32"
    kernel, kernel_why = _attention(attention, chosen)
    placement = Placement(chosen, dtype, vae_dtype, kernel, f"{why}; {kernel_why}")
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


def _attention(asked: str, device: torch.device) -> tuple[str, str]:
    """xFormers needs CUDA and an installation that imports; PyTorch's own attention is always there."""
    if asked == "sdpa":
        return "sdpa", "PyTorch attention as asked"
    problem = "no CUDA device" if device.type != "cuda" else _xformers_problem()
    if not problem:
        return "xformers", "xFormers found"
    if asked == "xformers":
        raise InputError(f"xFormers cannot be used here: {problem}.", "Leave the attention at auto, or choose sdpa.")
    return "sdpa", f"PyTorch attention ({problem})"


def _xformers_problem() -> str:
    if importlib.util.find_spec("xformers") is None:
        return "xformers is not installed"
    try:  # a wheel for another PyTorch or another card fails in many ways, some only when it is used
        from xformers.ops import memory_efficient_attention

        sample = torch.zeros(1, 2, 1, 32, dtype=torch.float16, device="cuda")
        memory_efficient_attention(sample, sample, sample)
    except Exception as error:
        return f"xformers does not work: {[*str(error).splitlines(), type(error).__name__][0]}"
    return ""


@contextmanager
def readable_memory_errors() -> Iterator[None]:
    """Turns the many ways in which memory runs out into MemoryExhaustedError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error):
            raise MemoryExhaustedError("There is not enough memory for this film.", "Use a smaller size or fewer frames.") from error
        raise


def place(module: nn.Module, placement: Placement, dtype: torch.dtype | None = None) -> nn.Module:
    """The module on its device, in its dtype, in eval mode, its attention set."""
    module = module.to(placement.device).eval().requires_grad_(False)
    if next(module.parameters()).dtype != (dtype or placement.dtype):
        module = module.to(dtype or placement.dtype)
    if placement.attention == "xformers" and hasattr(module, "enable_xformers_memory_efficient_attention"):
        module.enable_xformers_memory_efficient_attention()
    return module
