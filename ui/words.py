"""What the page says, in each language. `texts/en.json` and `texts/zh.json` hold the same keys, `texts/durations.json` how a time is said;
the browser reads them too."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

LANGUAGES = ("en", "zh")


@cache
def words() -> dict[str, dict[str, str]]:
    """By language, then by key."""
    return {language: read_texts(language) for language in LANGUAGES}


@cache
def read_texts(name: str) -> Any:
    return json.loads((Path(__file__).parent / "texts" / f"{name}.json").read_text("utf-8"))


def say(language: str, key: str, **values: object) -> str:
    """Raises KeyError for a key that is not there: a test looks for such."""
    return words()[known(language)][key].format(**values)


def duration(seconds: float, language: str) -> str:
    """In seconds, minutes or hours; at least one second."""
    step = next(one for one in read_texts("durations") if one["below"] is None or seconds < one["below"])
    count = max(1, round(seconds / step["unit"], step["digits"]))
    return say(language, step["text"], count=f"{count:.{step['digits']}f}".removesuffix(".0"))


def known(language: object) -> str:
    """One of ours, whatever a browser says."""
    return language if language in LANGUAGES else LANGUAGES[0]
