from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import lossy


@pytest.mark.long
def test_a_table_a_sheet_and_one_json_document(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert lossy.main(["--size", "tiny", "--bfloat16", "--sheet", str(tmp_path / "sheet.png")]) == 0
    variants = [*lossy.VARIANTS, *lossy.BFLOAT16]
    printed = capsys.readouterr().out.rstrip().split("\n")
    rows = {row["variant"]: row for row in json.loads(printed[-1])["rows"]}
    assert list(rows) == [line.split(" | ")[0].removeprefix("| ") for line in printed[2 : 2 + len(rows)]] == variants
    exact = rows.pop("exact")
    for stage in ("still", "motion"):
        assert exact[stage]["psnr"] is None
        assert exact[stage]["of_exact"] == 1
        assert all(row[stage]["psnr"] is not None and row[stage]["worst"] <= row[stage]["psnr"] for row in rows.values())
        assert rows["float8"][stage]["bytes"] < exact[stage]["bytes"] == rows["reuse every 2"][stage]["bytes"]
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.height == len(variants) * (32 + 4)
