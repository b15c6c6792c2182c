"""Nothing is said in one language only, and nothing that the page says is missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ui.words import LANGUAGES, duration, known, say, words

ROOT = Path(__file__).parent.parent.parent
_IN_SCRIPTS = re.compile(r"""\bsay\(\s*(?:"([^"]+)"|'([^']+)'|`([^`]+)`)""")
_IN_PYTHON = re.compile(r"""\bsay\(\s*[\w.]+,\s*f?"([^"]+)\"""")


def asked() -> set[str]:
    """Every key in the sources; where a part is only known at run time, as `stage.*`, a pattern."""
    found = set()
    for path in (ROOT / "assets" / "page").glob("*.js"):
        for match in _IN_SCRIPTS.finditer(path.read_text("utf-8")):
            found.add(re.sub(r"\$\{[^}]*\}", "*", next(filter(None, match.groups()))))
    for path in (ROOT / "ui").glob("*.py"):
        found |= {re.sub(r"\{[^}]*\}", "*", key) for key in _IN_PYTHON.findall(path.read_text("utf-8"))}
    return found


def test_both_languages_have_the_same_keys() -> None:
    english, chinese = (words()[language] for language in LANGUAGES)
    assert english.keys() == chinese.keys()
    assert list(english) == sorted(english)
    assert list(chinese) == sorted(chinese)


def test_both_languages_have_the_same_places_for_values() -> None:
    def places(text: str) -> list[str]:
        return sorted(re.findall(r"\{(\w+)\}", text))

    english, chinese = (words()[language] for language in LANGUAGES)
    assert [key for key in english if places(english[key]) != places(chinese[key])] == []


def test_every_key_that_is_asked_for_is_there() -> None:
    keys = asked()
    assert len(keys) > 30
    missing = [key for key in keys if not any(re.fullmatch(re.escape(key).replace(r"\*", ".+"), one) for one in words()["en"])]
    assert missing == []


def test_chinese_is_chinese() -> None:
    plain = [key for key, text in words()["zh"].items() if not re.search(r"[\u4e00-\u9fff]", text)]
    assert [key for key in plain if not key.endswith(".prompt") and re.search("[a-z]{3}", re.sub(r"\{\w+\}", "", words()["zh"][key]))] == []


@pytest.mark.parametrize(
    ("seconds", "english", "chinese"),
    [(0.2, "1 s", "1 秒"), (89.4, "89 s", "89 秒"), (90, "2 min", "2 分钟"), (5400, "1.5 h", "1.5 小时"), (7200, "2 h", "2 小时")],
)
def test_times_are_said_in_their_unit(seconds: float, english: str, chinese: str) -> None:
    assert (duration(seconds, "en"), duration(seconds, "zh")) == (english, chinese)


def test_one_place_says_which_language_it_is() -> None:
    asking = [
        path.name
        for folder in ("assets/page", "ui")
        for path in (ROOT / folder).glob("*.*")
        if "navigator.language" in path.read_text("utf-8")
    ]
    assert asking == ["texts.js"]


def test_a_language_that_we_do_not_speak_is_english() -> None:
    assert say("fr", "cancel") == "Cancel"
    assert known(None) == "en"
    with pytest.raises(KeyError):
        say("en", "nowhere")
