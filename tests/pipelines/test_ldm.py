"""Real names and shapes on the meta device; real weights in tiny models.

`as_ldm` writes a model in the single-file layout by walking through it in the order in which the original code builds it, which is
another way than the renames of `ldm`; for Stable Diffusion 1 and 2 diffusers' own converters judge it besides.
"""

from __future__ import annotations

import copy
import dataclasses
import gzip
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import transformers
from diffusers.loaders import single_file_utils
from safetensors.torch import save_file
from torch import Tensor, nn

from errors import CheckpointError
from pipelines import families
from pipelines.checkpoints import read_header
from pipelines.image_to_video import image_to_video
from pipelines.latents import empty
from pipelines.ldm import locate
from pipelines.memory import choose_placement, place
from pipelines.model_files import TOKENIZER
from pipelines.models import load_motion, load_still
from pipelines.parameters import MotionSettings, StillSettings
from pipelines.progress import Progress, Steps, never
from pipelines.text_to_image import decode, encode_prompt, for_sampling, predict, text_to_image
from pipelines.values import Latents
from tests.conftest import TINY_XL_TEXT, TINY_XL_TEXT_2, TINY_XL_UNET, TINY_XL_VAE

DATA = Path(__file__).parent.parent / "data"
XL_TEXT, XL_TEXT_2 = "conditioner.embedders.0.transformer.text_model.", "conditioner.embedders.1.model."
UNET, VAE, VISION = "model.diffusion_model.", "first_stage_model.", "conditioner.embedders.0.open_clip.model.visual."
CLASSES = {
    "still": {
        "unet": "UNet2DConditionModel",
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "CLIPTextModelWithProjection",
    },
    "motion": {"unet": "UNetSpatioTemporalConditionModel", "vae": "AutoencoderKL", "vision": "CLIPVisionModelWithProjection"},
}

TINY_UNET = {
    "sample_size": 8, "block_out_channels": [32, 64, 64], "layers_per_block": 2, "cross_attention_dim": 8, "attention_head_dim": 2,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
}  # fmt: skip
TINY_VIDEO_UNET = {
    "sample_size": 8, "in_channels": 8, "out_channels": 4, "block_out_channels": [32, 64], "layers_per_block": 2, "cross_attention_dim": 8,
    "num_attention_heads": [2, 2], "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 24,
    "down_block_types": ["CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"],
    "up_block_types": ["UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"],
}  # fmt: skip
TINY_VAE = {
    "block_out_channels": [8, 8, 16, 16], "layers_per_block": 2, "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4, "norm_num_groups": 4, "latent_channels": 4,
}  # fmt: skip
TINY_TEMPORAL_VAE = {
    "_class_name": "AutoencoderKLTemporalDecoder", "block_out_channels": [32, 32, 64, 64], "layers_per_block": 2, "latent_channels": 4,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
}  # fmt: skip
TINY_TEXT = {
    "vocab_size": 49408, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": 8,
    "max_position_embeddings": 77, "pad_token_id": 49407, "eos_token_id": 49407,
}  # fmt: skip
TINY_VISION = {
    "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": 8, "image_size": 224,
    "patch_size": 56, "hidden_act": "gelu",
}  # fmt: skip
TINY = {
    "sd1": {
        "kind": "still", "sampling": {"prediction_type": "epsilon"},
        "components": {"unet": TINY_UNET, "vae": TINY_VAE, "text_encoder": TINY_TEXT},
    },
    "sd2": {
        "kind": "still", "sampling": {"prediction_type": "epsilon"},
        "components": {
            "unet": TINY_UNET | {"use_linear_projection": True}, "vae": TINY_VAE,
            "text_encoder": TINY_TEXT | {"hidden_act": "gelu", "pad_token_id": 0},
        },
    },
    "sdxl": {
        "kind": "still", "sampling": {"prediction_type": "epsilon"},
        "components": {"unet": TINY_XL_UNET, "vae": TINY_XL_VAE, "text_encoder": TINY_XL_TEXT, "text_encoder_2": TINY_XL_TEXT_2},
    },
    "svd": {
        "kind": "motion", "sampling": {"sigma_min": 0.002, "sigma_max": 700.0},
        "components": {"unet": TINY_VIDEO_UNET, "vae": TINY_VAE, "vae_temporal": TINY_TEMPORAL_VAE, "vision": TINY_VISION},
    },
}  # fmt: skip


def told(models, text: str, settings: StillSettings):
    return for_sampling(encode_prompt(models.encoders(), text), empty(settings.width, settings.height), torch.device("cpu"))


def build(class_name: str, config: dict[str, Any]) -> nn.Module:
    class_name = config.get("_class_name", class_name)
    if hasattr(diffusers, class_name):
        return getattr(diffusers, class_name).from_config(config).eval()
    model_class = getattr(transformers, class_name)
    return model_class(model_class.config_class(**config)).eval()


@pytest.fixture(scope="module")
def tiny() -> dict[str, dict[str, nn.Module]]:
    """Random models of every family, no two tensors alike; "svd_temporal" has the other decoder."""
    torch.manual_seed(0)
    models = {}
    for family, described in TINY.items():
        models[family] = {part: build(CLASSES[described["kind"]].get(part, ""), c) for part, c in described["components"].items()}
        for model in models[family].values():
            for parameter in model.parameters():
                nn.init.normal_(parameter, std=0.2)
            model.requires_grad_(False)  # as they are loaded: what may be trained is multiplied in another way, and rounded in another
    temporal = models["svd"].pop("vae_temporal")
    return models | {"svd_temporal": models["svd"] | {"vae": temporal}}


@pytest.fixture
def tiny_configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for family, described in TINY.items():
        (tmp_path / f"{family}.json").write_text(json.dumps(described))
    monkeypatch.setattr(families, "CONFIGS", tmp_path)


# Writing the layout.


def unet_modules(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(here, there): the UNet's modules as the original builds them, appending to `input_blocks` and `output_blocks`."""
    levels, layers = len(config["block_out_channels"]), config["layers_per_block"]
    yield from {"conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
                "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
                "conv_norm_out": "out.0", "conv_out": "out.2"}.items()  # fmt: skip
    yield from {f"mid_block.{what}": f"middle_block.{n}" for n, what in enumerate(["resnets.0", "attentions.0", "resnets.1"])}.items()
    built = [["conv"]]
    for level, kind in enumerate(config["down_block_types"]):
        for layer in range(layers):
            built.append([f"resnets.{layer}", f"attentions.{layer}"] if "CrossAttn" in kind else [f"resnets.{layer}"])
            yield from ((f"down_blocks.{level}.{what}", f"input_blocks.{len(built) - 1}.{n}") for n, what in enumerate(built[-1]))
        if level < levels - 1:
            built.append(["op"])
            yield f"down_blocks.{level}.downsamplers.0.conv", f"input_blocks.{len(built) - 1}.0.op"
    built = []
    for level, kind in enumerate(config["up_block_types"]):
        for layer in range(layers + 1):
            built.append([f"resnets.{layer}", f"attentions.{layer}"] if "CrossAttn" in kind else [f"resnets.{layer}"])
            if level < levels - 1 and layer == layers:
                built[-1].append("upsamplers.0")
            yield from ((f"up_blocks.{level}.{what}", f"output_blocks.{len(built) - 1}.{n}") for n, what in enumerate(built[-1]))


def unet_as_ldm(model: nn.Module) -> dict[str, Tensor]:
    modules = dict(unet_modules(model.config))
    inside = {
        "resnets": {
            "spatial_res_block.": "", "temporal_res_block.": "time_stack.", "norm1.": "in_layers.0.", "conv1.": "in_layers.2.",
            "time_emb_proj.": "emb_layers.1.", "norm2.": "out_layers.0.", "conv2.": "out_layers.3.", "conv_shortcut.": "skip_connection.",
        },
        "attentions": {
            "temporal_transformer_blocks.": "time_stack.", "time_pos_embed.linear_1": "time_pos_embed.0",
            "time_pos_embed.linear_2": "time_pos_embed.2",
        },
    }  # fmt: skip
    found = {}
    for name, value in model.state_dict().items():
        module = next(module for module in modules if name.startswith(f"{module}."))
        rest = name.removeprefix(f"{module}.")
        if not rest.startswith("transformer_blocks."):
            for here, there in next((table for kind, table in inside.items() if kind in module), {}).items():
                rest = re.sub(rf"^{here}|(?<=^time_stack\.){here}", there, rest)
        found[f"{UNET}{modules[module]}.{rest}"] = value
    return found


def vae_as_ldm(model: nn.Module) -> dict[str, Tensor]:
    """Counts the decoder's levels from the fine end; its attention is of convolutions."""
    levels = len(model.config.block_out_channels)
    swaps = {"spatial_res_block.": "", "time_mixer.": "", "mid_block.attentions.0": "mid.attn_1", "group_norm": "norm",
             "conv_norm_out": "norm_out",
             "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out", "samplers.0.conv": "sample.conv", "resnets": "block",
             "mid_block.block.0": "mid.block_1", "mid_block.block.1": "mid.block_2", "conv_shortcut": "nin_shortcut",
             "time_conv_out": "conv_out.time_mix_conv"}  # fmt: skip
    swaps |= {f"up_blocks.{level}": f"up.{levels - 1 - level}" for level in range(levels)}
    swaps |= {f"down_blocks.{level}": f"down.{level}" for level in range(levels)}
    in_time = {"norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3"}
    found = {}
    for name, value in model.state_dict().items():
        renamed, is_attention = name, ".attentions." in name and value.ndim == 2
        before, is_in_time, rest = renamed.partition("temporal_res_block.")
        if is_in_time:
            part, leaf = rest.rsplit(".", 1)
            renamed = f"{before}time_stack.{in_time[part]}.{leaf}"
        for here, there in swaps.items():
            renamed = renamed.replace(here, there)
        found[VAE + renamed] = value[:, :, None, None] if is_attention else value
    return found


def open_clip_as_ldm(model: nn.Module, prefix: str) -> dict[str, Tensor]:
    """Queries, keys and values in one; the projections the other way round."""
    state = {re.sub("^(vision|text)_model.", "", name): value for name, value in model.state_dict().items()}
    ends = {"embeddings.token_embedding.weight": "token_embedding.weight", "embeddings.position_embedding.weight": "positional_embedding",
            "embeddings.class_embedding": "class_embedding", "embeddings.patch_embedding.weight": "conv1.weight",
            **{f"{here}.{leaf}": f"{there}.{leaf}" for leaf in ("weight", "bias") for here, there in
               {"final_layer_norm": "ln_final", "pre_layrnorm": "ln_pre", "post_layernorm": "ln_post"}.items()}}  # fmt: skip
    found = {prefix + there: state.pop(here) for here, there in ends.items() if here in state}
    if "visual_projection.weight" in state:
        found[f"{prefix}proj"] = state.pop("visual_projection.weight").T
    if "text_projection.weight" in state:
        found[f"{prefix}text_projection"] = state.pop("text_projection.weight").T
    inside = {
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
        "self_attn.out_proj": "attn.out_proj",
    }
    for layer in range(model.config.num_hidden_layers):
        here, there = f"encoder.layers.{layer}.", f"{prefix}transformer.resblocks.{layer}."
        for leaf in ("weight", "bias"):
            found[f"{there}attn.in_proj_{leaf}"] = torch.cat([state.pop(f"{here}self_attn.{which}_proj.{leaf}") for which in "qkv"])
            found |= {f"{there}{new}.{leaf}": state.pop(f"{here}{old}.{leaf}") for old, new in inside.items()}
    assert not state
    return found


def as_ldm(family: str, models: dict[str, nn.Module]) -> dict[str, Tensor]:
    """With what else such files hold."""
    others = {name: torch.zeros(4) for name in ("model_ema.decay", "model_ema.diffusion_modelinput_blocks00bias", "alphas_cumprod")}
    if family == "sd1":
        text = {f"cond_stage_model.transformer.text_model.{name}": value for name, value in models["text_encoder"].state_dict().items()}
        text["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    elif family == "sd2":
        text = open_clip_as_ldm(models["text_encoder"], "cond_stage_model.model.")
        last = {name.replace("resblocks.1.", "resblocks.2."): value + 1 for name, value in text.items() if "resblocks.1." in name}
        text |= last | {f"cond_stage_model.model.{name}": torch.ones(8, 8) for name in ("text_projection", "logit_scale")}
    elif family == "sdxl":
        text = {XL_TEXT + name: value for name, value in models["text_encoder"].state_dict().items()}
        text |= open_clip_as_ldm(models["text_encoder_2"], XL_TEXT_2) | {f"{XL_TEXT_2}logit_scale": torch.ones(())}
    else:
        text = open_clip_as_ldm(models["vision"], VISION)
    return others | unet_as_ldm(models["unet"]) | vae_as_ldm(models["vae"]) | text


def save(tensors: dict[str, Tensor], path: Path) -> Path:
    save_file({name: value.detach().clone().contiguous() for name, value in tensors.items()}, path)
    return path


# Real names and shapes.


def real_keys(name: str) -> dict[str, tuple[int, ...]]:
    found = json.loads(gzip.decompress((DATA / f"{name}_keys.json.gz").read_bytes()))
    return {key: tuple(shape) for key, (_, shape) in found.items()}


def real_models(family: str, names: dict[str, tuple[int, ...]]) -> dict[str, nn.Module]:
    described = families.describe(family, Path("x.safetensors"), dict.fromkeys(names), {})
    with torch.device("meta"):
        return {part: build(CLASSES[described["kind"]][part], config) for part, config in described["components"].items()}


@pytest.mark.parametrize(("family", "name"), [("sd1", "sd15"), ("svd", "svd_xt")])
def test_every_tensor_of_the_real_models_comes_from_one_of_the_real_file(family: str, name: str) -> None:
    file, used = real_keys(name), Counter()
    for part, model in real_models(family, file).items():
        wanted = model.state_dict()
        sources = locate(family, part, wanted, file)
        assert sources.keys() == wanted.keys()
        for target, source in sources.items():
            assert source.take(torch.empty(file[source.name], device="meta")).shape == wanted[target].shape, target
        used.update(source.name for source in sources.values())
    unused = file.keys() - used.keys()
    assert unused <= {"cond_stage_model.transformer.text_model.embeddings.position_ids"}
    assert all(times == (3 if ".in_proj_" in source else 1) for source, times in used.items())


def test_the_other_real_models_have_their_known_sizes() -> None:
    """Without a list of their keys at hand: the numbers of parameters that are published."""
    sizes = {part: sum(p.numel() for p in model.parameters()) for part, model in real_models("sd2", {}).items()}
    assert sizes == {"unet": 865_910_724, "vae": 83_653_863, "text_encoder": 340_387_840}
    sizes = {part: sum(p.numel() for p in model.parameters()) for part, model in real_models("sdxl", {}).items()}
    assert sizes == {"unet": 2_567_463_684, "vae": 83_653_863, "text_encoder": 123_060_480, "text_encoder_2": 694_659_840}
    xl = real_models("sdxl", {})
    with torch.device("meta"):
        file = as_ldm("sdxl", xl)
    used = {part: {source.name for source in locate("sdxl", part, model.state_dict(), file).values()} for part, model in xl.items()}
    assert {part: len(names) for part, names in used.items()} == {"unet": 1680, "vae": 248, "text_encoder": 196, "text_encoder_2": 389}
    assert file.keys() - set().union(*used.values()) == {
        f"{XL_TEXT_2}logit_scale", "model_ema.decay", "model_ema.diffusion_modelinput_blocks00bias", "alphas_cumprod",
    }  # fmt: skip
    temporal = real_models("svd", {"first_stage_model.decoder.mid.block_1.time_stack.in_layers.0.weight": ()})
    assert {part: len(model.state_dict()) for part, model in temporal.items()} == {"unet": 1428, "vae": 374, "vision": 520}
    assert sum(p.numel() for p in temporal["unet"].parameters()) == 1_524_623_082
    with torch.device("meta"):
        file = vae_as_ldm(temporal["vae"])
    assert {s.name for s in locate("svd", "vae", temporal["vae"].state_dict(), file).values()} == file.keys()


# Real weights in tiny models.


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_diffusers_reads_the_layout_that_these_tests_write(tiny: dict, family: str) -> None:
    models, file = tiny[family], as_ldm(family, tiny[family])
    converted = {
        "unet": single_file_utils.convert_ldm_unet_checkpoint(dict(file), models["unet"].config),
        "vae": single_file_utils.convert_ldm_vae_checkpoint(dict(file), models["vae"].config),
    }
    if family == "sd1":
        converted["text_encoder"] = single_file_utils.convert_ldm_clip_checkpoint(dict(file))
    elif family == "sdxl":
        converted["text_encoder"] = single_file_utils.convert_ldm_clip_checkpoint(dict(file), "conditioner.embedders.0.transformer.")
        converted["text_encoder_2"] = single_file_utils.convert_open_clip_checkpoint(models["text_encoder_2"], dict(file), XL_TEXT_2)
    else:
        converted["text_encoder"] = single_file_utils.convert_open_clip_checkpoint(models["text_encoder"], dict(file))
    for part, found in converted.items():
        found = {name.removeprefix("text_model."): value for name, value in found.items()}
        for name, value in models[part].state_dict().items():
            assert torch.equal(found[name.removeprefix("text_model.")], value), f"{part}.{name}"


@pytest.mark.usefixtures("tiny_configs")
@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_a_still_from_a_single_file_is_the_models_own(tiny: dict, tmp_path: Path, family: str) -> None:
    models = load_still(save(as_ldm(family, tiny[family]), tmp_path / "x.safetensors"), choose_placement("cpu"))
    assert_same_weights(models, tiny[family])
    settings = StillSettings(prompt="a (red:1.3) boat!", width=64, height=48, steps=2, seed=5)
    still = text_to_image(models, settings)
    assert np.array_equal(still, text_to_image(dataclasses.replace(models, **tiny[family]), settings))
    assert still.std() > 0.01
    assert models.tokenizer.pad_token_id == {"sd1": 49407, "sd2": 0, "sdxl": 49407}[family]
    assert models.vae.config.scaling_factor == {"sdxl": 0.13025}.get(family, 0.18215)
    if family == "sdxl":
        assert models.tokenizer_2.pad_token_id == 0


@torch.inference_mode()
@pytest.mark.usefixtures("tiny_configs")
def test_stable_diffusion_xl_means_what_it_means_to_diffusers(tiny: dict, tmp_path: Path) -> None:
    """diffusers reads the same file and encodes the same prompts; its UNet's answer to what its pipeline tells it is ours."""
    pipeline = diffusers.StableDiffusionXLPipeline(
        **tiny["sdxl"],
        tokenizer=transformers.CLIPTokenizer.from_pretrained(TOKENIZER),
        tokenizer_2=transformers.CLIPTokenizer.from_pretrained(TOKENIZER, pad_token="!"),
        scheduler=diffusers.EulerDiscreteScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
        force_zeros_for_empty_prompt=False,
    )
    pipeline.save_pretrained(tmp_path / "config")
    for weights in (tmp_path / "config").rglob("*.safetensors"):
        weights.unlink()
    path = save(as_ldm("sdxl", tiny["sdxl"]), tmp_path / "x.safetensors")
    theirs = diffusers.StableDiffusionXLPipeline.from_single_file(str(path), config=str(tmp_path / "config"), local_files_only=True)
    models = load_still(path, choose_placement("cpu"))
    settings = StillSettings(prompt="a red boat on the sea", negative_prompt="", width=64, height=48)
    cond, uncond = (told(models, text, settings) for text in (settings.prompt, settings.negative_prompt))
    context, empty, pooled, empty_pooled = theirs.encode_prompt(settings.prompt, negative_prompt="")
    for ours, expected in ((cond.context, context), (cond.pooled, pooled), (uncond.context, empty), (uncond.pooled, empty_pooled)):
        torch.testing.assert_close(ours, expected)
    ids = theirs._get_add_time_ids((48, 64), (0, 0), (48, 64), torch.float32, 10)
    assert torch.equal(cond.sizes, ids)
    x, sigma = torch.randn(1, 4, 6, 8), 2.0
    t = models.spacing.timestep(sigma)
    noise = theirs.unet(x / (sigma**2 + 1) ** 0.5, t, context, added_cond_kwargs={"text_embeds": pooled, "time_ids": ids}).sample
    torch.testing.assert_close(predict(models, x, sigma, cond), x - sigma * noise)
    latents = torch.randn(1, 4, 6, 8)
    pixels = theirs.vae.decode(latents / theirs.vae.config.scaling_factor).sample
    expected = pixels.add(1).div(2).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(decode(models.vae, Latents((latents / theirs.vae.config.scaling_factor).numpy())), expected)


@pytest.mark.usefixtures("tiny_configs")
def test_a_projection_that_was_kept_as_a_layer_is_not_turned_round(tiny: dict, tmp_path: Path) -> None:
    file = as_ldm("sdxl", tiny["sdxl"])
    file[f"{XL_TEXT_2}text_projection.weight"] = file.pop(f"{XL_TEXT_2}text_projection").T
    assert_same_weights(load_still(save(file, tmp_path / "x.safetensors"), choose_placement("cpu")), tiny["sdxl"])


@pytest.mark.usefixtures("tiny_configs")
def test_markers_for_v_change_what_the_same_weights_mean(tiny: dict, tmp_path: Path) -> None:
    file, settings = as_ldm("sdxl", tiny["sdxl"]), StillSettings(prompt="a boat", width=64, height=48, steps=2, seed=5)
    stills = []
    for name, markers in {"eps": (), "v": ("v_pred",), "end": ("v_pred", "ztsnr")}.items():
        marked = file | {marker: torch.zeros(()) for marker in markers}
        models = load_still(save(marked, tmp_path / f"{name}.safetensors"), choose_placement("cpu"))
        stills.append(text_to_image(models, settings))
    assert models.spacing.sigma_max > 4518
    assert not any(np.array_equal(a, b) for a, b in itertools.combinations(stills, 2))


@pytest.mark.usefixtures("tiny_configs")
@pytest.mark.parametrize("family", ["svd", "svd_temporal"])
def test_a_film_from_a_single_file_is_the_models_own(tiny: dict, tmp_path: Path, family: str) -> None:
    models = load_motion(save(as_ldm("svd", tiny[family]), tmp_path / "x.safetensors"), choose_placement("cpu"))
    assert_same_weights(models, tiny[family])
    settings = MotionSettings(width=64, height=48, frames=3, steps=2, seed=5, augmentation_level=0.1)
    still = np.random.default_rng(1).random((48, 64, 3), np.float32)
    frames = image_to_video(models, still, settings)
    own = {name: place(copy.deepcopy(module), models.placement) for name, module in tiny[family].items()}
    assert np.array_equal(frames, image_to_video(dataclasses.replace(models, **own), still, settings))
    assert frames.std() > 0.01


def assert_same_weights(models: object, expected: dict[str, nn.Module]) -> None:
    for part, model in expected.items():
        loaded = getattr(models, part)
        assert type(loaded) is type(model)
        found, wanted = loaded.state_dict(), model.state_dict()
        assert found.keys() == wanted.keys()
        for name, value in found.items():
            assert torch.equal(value, wanted[name]), f"{part}.{name}"
            assert value.is_contiguous()


@pytest.mark.usefixtures("tiny_configs")
def test_the_stills_encoder_of_a_video_file_is_the_conditioners_own(tiny: dict, tmp_path: Path) -> None:
    """Original files hold two encoders: the conditioner's with quant_conv, and one that it is folded into."""
    models = tiny["svd_temporal"]
    file, beginnings = as_ldm("svd", models), (f"{VAE}encoder.", f"{VAE}quant_conv.")
    own = {key: file.pop(key) for key in list(file) if key.startswith(beginnings)}
    file |= {key: torch.zeros_like(value) for key, value in own.items() if key.startswith(beginnings[0])}
    file |= {f"conditioner.embedders.3.encoder.{key.removeprefix(VAE)}": value for key, value in own.items()}
    assert_same_weights(load_motion(save(file, tmp_path / "x.safetensors"), choose_placement("cpu")), models)


@torch.inference_mode()
@pytest.mark.usefixtures("tiny_configs")
def test_without_a_quant_conv_the_encoder_is_taken_as_it_is(tiny: dict, tmp_path: Path) -> None:
    models = tiny["svd_temporal"]
    file = {key: value for key, value in as_ldm("svd", models).items() if ".quant_conv." not in key}
    loaded = load_motion(save(file, tmp_path / "x.safetensors"), choose_placement("cpu"))
    pixels = torch.rand(1, 3, 16, 16)
    assert torch.equal(loaded.vae.encode(pixels).latent_dist.parameters, models["vae"].encoder(pixels))


@pytest.mark.usefixtures("tiny_configs")
def test_files_without_text_model_in_their_names_load_too(tiny: dict, tmp_path: Path) -> None:
    file = {name.replace("transformer.text_model.", "transformer."): value for name, value in as_ldm("sd1", tiny["sd1"]).items()}
    assert_same_weights(load_still(save(file, tmp_path / "x.safetensors"), choose_placement("cpu")), tiny["sd1"])


@pytest.mark.usefixtures("tiny_configs")
def test_half_precision_becomes_what_the_placement_says(tiny: dict, tmp_path: Path) -> None:
    file = {name: value.half() for name, value in as_ldm("sd1", tiny["sd1"]).items()}
    placement = dataclasses.replace(choose_placement("cpu"), dtype=torch.bfloat16)
    models = load_still(save(file, tmp_path / "x.safetensors"), placement)
    for part, dtype in {"unet": torch.bfloat16, "text_encoder": torch.bfloat16, "vae": torch.float32}.items():
        wanted = tiny["sd1"][part].state_dict()
        for name, value in getattr(models, part).state_dict().items():
            assert torch.equal(value, wanted[name].half().to(dtype)), f"{part}.{name}"


@pytest.mark.usefixtures("tiny_configs")
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (None, rf"lacks 1 tensors of its unet, first '{UNET}input_blocks\.1\.1\.proj_in\.weight'"),
        (torch.zeros(32, 33, 1, 1), r"has 1 tensors of another type or shape in its unet .* first 'model.*proj_in\.weight'"),
        (torch.zeros(32, 32, 1, 1, dtype=torch.int8), "has 1 tensors of another type or shape in its unet"),
    ],
)
def test_a_tensor_that_is_missing_or_does_not_fit_is_named(tiny: dict, tmp_path: Path, change: Tensor | None, says: str) -> None:
    file, name = as_ldm("sd1", tiny["sd1"]), f"{UNET}input_blocks.1.1.proj_in.weight"
    file = file | {name: change} if change is not None else {key: value for key, value in file.items() if key != name}
    with pytest.raises(CheckpointError, match=rf"^x\.safetensors {says}"):
        load_still(save(file, tmp_path / "x.safetensors"), choose_placement("cpu"))


@pytest.mark.usefixtures("tiny_configs")
def test_fused_tensors_of_strange_shapes_are_refused(tiny: dict, tmp_path: Path) -> None:
    for shape in ((), (23, 8)):
        file = as_ldm("svd", tiny["svd"]) | {f"{VISION}transformer.resblocks.0.attn.in_proj_weight": torch.zeros(shape)}
        with pytest.raises(CheckpointError, match="of another type or shape in its vision"):
            load_motion(save(file, tmp_path / "x.safetensors"), choose_placement("cpu"))


@pytest.mark.usefixtures("tiny_configs")
def test_a_file_of_the_other_stage_is_refused_by_its_header(tiny: dict, tmp_path: Path) -> None:
    path = save(as_ldm("sd1", tiny["sd1"]), tmp_path / "x.safetensors")
    assert read_header(path, "still").family == "sd1"
    with pytest.raises(CheckpointError, match="makes a still from a prompt, not a film from a still"):
        read_header(path, "motion")


@torch.inference_mode()
def test_a_temporal_decoder_sees_several_frames_together_and_none_alone(tiny: dict) -> None:
    vae, latents = tiny["svd_temporal"]["vae"], torch.randn(9, 4, 2, 3, generator=torch.Generator().manual_seed(1)) * 0.18215
    told: list[Progress] = []
    frames = decode(vae, Latents((latents / 0.18215).numpy()), steps=Steps("decoding", 9, told.append, never))
    assert frames.shape == (9, 16, 24, 3)
    assert [progress.step for progress in told] == [5]
    halves = [vae.decode(part / 0.18215, num_frames=len(part)).sample for part in (latents[:5], latents[5:])]
    expected = torch.cat(halves).add(1).div(2).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(frames, expected)
