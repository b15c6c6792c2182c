"""`app.py models` and `download`, and where the hub is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import app
import settings
from errors import InputError
from model_options import hub_settings
from pipelines.fetch import Wanted
from tests.pipelines.hub_server import hub_server

DATA = bytes(range(256)) * 100


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*words: str) -> tuple[int, str, str]:
        code = app.main([*words, "--data-dir", str(tmp_path)])
        return code, *capsys.readouterr()

    return run


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_ENDPOINT", "HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN_PATH", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def test_a_file_of_the_hub(run: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hub_server(files={"ann/soft/vae/soft.safetensors": DATA}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        code, out, err = run("download", "ann/soft/vae/soft.safetensors", "--folder", "vae", "--as", "mine.safetensors", "--json")
        assert (code, json.loads(out)["bytes"]) == (0, len(DATA))
        assert "mine.safetensors" in err  # the bar
        assert (tmp_path / "models" / "vae" / "mine.safetensors").read_bytes() == DATA
        code, _, err = run("download", "ann/soft/none.safetensors", "--quiet")
        assert (code, "There is no file none.safetensors in ann/soft" in err) == (2, True)
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        code, _, err = run("download", "svd_xt", "--quiet")
        assert (code, "HF_HUB_OFFLINE is set" in err) == (2, True)
    assert list((tmp_path / "models" / "checkpoints").iterdir()) == []


def test_the_list(run: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = run("models")
    assert code == 0
    assert "checkpoints/stillmotion_demo_still.safetensors: Stillmotion demo: cartoon stills, 24 MiB, complete; serves text_to_film" in out
    assert "svd_xt_1_1" in out
    assert {one["id"] for one in json.loads(run("models", "--json")[1])["known"]} >= {"sd15", "sdxl", "svd", "svd_xt"}


def test_what_is_wanted() -> None:
    known = settings.parse(["download", "svd"]).wanted
    assert known == Wanted("stabilityai/stable-video-diffusion-img2vid", "svd.safetensors", "checkpoints", "svd.safetensors")
    assert settings.parse(["download", "svd_xt.safetensors"]).wanted.name == "svd_xt.safetensors"
    for wrong in ("none", "a/b/c.ckpt", "a/b/../c.safetensors"):
        with pytest.raises(InputError):
            settings.parse(["download", wrong])


def test_the_hub_is_where_the_environment_says(tmp_path: Path) -> None:
    usual = hub_settings({})
    assert (usual.endpoint, usual.token, usual.is_offline) == ("https://huggingface.co", "", False)
    (tmp_path / "token").write_text("hf_kept\n")
    found = hub_settings({"HF_ENDPOINT": "https://hf-mirror.com/", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "ON"})
    assert (found.endpoint, found.token, found.is_offline) == ("https://hf-mirror.com", "hf_kept", True)
    assert hub_settings({"HF_TOKEN": "hf_mine", "HF_HOME": str(tmp_path)}).token == "hf_mine"
    with pytest.raises(InputError, match="HF_ENDPOINT"):
        hub_settings({"HF_ENDPOINT": "hf-mirror.com"})


def test_the_server_gets_it_too_before_libraries_are_kept_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    command = settings.parse(["serve"])
    assert (command.hub.token, command.hub.is_offline) == ("hf_mine", False)
