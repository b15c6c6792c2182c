"""Full-size checkpoints with random weights, in the single-file layout, float16: byte for byte the same on every machine.

    python -m benchmarks.random_checkpoints FOLDER

Writes Stable Diffusion 1.5 (2.1 GB) and Stable Video Diffusion XT with the image decoder (4.5 GB); about two minutes. Each tensor is
drawn by NumPy from a seed made of the file's and its own name, and scaled so that activations stay finite through all layers. ComfyUI
loads both, and what it computed from them is in `recorded/`.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import math
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

KEYS = Path(__file__).parent.parent / "tests" / "data"
SIZE_OF_BLOCK = 1 << 24
# file -> (list of its tensors, SHA-256 of the file)
FILES = {
    "LandscapeBING_v10.safetensors": ("sd15_keys.json.gz", "6ec061aff056dff4115f2363611864f204336999adb7627ffc459e12462399e7"),
    "svd_xt_image_decoder.safetensors": ("svd_xt_keys.json.gz", "18fbc575ed16c1d2c1e31abe3cef9bd5514f61239b65465b81fa5542512609bd"),
}
# By part, what the usual spread is multiplied with: the last layer of a residual branch is damped, attention sharpened.
_GAINS = {
    "model.diffusion_model.": {
        "model.diffusion_model.out.2.weight": 1.6, ".to_out.0.weight": 0.7, ".ff.net.2.weight": 0.5, ".ff_in.net.2.weight": 0.5,
        ".out_layers.3.weight": 0.7, ".proj_out.weight": 0.5, ".to_q.weight": 1.5, ".to_k.weight": 1.5,
    },
    "first_stage_model.": {"decoder.conv_out.weight": 0.8, ".conv2.weight": 0.7, ".proj_out.weight": 0.5},
    "cond": {".out_proj.weight": 0.5, ".fc2.weight": 0.5, ".c_proj.weight": 0.5},
}  # fmt: skip
_SPREADS = {"token_embedding.weight": 0.5, "position_embedding.weight": 0.1, "positional_embedding": 0.1, "class_embedding": 0.1}


def make(folder: Path) -> None:
    """Both files, where they are not there yet. Raises RuntimeError if one is not what was recorded from."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (keys, digest) in FILES.items():
        path = folder / name
        if not path.exists():
            listed = json.loads(gzip.decompress((KEYS / keys).read_bytes()))
            part = path.with_suffix(".part")
            save_file({key: draw(name, key, dtype, shape) for key, (dtype, shape) in listed.items()}, part, metadata={"format": "pt"})
            part.replace(path)
        if sha256(path) != digest:
            raise RuntimeError(f"{path} is not the file that ComfyUI's results were recorded from; remove it.")
        print(f"{path}: {path.stat().st_size / 1e9:.1f} GB, as recorded", flush=True)


def draw(file_name: str, key: str, dtype: str, shape: list[int]) -> torch.Tensor:
    """One tensor. `dtype` I64 is a table of positions, all else is float16."""
    if dtype == "I64":
        return torch.arange(shape[-1]).unsqueeze(0)
    seed = int.from_bytes(hashlib.sha256(f"{file_name}|{key}".encode()).digest()[:8], "little")
    x = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    leaf = key.rsplit(".", 1)[-1]
    if leaf == "mix_factor":
        x = 0.5 + 0.5 * x
    elif len(shape) == 1 and leaf == "weight":
        x = 1.0 + 0.05 * x
    elif leaf in ("bias", "in_proj_bias"):
        x = 0.02 * x
    else:
        x = _spread(key, leaf, shape) * x
    return torch.from_numpy(np.ascontiguousarray(x)).to(torch.float16)


def _spread(key: str, leaf: str, shape: list[int]) -> float:
    for end, spread in _SPREADS.items():
        if end in key and key.startswith("cond"):
            return spread
    gains = next(gains for beginning, gains in _GAINS.items() if key.startswith(beginning))
    gain = next((gain for end, gain in gains.items() if end in key), 1.0)
    return gain / math.sqrt(shape[0] if leaf == "proj" else math.prod(shape[1:]))


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(SIZE_OF_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    make(parser.parse_args().folder)


if __name__ == "__main__":
    main()
