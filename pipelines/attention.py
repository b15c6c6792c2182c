"""Which kernel computes attention: xFormers', or one of PyTorch's. Published comparisons differ from card to card by a tenth either way,
so on a card the choice is what is measured on it, in the precision that it is to have.

All give the same but for rounding. One that does not is left out.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION, "efficient": SDPBackend.EFFICIENT_ATTENTION}
OWN_CHOICE, XFORMERS = "sdpa", "xformers"  # of PyTorch, which takes one of these kernels
KERNELS = (XFORMERS, OWN_CHOICE, *BACKENDS)


class Case(NamedTuple):
    """`width`: numbers in a head."""

    batch: int
    tokens: int
    heads: int
    width: int
    is_over_time: bool = False


# A picture's attention to itself: Stable Diffusion's at 512x512 in both passes, and that of four frames of 1024x576 in Stable Video
# Diffusion; and that of 25 frames to each other, of some of their pixels.
CASES = (Case(2, 4096, 8, 40), Case(4, 9216, 5, 64), Case(2304, 25, 5, 64, is_over_time=True))
SMALL = (Case(1, 64, 1, 40),)
_WIDTHS = (40, 64, 80, 160)  # of heads, in the UNets
_SEEN = (256, 77, 1)  # tokens that 256 look at: each other, a prompt, a still
_TOLERANCE = 0.02  # of the largest number; half precision is off by a tenth of it
_CALLS = 5
_BETTER = 0.95  # of the time of one that stands before it: less is noise


@dataclass(frozen=True)
class Timed:
    """`seconds` of all cases together, None for a kernel that cannot be used, for the reason in `problem`."""

    name: str
    seconds: float | None
    problem: str = ""


def attending(name: str) -> AbstractContextManager[Any]:
    """PyTorch computes attention by this kernel for the length of the block, and where it cannot, by another. Of the whole process; what
    xFormers computes is not asked of PyTorch."""
    if name not in BACKENDS:
        return nullcontext()
    return sdpa_kernel([BACKENDS[name], SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH], set_priority=True)


def measured(device: torch.device, dtype: torch.dtype, names: Iterable[str] = KERNELS, cases: Sequence[Case] = CASES) -> list[Timed]:
    """Of each kernel. xFormers' is not used over time (pipelines/memory.py), so there PyTorch's own choice counts. Raises nothing: what
    fails is a result."""
    return [_timed(name, device, dtype, cases) for name in names]


def best(found: Iterable[Timed]) -> str:
    """The quickest of those that work, in the order of preference where they are as good as equal; PyTorch's own choice if none does."""
    chosen: Timed | None = None
    for one in found:
        if one.seconds is not None and (chosen is None or one.seconds < _BETTER * chosen.seconds):
            chosen = one
    return chosen.name if chosen else OWN_CHOICE


def told(found: Iterable[Timed]) -> str:
    """In words, the quickest first."""
    works = sorted((one for one in found if one.seconds is not None), key=lambda one: one.seconds)
    return ", ".join(f"{one.name} {1000 * one.seconds:.2f} ms" for one in works)


def measured_once(device: torch.device, dtype: torch.dtype, file: Path | None) -> list[Timed]:
    """The same, of all, from the file if it was measured with this card and these libraries before, and then kept there, if it can be."""
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    key = " ".join([card, str(dtype), *(f"{name} {_version(name)}" for name in ("torch", "xformers"))])
    known: dict[str, Any] = {}
    if file:
        with suppress(OSError, ValueError):
            read = json.loads(file.read_text())
            known = read if isinstance(read, dict) else {}
        with suppress(KeyError, TypeError):
            return [Timed(str(name), seconds and float(seconds), str(problem)) for name, seconds, problem in known[key]]
    found = measured(device, dtype)
    if file and not any("out of memory" in one.problem for one in found):  # that may be another time
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(f".{os.getpid()}.part")
            part.write_text(json.dumps(known | {key: [[one.name, one.seconds, one.problem] for one in found]}))
            part.replace(file)
    return found


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "-"


@torch.inference_mode()
def _timed(name: str, device: torch.device, dtype: torch.dtype, cases: Sequence[Case]) -> Timed:
    try:
        if (off := max(_errors(name, device, dtype))) > _TOLERANCE:
            return Timed(name, None, f"it is off by {off:.2g}")
        by = {case: OWN_CHOICE if name == XFORMERS and case.is_over_time else name for case in cases}
        return Timed(name, sum(_seconds(by[case], _drawn(case, device, dtype)) for case in cases))
    except Exception as error:  # a kernel for other cards, another PyTorch or other widths fails in many ways, some only when it is used
        return Timed(name, None, [*str(error).splitlines(), type(error).__name__][0])


def _errors(name: str, device: torch.device, dtype: torch.dtype) -> Iterator[float]:
    """Of what the kernel itself computes, and of all that the UNets will ask where it is taken, for which PyTorch may have another one."""
    yield _error(_drawn(Case(2, 256, 2, 40), device, dtype), lambda tokens: _attended(name, tokens))
    for width, seen in product(_WIDTHS, _SEEN):
        query, key, value = _drawn(Case(2, 256, 2, width), device, dtype)
        yield _error([query, key[:, :seen], value[:, :seen]], lambda tokens: _served(name, tokens))


def _drawn(case: Case, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """Query, key and value, (batch, tokens, heads, width)."""
    generator = torch.Generator(device).manual_seed(0)
    return [torch.randn(case[:4], generator=generator, device=device, dtype=dtype) for _ in range(3)]


def _attended(name: str, tokens: Sequence[Tensor]) -> Tensor:
    """By this kernel, or not at all."""
    if name == XFORMERS:
        from xformers.ops import memory_efficient_attention

        return memory_efficient_attention(*(one.contiguous() for one in tokens))
    with sdpa_kernel(BACKENDS[name]) if name in BACKENDS else nullcontext():
        return _of_pytorch(tokens)


def _served(name: str, tokens: Sequence[Tensor]) -> Tensor:
    """As where this kernel is taken."""
    if name == XFORMERS:
        return _attended(name, tokens)
    with attending(name):
        return _of_pytorch(tokens)


def _of_pytorch(tokens: Sequence[Tensor]) -> Tensor:
    return torch.nn.functional.scaled_dot_product_attention(*(one.transpose(1, 2) for one in tokens)).transpose(1, 2)


def _error(tokens: Sequence[Tensor], attend: Callable[[Sequence[Tensor]], Tensor]) -> float:
    """The largest difference from the definition in double precision, of the largest number."""
    query, key, value = (one.double().cpu().transpose(1, 2) for one in tokens)
    expected = (torch.softmax(query @ key.mT / query.shape[-1] ** 0.5, -1) @ value).transpose(1, 2)
    return float((attend(tokens).double().cpu() - expected).abs().max() / expected.abs().max())


def _seconds(name: str, tokens: Sequence[Tensor]) -> float:
    """The median of some calls, after one that does not count."""
    taken = []
    for _ in range(_CALLS + 1):
        _wait(tokens[0].device)
        begun = time.perf_counter()
        _attended(name, tokens)
        _wait(tokens[0].device)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken[1:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
