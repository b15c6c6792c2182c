from __future__ import annotations

import json
from pathlib import Path

import pytest

import app
import settings
from errors import InputError
from making import graph_of
from run_options import KeepCommand, RunCommand, set_inputs
from tests.conftest import MOTION_NAME, STILL_NAME

SMALL = ("width=64", "height=48", "steps=2", f"checkpoint={STILL_NAME}", "prompt=a red boat")


def sets(*values: str) -> list[str]:
    return [word for value in values for word in ("--set", value)]


def main(*arguments: object) -> int:
    return app.main([str(argument) for argument in arguments])


def test_what_is_set_is_read() -> None:
    command = settings.parse(["run", "--template", "text_to_film", *sets("prompt=a=b", "negative_prompt="), "--draft"])
    assert isinstance(command, RunCommand)
    assert command.values == {"prompt": "a=b", "negative_prompt": ""}
    command = settings.parse(["run", "x.json", *sets("6.text=a\nb", "3.seed=18446744073709551615"), "--device", "cpu"])
    assert command.values == {"6.text": "a\nb", "3.seed": "18446744073709551615"}
    assert command.machine.device == "cpu"
    assert settings.parse(["keep", "--keep-gib", "0.5", "--dry-run"]) == KeepCommand(
        settings.parse(["keep"]).store, None, 2**29, is_dry=True, is_json=False
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run"], "neither a workflow nor a template"),
        (["run", "x.json", "--template", "text_to_film"], "or there are both"),
        (["run", "x.json", "--draft"], "--draft is for templates"),
        (["run", "x.json", "--set", "text"], "sets nothing"),
        (["run", "x.json", "--set", "text=5"], r"6\.text"),
        (["run", "x.json", "--attention", "x"], "Unknown attention"),
    ],
)
def test_what_cannot_be_understood_is_said(arguments: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        settings.parse(arguments)


def test_a_node_that_is_not_there_cannot_be_set() -> None:
    with pytest.raises(InputError, match="no node '9'"):
        set_inputs({"1": {"class_type": "X"}}, {"9.text": "a"})
    assert set_inputs({"1": {"class_type": "X"}}, {"1.a.b": "c"}) == {"1": {"class_type": "X", "inputs": {"a.b": "c"}}}


def test_ones_own_template_is_known(tmp_path: Path) -> None:
    from workflows.templates import FOLDER

    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "mine.json").write_text((FOLDER / "text_to_still.json").read_text("utf-8"), "utf-8")
    (tmp_path / "templates" / "bad.json").write_text("{")
    command = settings.parse(["run", "--template", "mine", *sets("prompt=a red boat"), "--data-dir", str(tmp_path)])
    assert graph_of(command)["6"]["inputs"]["text"] == "a red boat"


def test_a_template_is_run_and_run_again_finds_what_it_knows(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("run", "--template", "text_to_still", *sets(*SMALL, "seed=3"), "--data-dir", data_dir, "--json", "--quiet")
    assert main(*arguments) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["files"]["9"] == [str(data_dir / "output" / "Stillmotion_00001_.png")]
    assert main(*arguments) == 0
    second = json.loads(capsys.readouterr().out)
    assert {"3", "8"} <= set(second["cached"])
    assert Path(first["files"]["9"][0]).read_bytes() == Path(second["files"]["9"][0]).read_bytes()


def test_a_workflow_file_is_run_with_values_set(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(__file__).parent / "data" / "comfyui" / "two_stage.json"
    size = ("5.width=64", "5.height=48", "16.width=64", "16.height=48", "16.video_frames=3", "3.steps=2", "13.steps=2")
    names = (f"4.ckpt_name={STILL_NAME}", f"18.ckpt_name={MOTION_NAME}")
    arguments = ("run", path, "--data-dir", data_dir, "--quiet")
    assert main(*arguments, *sets(*size, *names)) == 0
    first = capsys.readouterr()
    assert "note: Node 16: an augmentation level of 0.15" in first.err
    assert "VHS_VideoCombine" in first.out
    assert main(*arguments, *sets(*size, *names, "13.seed=5")) == 0
    known = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("known"))
    assert {"3", "8"} <= set(known.removeprefix("known ").split(", "))
    assert "13" not in known.split()[1:]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.json"], "cannot be read"),
        (["--template", "nothing"], "Unknown template"),
        (["--template", "text_to_still", "--set", "promt=x"], "Did you mean 'prompt'"),
        (["--template", "text_to_still", "--set", "steps=0"], "Value 0 smaller than min of 1: steps"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(data_dir: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    assert main("run", *arguments, "--data-dir", data_dir) == 2
    written = capsys.readouterr()
    assert said in written.err
    assert len(written.err.splitlines()) == 1
    assert written.out == ""
    assert not (data_dir / "output").exists()


def test_the_library_is_kept_small_and_made_again(data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = sets(*SMALL, "seed=3")
    graph = tmp_path / "still.json"
    graph.write_text(json.dumps(graph_of(settings.parse(["run", "--template", "text_to_still", *values]))))
    assert main("jobs", "submit", graph, "--data-dir", data_dir) == 0
    assert main("work", "--until-empty", "--data-dir", data_dir, "--device", "cpu") == 0
    capsys.readouterr()
    (data_dir / "jobs.sqlite").unlink()
    for beside in data_dir.glob("jobs.sqlite-*"):
        beside.unlink()
    assert main("reindex", "--data-dir", data_dir) == 0
    assert "1 jobs were found again" in capsys.readouterr().out
    assert main("keep", "--keep-days", 0, "--dry-run", "--data-dir", data_dir) == 0
    assert "would go" in capsys.readouterr().out
    assert list((data_dir / "output").iterdir())
    assert main("keep", "--keep-days", 0, "--data-dir", data_dir) == 0
    assert "are gone" in capsys.readouterr().out
    assert not list((data_dir / "output").iterdir())


def test_a_backup_and_the_way_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings.os, "environ", {"STILLMOTION_DATABASE": "/fast/jobs.sqlite"})
    backup = settings.parse(["backup", "/b/2", "--like", "/b/1", "--models", "--data-dir", "d"])
    assert (backup.folder, backup.like, backup.has_models) == (Path("/b/2"), Path("/b/1"), True)
    assert (backup.store.data_dir, backup.store.database) == (Path("d"), Path("/fast/jobs.sqlite"))
    restore = settings.parse(["restore", "/b/2", "--data-dir", "d", "--database", "x.sqlite"])
    assert (restore.folder, restore.store.database) == (Path("/b/2"), Path("x.sqlite"))
