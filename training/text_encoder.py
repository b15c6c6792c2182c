"""Train the demo text encoder: a CLIPTextModel that knows what a caption says.

    python -m training.text_encoder

Stable Diffusion's text encoder was trained beforehand (as one half of CLIP) and stays as it is while the UNet learns. So does this
one. It learns to say, at its end token and at every padding token after it, the subject, the colour, the place and the extras of the
caption. Trained together with the UNet from nothing, it had learnt the place after 1,400 steps, but neither subject nor colour.
"""

from __future__ import annotations

import random

import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPTokenizer

from pipelines.model_files import TOKENIZER
from training.architecture import CONTEXT, make_text_encoder
from training.drawing import COLOURS, PLACES
from training.loop import Run, arguments
from training.world import SUBJECTS, Scene, random_scene

OTHER = 49405  # the row that stands for every word outside the captions; copied over them on export
EXTRAS = ("fire", "airplane", "clouds", "sun", "moon", "mountains", "trees", "rain", "snow")
BATCH, CAPTIONS = 96, 24_000
_SIZES = [len(SUBJECTS), len(COLOURS) + 1, len(PLACES), len(EXTRAS)]  # one more colour: unsaid


class TextModel(nn.Module):
    """The encoder, and the heads that read its hidden states while it learns."""

    def __init__(self) -> None:
        super().__init__()
        self.text_encoder = make_text_encoder()
        self.heads = nn.Linear(CONTEXT, sum(_SIZES))

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(n, 77) ids to logits of subject, colour, place, extras, (n, places in the text, classes)."""
        return self.heads(self.text_encoder(ids).last_hidden_state).split(_SIZES, dim=-1)


def known_words(tokenizer: CLIPTokenizer) -> torch.Tensor:
    """(49408,) ids: a token that captions use is itself, any other is OTHER."""
    rng = random.Random(3)
    ids = {i for _ in range(20_000) for i in tokenizer(random_scene(rng).caption(rng)).input_ids}
    table = torch.full((49408,), OTHER)
    for i in ids | {49406, 49407}:
        table[i] = i
    return table


def mix_in_other_words(ids: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """A copy of one caption's ids (77,) with one to four OTHER words put between its own."""
    words = [i for i in ids.tolist() if i not in (49406, 49407)]
    for _ in range(rng.randint(1, 4)):
        words.insert(rng.randint(0, len(words)), OTHER)
    words = words[:75]
    return torch.tensor([49406, *words, *[49407] * (76 - len(words))])


def facts(scene: Scene, caption: str) -> list[int]:
    """What the caption says: subject, colour (the last class if unsaid), place, then each extra."""
    colour = list(COLOURS).index(scene.colour) if scene.colour in caption.lower() else len(COLOURS)
    return [SUBJECTS.index(scene.subject), colour, list(PLACES).index(scene.place), *(int(extra in scene.extras) for extra in EXTRAS)]


def main() -> None:
    options = arguments(__doc__.split("\n")[0], minutes=4).parse_args()
    torch.manual_seed(6)
    model = TextModel()
    run = Run("text_encoder", model.to(options.device), options, lr=3e-3, ema=0.99)
    rng = random.Random(6)
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER, local_files_only=True)
    scenes = [random_scene(rng, held_out=rng.random() < 0.14) for _ in range(CAPTIONS)]
    captions = [scene.caption(rng) for scene in scenes]
    ids = tokenizer(captions, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    truth = torch.tensor([facts(scene, caption) for scene, caption in zip(scenes, captions, strict=True)])
    for step in run:
        pick = torch.randint(0, CAPTIONS, (BATCH,))
        said = torch.stack([mix_in_other_words(row, rng) if rng.random() < 0.3 else row for row in ids[pick]])
        after = (said == 49407).float()  # the end and the padding; what comes before has not read everything
        subject, colour, place, extras = model(said.to(options.device))
        target = truth[pick].to(options.device)
        classes = [(logits, target[:, k, None].expand(-1, 77)) for k, logits in enumerate((subject, colour, place))]
        losses = [F.cross_entropy(logits.transpose(1, 2), right, reduction="none") for logits, right in classes]
        present = target[:, None, 3:].float().expand(-1, 77, -1)
        losses.append(F.binary_cross_entropy_with_logits(extras, present, reduction="none").sum(2))
        run.learn(sum((loss * after).sum() / after.sum() for loss in losses))
        if step % 100 == 0:
            hits = [(logits.argmax(-1) == right)[after > 0].float().mean().item() for logits, right in classes]
            print(f"  step {step} subject, colour, place right: {' '.join(f'{hit:.3f}' for hit in hits)}", flush=True)


if __name__ == "__main__":
    main()
