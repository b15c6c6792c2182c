"""`--compile`: the blocks of a UNet as PyTorch's compiler makes them, each for each size on its own.

What is compiled is kept in a folder, so a process finds what another one made. The compiler may order sums otherwise: films differ by
rounding alone.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
from torch import nn

from errors import InputError

BACKEND = "inductor"
_COMPILERS = ("c++", "g++", "clang++")
_SIZES = 64  # that a block may be compiled for; of more it runs as it is
_FOLDER = "TORCHINDUCTOR_CACHE_DIR"


def check_compiler() -> None:
    """Raises InputError where nothing could be compiled."""
    compiler = os.environ.get("CXX")
    if not any(map(shutil.which, [compiler] if compiler else _COMPILERS)):
        raise InputError("--compile wants a C++ compiler, and there is none.", "Install one (apt-get install g++), or leave --compile out.")


def keep_in(folder: Path) -> None:
    """From now on, what this process compiles, unless the environment names another folder."""
    os.environ.setdefault(_FOLDER, str(folder))


def compile_blocks(unet: nn.Module) -> None:
    """At their next call, and whenever they see another size."""
    torch._dynamo.config.recompile_limit = max(_SIZES, torch._dynamo.config.recompile_limit)
    for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
        block.compile(backend=BACKEND, dynamic=False)


def as_written(unet: nn.Module) -> None:
    """Compiled no more."""
    for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
        block._compiled_call_impl = None
