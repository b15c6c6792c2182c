from __future__ import annotations

import json
import sys

import pytest

from benchmarks import full_table


@pytest.mark.long
def test_the_last_line_is_a_document_with_a_small_and_a_full_table(tmp_path, monkeypatch, capsys):
    arguments = ["--folder", str(tmp_path), "--jobs", "300", "--waiting", "100"]
    monkeypatch.setattr(sys, "argv", ["full_table", *arguments])
    monkeypatch.setattr(full_table, "GOAL_SECONDS", 60)
    assert full_table.main() == 0
    *_, last = capsys.readouterr().out.splitlines()
    rows = json.loads(last)["rows"]
    assert list(rows) == ["3", "300"]
    whats = [{row["what"] for row in of_table} for of_table in rows.values()]
    assert whats[0] == whats[1] == {*full_table.LOOKS, "submit", "claim", "finish"}
    assert all(row["median_ms"] > 0 for of_table in rows.values() for row in of_table)
    assert list(tmp_path.iterdir()) == []
