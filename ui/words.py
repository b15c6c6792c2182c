"""What the page says, in each language. `texts/en.json` and `texts/zh.json` hold the same keys; the browser reads them too."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

LANGUAGES = ("en", "zh")


@cache
def words() -> dict[str, dict[str, str]]:
    """By language, then by key."""
    folder = Path(__file__).parent / "texts"
    return {language: json.loads((folder / f"{language}.json").read_text("utf-8")) for language in LANGUAGES}


def say(language: str, key: str, **values: object) -> str:
    """Raises KeyError for a key that is not there: a test looks for such."""
    return words()[known(language)][key].format(**values)


def known(language: object) -> str:
    """One of ours, whatever a browser says."""
    return language if language in LANGUAGES else LANGUAGES[0]
