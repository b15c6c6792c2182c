from __future__ import annotations

import json

import pytest

from benchmarks import gpu

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' scheduler with NumPy 2


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert gpu.main(["--size", "tiny", "--device", "cpu", *arguments]) == 0
    return json.loads(capsys.readouterr().out.rstrip().split("\n")[-1])


@pytest.mark.long
def test_the_script_for_a_gpu_runs_anywhere(capsys: pytest.CaptureFixture[str]) -> None:
    found = run(capsys)
    rows = {(row["case"], row["variant"]): row for row in found["rows"]}
    for case in gpu.TINY:
        assert rows[case, "stock diffusers"]["error"] == 0
        assert all(row["seconds"] > 0 and row["tflops"] > 0 for key, row in rows.items() if key[0] == case)
        assert all(row["error"] < 1e-3 for key, row in rows.items() if key[0] == case and key[1] != "float8")
        assert 1e-3 < rows[case, "float8"]["error"] < 0.1
    assert ("film 48x32x3", "all but folds") in rows
    jobs = {key[1]: row for key, row in rows.items() if key[0] == "whole job"}
    assert {"stock diffusers", "all savings", "float8", "reuse every 2", "no savings"} <= jobs.keys()
    assert jobs["float8"]["psnr"] > 20
    assert jobs["no savings"]["psnr"] is None or jobs["no savings"]["psnr"] > 90
    assert found["bf16_ceiling_tflops"] > 0


@pytest.mark.long
def test_what_there_is_no_time_for_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    found = run(capsys, "--minutes", "0")
    assert {row["left_out"] for row in found["rows"]} == {"no time was left"}


def test_some_rows_of_one_film(capsys: pytest.CaptureFixture[str]) -> None:
    found = run(capsys, "--film", "32x32x2", "--only", "all savings,all but folds")
    assert [(row["case"], row["variant"]) for row in found["rows"]] == [
        ("film 32x32x2", name) for name in ("stock diffusers", "all savings", "all but folds")
    ]
