from __future__ import annotations

import json

import pytest

from benchmarks import savings

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' scheduler with NumPy 2


@pytest.mark.long
def test_a_table_and_one_json_document_with_every_saving_on_and_off(capsys: pytest.CaptureFixture[str]) -> None:
    assert savings.main(["--size", "tiny", "--width", "32", "--frames", "2"]) == 0
    printed = capsys.readouterr().out.rstrip().split("\n")
    found = json.loads(printed[-1])
    rows = {row["variant"]: row for row in found["rows"]}
    assert list(rows) == [line.split(" | ")[0].removeprefix("| ") for line in printed[2 : 2 + len(rows)]]
    assert set(rows) == {"stock diffusers", "no savings", "all savings", *(f"all but {flag}" for flag in savings.FLAGS)}
    assert rows["stock diffusers"]["of_stock"] == rows["all savings"]["of_all"] == 1
    assert all(row["pixels"] is None or row["pixels"] < 1e-3 for row in rows.values())
    assert rows["no savings"]["pixels"] == 0
    assert [found["settings"][name] for name in ("width", "height", "frames")] == [32, 32, 2]
    assert set(found["guidance_1"]) == {"one pass", "both passes"}
