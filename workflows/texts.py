"""What nodes say to people, in their language. The English text of the declaration is the key."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

LANGUAGES = ("en", "zh")


def say(text: str, language: str = "en") -> str:
    """The text in that language; as it is where there is no translation, as for nodes of people's own."""
    return text if language == "en" else _translations(language).get(text, text)


@cache
def _translations(language: str) -> dict[str, str]:
    path = Path(__file__).parent / f"texts_{language}.json"
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}
