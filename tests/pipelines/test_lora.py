"""Tiny LoRAs on tiny models of the true classes, against sums worked out here and against diffusers' reading of the same names."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from diffusers.loaders import lora_conversion_utils
from safetensors.torch import save_file
from torch import Tensor

from errors import CheckpointError, UnknownNameError
from pipelines import lora
from pipelines.checkpoints import read_header
from pipelines.lora_files import inspect_lora
from pipelines.memory import choose_placement
from pipelines.model_files import find, list_files
from pipelines.models import StillModels, load_still
from pipelines.parameters import parse_loras
from tests.conftest import STILL_NAME, TINY_XL_UNET
from tests.pipelines.test_ldm import real_models, unet_modules

CPU = choose_placement("cpu")
RANK = 2
Factors = dict[tuple[str, str], tuple[Tensor, Tensor]]  # (part, layer) -> up, down


@pytest.fixture
def still(tiny_models: Path) -> Path:
    return tiny_models / "checkpoints" / STILL_NAME


@pytest.fixture(scope="module")
def plain(tiny_models: Path) -> StillModels:
    """Without any change."""
    return load_still(tiny_models / "checkpoints" / STILL_NAME, CPU)


@pytest.fixture(scope="module")
def plain_xl(tiny_xl: Path) -> StillModels:
    return load_still(tiny_xl, CPU)


def factors_of(models: StillModels, *layers: tuple[str, str], seed: int = 0) -> Factors:
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for part, layer in layers:
        out, *rest = getattr(models, part).get_submodule(layer).weight.shape
        up = torch.randn(out, RANK, *[1] * (len(rest) - 1), generator=generator)
        found[part, layer] = (up, torch.randn(RANK, *rest, generator=generator))
    return found


def attention_of(models: StillModels) -> list[tuple[str, str]]:
    """The linear layers that trainers change, of every part."""
    layers = []
    for part in ("unet", "text_encoder", "text_encoder_2"):
        for name, module in (getattr(models, part) or torch.nn.Module()).named_modules():
            if isinstance(module, torch.nn.Linear) and ("attn" in name or "mlp" in name or "text_projection" in name):
                layers.append((part, name))
    return layers


def write(tensors: dict[str, Tensor], path: Path) -> Path:
    save_file({name: x.clone().contiguous() for name, x in tensors.items()}, path)
    return path


def outer(layer: str) -> str:
    """A text encoder's layer as files name it."""
    return layer if layer.startswith("text_") else f"text_model.{layer}"


def kohya(factors: Factors, alpha: float | None = None, text: str = "lora_te_") -> dict[str, Tensor]:
    prefixes = {"unet": "lora_unet_", "text_encoder": text, "text_encoder_2": "lora_te2_"}
    file = {}
    for (part, layer), (up, down) in factors.items():
        name = prefixes[part] + (layer if part == "unet" else outer(layer)).replace(".", "_")
        file |= {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down}
        file |= {} if alpha is None else {f"{name}.alpha": torch.tensor(alpha)}
    return file


def kohya_single_file(factors: Factors) -> dict[str, Tensor]:
    """The UNet counted as the original builds it, found by walking through it."""
    modules, renamed = dict(unet_modules(TINY_XL_UNET)), {}
    for (part, layer), value in factors.items():
        module = next((module for module in modules if part == "unet" and f"{layer}.".startswith(f"{module}.")), None)
        renamed[part, modules[module] + layer.removeprefix(module) if module else layer] = value
    return kohya(renamed, text="lora_te1_")


def peft(factors: Factors, up: str = "lora_B", down: str = "lora_A") -> dict[str, Tensor]:
    file = {}
    for (part, layer), values in factors.items():
        name = f"{part}.{layer if part == 'unet' else outer(layer)}"
        file |= dict(zip((f"{name}.{up}.weight", f"{name}.{down}.weight"), values, strict=True))
    return file


def processors_of_2023(factors: Factors) -> dict[str, Tensor]:
    file = {}
    for name, value in peft(factors, "lora.up", "lora.down").items():
        if ".to_" in name and name.startswith("unet."):
            before, after = name.split(".to_")
            name = f"{before}.processor.to_{after.replace('.lora.', '_lora.').replace('out.0_', 'out_')}"
        file[name if name.startswith("unet.") else name.replace(".lora.", ".lora_linear_layer.")] = value
    return file


NAMINGS = {
    "kohya": lambda factors: kohya(factors),
    "kohya, the first of two text encoders": lambda factors: kohya(factors, text="lora_te1_"),
    "kohya, counted as in a single file": kohya_single_file,
    "peft": peft,
    "peft with an adapter's name": lambda factors: peft(factors, "lora_B.default", "lora_A.default"),
    "diffusers": lambda factors: peft(factors, "lora.up", "lora.down"),
    "diffusers of 2023": processors_of_2023,
}


def weights(models: StillModels) -> dict[tuple[str, str], Tensor]:
    parts = ("unet", "vae", "text_encoder", "text_encoder_2")
    return {(part, name): x for part in parts if (model := getattr(models, part)) for name, x in model.state_dict().items()}


def assert_changed(models: StillModels, plain: StillModels, factors: Factors, scale: float = 1.0) -> None:
    """Those weights by up @ down, written as a sum over the rank; no other at all."""
    found, before = weights(models), weights(plain)
    assert found.keys() == before.keys()
    for (part, name), x in found.items():
        layer = (part, name.removesuffix(".weight"))
        if layer in factors and name.endswith(".weight"):
            up, down = factors[layer]
            delta = sum(up[:, r].reshape(-1, *[1] * (x.ndim - 1)) * down[r][None] for r in range(RANK))
            torch.testing.assert_close(x, before[part, name] + scale * delta)
            assert not torch.equal(x, before[part, name])
        else:
            assert torch.equal(x, before[part, name]), name


@pytest.mark.parametrize("naming", NAMINGS)
def test_every_naming_changes_the_same_weights_of_stable_diffusion_xl(
    tiny_xl: Path, plain_xl: StillModels, tmp_path: Path, naming: str
) -> None:
    factors = factors_of(plain_xl, *attention_of(plain_xl))
    assert {part for part, _ in factors} == {"unet", "text_encoder", "text_encoder_2"}
    path = write(NAMINGS[naming](factors), tmp_path / "x.safetensors")
    assert_changed(load_still(tiny_xl, CPU, loras=[(path, 1.0)]), plain_xl, factors)


def test_convolutions_alpha_and_strength(still: Path, plain: StillModels, tmp_path: Path) -> None:
    convolutions = ("conv_in", "down_blocks.0.resnets.0.conv1", "down_blocks.0.downsamplers.0.conv", "up_blocks.0.upsamplers.0.conv")
    layers = [*convolutions, "down_blocks.1.attentions.0.proj_in", "time_embedding.linear_1", "mid_block.resnets.1.time_emb_proj"]
    factors = factors_of(plain, *(("unet", layer) for layer in layers), ("text_encoder", "encoder.layers.1.mlp.fc2"))
    path = write(kohya(factors, alpha=0.5), tmp_path / "x.safetensors")
    assert_changed(load_still(still, CPU, loras=[(path, -0.7)]), plain, factors, scale=-0.7 * 0.5 / RANK)


def test_a_convolution_of_one_pixel_may_be_trained_as_a_linear_layer(still: Path, plain: StillModels, tmp_path: Path) -> None:
    layer = ("unet", "down_blocks.1.attentions.0.proj_out")
    factors = factors_of(plain, layer)
    flat = {layer: tuple(x.flatten(1) for x in factors[layer])}
    assert_changed(load_still(still, CPU, loras=[(write(kohya(flat), tmp_path / "x.safetensors"), 1.0)]), plain, factors)


def test_a_kernel_between_the_factors(still: Path, plain: StillModels, tmp_path: Path) -> None:
    """Tucker's decomposition, as LyCORIS writes it for convolutions."""
    layer = "down_blocks.0.resnets.0.conv1"
    out, into = plain.unet.get_submodule(layer).weight.shape[:2]
    up, mid, down = torch.randn(out, 2, 1, 1), torch.randn(2, 3, 3, 3), torch.randn(3, into, 1, 1)
    file = kohya({("unet", layer): (up, down)}) | {f"lora_unet_{layer.replace('.', '_')}.lora_mid.weight": mid}
    models = load_still(still, CPU, loras=[(write(file, tmp_path / "x.safetensors"), 0.5)])
    expected = plain.unet.get_submodule(layer).weight.clone()
    for a in range(2):
        for b in range(3):
            expected += 0.5 * up[:, a, :, :, None].reshape(out, 1, 1, 1) * mid[a, b] * down[b].reshape(1, into, 1, 1)
    torch.testing.assert_close(models.unet.get_submodule(layer).weight, expected)


def test_strength_0_is_no_lora_and_two_add_up(still: Path, plain: StillModels, tmp_path: Path) -> None:
    layers = attention_of(plain)
    one, two = (factors_of(plain, *layers, seed=seed) for seed in (1, 2))
    paths = [write(kohya(factors), tmp_path / f"{n}.safetensors") for n, factors in enumerate((one, two))]
    assert_changed(load_still(still, CPU, loras=[(paths[0], 0.0)]), plain, {})
    both = {layer: tuple(torch.cat([0.5 * one[layer][0], -2 * two[layer][0]], 1) if n == 0 else torch.cat([one[layer][1], two[layer][1]])
                         for n in range(2)) for layer in layers}  # fmt: skip
    models = load_still(still, CPU, loras=[(paths[0], 0.5), (paths[1], -2.0)])
    for (part, layer), (up, down) in both.items():
        weight = getattr(models, part).get_submodule(layer).weight
        torch.testing.assert_close(weight, getattr(plain, part).get_submodule(layer).weight + up @ down)


def test_half_precision_weights_are_rounded_once(still: Path, tmp_path: Path) -> None:
    half = dataclasses.replace(CPU, dtype=torch.bfloat16)
    plain = load_still(still, half)
    factors = factors_of(plain, ("unet", "conv_in"))
    paths = [write(kohya(factors), tmp_path / f"{n}.safetensors") for n in range(3)]
    models = load_still(still, half, loras=[(path, 0.001) for path in paths])
    up, down = factors["unet", "conv_in"]
    delta = 0.001 * (up.flatten(1) @ down.flatten(1)).reshape(plain.unet.conv_in.weight.shape)
    expected = (plain.unet.conv_in.weight.float() + delta + delta + delta).bfloat16()
    assert torch.equal(models.unet.conv_in.weight, expected)


def test_diffusers_reads_the_same_names_as_the_same_layers(tiny_xl: Path, plain_xl: StillModels, tmp_path: Path) -> None:
    """Its own conversion of kohya's names counted as in a single file, which is how Stable Diffusion XL's trainers write them."""
    factors = factors_of(plain_xl, *attention_of(plain_xl))
    file = kohya_single_file(factors)
    mapped = lora_conversion_utils._maybe_map_sgm_blocks_to_diffusers(dict(file), plain_xl.unet.config)
    converted, _ = lora_conversion_utils._convert_non_diffusers_lora_to_diffusers(mapped)
    models = load_still(tiny_xl, CPU, loras=[(write(file, tmp_path / "x.safetensors"), 1.0)])
    downs = [name for name in converted if name.startswith("unet.") and "down.weight" in name]
    assert len(downs) == sum(part == "unet" for part, _ in factors)
    for name in downs:
        layer = name.removeprefix("unet.").replace(".processor", "").replace("_lora.down.weight", "").replace(".lora.down.weight", "")
        layer = f"{layer}.0" if layer.endswith("to_out") else layer
        delta = converted[name.replace("down.weight", "up.weight")] @ converted[name]
        torch.testing.assert_close(models.unet.get_submodule(layer).weight, plain_xl.unet.get_submodule(layer).weight + delta)


@pytest.mark.parametrize(
    ("family", "counts"),
    [
        ("sd1", {"unet": 192, "text_encoder": 72}),
        ("sd2", {"unet": 192, "text_encoder": 138}),
        ("sdxl", {"unet": 722, "text_encoder": 72, "text_encoder_2": 192}),
    ],
)
def test_of_the_real_models_trainers_change_as_many_layers_as_they_say(family: str, counts: dict[str, int]) -> None:
    """kohya's trainer prints these numbers: the linear layers and convolutions of the attention blocks, and of the text encoders."""
    shapes = {
        part: {name: tuple(x.shape) for name, x in model.state_dict().items()}
        for part, model in real_models(family, {}).items()
        if part != "vae"
    }
    names = lora._names_of_weights(shapes)
    attention = {(part, name) for part, name in names.values() if part != "unet" or ".attentions." in name}
    linear = {(part, name) for part, name in attention if ".embeddings." not in name and "embedding" not in name}
    found = {part: sum(owner == part and "text_projection" not in name for owner, name in linear) for part in counts}
    assert found == counts


# What does not fit.


def changed_file(still: Path, path: Path, change: dict[str, Tensor | None]) -> Path:
    models = load_still(still, CPU)
    file = kohya(factors_of(models, ("unet", "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"))) | change
    return write({name: x for name, x in file.items() if x is not None}, path)


TO_K = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
X = torch.zeros(2, 2)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({f"{TO_K}.lora_up.weight": None}, "has only half of a change: .*attn2_to_k' is without its up"),
        ({f"{TO_K}.lora_down.weight": None}, "has only half of a change: .*attn2_to_k' is without its down"),
        ({"lora_unet_nothing.alpha": torch.tensor(1.0)}, "has only half of a change: 'lora_unet_nothing'"),
        ({"lora_unet_nothing.lora_up.weight": X, "lora_unet_nothing.lora_down.weight": X}, "changes 1 of 2 layers .* 'lora_unet_nothing'"),
        ({"bundle_emb.a.string_to_param": X}, "holds 1 tensors that belong to no change of weights, first 'bundle_emb"),
        ({f"{TO_K}.lora_B.weight": X}, "holds 1 tensors that belong to no change of weights"),
        ({f"{TO_K}.lora_up.weight": torch.zeros(15, 2)}, r"does not fit: .* has \[15, 2\] and \[2, 8\] for a weight of \[16, 8\]"),
        ({f"{TO_K}.lora_down.weight": torch.zeros(2, 9)}, r"does not fit: .*attn2_to_k' has \[16, 2\] and \[2, 9\] for a weight of"),
        ({f"{TO_K}.lora_down.weight": torch.zeros(0, 8)}, "has factors of a strange type or shape for"),
        ({f"{TO_K}.lora_up.weight": torch.zeros(16, 2, dtype=torch.int8)}, "has factors of a strange type or shape for"),
        ({f"{TO_K}.lora_mid.weight": torch.zeros(2, 2, 3, 3)}, "does not fit"),
        ({f"{TO_K}.lora_up.weight": torch.zeros(())}, "does not fit"),
        ({f"{TO_K}.alpha": torch.zeros(2)}, "has factors of a strange type or shape for"),
        ({f"{TO_K}.alpha": torch.tensor(1j)}, "has factors of a strange type or shape for"),
        ({f"{TO_K}.alpha": torch.tensor(float("nan"))}, "makes numbers that are not finite of"),
        ({f"{TO_K}.hada_w1_a": X}, "changes weights by LoHa, which is not supported"),
        ({f"{TO_K}.lokr_w1": X}, "changes weights by LoKr"),
        ({f"{TO_K}.dora_scale": X}, "changes weights by DoRA"),
        ({f"{TO_K}.diff": X}, "changes weights by whole differences of weights"),
        (
            {f"unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.lora.{side}.weight": x
             for side, x in {"up": torch.zeros(16, 2), "down": torch.zeros(2, 8)}.items()},
            "changes a layer twice, under two names",
        ),
    ],
)  # fmt: skip
def test_a_file_that_would_be_used_in_part_is_refused(still: Path, tmp_path: Path, change: dict, says: str) -> None:
    path = changed_file(still, tmp_path / "x.safetensors", change)
    with pytest.raises(CheckpointError, match=rf"^x\.safetensors {says}"):
        load_still(still, CPU, loras=[(path, 1.0)])


def test_other_files_are_refused_by_what_they_are(tmp_path: Path) -> None:
    for name, what in {
        "decoder.up.0.block.0.norm1.weight": "a VAE", "model.diffusion_model.input_blocks.0.0.weight": "a checkpoint",
        "emb_params": "a textual inversion", "weight": "of an unknown kind",
    }.items():  # fmt: skip
        with pytest.raises(CheckpointError, match=rf"^x\.safetensors is {what}, not a LoRA"):
            inspect_lora(write({name: X}, tmp_path / "x.safetensors"))


def test_a_lora_for_another_family_is_refused_with_both_names(
    still: Path, tiny_xl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths = {8: "Stable Diffusion 1", 20: "Stable Diffusion XL"}
    for place in ("pipelines.lora", "pipelines.lora_files"):
        monkeypatch.setattr(f"{place}.WIDTHS", widths)
    for own, other, says in (
        (still, tiny_xl, "made for Stable Diffusion 1, the checkpoint is Stable Diffusion XL"),
        (tiny_xl, still, "made for Stable Diffusion XL, the checkpoint is Stable Diffusion 1"),
    ):
        models = load_still(own, CPU)
        path = write(kohya(factors_of(models, *attention_of(models))), tmp_path / "x.safetensors")
        assert inspect_lora(path).made_for in says
        with pytest.raises(CheckpointError, match=rf"^x\.safetensors .*{says}\. Choose a LoRA for this checkpoint"):
            load_still(other, CPU, loras=[(path, 1.0)])


@pytest.mark.parametrize(
    ("layer", "width", "made_for"),
    [
        ("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k", 768, "Stable Diffusion 1"),
        ("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor.to_v", 1024, "Stable Diffusion 2"),
        ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k", 2048, "Stable Diffusion XL"),
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1", 1280, "Stable Diffusion XL"),
        ("lora_unet_double_blocks_0_img_attn_proj", 3072, "Flux"),
        ("lora_unet_something", 10, ""),
    ],
)
def test_what_a_lora_is_made_for(tmp_path: Path, layer: str, width: int, made_for: str) -> None:
    file = {f"{layer}.lora_down.weight": torch.zeros(1, width), f"{layer}.lora_up.weight": torch.zeros(4, 1)}
    assert inspect_lora(write(file, tmp_path / "x.safetensors")).made_for == made_for


def test_names_are_those_in_the_folder_with_or_without_their_ending(still: Path, tmp_path: Path) -> None:
    (tmp_path / "models" / "loras" / "anime").mkdir(parents=True)
    path = changed_file(still, tmp_path / "models" / "loras" / "anime" / "soft-1.5.safetensors", {})

    def found(loras: str) -> tuple[tuple[Path, float], ...]:
        there = list_files(tmp_path / "models" / "loras")
        return tuple((find("LoRA", name, there), strength) for name, strength in parse_loras(loras))

    assert found("anime/soft-1.5:0.6, anime/soft-1.5.safetensors") == ((path, 0.6), (path, 1.0))
    with pytest.raises(UnknownNameError, match=r"Unknown LoRA 'soft\.safetensors'.*Choose one of: anime/soft-1\.5\.safetensors"):
        found("soft")
    with pytest.raises(CheckpointError, match="can run code"):
        found("anime/soft.pt:1")


def test_a_lora_for_demo_models_says_so(still: Path, tmp_path: Path) -> None:
    file = {"lora_unet_x.lora_down.weight": torch.zeros(1, 768), "lora_unet_x.lora_up.weight": torch.zeros(4, 1)}
    header, path = read_header(still, "still"), write(file, tmp_path / "x.safetensors")
    assert header.family == ""
    with pytest.raises(CheckpointError, match="what it was made for cannot be told, the checkpoint is of another kind"):
        load_still(still, CPU, loras=[(path, 1.0)])
