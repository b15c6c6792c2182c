"""What a .safetensors file holds, told from its header alone: the names, types and shapes of its tensors, no weights.

The story: `read_safetensors_header` checks a header and `describe` says of it what the metadata of our own checkpoints says of
themselves. In between, `identify` tells the family from names and shapes: "sd1", "sd2" and "sdxl" (Stable Diffusion 1.x, 2.x and XL) or
"svd" (Stable Video Diffusion), all in the single-file layout that ComfyUI loads. Everything else that is well known is refused by its name.
"""

from __future__ import annotations

import json
import re
import stat
import struct
from collections import Counter
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from errors import CheckpointError

CONFIGS = Path(__file__).parent.parent / "assets" / "configs"
PICKLES = (".ckpt", ".pt", ".pth", ".bin")  # files that can run code when they are opened
MAX_HEADER, MAX_TENSORS, MAX_DIMENSIONS = 100_000_000, 100_000, 16
UNET, VAE, VISION = "model.diffusion_model.", "first_stage_model.", "conditioner.embedders.0.open_clip.model.visual."
CLIP_TEXT, OPEN_CLIP_TEXT = "cond_stage_model.transformer.", "cond_stage_model.model."
XL_CLIP_TEXT, XL_OPEN_CLIP_TEXT = "conditioner.embedders.0.transformer.text_model.", "conditioner.embedders.1.model."
_BELONGS = {
    "a VAE": "It belongs into models/vae, to be named as the VAE of the still.",
    "a LoRA": "It belongs into models/loras, to be named among the LoRAs of the still.",
}
_IN_A_FOLDER = "It belongs into a model's folder in models/checkpoints, as unet/diffusion_pytorch_model.safetensors: docs/models.md."
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
_BEGINNINGS = {
    b"PK\x03\x04": "a zip file, as torch.save writes",
    b"\x80": "a pickle, which can run code when it is opened",
    b"GGUF": "a GGUF file",
    b"\x89HDF": "an HDF5 file",
    b"version https://git-lfs": "a Git LFS pointer; the weights themselves were never fetched",
    b"<": "a web page; the download went wrong",
}
# Tried in this order; the first that some tensor's name matches is what the file is.
_OTHER_FILES = {
    "a LoRA": r"^lora_|\.lora_(A|B|up|down)\.|\.lora\.(up|down)\.|lora_linear_layer|\.(hada_w1_|lokr_w1|oft_blocks)",
    "a ControlNet, not a checkpoint": r"^(control_model|controlnet_\w+)\.|^(input_hint_block|zero_convs)\.",
    "a T2I adapter, not a checkpoint": r"^(adapter\.)?body\.\d+\.(block1|in_conv)\.",
    "an IP-Adapter, not a checkpoint": r"^(ip_adapter|image_proj)\.",
    "a textual inversion, not a checkpoint": r"^(emb_params|string_to_param\..*|clip_[lg])$",
    "a motion module of AnimateDiff, not a checkpoint": r"\bmotion_modules\.",
    "a quantised checkpoint": r"^scaled_fp8$|\.(scale_weight|weight_scale|comfy_quant)$|\.weight\.(absmax|quant_map)$",
    "a HunyuanVideo model": r"\btxt_in\.individual_token_refiner\.",
    "a Flux model": r"\bdouble_blocks\.0\.img_attn\.",
    "a Stable Diffusion 3 model": r"\bjoint_blocks\.0\.",
    "an LTX-Video model": r"\bpatchify_proj\.",
    "a Wan model": r"\bblocks\.0\.cross_attn\.norm_k\.|^head\.modulation$",
    "a Stable Cascade model": r"\bclip_txt_mapper\.|\bdown_blocks\.1\.0\.channelwise\.",
    "a Stable Diffusion XL refiner, which is not supported yet": r"^conditioner\.embedders\.0\.model\.",
    "a Playground 2.5 checkpoint, which counts noise in another way": r"^edm_(mean|std)$",
    "a CosXL checkpoint, which counts noise in another way": r"^edm_vpred\.",
    "an upscaler, not a checkpoint": r"^model\.1\.sub\.|\b(rdb1|RDB1)\.conv1\.",
}
_PARTS = {
    "a VAE": r"^(first_stage_model\.)?decoder\.(up|up_blocks|mid|mid_block)\.",
    "a UNet alone in diffusers' layout, not a checkpoint": r"^down_blocks\.\d+\.(resnets|attentions)\.",
    "a text encoder alone, not a checkpoint": r"^((cond_stage_model\.)?transformer\.)?text_model\.|^encoder\.block\.0\.layer\.",
    "a CLIP vision model alone, not a checkpoint": r"^(vision_model|visual)\.",
}
_ENCODERS = {"svd": ("image", VISION), "sdxl": ("first text", XL_CLIP_TEXT), "sd2": ("text", OPEN_CLIP_TEXT), "sd1": ("text", CLIP_TEXT)}
_INPUTS = {5: "depth", 7: "upscaling", 8: "instruction (InstructPix2Pix)", 9: "inpainting"}
_DEEPEST = UNET + "input_blocks.7.1.transformer_blocks.9.norm1.weight"  # of Stable Diffusion XL's UNet
_SPREAD_OF = UNET + "output_blocks.11.1.transformer_blocks.0.norm1.bias"


class TensorInfo(NamedTuple):
    """`begin` and `end` are bytes after the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


Tensors = dict[str, TensorInfo]


class _Malformed(ValueError):
    """What was found and what was expected, for a sentence that begins with the file's name."""


def read_safetensors_header(path: Path) -> tuple[Tensors, dict[str, str]]:
    """Tensors by name, and the metadata. Raises CheckpointError for everything that the format does not allow."""
    try:
        size = _size_of_regular(path)
        with path.open("rb") as file:
            header = _parse(_header_text(file, size))
            metadata = header.pop("__metadata__", {})
            if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
                raise _Malformed("its metadata is no table of texts")
            tensors = {name: _tensor_info(name, described) for name, described in header.items()}
            _check_layout(tensors, size - file.tell())
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror or error}.", "Check that it exists and may be read.") from error
    except _Malformed as error:
        hint = "Copy or download it again; it is incomplete or no safetensors file."
        raise CheckpointError(f"{path.name} cannot be read as safetensors: {error}.", hint) from error
    return tensors, metadata


def _size_of_regular(path: Path) -> int:
    """Opening a pipe would wait for somebody to write to it."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise _Malformed("it is no regular file")
    return status.st_size


def _header_text(file: BinaryIO, size: int) -> bytes:
    start = file.read(32)
    if len(start) < 8:
        raise _Malformed(f"it has {size} bytes, expected at least 8")
    length = struct.unpack("<Q", start[:8])[0]
    if not 2 <= length <= min(size - 8, MAX_HEADER):
        known = next((what for beginning, what in _BEGINNINGS.items() if start.startswith(beginning)), "")
        bounds = f"expected 2 to {min(max(size - 8, 2), MAX_HEADER)}"
        raise _Malformed(f"it is {known}" if known else f"its first 8 bytes announce a header of {length} bytes, {bounds}")
    file.seek(8)
    text = file.read(length)
    if len(text) != length or not text.startswith(b"{"):
        raise _Malformed(f"its header begins with {text[:8]!r}, expected a JSON object")
    if (found := text.count(b'"data_offsets"')) > MAX_TENSORS:
        raise _Malformed(f"it lists {found} tensors, expected at most {MAX_TENSORS}")
    return text


def _parse(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text.decode(), object_pairs_hook=_unique)
    except _Malformed:
        raise
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, a number of thousands of digits, or nested too deep
        raise _Malformed(f"its header is no JSON ({str(error)[:100]})") from error
    if len(header) > MAX_TENSORS + 1:
        raise _Malformed(f"it lists {len(header)} tensors, expected at most {MAX_TENSORS}")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        (name, times), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise _Malformed(f"its header says {_short(name)} {times} times")
    return table


def _tensor_info(name: str, described: Any) -> TensorInfo:
    if not isinstance(described, dict) or described.keys() != {"dtype", "shape", "data_offsets"}:
        raise _Malformed(f"of the tensor {_short(name)} it says {_short(described)}, expected dtype, shape and data_offsets")
    dtype, shape, offsets = described["dtype"], described["shape"], described["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise _Malformed(f"the tensor {_short(name)} is of the unknown type {_short(dtype)}, expected one of {', '.join(_BITS)}")
    if not _are_counts(shape) or len(shape) > MAX_DIMENSIONS:
        raise _Malformed(f"the tensor {_short(name)} has the impossible shape {_short(shape)}")
    if not _are_counts(offsets) or len(offsets) != 2:
        raise _Malformed(f"the tensor {_short(name)} has the impossible offsets {_short(offsets)}")
    bits = prod(shape) * _BITS[dtype]
    if bits != 8 * (offsets[1] - offsets[0]):
        found = f"lies from byte {offsets[0]} to {offsets[1]}"
        raise _Malformed(f"the tensor {_short(name)} {found}, expected {-(-bits // 8)} bytes for {dtype} {_short(shape)}")
    return TensorInfo(dtype, tuple(shape), *offsets)


def _are_counts(values: Any) -> bool:
    """Whole numbers of at most 64 bits, none negative."""
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def _check_layout(tensors: Tensors, room: int) -> None:
    """One after the other, without gaps, to the end of the file: so no byte is used twice and none is hidden."""
    place = 0
    for name, info in sorted(tensors.items(), key=lambda item: item[1][2:]):
        if info.end > room:
            raise _Malformed(f"the tensor {_short(name)} ends at byte {info.end} of {room}: the file is truncated")
        if info.begin != place:
            what = "overlaps the one before" if info.begin < place else "leaves a gap before it"
            raise _Malformed(f"the tensor {_short(name)} begins at byte {info.begin} and {what}, expected {place}")
        place = info.end
    if place != room:
        raise _Malformed(f"{room} bytes follow its header, expected {place}")


def _short(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def identify(file_name: str, tensors: Tensors) -> str:
    """ "sd1", "sd2", "sdxl" or "svd". Raises CheckpointError for the rest, by its name where it is well known."""
    names = "\n".join(tensors)
    hint = "Known are checkpoints of Stable Diffusion 1, 2 and XL and of Stable Video Diffusion, in one file with everything in it."
    what = _other_kind(tensors)
    if what in _BELONGS:
        raise CheckpointError(f"{file_name} is {what}, not a checkpoint.", _BELONGS[what])
    if what or not is_checkpoint(tensors):
        raise CheckpointError(f"{file_name} is {what or 'of an unknown family'}.", _IN_A_FOLDER if "UNet alone" in what else hint)

    def has(prefix: str) -> bool:
        return f"\n{prefix}" in names or names.startswith(prefix)

    is_video = re.search(rf"^{re.escape(UNET)}.*\.time_stack\.", names, re.MULTILINE)
    family = "svd" if is_video else "sdxl" if has(XL_OPEN_CLIP_TEXT) else "sd2" if has(OPEN_CLIP_TEXT) else "sd1"
    labels = tensors.get(f"{UNET}label_emb.0.0.weight")
    if is_video and labels and labels.shape[1:] in ((256,), (1280,)):
        raise CheckpointError(f"{file_name} is an SV3D checkpoint, which turns objects around.", hint)
    if labels and family in ("sd1", "sd2"):
        what = "an unCLIP checkpoint, which makes variations of pictures" if family == "sd2" else "a UNet of Stable Diffusion XL's kind"
        raise CheckpointError(f"{file_name} is {what}.", hint)
    if family == "sdxl" and labels and labels.shape == (1280, 2816) and _DEEPEST not in tensors:
        what = "a Stable Diffusion XL checkpoint with fewer layers (SSD-1B, Segmind Vega, KOALA), which is not supported"
        raise CheckpointError(f"{file_name} is {what}.", hint)
    encoder, prefix = _ENCODERS[family]
    lacking = [] if has(prefix) else [f"{encoder} encoder"]
    lacking += [] if has(VAE) else ["VAE"]
    if lacking:
        title = {"svd": "Stable Video Diffusion", "sdxl": "Stable Diffusion XL"}.get(family, "Stable Diffusion")
        raise CheckpointError(f"{file_name} is a {title} checkpoint without its {' and its '.join(lacking)}.", hint)
    channels = tensors[f"{UNET}input_blocks.0.0.weight"].shape[1:2]
    expected = 8 if is_video else 4
    if channels != (expected,):
        purpose = "another purpose" if is_video or not channels else _INPUTS.get(channels[0], "another purpose")
        found = f"it takes {channels[0] if channels else 'no'} channels instead of {expected}"
        raise CheckpointError(f"{file_name} is a checkpoint for {purpose}: {found}.", hint)
    return family


def is_checkpoint(tensors: Tensors) -> bool:
    """Whether there is a UNet in the single-file layout."""
    return f"{UNET}input_blocks.0.0.weight" in tensors


def known_as(tensors: Tensors) -> str:
    """What a file is, in words, that was given as something else than a checkpoint."""
    what = _other_kind(tensors) or ("a checkpoint" if is_checkpoint(tensors) else "of an unknown kind")
    return what.removesuffix(", not a checkpoint")


def _other_kind(tensors: Tensors) -> str:
    names = "\n".join(tensors)
    kinds = _OTHER_FILES if is_checkpoint(tensors) else _OTHER_FILES | _PARTS
    return next((what for what, pattern in kinds.items() if re.search(pattern, names, re.MULTILINE)), "")


def describe(family: str, path: Path, tensors: Tensors, metadata: dict[str, str]) -> dict[str, Any]:
    """What the `stillmotion` metadata says of our own files, of a file of this family: kind, name, sampling, components."""
    described = json.loads((CONFIGS / f"{family}.json").read_text())
    components = described["components"]
    if family == "sd2":
        described["sampling"]["prediction_type"] = _prediction_type(path, tensors, metadata)
    if family == "sdxl":
        described["sampling"] = _xl_sampling(tensors, metadata)
    if family == "svd":
        temporal = components.pop("vae_temporal")
        if any(name.startswith(f"{VAE}decoder.") and ".time_stack." in name for name in tensors):
            components["vae"] = temporal
        components["unet"]["num_frames"] = 25 if re.search(r"(?<![a-z])(svd)?xt(?![a-z])", path.stem.lower()) else 14
    return described | {"name": path.stem}


def _prediction_type(path: Path, tensors: Tensors, metadata: dict[str, str]) -> str:
    """Stable Diffusion 2 predicts noise (the 512-pixel models) or v (the 768-pixel ones), and the same tensors serve both.

    What the metadata says is taken (modelspec.org). Else either of two signs is enough for v: the file's name says "768" or "v-pred",
    or one bias, of the last attention block, spreads wider than 0.09, by which ComfyUI tells them apart.
    """
    said = _said_prediction_type(metadata)
    if said:
        return said
    by_name = re.search(r"(?<!\d)768(?!\d)|v[-_ ]?pred", path.stem.lower())
    return "v_prediction" if by_name or _spread(path, tensors) > 0.09 else "epsilon"


def _said_prediction_type(metadata: dict[str, str]) -> str:
    said = metadata.get("modelspec.prediction_type", "")
    return {"v": "v_prediction", "v_prediction": "v_prediction", "epsilon": "epsilon"}.get(said, "")


def _xl_sampling(tensors: Tensors, metadata: dict[str, str]) -> dict[str, Any]:
    """Stable Diffusion XL predicts noise. Models trained further to predict v carry an empty tensor `v_pred`, and `ztsnr` besides if their
    noise schedule ends without any signal, by which ComfyUI knows them; or their metadata says it."""
    if "v_pred" in tensors:
        return {"prediction_type": "v_prediction"} | ({"zero_terminal_snr": True} if "ztsnr" in tensors else {})
    return {"prediction_type": _said_prediction_type(metadata) or "epsilon"}


def _spread(path: Path, tensors: Tensors) -> float:
    """The standard deviation of that bias; 0 if there is none."""
    from safetensors import SafetensorError, safe_open

    info = tensors.get(_SPREAD_OF)
    if info is None or len(info.shape) != 1 or not 1 <= info.shape[0] <= 10_000:
        return 0.0
    try:
        with safe_open(path, framework="pt") as file:
            return float(file.get_tensor(_SPREAD_OF).float().std(correction=0))
    except SafetensorError as error:
        raise CheckpointError(f"{path.name} cannot be read as safetensors: {error}.", "Copy or download it again.") from error
