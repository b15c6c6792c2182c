from __future__ import annotations

import gzip
import json
import os
import random
import struct
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from errors import CheckpointError
from pipelines.families import MAX_TENSORS, TensorInfo, describe, identify, read_safetensors_header

DATA = Path(__file__).parent.parent / "data"
UNET, TEXT, OPEN_TEXT = "model.diffusion_model.", "cond_stage_model.transformer.text_model.", "cond_stage_model.model."
XL_TEXT, XL_TEXT_2 = "conditioner.embedders.0.transformer.text_model.", "conditioner.embedders.1.model."
VISION = "conditioner.embedders.0.open_clip.model.visual."
CONV_IN, VAE = f"{UNET}input_blocks.0.0.weight", "first_stage_model.decoder.conv_in.weight"
ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def real_keys(name: str) -> dict[str, TensorInfo]:
    """The header of a real file, but for where its tensors lie."""
    found = json.loads(gzip.decompress((DATA / f"{name}_keys.json.gz").read_bytes()))
    return {key: TensorInfo(dtype, tuple(shape), 0, 0) for key, (dtype, shape) in found.items()}


def named(*names: str, channels: int = 4) -> dict[str, TensorInfo]:
    return {name: TensorInfo("F16", (320, channels, 3, 3) if name == CONV_IN else (8, 8), 0, 0) for name in names}


def write(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_a_header_is_read_as_safetensors_reads_it(tmp_path: Path) -> None:
    tensors = {"a": torch.zeros(2, 3), "b": torch.zeros(0, 4, dtype=torch.float16), "c": torch.tensor(1), "d": torch.zeros(5).bool()}
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt", "title": "ü"})
    found, metadata = read_safetensors_header(tmp_path / "x.safetensors")
    assert metadata == {"format": "pt", "title": "ü"}
    assert {name: (info.dtype, info.shape) for name, info in found.items()} == {
        "a": ("F32", (2, 3)), "b": ("F16", (0, 4)), "c": ("I64", ()), "d": ("BOOL", (5,)),
    }  # fmt: skip
    places = sorted((info.begin, info.end) for info in found.values())
    assert all(a[1] == b[0] for a, b in pairwise(places))


HOSTILE = {
    "empty file": (b"", "has 0 bytes, expected at least 8"),
    "text": (b"not a model at all, really not", "announce a header of .* bytes, expected 2 to 22"),
    "zip": (b"PK\x03\x04\x14\x00\x08\x08\x00\x00archive/data.pkl", "it is a zip file"),
    "pickle": (b"\x80\x02}q\x00(X\x05\x00\x00\x00state_dict", "it is a pickle, which can run code"),
    "gguf": (b"GGUF\x03\x00\x00\x00" + bytes(20), "it is a GGUF file"),
    "web page": (b"<!DOCTYPE html><html>Please log in</html>", "it is a web page"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS pointer"),
    "header over the limit": (struct.pack("<Q", 100_000_001) + b"{}", "announce a header of 100000001 bytes"),
    "header of 2^64 - 1": (b"\xff" * 8 + b"{}", "announce a header of 18446744073709551615 bytes"),
    "header longer than the file": (struct.pack("<Q", 300) + b'{"a":', "announce a header of 300 bytes, expected 2 to 5"),
    "no JSON": (b"{not JSON}", "no JSON"),
    "no UTF-8": (b'{"\xff": 1}', "no JSON"),
    "a list": (b"[1, 2]", r"begins with b'\[1, 2\]', expected a JSON object"),
    "nested deep": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "no JSON"),
    "a number of 10000 digits": (b'{"a": ' + b"9" * 10_000 + b"}", "no JSON"),
    "a name twice": (b'{"a": 1, "b": 2, "a": 3}', "says 'a' 2 times"),
    "a key of a tensor twice": (b'{"a": {"dtype": "F32", "dtype": "F16"}}', "says 'dtype' 2 times"),
    "metadata no table": ({"__metadata__": ["x"]}, "metadata is no table of texts"),
    "metadata of numbers": ({"__metadata__": {"a": 1}}, "metadata is no table of texts"),
    "a tensor that is a number": ({"a": 7}, "of the tensor 'a' it says 7, expected dtype, shape and data_offsets"),
    "a tensor without a type": ({"a": {"shape": [2], "data_offsets": [0, 8]}}, "expected dtype, shape and data_offsets"),
    "unknown type": ({"a": ONE | {"dtype": "F99"}}, "of the unknown type 'F99', expected one of BOOL"),
    "type no text": ({"a": ONE | {"dtype": ["F32"]}}, "of the unknown type"),
    "negative shape": ({"a": ONE | {"shape": [-1, -2]}}, r"impossible shape \[-1, -2\]"),
    "fraction in the shape": ({"a": ONE | {"shape": [2.0]}}, r"impossible shape \[2.0\]"),
    "true in the shape": ({"a": ONE | {"shape": [True, 2]}}, "impossible shape"),
    "shape no list": ({"a": ONE | {"shape": "2"}}, "impossible shape '2'"),
    "17 dimensions": ({"a": ONE | {"shape": [1] * 17}}, "impossible shape"),
    "2^62 squared": ({"a": ONE | {"shape": [2**62, 2**62]}}, "expected .* bytes for F32"),
    "2^70": ({"a": ONE | {"shape": [2**70]}}, "impossible shape"),
    "offsets backwards": ({"a": ONE | {"data_offsets": [8, 0]}}, "lies from byte 8 to 0, expected 8 bytes"),
    "offsets negative": ({"a": ONE | {"data_offsets": [-8, 0]}}, r"impossible offsets \[-8, 0\]"),
    "one offset": ({"a": ONE | {"data_offsets": [8]}}, "impossible offsets"),
    "size does not match": ({"a": ONE | {"shape": [3]}}, r"lies from byte 0 to 8, expected 12 bytes for F32 \[3\]"),
    "beyond the end": ({"a": ONE | {"shape": [4], "data_offsets": [0, 16]}}, "ends at byte 16 of 8: the file is truncated"),
    "a gap": ({"a": ONE | {"shape": [1], "data_offsets": [4, 8]}}, "begins at byte 4 and leaves a gap before it, expected 0"),
    "an overlap": ({"a": ONE, "b": ONE | {"shape": [1], "data_offsets": [4, 8]}}, "'b' begins at byte 4 and overlaps"),
    "the same place": ({"a": ONE, "b": ONE}, "begins at byte 0 and overlaps"),
    "bytes left over": ({}, "8 bytes follow its header, expected 0"),
    "a name of nonsense": ({"\ud800\n" * 99: 7}, r"of the tensor '\\ud800\\n"),
}


@pytest.mark.parametrize(("content", "says"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_headers_are_refused_with_what_was_found(tmp_path: Path, content: bytes | dict, says: str) -> None:
    path = tmp_path / "x.safetensors"
    if isinstance(content, dict) or (content[:1] in b"{[" and content):
        write(path, content, bytes(8))
    else:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"(?s)^x\.safetensors cannot be read as safetensors: .*{says}"):
        read_safetensors_header(path)


def test_more_tensors_than_any_model_has_are_refused(tmp_path: Path) -> None:
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    path = write(tmp_path / "x.safetensors", {str(n): empty for n in range(MAX_TENSORS + 1)})
    with pytest.raises(CheckpointError, match="lists 100001 tensors, expected at most 100000"):
        read_safetensors_header(path)


def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    for name, says in {"pipe.safetensors": "no regular file", ".": "no regular file", "none.safetensors": "No such file"}.items():
        with pytest.raises(CheckpointError, match=says):
            read_safetensors_header(tmp_path / name)


def test_whatever_is_accepted_safetensors_accepts_too(tmp_path: Path) -> None:
    """A thousand damaged files, the same on every run."""
    save_file({"ab": torch.ones(3), "c": torch.ones(2, 2).half()}, tmp_path / "x.safetensors", metadata={"k": "v"})
    whole, path, dice = (tmp_path / "x.safetensors").read_bytes(), tmp_path / "y.safetensors", random.Random(1)
    accepted = 0
    for _ in range(1000):
        damaged = bytearray(whole)
        for _ in range(dice.randint(1, 3)):
            damaged[dice.randrange(len(damaged))] = dice.choice(b'0123456789"{}[],: \x00\xff')
        path.write_bytes(damaged[: dice.choice([None, None, dice.randrange(len(damaged))])])
        try:
            read_safetensors_header(path)
        except CheckpointError:
            continue
        accepted += 1
        try:
            with safe_open(path, framework="pt") as file:
                list(file.keys())
        except SafetensorError as error:
            pytest.fail(f"{error}: {bytes(damaged)!r}")
    assert 20 < accepted < 980


def test_the_real_files_are_recognised() -> None:
    sd15, svd = real_keys("sd15"), real_keys("svd_xt")
    assert identify("x.safetensors", sd15) == "sd1"
    assert identify("x.safetensors", svd) == "svd"
    without_text = {key: info for key, info in sd15.items() if not key.startswith("cond_stage_model.")}
    assert identify("x.safetensors", without_text | named(f"{OPEN_TEXT}ln_final.weight")) == "sd2"


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight"], "is a LoRA, not a checkpoint. It belongs into"),
        (["unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight"], "is a LoRA"),
        (["lora_te_text_model_encoder_layers_0_mlp_fc1.hada_w1_a"], "is a LoRA"),
        (["control_model.time_embed.0.weight", CONV_IN, VAE, f"{TEXT}final_layer_norm.weight"], "is a ControlNet"),
        (["controlnet_cond_embedding.conv_in.weight", "down_blocks.0.resnets.0.norm1.weight"], "is a ControlNet"),
        (["adapter.body.0.block1.weight"], "is a T2I adapter"),
        (["ip_adapter.1.to_k_ip.weight"], "is an IP-Adapter"),
        (["emb_params"], "is a textual inversion"),
        (["down_blocks.0.motion_modules.0.temporal_transformer.norm.weight"], "AnimateDiff"),
        ([CONV_IN, "scaled_fp8"], "is a quantised checkpoint"),
        (["model.diffusion_model.double_blocks.0.img_attn.norm.key_norm.scale"], "is a Flux model"),
        (["double_blocks.0.img_attn_qkv.weight", "txt_in.individual_token_refiner.blocks.0.norm1.weight"], "HunyuanVideo"),
        (["model.diffusion_model.joint_blocks.0.context_block.adaLN_modulation.1.bias"], "is a Stable Diffusion 3 model"),
        (["model.diffusion_model.patchify_proj.weight"], "is an LTX-Video model"),
        (["model.diffusion_model.blocks.0.cross_attn.norm_k.weight"], "is a Wan model"),
        ([CONV_IN, f"{XL_TEXT_2}text_projection", VAE], "is a Stable Diffusion XL checkpoint without its first text encoder"),
        ([CONV_IN, f"{XL_TEXT_2}text_projection", f"{XL_TEXT}final_layer_norm.weight"], "Stable Diffusion XL checkpoint without its VAE"),
        ([CONV_IN, f"{XL_TEXT_2}text_projection", "edm_mean", "edm_std"], "is a Playground 2.5 checkpoint"),
        ([CONV_IN, f"{XL_TEXT_2}text_projection", "edm_vpred.sigma_max"], "is a CosXL checkpoint"),
        ([CONV_IN, "conditioner.embedders.0.model.text_projection", VAE], "Stable Diffusion XL refiner, which is not supported yet"),
        ([CONV_IN, f"{UNET}label_emb.0.0.weight"], "UNet of Stable Diffusion XL's kind"),
        ([CONV_IN, f"{UNET}label_emb.0.0.weight", f"{OPEN_TEXT}ln_final.weight"], "is an unCLIP checkpoint"),
        (["model.1.sub.0.RDB1.conv1.0.weight"], "is an upscaler"),
        (["decoder.up.0.block.0.norm1.weight"], "is a VAE, not a checkpoint. It belongs into"),
        (["first_stage_model.decoder.up.0.block.0.norm1.weight"], "is a VAE, not a checkpoint. It belongs into"),
        (["down_blocks.0.resnets.0.norm1.weight"], "is a UNet alone"),
        (["text_model.embeddings.token_embedding.weight"], "is a text encoder alone"),
        (["vision_model.post_layernorm.weight"], "is a CLIP vision model alone"),
        ([CONV_IN, VAE], "is a Stable Diffusion checkpoint without its text encoder"),
        ([CONV_IN, f"{OPEN_TEXT}ln_final.weight"], "without its VAE"),
        ([CONV_IN, f"{UNET}input_blocks.1.0.time_stack.in_layers.0.weight"], "Video Diffusion.* without its image encoder and its VAE"),
        (["weight"], "is of an unknown family"),
        ([], "is of an unknown family"),
    ],
)
def test_other_well_known_files_are_refused_by_their_name(names: list[str], what: str) -> None:
    with pytest.raises(CheckpointError, match=rf"^x\.safetensors .*{what}.*(Known are|models/)"):
        identify("x.safetensors", named(*names))


@pytest.mark.parametrize(("channels", "purpose"), [(9, "inpainting"), (8, "instruction"), (5, "depth"), (7, "upscaling"), (3, "another")])
@pytest.mark.parametrize(
    "encoders", [(f"{TEXT}final_layer_norm.weight",), (f"{XL_TEXT}final_layer_norm.weight", f"{XL_TEXT_2}positional_embedding")]
)
def test_models_that_take_more_than_a_latent_are_refused(channels: int, purpose: str, encoders: tuple[str, ...]) -> None:
    with pytest.raises(CheckpointError, match=rf"for {purpose}.*: it takes {channels} channels instead of 4"):
        identify("x.safetensors", named(CONV_IN, VAE, *encoders, channels=channels))


def test_stable_diffusion_xl_is_told_by_its_second_text_encoder_and_its_depth() -> None:
    names = named(CONV_IN, VAE, f"{XL_TEXT}final_layer_norm.weight", f"{XL_TEXT_2}positional_embedding")
    names |= {f"{UNET}label_emb.0.0.weight": TensorInfo("F16", (1280, 2816), 0, 0)}
    with pytest.raises(CheckpointError, match="with fewer layers"):
        identify("x.safetensors", names)
    assert identify("x.safetensors", names | named(f"{UNET}input_blocks.7.1.transformer_blocks.9.norm1.weight")) == "sdxl"


def test_sv3d_is_no_film_model() -> None:
    names = named(CONV_IN, VAE, f"{VISION}proj", f"{UNET}input_blocks.1.0.time_stack.in_layers.0.weight", channels=8)
    assert identify("x.safetensors", names) == "svd"
    with pytest.raises(CheckpointError, match="SV3D"):
        identify("x.safetensors", names | {f"{UNET}label_emb.0.0.weight": TensorInfo("F16", (1280, 1280), 0, 0)})


@pytest.mark.parametrize(
    ("name", "metadata", "spread", "expected"),
    [
        ("v2-1_512-ema-pruned", {}, 0.05, "epsilon"),
        ("v2-1_768-ema-pruned", {}, 0.05, "v_prediction"),
        ("my_v-pred_model", {}, 0.05, "v_prediction"),
        ("my_model", {}, 0.2, "v_prediction"),
        ("my_model_17680", {}, None, "epsilon"),
        ("my_model_768", {"modelspec.prediction_type": "epsilon"}, 0.2, "epsilon"),
        ("my_model", {"modelspec.prediction_type": "v"}, None, "v_prediction"),
        ("my_model", {"modelspec.prediction_type": "nonsense"}, 0.05, "epsilon"),
    ],
)
def test_what_stable_diffusion_2_predicts(tmp_path: Path, name: str, metadata: dict, spread: float | None, expected: str) -> None:
    bias = {} if spread is None else {f"{UNET}output_blocks.11.1.transformer_blocks.0.norm1.bias": torch.tensor([spread, -spread] * 160)}
    path = tmp_path / f"{name}.safetensors"
    save_file(bias, path, metadata=metadata or None)
    tensors, found = read_safetensors_header(path)
    assert describe("sd2", path, tensors, found)["sampling"] == {"prediction_type": expected}


@pytest.mark.parametrize(
    ("names", "metadata", "expected"),
    [
        ([], {}, {"prediction_type": "epsilon"}),
        (["v_pred"], {}, {"prediction_type": "v_prediction"}),
        (["v_pred", "ztsnr"], {}, {"prediction_type": "v_prediction", "zero_terminal_snr": True}),
        (["ztsnr"], {}, {"prediction_type": "epsilon"}),
        ([], {"modelspec.prediction_type": "v"}, {"prediction_type": "v_prediction"}),
        (["v_pred"], {"modelspec.prediction_type": "epsilon"}, {"prediction_type": "v_prediction"}),
    ],
)
def test_what_stable_diffusion_xl_predicts(names: list[str], metadata: dict, expected: dict) -> None:
    assert describe("sdxl", Path("x.safetensors"), named(*names), metadata)["sampling"] == expected


@pytest.mark.parametrize(
    ("name", "frames"),
    [("svd", 14), ("svd_xt", 25), ("svd_xt_1_1", 25), ("SVD-XT", 25), ("svdxt_image_decoder", 25), ("next_svd", 14), ("svd_text", 14)],
)
def test_the_long_video_model_is_known_by_its_file_name(name: str, frames: int) -> None:
    described = describe("svd", Path(f"{name}.safetensors"), {}, {})
    assert described["components"]["unet"]["num_frames"] == frames
    assert described["name"] == name


def test_the_decoder_of_a_video_model_is_told_by_its_names() -> None:
    image = describe("svd", Path("svd.safetensors"), real_keys("svd_xt"), {})
    temporal = describe("svd", Path("svd.safetensors"), named("first_stage_model.decoder.mid.block_1.time_stack.in_layers.0.weight"), {})
    assert image["components"]["vae"]["_class_name"] == "AutoencoderKL"
    assert temporal["components"]["vae"]["_class_name"] == "AutoencoderKLTemporalDecoder"
    assert image["components"].keys() == temporal["components"].keys() == {"unet", "vae", "vision"}
