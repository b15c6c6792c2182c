"""`--compile`: the blocks of a UNet as PyTorch's compiler makes them, each for each size on its own.

The compiler may order sums otherwise: films differ by rounding alone.
"""

from __future__ import annotations

import shutil

import torch
from torch import nn

from errors import InputError

BACKEND = "inductor"
_SIZES = 64  # that a block may be compiled for; of more it runs as it is


def check_compiler() -> None:
    """Raises InputError where nothing could be compiled."""
    from torch._inductor.config import cpp

    names = [name for name in cpp.cxx if name]  # the last is that of CXX
    if not any(map(shutil.which, names)):
        told = f"--compile wants a C++ compiler, and there is no {' or '.join(names)}."
        raise InputError(told, "Install one (apt-get install g++), name it in CXX, or leave --compile out.")


def compile_blocks(unet: nn.Module) -> None:
    """At their next call, and whenever they see another size."""
    torch._dynamo.config.recompile_limit = max(_SIZES, torch._dynamo.config.recompile_limit)
    for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
        block.compile(backend=BACKEND, dynamic=False)


def as_written(unet: nn.Module) -> None:
    """Compiled no more."""
    for module in unet.modules():
        module._compiled_call_impl = None
