"""Read tensors out of .safetensors files: in the order in which they lie there, in large blocks, each straight into its dtype.

A mapped file is read page by page in the order in which tensors are asked for, which a disk in another building answers with a round
trip each. Here the host holds the weights once, and of the file no more than one tensor besides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

import torch

from errors import CheckpointError
from pipelines.families import TensorInfo

BLOCK = 8 * 2**20  # bytes that a read asks for, at least: small tensors come together
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
FLOATS = tuple(_DTYPES)
Place = tuple[Path, TensorInfo]  # a file, and where in it a tensor is


def read_tensors(places: Mapping[str, Place], told: Callable[[int], None]) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, tensor in the file's dtype) of each, in the order of the files. `told` hears of the bytes of each as they are read, and
    may raise. Raises CheckpointError if a file ends early, OSError if it cannot be read."""
    ordered = sorted(places.items(), key=lambda item: (item[1][0], item[1][1].begin))
    for path, inside in groupby(ordered, key=lambda item: item[1][0]):
        with ExitStack() as stack:
            file = stack.enter_context(path.open("rb", buffering=BLOCK))
            start = 8 + int.from_bytes(file.read(8), "little")
            for name, (_, info) in inside:
                told(info.end - info.begin)
                yield name, _read(file, start, info, path)


def _read(file: BinaryIO, start: int, info: TensorInfo, path: Path) -> torch.Tensor:
    tensor = torch.empty(info.shape, dtype=_DTYPES[info.dtype])
    if tensor.numel():
        file.seek(start + info.begin)
        into = memoryview(tensor.view(-1).view(torch.uint8).numpy())
        while into:
            count = file.readinto(into)
            if not count:
                raise CheckpointError(f"{path.name} ends before its last tensor: it changed while it was read.", "Copy it again.")
            into = into[count:]
    return tensor
