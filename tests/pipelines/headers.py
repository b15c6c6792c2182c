"""Files of safetensors made of names and shapes, with zeros for weights; no PyTorch is needed for that."""

from __future__ import annotations

import json
import struct
from math import prod
from pathlib import Path

SD1 = {
    "model.diffusion_model.input_blocks.0.0.weight": (2, 4, 3, 3), "first_stage_model.decoder.conv_in.weight": (2, 4, 3, 3),
    "cond_stage_model.transformer.text_model.x": (1,),
}  # fmt: skip
SVD = {
    "model.diffusion_model.input_blocks.0.0.weight": (2, 8, 3, 3), "model.diffusion_model.input_blocks.1.0.time_stack.x": (1,),
    "first_stage_model.decoder.conv_in.weight": (2, 4, 3, 3), "conditioner.embedders.0.open_clip.model.visual.x": (1,),
}  # fmt: skip
VAE = {"decoder.up.0.block.0.x": (1,), "decoder.conv_in.weight": (2, 4, 3, 3)}
LORA = {
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight": (2, 768),
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_up.weight": (8, 2),
}


def write_header(path: Path, shapes: dict[str, tuple[int, ...]], metadata: dict[str, str] | None = None, cut: int = 0) -> Path:
    """`cut`: so many bytes are missing at the end."""
    header, place = {} if metadata is None else {"__metadata__": metadata}, 0
    for name, shape in shapes.items():
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [place, place + 4 * prod(shape)]}
        place += 4 * prod(shape)
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = struct.pack("<Q", len(text)) + text + bytes(place)
    path.write_bytes(whole[: len(whole) - cut])
    return path
