"""Write the trained demo models as the two checkpoints in `assets/checkpoints`, half precision, architecture in the metadata.

python -m training.export [still] [motion]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import CLIPTokenizer

from pipelines.model_files import BUNDLED, DEMO_MOTION, DEMO_STILL, TOKENIZER
from training import architecture
from training.image_to_video import MotionModel
from training.latents import standardised_vae
from training.loop import load_average
from training.text_encoder import OTHER, known_words
from training.text_to_image import StillModel


def tensors(**parts: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {
        f"{part}.{key}": value.to(torch.float16).contiguous()
        for part, module in parts.items()
        for key, value in module.state_dict().items()
    }


def write(path: Path, name: str, kind: str, sampling: dict, components: dict, weights: dict[str, torch.Tensor]) -> None:
    described = {"kind": kind, "name": name, "sampling": sampling, "components": components}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path, metadata={"format": "pt", "licence": "Apache-2.0", "stillmotion": json.dumps(described)})
    path.chmod(0o644)  # whoever runs it may read it; safetensors writes for its owner alone
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def finished_vae(runs: Path) -> torch.nn.Module:
    """The autoencoder, with the decoder that went on training if there is one."""
    vae = standardised_vae(runs)
    if (runs / "decoder.pt").exists():
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
        load_average(runs / "decoder.pt", vae)
    return vae


@torch.no_grad()
def export_still(runs: Path) -> None:
    model, vae = load_average(runs / "text_to_image.pt", StillModel()), finished_vae(runs)
    words = model.text_encoder.get_input_embeddings().weight
    words.copy_(words[known_words(CLIPTokenizer.from_pretrained(TOKENIZER, local_files_only=True))])
    assert torch.equal(words[0], words[OTHER])
    weights = tensors(unet=model.unet, text_encoder=model.text_encoder, vae=vae)
    components = {"unet": architecture.STILL_UNET, "text_encoder": architecture.TEXT, "vae": architecture.VAE}
    write(BUNDLED / DEMO_STILL, "Stillmotion demo: cartoon stills", "still", {"prediction_type": "v_prediction"}, components, weights)


def export_motion(runs: Path) -> None:
    model = load_average(runs / "image_to_video.pt", MotionModel())
    weights = tensors(unet=model.unet, vision=model.vision, vae=finished_vae(runs))
    components = {"unet": architecture.MOTION_UNET, "vision": architecture.VISION, "vae": architecture.VAE}
    sampling = {"sigma_min": 0.002, "sigma_max": 700.0}
    write(BUNDLED / DEMO_MOTION, "Stillmotion demo: cartoon motion", "motion", sampling, components, weights)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=Path, default=Path("training/runs"))
    parser.add_argument("what", nargs="*", default=["still", "motion"])
    options = parser.parse_args()
    for what in options.what:
        {"still": export_still, "motion": export_motion}[what](options.runs)


if __name__ == "__main__":
    main()
