"""The command line as people use it: a real process, real files."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import app

ROOT = Path(__file__).parent.parent
TINY = ("--checkpoint", "tiny_still.safetensors", "--motion-checkpoint", "tiny_motion.safetensors", "--width", "64", "--height", "48")
PROMPT = "红色的船 🚢"
QUICK = (*TINY, "--frames", "4", "--steps", "2", "--motion-steps", "2")


def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "app.py"), *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, **({"cwd": ROOT} | options))


@pytest.fixture(scope="module")
def shown(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a person sees who makes a film."""
    data_dir = tmp_path_factory.mktemp("shown")
    (data_dir / "models").symlink_to(tiny_models)
    made = run("film", PROMPT, "--data-dir", data_dir, *QUICK)
    assert made.returncode == 0, made.stderr
    return made.stdout


def cpu_seconds() -> float:
    """Of all processes that we have waited for: on a busy machine, what a clock says is about the others."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_needs_neither_torch_nor_a_second() -> None:
    for arguments in (["--help"], ["film", "--help"], ["--version"]):
        began = cpu_seconds()
        assert run(*arguments).returncode == 0
        assert cpu_seconds() - began < 1
    heavy = subprocess.run(
        [sys.executable, "-X", "importtime", "app.py", "film", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stderr
    assert not re.search(r"\| +(torch|numpy|diffusers|transformers|PIL|gradio)$", heavy, re.MULTILINE)


def test_a_film_with_json_then_read_back(data_dir: Path) -> None:
    made = run("film", "a boat", "--data-dir", data_dir, *QUICK, "--seed", 3, "--json")
    assert made.returncode == 0, made.stderr
    document = json.loads(made.stdout.splitlines()[-1])
    assert set(document) == {"files", "seeds", "seconds", "checkpoints", "notes", "device", "dtype", "attention", "reason", "memory"}
    assert document["seeds"] == {"still": 3, "motion": 3}  # one --seed settles both
    assert set(document["seconds"]) == {"loading", "still", "motion", "decoding", "encoding"}
    assert {Path(path).suffix for path in document["files"].values()} == {".png", ".webp", ".mp4", ".json"}
    assert re.search(r"motion .*2/2", made.stderr)
    for path in document["files"].values():
        settings = json.loads(run("read", path).stdout)
        assert settings["stillmotion"]["still"] == settings["stillmotion"]["still"] | {"prompt": "a boat", "seed": 3, "steps": 2}
        assert settings["prompt"]["6"]["inputs"]["text"] == "a boat"


def test_an_error_is_a_json_document_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["film", "--image", "nowhere.png", "--json"]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out) == {"error": {"code": "unreadable_file", "message": "There is no file nowhere.png.", "hint": "Check the path."}}
    assert err.startswith("error: There is no file")


def test_a_film_for_people_ends_with_files_seed_and_seconds(shown: str) -> None:
    assert re.search(
        r"^PNG .*\nWEBP .*\nMP4 .*\nPOSTER .*\nJSON .*\nseed  still \d+, motion \d+\ntime  loading [\d.]+ s", shown, re.MULTILINE
    )


def test_the_doctor_says_what_is_damaged_and_its_exit_code_tells(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["doctor", "--data-dir", str(data_dir), "--json"]) == 0
    assert {finding["level"] for finding in json.loads(capsys.readouterr().out.splitlines()[-1])} <= {"ok", "note"}
    (data_dir / "models" / "checkpoints" / "cut.safetensors").write_bytes(b"\x00" * 40)
    assert app.main(["doctor", "--data-dir", str(data_dir)]) == 2
    assert "BAD  cut.safetensors: " in capsys.readouterr().out


def test_a_picture_takes_the_place_of_stage_one(data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "mine.png")
    given = ["film", "--image", str(tmp_path / "mine.png"), "--data-dir", str(data_dir), *TINY[2:], "--frames", "4"]
    assert app.main([*given, "--motion-steps", "2", "--json"]) == 0
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(document["seeds"]) == {"motion"}
    assert "still" not in document["seconds"]
    with Image.open(data_dir / "input" / "mine.png") as given:
        assert np.array_equal(np.asarray(given), pixels)
    assert "png" not in document["files"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--port", "eighty"], "'eighty' is no whole number"),
        (["--drain", "-1"], "'-1' is less than nothing"),
        (["jobs", "x"], "invalid choice: 'x'"),
        (["jobs", "submit"], "Nothing is given to submit"),
        (["dance"], "invalid choice: 'dance'"),
        (["film"], "neither a prompt nor a picture"),
        (["film", " "], "The prompt is empty. Say what the film shows."),
        (["film", "a (big:1e308) b"], "The weight 1e+308 of 'big' is too large"),
        (["film", "a", "--image", "b.png"], "both given"),
        (["film", "a", "--width", "-64"], "width is -64, but must be 16 to 16 376"),
        (["film", "a", "--height", "100"], "multiple of 8. Use 96"),
        (["film", "a", "--frames", "0"], "frames is 0"),
        (["film", "a", "--frames", "many"], "'many' is no whole number"),
        (["film", "a", "--sampler", "eular"], "Unknown sampler 'eular'. Did you mean 'euler'?"),
        (["film", "a", "--schedule", "karas"], "Did you mean 'karras'?"),
        (["film", "a", "--checkpoint", "nope.safetensors"], "Unknown checkpoint 'nope.safetensors'"),
        (["film", "a", "--device", "tpu"], "Unknown device 'tpu'"),
        (["film", "a", "--device", "cpu:x"], "Unknown device 'cpu:x'"),
        (["film", "a", "--seed", "9" * 400], "--seed is 999"),
        (["film", "a", "--motion-steps", "0"], "--motion-steps is 0"),
        (["film", "a", "--still-width", "100"], "--still-width is 100"),
        (["film", "--image", "a.png", "--steps", "3"], "--steps belongs to the still, which --image replaces"),
        (["film", "a", "--seed", "-1"], "seed is -1"),
        (["film", "a", "--prefix", "../../etc/x"], "leads out of the output folder"),
        (["film", "--image", "missing.png"], "There is no file missing.png"),
        (["film", "--image", "README.md"], "cannot be read as a picture"),
        (["read", "missing.mp4"], "missing.mp4 does not exist"),
        (["read", "README.md"], "README.md"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(
    arguments: list[str], says: str, data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    models = () if {"--checkpoint", "--image"} & set(arguments) else TINY[:4]
    where = ["--data-dir", str(data_dir), *models] if arguments[:1] == ["film"] else []
    assert app.main([*arguments, *where]) == 2
    out, err = capsys.readouterr()
    assert says in err
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert not out
    assert not [path for path in data_dir.rglob("*") if path.is_file() and "models" not in path.parts]


def test_bad_input_to_a_real_process_is_the_same() -> None:
    done = run("film", "a", "--frames", 0)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --frames is 0, but must be 1 to 4 096. Use 1.\n"


def test_a_data_directory_that_cannot_be_written_is_said_by_a_real_process(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file is in the way")
    done = run("film", "a", "--data-dir", tmp_path / "data")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: Cannot write in .*: Not a directory\. Choose another data directory\.\n", done.stderr)


def test_an_output_folder_that_cannot_be_written_is_said_so_before_the_work(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data_dir / "output").write_text("a file is in the way")
    assert app.main(["film", "a", "--data-dir", str(data_dir), *QUICK]) == 2
    said = capsys.readouterr().err
    assert "Cannot write in" in said
    assert said.count("\n") == 1


def test_whoever_reads_the_output_may_stop_reading_and_the_environment_may_say_where_the_data_is(data_dir: Path, tmp_path: Path) -> None:
    command = f"{sys.executable} {ROOT / 'app.py'} film a --json --quiet {' '.join(QUICK)} | true; exit ${{PIPESTATUS[0]}}"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    environment |= {"OMP_NUM_THREADS": "1", "STILLMOTION_DATA_DIR": str(data_dir)}
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list((data_dir / "output").iterdir())) == 5


def test_a_prompt_in_any_script_is_read_back_in_any_encoding(shown: str) -> None:
    path = re.search(r"^MP4 +(.*)$", shown, re.MULTILINE)[1]
    for encoding in ("utf-8", "ascii", "latin-1"):
        environment = os.environ | {"PYTHONIOENCODING": encoding}
        done = subprocess.run([sys.executable, "app.py", "read", path], cwd=ROOT, capture_output=True, check=True, env=environment)
        assert json.loads(done.stdout.decode(encoding))["stillmotion"]["still"]["prompt"] == PROMPT


def test_interrupting_leaves_nothing_behind(data_dir: Path) -> None:
    """Ctrl-C, a polite kill, a closed terminal: in one process, since PyTorch takes seconds to load."""
    film = ["film", "a", "--data-dir", str(data_dir), *TINY, "--frames", "4", "--motion-steps", "9999"]
    code = f"import app; print([app.main({film!r}) for _ in range(3)])"
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # Whoever runs the tests may ignore a signal, as nohup does; we would inherit that.
    options = {
        "cwd": ROOT,
        "env": os.environ | {"OMP_NUM_THREADS": "1"},
        "preexec_fn": lambda: [signal.signal(how, signal.SIG_DFL) for how in signals],
    }
    options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **options) as process:
        try:
            for how in signals:
                said = ""
                while "motion" not in said:
                    letter = process.stderr.read(1)
                    assert letter, said
                    said += letter
                process.send_signal(how)
                while not said.endswith("Canceled."):
                    letter = process.stderr.read(1)
                    assert letter, said
                    said += letter
                assert "Traceback" not in said
                assert not list((data_dir / "output").iterdir())
            codes, rest = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (codes, rest.strip()) == ("[130, 130, 130]\n", "")


@pytest.mark.demo
def test_the_demo_makes_a_film_of_a_rocket(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Small and short, but everything real: bundled checkpoints, both stages, all files."""
    size = ("--width", "128", "--height", "128", "--frames", "6", "--steps", "10", "--motion-steps", "8")
    prompt = "Rocket takes off from the ground, fire, sky, airplane"
    assert app.main(["film", prompt, "--data-dir", str(tmp_path), *size, "--seed", "1", "--json"]) == 0
    files = json.loads(capsys.readouterr().out.splitlines()[-1])["files"]
    with Image.open(files["png"]) as png:
        still = np.asarray(png, np.float32)
    with Image.open(files["webp"]) as webp:
        assert webp.n_frames == 6
        first = np.asarray(webp.convert("RGB"), np.float32)
    assert still[:20].mean((0, 1))[2] > still[:20].mean((0, 1))[0]  # a sky that is blue
    assert 10 * np.log10(255**2 / np.mean((first - still) ** 2)) > 18  # and a film that begins with the still
