"""A model as a folder, as diffusers saves it: one sub-folder a part, each with its configuration and its weights.

`describe_folder` says of it what the header of a single file says of that: the same names, so that everything after is the same.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from errors import CheckpointError
from pipelines.families import PICKLES, Tensors, read_safetensors_header
from pipelines.model_files import INDEX

_HINT = "Known are folders of Stable Diffusion 1, 2 and XL and of Stable Video Diffusion, as diffusers saves them."
# pipeline -> kind, and our name of each part to its sub-folder
_PIPELINES = {
    "StableDiffusionPipeline": ("still", {"unet": "unet", "vae": "vae", "text_encoder": "text_encoder"}),
    "StableDiffusionXLPipeline": (
        "still",
        {"unet": "unet", "vae": "vae", "text_encoder": "text_encoder", "text_encoder_2": "text_encoder_2"},
    ),
    "StableVideoDiffusionPipeline": ("motion", {"unet": "unet", "vae": "vae", "vision": "image_encoder"}),
}
_STEMS = ("diffusion_pytorch_model", "model")
_OLD_ATTENTION = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}  # autoencoders of 2022
_MAX_JSON = 50_000_000
Homes = dict[str, tuple[Path, str]]


def describe_folder(path: Path) -> tuple[dict[str, Any], Tensors, Homes]:
    """The description (kind, name, sampling, components), the tensors as `<part>.<library's name>`, and where each is: file and name
    in it. Raises CheckpointError for everything that is missing or unknown."""
    pipeline = _read_json(path / INDEX).get("_class_name")
    if pipeline not in _PIPELINES:
        raise CheckpointError(f"{path.name} is a folder for diffusers' {pipeline}, which is not supported.", _HINT)
    kind, parts = _PIPELINES[pipeline]
    components = {part: _read_json(path / folder / "config.json") for part, folder in parts.items()}
    if kind == "still":
        paddings = {"text_encoder": 49407, "text_encoder_2": 0} if "text_encoder_2" in parts else {"text_encoder": _padding(path)}
        for part, padding in paddings.items():
            components[part] |= {"pad_token_id": padding, "eos_token_id": 49407, "bos_token_id": 49406}
    else:
        components["vae"].setdefault("_class_name", "AutoencoderKLTemporalDecoder")
    tensors, homes = {}, {}
    for part, folder in parts.items():
        for file in _weight_files(path, path / folder):
            for name, info in read_safetensors_header(file)[0].items():
                ours = f"{part}.{todays_name(part, name)}"
                tensors[ours], homes[ours] = info, (file, name)
    sampling = _sampling(path, kind, is_xl="text_encoder_2" in parts)
    return {"kind": kind, "name": path.name, "sampling": sampling, "components": components}, tensors, homes


def _read_json(path: Path) -> dict[str, Any]:
    shown = f"{path.parent.name}/{path.name}"
    try:
        if path.stat().st_size > _MAX_JSON:
            raise CheckpointError(f"{shown} has {path.stat().st_size} bytes, too many for a configuration.", "Copy or download it again.")
        read = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"The file {shown} is missing.", "Copy or download the folder again, all of it.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{shown} cannot be read: {str(error)[:100]}.", "Copy or download it again.") from error
    if not isinstance(read, dict):
        raise CheckpointError(f"{shown} holds no JSON object.", "Copy or download it again.")
    return read


def _padding(path: Path) -> int:
    """What a prompt is filled up with: Stable Diffusion 1 repeats the end token, 2 takes "!"."""
    files = (path / "tokenizer" / name for name in ("special_tokens_map.json", "tokenizer_config.json"))  # today's only the second
    tokens = [_read_json(file).get("pad_token") for file in files if file.is_file()]
    return 0 if any((token.get("content") if isinstance(token, dict) else token) == "!" for token in tokens) else 49407


def _sampling(path: Path, kind: str, *, is_xl: bool) -> dict[str, Any]:
    config = _read_json(path / "scheduler" / "scheduler_config.json")
    if kind == "motion":
        return {"sigma_min": 0.002, "sigma_max": 700.0}
    usual = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000}
    strange = [f"{name} {config[name]!r}" for name, value in usual.items() if name in config and config[name] != value]
    if strange:
        raise CheckpointError(f"{path.name} was trained on another noise schedule: {', '.join(strange)}.", _HINT)
    prediction = {"prediction_type": config.get("prediction_type", "epsilon")}
    return prediction | ({"zero_terminal_snr": True} if is_xl and config.get("rescale_betas_zero_snr") else {})


def _weight_files(whole: Path, folder: Path) -> list[Path]:
    """The part's files: one, or those that the index of a split one names; full precision before half."""
    for stem in _STEMS:
        for variant in ("", ".fp16", ".bf16"):
            one = folder / f"{stem}{variant}.safetensors"
            if one.is_file():
                return [one]
            for index in (folder / f"{stem}.safetensors.index{variant}.json", folder / f"{stem}{variant}.safetensors.index.json"):
                if index.is_file():
                    return _split(index)
    found = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
    pickled = [name for name in found if name.endswith(PICKLES)]
    if pickled:
        problem = f"{whole.name}/{folder.name} has its weights only as a pickle, {pickled[0]}, which can run code when it is opened."
        raise CheckpointError(problem, "Use the .safetensors version of this model.")
    raise CheckpointError(f"{whole.name}/{folder.name} holds no weights.", "Copy or download the folder again, all of it.")


def _split(index: Path) -> list[Path]:
    places = _read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) and name == Path(name).name for name in places.values()):
        raise CheckpointError(f"{index.parent.name}/{index.name} names no files beside it.", "Copy or download it again.")
    return [index.parent / name for name in sorted(set(places.values()))]


def todays_name(part: str, name: str) -> str:
    """What diffusers and transformers call a tensor now that older versions saved under this name."""
    if part == "text_encoder":
        return name.removeprefix("text_model.")
    if part == "vae" and ".attentions." in name:
        for old, new in _OLD_ATTENTION.items():
            name = name.replace(old, new)
    return name
