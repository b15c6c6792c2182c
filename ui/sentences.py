"""The server's own sentences in the language of the page. Jobs, files and programs keep them in English; the page shows them through
`texts/server_zh.json`: `sentences` by the English one with gaps, as it stands where it is raised, and `codes` for every error whose
sentence is not among them. `assets/page/sentences.js` does the same in the browser.

A gap `{name}` takes any text, which is put into the language too if it is known; `{name!r}` one in quotes, as Python's `repr` writes it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from errors import StillmotionError
from ui.words import read_texts

_GAP = re.compile(r"\{(\w+)(!r)?\}")
_QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""


@cache
def server_words() -> dict[str, dict[str, Any]]:
    """By language: `codes`, `sentences`, and the `stop` that ends one."""
    return {"zh": read_texts("server_zh")}


def sentence(text: str, language: str) -> str:
    """In that language; as it is if nobody has put it there."""
    found = _known(text, language)
    return text if found is None else found


def error_text(error: StillmotionError, language: str, titles: Mapping[str, str] | None = None) -> str:
    """What is wrong and what to do; of a sentence that is not known what its code means, and the sentence. `titles`: what the fields of a
    form are called there; what to do is then for programs."""
    if fields := getattr(error, "fields", None):
        stop = server_words().get(language, {}).get("stop", ".")
        said = {name: sentence(text, language).rstrip(stop) for name, text in fields.items()}
        return " ".join(f"{(titles or {}).get(name, name)}: {text}{stop}" for name, text in said.items())
    parts = [one for one in (error.message, error.hint) if one]
    known = [_known(part, language) for part in parts]
    codes = server_words().get(language, {}).get("codes", {})
    if known[0] is None and error.code in codes:
        return f"{codes[error.code]} {' '.join(parts)}"
    return " ".join(part if one is None else one for part, one in zip(parts, known, strict=True))


def _known(text: str, language: str) -> str | None:
    for pattern, target in _patterns(language):
        if found := pattern.fullmatch(text):
            return _filled(target, found.groupdict(), language)
    return None


def _filled(target: str, values: dict[str, Any], language: str) -> str:
    return _GAP.sub(lambda gap: sentence(values[gap[1]], language) if values[gap[1]] else "", target)


@cache
def _patterns(language: str) -> list[tuple[re.Pattern[str], str]]:
    """Those whose beginning is known come first, then those that say most."""
    sentences = server_words().get(language, {}).get("sentences", {})
    ordered = sorted(sentences, key=lambda one: (one.startswith("{"), -len(_GAP.sub("", one))))
    return [(_pattern(one), sentences[one]) for one in ordered]


def _pattern(sentence: str) -> re.Pattern[str]:
    parts, end = [], 0
    for gap in _GAP.finditer(sentence):
        parts += [re.escape(sentence[end : gap.start()]), f"(?P<{gap[1]}>{_QUOTED if gap[2] else '.*?'})"]
        end = gap.end()
    return re.compile("".join([*parts, re.escape(sentence[end:])]), re.DOTALL)
