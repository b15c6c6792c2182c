"""Train the demo still model: a UNet2DConditionModel, v-prediction on cached latents, read through the finished text encoder.

    python -m training.text_encoder
    python -m training.latents stills --count 9000
    python -m training.text_to_image --minutes 60

The noise schedule is Stable Diffusion's; captions are dropped one time in ten, for guidance. Now and then words from the rest of
CLIP's vocabulary are mixed in, all as one shared "other" word: the model learns to ignore what it does not know.
"""

from __future__ import annotations

import math
import random

import torch
from diffusers.models.attention_processor import AttnProcessor
from transformers import CLIPTokenizer

from pipelines.model_files import BUNDLED, DEMO_STILL, TOKENIZER
from training.architecture import make_still_unet, make_text_encoder
from training.latents import load_latents
from training.loop import Run, arguments, load_average, load_bundled, lower_precision
from training.text_encoder import TextModel, mix_in_other_words

TOKENS_A_STEP = 9216  # latent positions in one step: 16 pictures of 24x24


class StillModel(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.unet, self.text_encoder = make_still_unet(), make_text_encoder().requires_grad_(False)
        self.unet.set_attn_processor(AttnProcessor())  # on a CPU its backward pass is several times faster than SDPA's

    def forward(self, x: torch.Tensor, t: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return self.unet(x, t, self.text_encoder(ids).last_hidden_state).sample


def tokenized(tokenizer: CLIPTokenizer, captions: list[list[str]]) -> torch.Tensor:
    """(scenes, sayings, 77) ids."""
    options = {"padding": "max_length", "max_length": 77, "truncation": True, "return_tensors": "pt"}
    return torch.stack([tokenizer(sayings, **options).input_ids for sayings in captions])


def weights_at(progress: float, sizes: list[str], counts: list[int]) -> list[float]:
    """How often each size is shown. Until the middle mostly small pictures, of which a step holds more: meaning first, then detail.
    A size is "24x24" for stills, "14x24x24" for films."""
    small = 4.0 if progress < 0.55 else 1.0
    areas = [math.prod(map(int, size.split("x")[-2:])) for size in sizes]
    return [count * (small if area <= 384 else 1.0) for area, count in zip(areas, counts, strict=True)]


def main() -> None:
    options = arguments(__doc__.split("\n")[0], minutes=60).parse_args()
    torch.manual_seed(2)
    model = StillModel()
    if options.fine_tune:
        load_bundled(model, BUNDLED / DEMO_STILL)
    elif not (options.runs / "text_to_image.pt").exists():
        model.text_encoder.load_state_dict(load_average(options.runs / "text_encoder.pt", TextModel()).text_encoder.state_dict())
    run = Run("text_to_image", model.to(options.device), options, lr=8e-4, ema=0.997)
    rng, device = random.Random(run.seed), options.device
    torch.manual_seed(run.seed)
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER, local_files_only=True)
    data = load_latents(options.runs, "stills")
    ids = {size: tokenized(tokenizer, entry["captions"]) for size, entry in data.items()}
    sizes, counts = list(data), [len(entry["latents"]) for entry in data.values()]
    empty = tokenizer("", padding="max_length", max_length=77, return_tensors="pt").input_ids[0]
    alphas = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0).float().to(device)
    for _ in run:
        size = rng.choices(sizes, weights=weights_at(1 if options.fine_tune else run.progress, sizes, counts))[0]
        latents, tokens = data[size]["latents"], ids[size]
        batch = max(2, TOKENS_A_STEP // (latents.shape[2] * latents.shape[3]))
        pick = torch.randint(0, len(latents), (batch,))
        x0 = latents[pick].float().to(device)
        said = tokens[pick, torch.randint(0, tokens.shape[1], (batch,))]
        for k in range(batch):
            draw = rng.random()
            if draw < 0.1:
                said[k] = empty
            elif draw < 0.22:
                said[k] = mix_in_other_words(said[k], rng)
        t = torch.randint(0, 1000, (batch,), device=device)
        a, noise = alphas[t].view(-1, 1, 1, 1), torch.randn_like(x0)
        # Sampling starts from pure noise, which the last timestep of this schedule is not quite: show it pure noise too.
        shown = torch.where((t < 985).view(-1, 1, 1, 1), x0, torch.zeros_like(x0))
        xt = a.sqrt() * shown + (1 - a).sqrt() * noise
        target = a.sqrt() * noise - (1 - a).sqrt() * x0
        with lower_precision(device):
            v = model(xt, t, said.to(device))
        run.learn((v.float() - target).square().mean())


if __name__ == "__main__":
    main()
