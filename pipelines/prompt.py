"""Prompt text -> conditioning tensors, with the meaning that ComfyUI 0.3.64 gives to a prompt.

The story: `parse_weights` splits a prompt where its weight changes, `tokenize` lays the pieces out in blocks as long as the text
encoder reads, `encode` runs the encoder over the blocks and moves every weighted vector away from, or towards, the vector that an
empty prompt has at the same place. `encode_xl` does so with the two text encoders of Stable Diffusion XL. `Conditioning` is all that a
UNet is told of a prompt; `together` prepares two of them for one batch.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from errors import InputError
from pipelines.prompt_weights import parse_weights
from pipelines.values import Conditioning

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

log = logging.getLogger(__name__)

MAX_CHARACTERS = 20_000
BLOCK_LENGTH = 77  # CLIP's
LONG_PIECE = 8  # a piece with fewer tokens than this is never divided between two blocks
MAX_REPEATS = 4  # of the shorter of two prompts in one batch

_EMBEDDING = re.compile(r"(?:^|[ \n])embedding:\s*")


def tokenize(tokenizer: CLIPTokenizer, text: str, *, length: int = BLOCK_LENGTH) -> list[list[tuple[int, float]]]:
    """Blocks of `length` (token, weight) pairs: start, up to `length - 2` tokens, end, padding. Never less than one block.

    A piece of one weight with fewer than 8 tokens is kept in one block; a longer one fills a block to its last place and goes on
    in the next, in the middle of a word if need be. (ComfyUI's unit was a single word in 2024; since 2025 it is the run of text
    between two changes of weight.) The tokenizer says which ids start, end and pad: Stable Diffusion 1 pads with the end, 2 with
    id 0.
    """
    pieces = _without_embeddings(parse_weights(_checked(text)))
    ids = tokenizer([piece for piece, _ in pieces], add_special_tokens=False, verbose=False)["input_ids"] if pieces else []
    start, end, padding = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    room = length - 2
    if room < 1:
        raise ValueError(f"A block of {length} has no room for a token between start and end.")

    contents: list[list[tuple[int, float]]] = [[]]
    for (_, weight), piece in zip(pieces, ids, strict=True):
        tokens = [(token, weight) for token in piece]
        divisible = len(tokens) >= LONG_PIECE or len(tokens) > room
        while len(tokens) > (free := room - len(contents[-1])):
            if divisible:
                contents[-1] += tokens[:free]
                tokens = tokens[free:]
            contents.append([])
        contents[-1] += tokens
    pad = (end if padding is None else padding, 1.0)
    return [[(start, 1.0), *content, (end, 1.0), *[pad] * (room - len(content))] for content in contents]


def _checked(text: str) -> str:
    if not isinstance(text, str):
        raise InputError(f"A prompt is text, not {type(text).__name__}.", "Put it in quotation marks.")
    if len(text) > MAX_CHARACTERS:
        raise InputError(f"The prompt has {len(text):,} characters; at most {MAX_CHARACTERS:,} are read.", "Shorten it.")
    return text.encode("utf-8", "replace").decode()  # half of a surrogate pair, possible in JSON, becomes "?"


def _without_embeddings(pieces: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Leaves out "embedding:name" (textual inversion) with a warning, as ComfyUI does with one that it cannot find: a file's name
    as words would only disturb the picture. What follows the name stays, as a piece of its own."""
    kept, names = [], []
    for text, weight in pieces:
        before, *parts = _EMBEDDING.split(text)
        kept.append((before, weight))
        for part in parts:
            names.append(part.split(maxsplit=1)[0].rstrip(",") if part else "")
            kept.append((part.removeprefix(names[-1]), weight))
    if names:
        shown = ", ".join(ascii(name[:40]) for name in names[:5]) + (", ..." if len(names) > 5 else "")
        log.warning("Textual inversions are not supported; left out of the prompt: %s", shown)
    return kept


@torch.no_grad()
def encode(text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, text: str, *, clip_skip: int = -1) -> torch.Tensor:
    """The conditioning of a prompt: float32 (1, blocks * block length, width), on the text encoder's device.

    It is the output of the encoder's last layer after the final layer norm. `clip_skip` counts layers from the end like ComfyUI's
    CLIPSetLastLayer: -1 is the last (0 is taken for it), -2 the one before, with the final layer norm too; beyond the first layer
    it is the last again. No attention mask is given: padding is read like any other token. A token of weight w becomes
    empty + w * (z - empty), where `empty` is the vector of the empty prompt at the same place in its block.
    """
    return _encode(text_encoder, tokenizer, text, lambda ids: _hidden_state(text_encoder, ids, clip_skip))


@torch.no_grad()
def encode_xl(
    first: tuple[CLIPTextModel, CLIPTokenizer], second: tuple[CLIPTextModelWithProjection, CLIPTokenizer], text: str, *, layer: int = -2
) -> tuple[torch.Tensor, torch.Tensor]:
    """The conditioning of a prompt for Stable Diffusion XL (Podell et al. 2023, arXiv 2307.01952), as `encode` gives it: the context (1,
    blocks * block length, width of both), and the pooled vector (1, projected width).

    Of each encoder it is the output of `layer`, the last but one, without the final layer norm (beyond the first it is the last). The
    pooled vector is the second one's, of the last layer after the final layer norm at the end token, projected; as in ComfyUI only the
    first block's, and without weights.
    """
    pooled = []

    def hidden_state(encoder: CLIPTextModel, ids: torch.Tensor) -> torch.Tensor:
        output = encoder(ids, output_hidden_states=True)
        pooled.append(getattr(output, "text_embeds", None))
        return output.hidden_states[layer if -layer <= encoder.config.num_hidden_layers else -1]

    contexts = [_encode(encoder, tokenizer, text, lambda ids, e=encoder: hidden_state(e, ids)) for encoder, tokenizer in (first, second)]
    return torch.cat(contexts, dim=-1), pooled[-1][:1].float()


def _encode(text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, text: str, read: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """`read` takes tokens (blocks, length) to vectors (blocks, length, width)."""
    blocks = tokenize(tokenizer, text, length=text_encoder.config.max_position_embeddings)
    weights = torch.tensor([[weight for _, weight in block] for block in blocks], device=text_encoder.device)
    weighted = weights != 1.0
    if weighted.any():
        blocks += tokenize(tokenizer, "", length=len(blocks[0]))
    ids = torch.tensor([[token for token, _ in block] for block in blocks], device=text_encoder.device)
    hidden = read(ids).float()
    if weighted.any():
        z, empty = hidden[:-1], hidden[-1]
        hidden = torch.where(weighted[..., None], empty + weights[..., None] * (z - empty), z)
        if z.isfinite().all() and not hidden.isfinite().all():
            largest = max((abs(weight), piece.strip()) for piece, weight in parse_weights(text))
            raise InputError(f"The weight {largest[0]:g} of {largest[1][:40]!r} is too large to compute with.", "Use 0 to 2.")
    return hidden.reshape(1, -1, hidden.shape[-1])


def _hidden_state(text_encoder: CLIPTextModel, ids: torch.Tensor, clip_skip: int) -> torch.Tensor:
    """(blocks, length, width) after the chosen layer and the final layer norm."""
    if isinstance(clip_skip, bool) or not isinstance(clip_skip, int) or clip_skip > 0:
        raise InputError(f"The layer to stop at is {clip_skip!r}; layers count from the end.", "Use -1 for the last one.")
    if clip_skip in (0, -1) or -clip_skip > text_encoder.config.num_hidden_layers:
        return text_encoder(ids).last_hidden_state
    states = text_encoder(ids, output_hidden_states=True).hidden_states  # the embeddings, then each layer's output
    return text_encoder.final_layer_norm(states[clip_skip])


def match_lengths(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Repeats both (batch, length, width) along the sequence to the least common multiple of the lengths: 77 and 154 become 154.

    Cross-attention over a sequence said twice gives what it gives over the sequence, which padding would not.
    """
    length = math.lcm(a.shape[1], b.shape[1])
    return a.repeat(1, length // a.shape[1], 1), b.repeat(1, length // b.shape[1], 1)


def together(a: Conditioning, b: Conditioning) -> Conditioning:
    """Both in one batch, a first."""
    context = torch.cat(match_lengths(a.context, b.context))
    if a.pooled is None:
        return Conditioning(context)
    return Conditioning(context, torch.cat([a.pooled, b.pooled]), torch.cat([a.sizes, b.sizes]))


def fit_one_batch(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether matching lengths is worth it. Beyond 4 times the shorter one ComfyUI runs the two one after the other; 60 blocks
    against 61 would become 3,660."""
    return math.lcm(a.shape[1], b.shape[1]) <= MAX_REPEATS * min(a.shape[1], b.shape[1])
