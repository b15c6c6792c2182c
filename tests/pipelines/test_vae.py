"""Autoencoders in files of their own, tiny ones of the true class, in every naming."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch import Tensor

from errors import CheckpointError, UnknownNameError
from pipelines import families
from pipelines.checkpoints import check_complete, inspect_vae
from pipelines.folders import _OLD_ATTENTION
from pipelines.memory import choose_placement
from pipelines.model_files import find, list_files
from pipelines.models import load_still
from pipelines.parameters import StillSettings
from pipelines.text_to_image import decode, text_to_image
from pipelines.values import Latents
from tests.conftest import STILL_NAME, TINY_XL_VAE
from tests.pipelines.test_ldm import VAE, vae_as_ldm

CONFIG = TINY_XL_VAE | {"scaling_factor": 0.18215}
CPU = choose_placement("cpu")


@pytest.fixture(autouse=True)
def tiny_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sd1.json").write_text(json.dumps({"components": {"vae": CONFIG}}))
    monkeypatch.setattr(families, "CONFIGS", tmp_path)


@pytest.fixture(scope="module")
def vae() -> AutoencoderKL:
    torch.manual_seed(8)
    model = AutoencoderKL(**CONFIG).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.requires_grad_(False)  # as it is loaded: what may be trained is multiplied in another way, and rounded in another


def as_of_2022(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for old, new in _OLD_ATTENTION.items():
        state = {name.replace(new, old) if ".attentions." in name else name: x for name, x in state.items()}
    return state


NAMINGS = {
    "as in checkpoints": lambda vae: vae_as_ldm(vae) | {f"{VAE}loss.logvar": torch.zeros(())},
    "without the prefix": lambda vae: {name.removeprefix(VAE): x for name, x in vae_as_ldm(vae).items()},
    "diffusers'": lambda vae: vae.state_dict(),
    "diffusers' of 2022": lambda vae: as_of_2022(vae.state_dict()),
}


def write(tensors: dict[str, Tensor], path: Path) -> Path:
    save_file({name: x.detach().clone().contiguous() for name, x in tensors.items()}, path)
    return path


@pytest.mark.parametrize("naming", NAMINGS)
def test_whatever_its_names_a_vae_takes_the_place_of_the_checkpoints(
    vae: AutoencoderKL, tiny_models: Path, tmp_path: Path, naming: str
) -> None:
    path, checkpoint = write(NAMINGS[naming](vae), tmp_path / "other.safetensors"), tiny_models / "checkpoints" / STILL_NAME
    own, models = load_still(checkpoint, CPU), load_still(checkpoint, CPU, vae=path)
    found, wanted = models.vae.state_dict(), vae.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert all(torch.equal(x, own.unet.state_dict()[name]) for name, x in models.unet.state_dict().items())
    settings = StillSettings(prompt="a boat", width=64, height=48, steps=1)
    assert not np.array_equal(text_to_image(models, settings), text_to_image(own, settings))


@torch.inference_mode()
def test_the_latent_scale_stays_the_checkpoints(vae: AutoencoderKL, tiny_models: Path, tiny_xl: Path, tmp_path: Path) -> None:
    """As in ComfyUI, where it belongs to the model that makes the latents."""
    path, latents = write(vae.state_dict(), tmp_path / "x.safetensors"), torch.randn(1, 4, 2, 2)
    for checkpoint, scale in ((tiny_models / "checkpoints" / STILL_NAME, 0.18215), (tiny_xl, 0.13025)):
        models = load_still(checkpoint, CPU, vae=path)
        expected = vae.decode(latents / scale).sample.add(1).div(2).clamp(0, 1).permute(0, 2, 3, 1).numpy()
        assert np.array_equal(decode(models.vae, Latents((latents / scale).numpy())), expected)


def tensors(*names: str, channels: int = 4) -> dict[str, Tensor]:
    return {name: torch.zeros(8, channels, 3, 3) for name in names}


UP, CONV_IN = "decoder.up.0.block.0.conv1.weight", "decoder.conv_in.weight"


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (tensors("model.diffusion_model.input_blocks.0.0.weight", VAE + UP), "is a checkpoint, not a VAE"),
        (tensors("lora_unet_mid_block.lora_up.weight"), "is a LoRA, not a VAE"),
        (tensors("control_model.time_embed.0.weight"), "is a ControlNet, not a VAE"),
        (tensors("down_blocks.0.resnets.0.conv1.weight"), "is a UNet alone in diffusers' layout, not a VAE"),
        (tensors("weight"), "is of an unknown kind, not a VAE"),
        (tensors(UP, CONV_IN, channels=16), "is a VAE for other models: its latents have 16 channels instead of 4"),
        (tensors(UP, "decoder.mid.block_1.time_stack.in_layers.2.weight"), "is the VAE of a video model"),
        (tensors("decoder.middle.0.residual.2.weight"), "is the VAE of a video model"),
        (tensors("decoder.layers.1.weight"), "is a TAESD"),
        (tensors(UP, "quantize.embedding.weight"), "is an autoencoder with a codebook"),
    ],
)
def test_other_files_are_refused_by_what_they_are(tmp_path: Path, file: dict[str, Tensor], says: str) -> None:
    with pytest.raises(CheckpointError, match=rf"^x\.safetensors {says}.*Known are VAEs"):
        inspect_vae(write(file, tmp_path / "x.safetensors"))


def test_a_vae_that_is_not_whole_is_refused(vae: AutoencoderKL, tmp_path: Path) -> None:
    state = vae.state_dict()
    del state["encoder.conv_in.bias"]
    with pytest.raises(CheckpointError, match=r"lacks 1 tensors of its vae, first 'vae\.encoder\.conv_in\.bias'"):
        check_complete(inspect_vae(write(state, tmp_path / "x.safetensors")))


def test_names_are_those_in_the_folder(vae: AutoencoderKL, tmp_path: Path) -> None:
    (tmp_path / "vae" / "anime").mkdir(parents=True)
    path = write(vae.state_dict(), tmp_path / "vae" / "anime" / "soft.safetensors")
    there = list_files(tmp_path / "vae")
    assert find("VAE", "anime/soft.safetensors", there) == path
    for wrong in ("soft.safetensors", "../checkpoints/" + STILL_NAME, "x"):
        with pytest.raises(UnknownNameError, match=r"Unknown VAE .*Choose one of: anime/soft\.safetensors"):
            find("VAE", wrong, there)
    with pytest.raises(CheckpointError, match="can run code"):
        find("VAE", "anime/soft.pt", there)


@pytest.mark.parametrize(
    ("kept", "says"), [("encoder.", "is half a VAE: its decoder is not whole"), ("decoder.up.1", "lacks .* incomplete, or of another size")]
)
def test_half_a_vae_is_called_that(tmp_path: Path, kept: str, says: str) -> None:
    names = [
        f"{side}.{rest}"
        for side, rest in (("encoder", "conv_in.weight"), ("decoder", "mid.block_1.norm1.weight"), ("decoder", "up.1.block.0.norm1.weight"))
    ]
    save_file({name: torch.zeros(4) for name in names if name.startswith((kept, "decoder.mid"))}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=rf"x\.safetensors {says}"):
        check_complete(inspect_vae(tmp_path / "x.safetensors"))
