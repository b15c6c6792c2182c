"""An autoencoder as a file of its own, in models/vae, as ComfyUI's VAELoader takes it: in the layout of the checkpoints, with or without
their prefix, or with diffusers' names. It stands in for a checkpoint's own; the latent scale stays the checkpoint's.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from errors import CheckpointError
from pipelines import families
from pipelines.families import VAE, Tensors, known_as, read_safetensors_header
from pipelines.folders import Homes, todays_name

_HINT = "Known are VAEs of Stable Diffusion 1, 2 and XL, as .safetensors."
_LDM = rf"^({re.escape(VAE)})?decoder\.up\.\d+\.block\."
_DIFFUSERS = r"^decoder\.up_blocks\.\d+\.resnets\."
_OTHERS = {
    "the VAE of a video model": r"\.time_stack\.|\.temporal_res_block\.|^(encoder|decoder)\.(downsamples|upsamples|middle)\.",
    "an autoencoder with a codebook (VQ)": r"^(first_stage_model\.)?quantize\.",
    "a TAESD, which is made for previews": r"^taesd_(en|de)coder\.|^(en|de)coder\.layers\.\d",
}


def describe_vae(path: Path) -> tuple[str, dict[str, Any], Tensors, Homes]:
    """The layout as a family ("" for diffusers'), the description (kind, name, sampling, components), the tensors, and where each is. No
    weights are read. Raises CheckpointError for what is damaged, and for other kinds of files by their name."""
    if path.is_dir():
        raise CheckpointError(f"{path.name} is a folder with a whole model, not a VAE.", "Name the file in its sub-folder vae.")
    tensors, _ = read_safetensors_header(path)
    family = _layout(path.name, tensors)
    names = {_our_name(family, name): name for name in tensors}
    components = json.loads((families.CONFIGS / "sd1.json").read_text())["components"]  # all known families have the same
    description = {"kind": "vae", "name": path.stem, "sampling": {}, "components": {"vae": components["vae"]}}
    ours = {new: tensors[old] for new, old in names.items()}
    return family, description, ours, {new: (path, old) for new, old in names.items()}


def _our_name(family: str, name: str) -> str:
    return VAE + name.removeprefix(VAE) if family else f"vae.{todays_name('vae', name)}"


def _layout(file_name: str, tensors: Tensors) -> str:
    names = "\n".join(tensors)
    what = next((what for what, pattern in _OTHERS.items() if re.search(pattern, names, re.MULTILINE)), "")
    is_ldm, is_diffusers = (re.search(pattern, names, re.MULTILINE) for pattern in (_LDM, _DIFFUSERS))
    if families.is_checkpoint(tensors) or not (what or is_ldm or is_diffusers):
        found = known_as(tensors)
        if found.startswith("a VAE"):
            raise CheckpointError(f"{file_name} is half a VAE: its decoder is not whole.", "Copy or download it again.")
        raise CheckpointError(f"{file_name} is {found}, not a VAE.", _HINT)
    if what:
        raise CheckpointError(f"{file_name} is {what}.", _HINT)
    shape = next((info.shape for name, info in tensors.items() if name.endswith("decoder.conv_in.weight")), ())
    if len(shape) == 4 and shape[1] != 4:
        raise CheckpointError(f"{file_name} is a VAE for other models: its latents have {shape[1]} channels instead of 4.", _HINT)
    return "vae" if is_ldm else ""
