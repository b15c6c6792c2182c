"""The films that the page shows to whoever comes for the first time: made by the bundled demo checkpoints, kept in `assets/examples`.

python -m training.examples --seeds 3 --keep candidates    # some of each, to choose from
python -m training.examples                                # with the seeds that are written here
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from pipelines.model_files import ASSETS
from pipelines.parameters import FileSettings, MotionSettings, StillSettings
from pipelines.shelf import Shelf
from workflows.film import Film, make_film

FOLDER = ASSETS / "examples"
EXAMPLES: tuple[dict[str, Any], ...] = (
    {"name": "rocket", "en": "Rocket", "zh": "火箭", "seed": 2, "prompt": "Rocket takes off from the ground, fire, sky, airplane"},
    {"name": "boat", "en": "Boat at sea", "zh": "海上的船", "seed": 1, "prompt": "A white boat sails on the sea, sun"},
    {"name": "balloon", "en": "Balloon", "zh": "热气球", "seed": 2, "prompt": "A red balloon floats over a field, clouds"},
    {"name": "train", "en": "Train", "zh": "火车", "seed": 1, "prompt": "A green train in the desert, sunset"},
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=0, help="make so many of each, seeds from 1 on, into --keep")
    parser.add_argument("--keep", type=Path, default=FOLDER, help="where they go")
    options = parser.parse_args()
    options.keep.mkdir(parents=True, exist_ok=True)
    shelf, told = Shelf(), []
    for one in EXAMPLES:
        seeds = range(1, options.seeds + 1) if options.seeds else [one["seed"]]
        for seed in seeds:
            name = f"{one['name']}.mp4" if not options.seeds else f"{one['name']}_{seed}.mp4"
            make(one["prompt"], seed, options.keep / name, shelf)
            print(options.keep / name, flush=True)
        values = {"prompt": one["prompt"], "seed": str(one["seed"]), "motion_seed": str(one["seed"])}
        told.append({"film": f"{one['name']}.mp4", "title": {"en": one["en"], "zh": one["zh"]}, "values": values})
    if not options.seeds:
        (options.keep / "examples.json").write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n", "utf-8")


def make(prompt: str, seed: int, target: Path, shelf: Shelf) -> None:
    """Both stages with this seed and every other value as the form has it."""
    with tempfile.TemporaryDirectory() as folder:
        film = Film(StillSettings(prompt=prompt, seed=seed), MotionSettings(seed=seed), FileSettings())
        shutil.copyfile(make_film(film, Path(folder), shelf=shelf).files["mp4"], target)


if __name__ == "__main__":
    main()
