"""Encode the cartoon world once: latents of stills and of films, at many sizes, kept in the runs folder.

    python -m training.latents stills --count 9000
    python -m training.latents films --count 1400

Another --seed adds to what is there, also from a second process. The first call also measures the spread of the trained
autoencoder's latents and folds it into its last and first 1x1 convolutions, so that latents times 0.18215 have mean 0 and spread 1, as
samplers expect of a Stable Diffusion model.
"""

from __future__ import annotations

import argparse
import random
import time
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from pipelines.model_files import BUNDLED, DEMO_STILL
from training.architecture import VAE, make_vae
from training.loop import load_average, load_bundled, lower_precision
from training.world import SUBJECTS, film, random_scene

SCALE = VAE["scaling_factor"]
# (height, width) in latents of 8 pixels, and how often: small ones teach meaning cheaply, large ones keep large pictures sane
STILL_SIZES = {(24, 24): 40, (16, 16): 16, (32, 32): 18, (24, 16): 5, (16, 24): 5, (32, 24): 5, (24, 32): 5, (48, 32): 3, (32, 48): 3}
# (frames, height, width). Films of 3 frames are cut out of longer ones: many of them teach where things go, the whole ones how to get there
FILM_SIZES = {
    (3, 24, 24): 300, (3, 16, 16): 60, (3, 24, 16): 20, (3, 16, 24): 20,
    (14, 24, 24): 60, (14, 16, 16): 45, (14, 32, 32): 8, (14, 24, 16): 8, (14, 16, 24): 8, (36, 16, 16): 6, (25, 24, 24): 4,
}  # fmt: skip
WHOLE = 14  # frames


@torch.no_grad()
def encode(vae: torch.nn.Module, frames: np.ndarray) -> torch.Tensor:
    """(n, height, width, 3) uint8 to (n, 4, height/8, width/8) float16, unscaled posterior means."""
    x = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1
    with lower_precision("cpu"):  # few at a time: larger buffers are given back to the system each time
        parts = [vae.encode(part).latent_dist.mean for part in x.split(2)]
    return torch.cat(parts).to(torch.float16)


@torch.no_grad()
def standardised_vae(runs: Path) -> torch.nn.Module:
    """The trained autoencoder with unit latents: made from the training run the first time, or the bundled one if there is no run."""
    path, vae = runs / "vae.pt", make_vae()
    if path.exists():
        vae.load_state_dict(torch.load(path, weights_only=True))
        return vae.eval()
    if not (runs / "autoencoder.pt").exists():
        holder = torch.nn.ModuleDict({"vae": vae})
        load_bundled(holder, BUNDLED / DEMO_STILL)
        return vae.eval()
    load_average(runs / "autoencoder.pt", vae)
    rng = random.Random(7)
    samples = np.stack([random_scene(rng).frame(rng.uniform(0, 1), 192, 192) for _ in range(256)])
    z = torch.cat([encode(vae, chunk) for chunk in np.array_split(samples, 32)]).float()
    mean, std = z.mean((0, 2, 3)), z.std((0, 2, 3))
    print("latent mean", mean.tolist(), "std", std.tolist())
    fold(vae, mean, std)
    torch.save(vae.state_dict(), path)
    return vae.eval()


@torch.no_grad()
def fold(vae: torch.nn.Module, mean: torch.Tensor, std: torch.Tensor) -> None:
    """Change `vae` so that its latents become (z - mean) / std / 0.18215; what it reconstructs stays the same."""
    inner = vae.post_quant_conv
    inner.bias += torch.einsum("oi,i->o", inner.weight[:, :, 0, 0], mean)
    inner.weight *= (std * SCALE)[None, :, None, None]
    outer, scale = vae.quant_conv, 1 / (std * SCALE)
    outer.weight[:4] *= scale[:, None, None, None]
    outer.bias[:4] = (outer.bias[:4] - mean) * scale
    outer.bias[4:] += 2 * scale.log()


def choose(sizes: dict[tuple[int, ...], int], rng: random.Random) -> tuple[int, ...]:
    return rng.choices(list(sizes), weights=list(sizes.values()))[0]


def make_stills(vae: torch.nn.Module, count: int, rng: random.Random) -> dict:
    """`{"height x width": {"latents": (n, 4, h, w), "captions": [[four sayings] * n]}}`, latents of unit spread."""
    out: dict[str, dict] = {}
    batches: dict[tuple[int, int], list] = {}
    for k in range(count + len(STILL_SIZES)):
        last = k >= count
        size = list(STILL_SIZES)[k - count] if last else choose(STILL_SIZES, rng)
        batch = batches.setdefault(size, [])
        if not last:
            scene = random_scene(rng)
            frame = scene.frame(rng.choice((0, 0, 0, rng.uniform(0, 0.3))), size[1] * 8, size[0] * 8)
            batch.append((frame, [scene.caption(rng) for _ in range(4)]))
        if batch and (last or len(batch) == 8):
            entry = out.setdefault(f"{size[0]}x{size[1]}", {"latents": [], "captions": []})
            entry["latents"].append(encode(vae, np.stack([frame for frame, _ in batch])).float().mul(SCALE).half())
            entry["captions"] += [captions for _, captions in batch]
            batch.clear()
    for entry in out.values():
        entry["latents"] = torch.cat(entry["latents"])
    return out


def centre_square(picture: np.ndarray) -> torch.Tensor:
    """(h, w, 3) uint8 to the (224, 224, 3) that CLIP's vision tower sees."""
    return torch.from_numpy(np.asarray(ImageOps.fit(Image.fromarray(picture), (224, 224), Image.Resampling.BICUBIC)).copy())


def make_films(vae: torch.nn.Module, count: int, rng: random.Random, subjects: tuple[str, ...] = ()) -> dict:
    """By "frames x height x width": `latents` (n, frames, 4, h, w) of unit spread, the first of them the film's frame `start` (n,),
    `stills` (n, 3, 4, h, w) the unscaled latents of the film's first frame at three `augmentation` levels (n, 3), `pictures`
    (n, 224, 224, 3) uint8, `fps` (n,), `motion` (n,). Of `subjects`, or of all."""
    out: dict[str, dict[str, list]] = {}
    noise = np.random.default_rng(rng.randrange(1 << 30))
    for _ in range(count):
        n, h, w = choose(FILM_SIZES, rng)
        fps, motion = rng.choice((7, 7, 7, 7, 6, 8, 10, 12, 15)), rng.choice((127, rng.randint(20, 240)))
        start = rng.randint(0, WHOLE - n) if n < WHOLE else 0
        scene = random_scene(rng, subject=rng.choice(subjects) if subjects else None)
        levels = (0.0, rng.uniform(0, 0.1), rng.uniform(0, 0.4))
        frames = film(scene, start + n, w * 8, h * 8, motion_bucket=motion, fps=fps)
        noisy = [frames[0] + level * 255 * noise.standard_normal(frames[0].shape) for level in levels[1:]]
        entry = out.setdefault(f"{n}x{h}x{w}", {k: [] for k in ("latents", "start", "stills", "augmentation", "pictures", "fps", "motion")})
        entry["latents"].append(encode(vae, frames[start:]).float().mul(SCALE).half())
        entry["start"].append(torch.tensor(float(start)))
        entry["stills"].append(encode(vae, np.stack([frames[0], *noisy])))
        entry["augmentation"].append(torch.tensor(levels))
        entry["pictures"].append(centre_square(frames[0]))
        entry["fps"].append(torch.tensor(float(fps)))
        entry["motion"].append(torch.tensor(float(motion)))
    return {size: {key: torch.stack(values) for key, values in entry.items()} for size, entry in out.items()}


def load_latents(runs: Path, what: str) -> dict:
    """What every call for `what` has made, joined. Raises FileNotFoundError if there was none."""
    paths = sorted(runs.glob(f"{what}-*.pt"))
    if not paths:
        raise FileNotFoundError(f"{runs} holds no {what}: run python -m training.latents {what} first")
    parts = [torch.load(path, weights_only=True) for path in paths]
    out: dict[str, dict] = {}
    for size in sorted({size for part in parts for size in part}):
        entries = [part[size] for part in parts if size in part]
        joined = {key: [entry[key] for entry in entries] for key in entries[0]}
        out[size] = {key: torch.cat(v) if isinstance(v[0], torch.Tensor) else list(chain.from_iterable(v)) for key, v in joined.items()}
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("stills", "films"))
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=Path("training/runs"))
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS, default=(), help="of films: these alone, one named twice twice as often")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    began, vae = time.monotonic(), standardised_vae(options.runs)
    rng = random.Random(options.seed)
    data = make_stills(vae, options.count, rng) if options.what == "stills" else make_films(vae, options.count, rng, options.subjects)
    path = options.runs / f"{options.what}-{options.seed}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(data, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)
    print({size: len(entry["latents"]) for size, entry in data.items()}, f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
