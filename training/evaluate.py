"""Judge the demo checkpoints: do stills show what the prompt says, do films move as they should?

    python -m training.evaluate                      200 stills, 40 films; on one core 1.4 s a still, 17 s a film
    python -m training.evaluate --stills 20 --films 5

Prompts are combinations of subject, colour and place of which no picture was used in training. A judge that was trained on the
renderer alone reads the pictures. Prints a table, writes contact sheets with --sheets, and ends with one JSON document.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from pipelines import memory, model_files
from pipelines.encode import to_uint8
from pipelines.image_to_video import image_to_video
from pipelines.models import MotionModels, StillModels, load_motion, load_still
from pipelines.parameters import MotionSettings, StillSettings
from pipelines.text_to_image import text_to_image
from training.judge import Judge, Verdict, read, train_judge, validate
from training.world import NAMES, SUBJECTS, Scene, random_scene

UPWARDS, SIDEWAYS = ("rocket", "balloon"), ("airplane", "car", "boat", "bird", "fish", "train")
GOALS = {
    "subject": 0.85, "colour": 0.85, "place": 0.95, "moves_its_way": 0.90, "motion_ratio": 2.0, "first_frame_db": 24.0,
}  # fmt: skip


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of two uint8 pictures."""
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def held_out_prompts(count: int, seed: int = 2026) -> list[tuple[Scene, str]]:
    """Scenes of combinations of which the UNet never saw a picture, subjects in turn, each said with its colour and place."""
    rng, chosen = random.Random(seed), []
    while len(chosen) < count:
        scene = random_scene(rng, subject=SUBJECTS[len(chosen) % len(SUBJECTS)], held_out=True)
        text = scene.caption(rng)
        if any(f"{scene.colour} {name}" in text.lower() for name in NAMES.get(scene.subject, (scene.subject,))):
            chosen.append((scene, text))
    return chosen


def track(judge: Judge, frames: np.ndarray) -> tuple[list[Verdict], np.ndarray]:
    """What the judge reads in each frame, and the subject's way: (frames, 2) positions in picture sizes."""
    verdicts = read(judge, list(frames))
    return verdicts, np.array([(v.x, v.y) for v in verdicts])


def moves_its_way(scene: Scene, verdict: Verdict, way: np.ndarray) -> bool:
    """A rocket and a balloon rise, vehicles and animals go the way they face, a ball bounces, a ufo hovers to and fro."""
    dx, dy = way[-1] - way[0]
    if scene.subject in UPWARDS:
        return dy < -0.06 and abs(dy) > abs(dx)
    if scene.subject in SIDEWAYS:
        return dx * verdict.side > 0.05 and abs(dx) > abs(dy)
    axis = 1 if scene.subject == "ball" else 0
    return float(np.ptp(way[:, axis])) > 0.06


def flicker(frames: np.ndarray) -> float:
    """Mean of |f[k-1] - 2 f[k] + f[k+1]| in 8-bit steps: what changes and changes back."""
    f = frames.astype(np.float32)
    return float(np.abs(f[:-2] - 2 * f[1:-1] + f[2:]).mean())


def evaluate_stills(judge: Judge, models: StillModels, count: int) -> tuple[dict, list]:
    made = []
    for k, (scene, text) in enumerate(tqdm(held_out_prompts(count), desc="stills")):
        settings = StillSettings(prompt=text, seed=k)
        made.append((scene, text, text_to_image(models, settings)))
    verdicts = read(judge, [to_uint8(still, rounding=True) for _, _, still in made])
    rows = [(scene, v) for (scene, _, _), v in zip(made, verdicts, strict=True)]
    result = {
        fact: float(np.mean([getattr(v, fact) == getattr(scene, fact) for scene, v in rows])) for fact in ("subject", "colour", "place")
    }
    by_subject = {s: [v.subject == s for scene, v in rows if scene.subject == s] for s in SUBJECTS}
    result["subject_by_name"] = {s: round(float(np.mean(hits)), 2) for s, hits in by_subject.items() if hits}
    return result, made


def evaluate_films(judge: Judge, models: MotionModels, made: list, count: int) -> tuple[dict, list]:
    """Films of the generated stills whose subject the judge recognised; every fourth also gently and wildly."""
    ways, matches, ratios, flickers, sheets = [], [], [], [], []
    verdicts = read(judge, [to_uint8(still, rounding=True) for _, _, still in made])
    recognised = [k for k, verdict in enumerate(verdicts) if verdict.subject == made[k][0].subject]
    for k in tqdm(recognised[:count], desc="films"):
        (scene, text, still), verdict = made[k], verdicts[k]
        settings = MotionSettings(seed=k)
        frames = to_uint8(image_to_video(models, still, settings), rounding=True)
        _, way = track(judge, frames)
        ways.append((scene.subject, moves_its_way(scene, verdict, way)))
        if not ways[-1][1]:
            tqdm.write(f"seed {k} does not move its way, {way[0].round(2)} to {way[-1].round(2)}: {text}")
        matches.append(psnr(frames[0], to_uint8(still, rounding=True)))
        flickers.append(flicker(frames))
        sheets.append(frames)
        if len(ways) % 4 == 1:
            lengths = []
            for motion in (40, 200):
                moved = image_to_video(models, still, dataclasses.replace(settings, motion_bucket_id=motion))
                lengths.append(np.abs(np.diff(track(judge, to_uint8(moved, rounding=True))[1], axis=0)).sum())
            ratios.append(lengths[1] / max(lengths[0], 1e-6))
    if not ways:
        return {}, []
    result = {
        "moves_its_way": float(np.mean([good for _, good in ways])),
        "motion_ratio": float(np.median(ratios)),
        "first_frame_db": float(np.mean(matches)),
        "first_frame_db_worst": float(np.min(matches)),
        "flicker": float(np.mean(flickers)),
        "misses": sorted({subject for subject, good in ways if not good}),
    }
    return result, sheets


def report(result: dict) -> None:
    print("| measure | goal | measured |\n| --- | --- | --- |")
    for name, goal in GOALS.items():
        if name in result:
            print(f"| {name} | >= {goal} | {result[name]:.3f} {'yes' if result[name] >= goal else 'NO'} |", flush=True)


def contact_sheet(rows: list[list[np.ndarray]], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate([np.concatenate(row, 1) for row in rows])).save(path)
    print(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--stills", type=int, default=200)
    parser.add_argument("--films", type=int, default=40)
    parser.add_argument("--models", type=Path, default=Path("data/models"))
    parser.add_argument("--runs", type=Path, default=Path("training/runs"), help="where the judge is kept")
    parser.add_argument("--sheets", type=Path, help="write contact sheets into this folder")
    options = parser.parse_args()
    began, placement = time.monotonic(), memory.choose_placement()
    judge = train_judge(options.runs / "judge.pt")
    result: dict = {"judge": {name: round(float(value), 4) for name, value in validate(judge).items()}}
    stills, made = evaluate_stills(
        judge, load_still(model_files.find_checkpoint(model_files.DEMO_STILL, options.models), placement), options.stills
    )
    motion = load_motion(model_files.find_checkpoint(model_files.DEMO_MOTION, options.models), placement)
    report(stills)
    films, sheets = evaluate_films(judge, motion, made, options.films) if options.films else ({}, [])
    result |= stills | films | {"stills": options.stills, "films": len(sheets), "seconds": round(time.monotonic() - began)}
    report(result)
    if options.sheets:
        pictures = [to_uint8(still, rounding=True) for _, _, still in made[:40]]
        contact_sheet([pictures[k : k + 10] for k in range(0, len(pictures) // 10 * 10, 10)], options.sheets / "stills.png")
        contact_sheet([[frames[k] for k in range(0, len(frames), 2)] for frames in sheets[:10]], options.sheets / "films.png")
    print(json.dumps(result))


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
