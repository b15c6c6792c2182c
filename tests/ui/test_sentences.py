"""What the server says, in Chinese: nothing of it is out of date, every code has a meaning, and both speakers say the same."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import api.calls  # with the next, all that declares errors
import api.server  # noqa: F401
from api.films import BadFields
from errors import InputError, MemoryExhaustedError, StillmotionError, UnknownJobError, UnknownNameError
from ui.sentences import error_text, sentence, server_words

ROOT = Path(__file__).parent.parent.parent
ZH = server_words()["zh"]
SAID = [
    ("steps is 0, but must be 1 to 10 000.", "steps 为 0，须在 1 到 10 000 之间。"),
    ("Unknown sampler 'eulr'. Did you mean 'euler'?", "没有采样器 'eulr'。是否要用 'euler'？"),
    ('Unknown field of text_to_film "it\'s".', '没有字段（text_to_film） "it\'s"。'),
    ("'x' is none of ['a', 'b']. Did you mean 'a'?", "'x' 不在可选值 ['a', 'b'] 之中，是否要用 'a'？"),
    ("'gone.safetensors' is not there", "没有 'gone.safetensors'"),
    ("The disk that holds /data has 3 MiB left, but this film may need 9.", "/data 所在磁盘空间不足：剩余 3 MiB，此视频可能需要 9 MiB。"),
    ("Memory ran out while frames were decoded; it went on frame by frame.", "解码视频帧时内存不足；改为逐帧进行后继续。"),
    ("a.safetensors is a Flux model, not a checkpoint.", "a.safetensors 是 Flux 模型，不是完整模型。"),
    (
        "Node 16: 30 frames are more than the 25 that such models learnt; the film may repeat or dissolve.",
        "节点 16：30 帧超过此类模型学过的 25 帧，视频可能重复或溃散。",
    ),
    ("Nobody has put this into Chinese.", "Nobody has put this into Chinese."),
]


def codes(kind: type[StillmotionError] = StillmotionError) -> Iterator[str]:
    """Ours: not those of other tests, nor of the plug-ins that they load."""
    yield kind.code
    for one in kind.__subclasses__():
        path = ROOT / f"{one.__module__.replace('.', '/')}.py"
        if path.exists() and not one.__module__.startswith("tests"):
            yield from codes(one)


def in_sources() -> set[str]:
    """Every text of the sources, its gaps as {}."""
    found = set()
    for folder in ("errors.py", "api", "jobs", "pipelines", "ui", "workflows"):
        for path in [ROOT / folder] if folder.endswith(".py") else (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    found.add("".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.add(node.value)
    return found


def test_nothing_is_translated_that_nobody_says() -> None:
    said = in_sources()
    assert [one for one in ZH["sentences"] if re.sub(r"\{\w+(!r)?\}", "{}", one) not in said] == []


def test_what_is_filled_in_stays() -> None:
    def gaps(text: str) -> set[str]:
        return set(re.findall(r"\{(\w+)(?:!r)?\}", text))

    assert {one: text for one, text in ZH["sentences"].items() if not gaps(text) <= gaps(one)} == {}


def test_every_code_has_a_meaning() -> None:
    documented = set(re.findall(r"`([a-z_]+)`", documented_codes()))
    assert sorted((set(codes()) | documented) - ZH["codes"].keys()) == []
    assert sorted(ZH["codes"].keys() - set(codes()) - documented - {"connection_lost", "unknown"}) == []


def documented_codes() -> str:
    """The column of codes in docs/api.md."""
    rows = re.findall(r"^\| [0-9]{3} \|([^|]*)\|", (ROOT / "docs" / "api.md").read_text("utf-8"), re.MULTILINE)
    assert len(rows) > 5
    return " ".join(rows)


@pytest.mark.parametrize(("english", "chinese"), SAID)
def test_the_servers_sentences_are_chinese(english: str, chinese: str) -> None:
    assert sentence(english, "zh") == chinese
    assert sentence(english, "en") == english


def test_an_error_that_is_not_known_says_what_kind_it_is() -> None:
    assert error_text(MemoryExhaustedError("It is odd.", "Do this."), "zh") == "内存不足。 It is odd. Do this."
    assert error_text(MemoryExhaustedError("It is odd.", "Do this."), "en") == "It is odd. Do this."
    assert error_text(UnknownJobError("a"), "zh") == "没有任务 'a'。 可能已被删除。"
    assert error_text(UnknownNameError("sampler", "x", ["a", "b"]), "zh") == "没有采样器 'x'。 可选：a, b。"
    assert error_text(InputError("seed is 'x', which is not a whole number."), "zh") == "seed 为 'x'，不是数字。"


def test_both_speakers_say_the_same() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on this machine; the browser's tests say a few of them")
    told = [english for english, _ in SAID] + [
        re.sub(r"\{\w+\}", "some thing", re.sub(r"\{\w+!r\}", "'a'", one)) for one in ZH["sentences"]
    ]
    script = f"""import {{ speaker }} from {json.dumps((ROOT / "assets" / "page" / "sentences.js").as_uri())};
    const {{ sentence }} = speaker({json.dumps(ZH)});
    console.log(JSON.stringify({json.dumps(told)}.map(sentence)));"""
    done = subprocess.run([node, "--input-type=module", "-e", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [sentence(one, "zh") for one in told]


def test_fields_are_told_one_by_one() -> None:
    error = BadFields({"frames": "900 is more than 100, the most there can be", "prompt": "Shorten it."})
    assert error_text(error, "zh") == "frames: 900 大于最大值 100。 prompt: 请缩短。"
    assert error_text(error, "zh", {"frames": "帧数"}) == "帧数: 900 大于最大值 100。 prompt: 请缩短。"
    assert error_text(error, "en") == "frames: 900 is more than 100, the most there can be. prompt: Shorten it."
