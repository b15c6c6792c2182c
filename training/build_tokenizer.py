"""Builds assets/clip_tokenizer from CLIP's original vocabulary file.

    python training/build_tokenizer.py bpe_simple_vocab_16e6.txt.gz [FOLDER]

The file comes with OpenAI's CLIP and, unchanged, with packages such as open_clip_torch. It lists byte-pair merges, best first,
and many more of them than CLIP uses. The vocabulary follows from the list, in CLIP's order: 256 bytes, 256 bytes that end a word,
48,894 merges, start, end.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "assets" / "clip_tokenizer"
SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
VOCABULARY_SIZE = 49_408
START, END = "<|startoftext|>", "<|endoftext|>"
CONFIG = {
    "tokenizer_class": "CLIPTokenizer",
    "model_max_length": 77,
    "bos_token": START,
    "eos_token": END,
    "unk_token": END,
    "pad_token": END,
    "do_lower_case": True,
}


def byte_symbols() -> list[str]:
    """One visible character for each byte, in the order of CLIP's ids: bytes that are visible in Latin-1 stand for themselves and
    come first; the others follow as the characters from 256 on."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(byte) for byte in visible] + [chr(256 + k) for k in range(256 - len(visible))]


def read_merges(path: Path) -> list[tuple[str, str]]:
    packed = path.read_bytes()
    if (digest := hashlib.sha256(packed).hexdigest()) != SHA256:
        raise SystemExit(f"{path} is not CLIP's vocabulary: its SHA-256 is {digest}, expected {SHA256}.")
    _heading, *lines = gzip.decompress(packed).decode().splitlines()
    used = VOCABULARY_SIZE - 2 * 256 - 2
    return [(first, second) for first, second in (line.split() for line in lines[:used])]


def build(source: Path, folder: Path) -> None:
    merges = read_merges(source)
    symbols = byte_symbols()
    vocabulary = [*symbols, *(f"{symbol}</w>" for symbol in symbols), *map("".join, merges), START, END]
    assert len(set(vocabulary)) == VOCABULARY_SIZE
    ids = {piece: number for number, piece in enumerate(vocabulary)}

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    lines = ["#version: 0.2", *map(" ".join, merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(CONFIG, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="bpe_simple_vocab_16e6.txt.gz")
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    arguments = parser.parse_args()
    build(arguments.source, arguments.folder)
    for file in sorted(arguments.folder.iterdir()):
        print(f"{file.stat().st_size:>9,}  {file.name}")
