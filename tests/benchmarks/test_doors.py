from __future__ import annotations

import json
import sys

import pytest

from benchmarks import doors


@pytest.mark.long
def test_the_last_line_is_a_document_with_the_figures_of_the_idle_server_and_of_one_that_works(tmp_path, monkeypatch, capsys):
    arguments = ["--folder", str(tmp_path), "--clients", "3", "--rounds", "1", "--pause", "0.01"]
    monkeypatch.setattr(sys, "argv", ["doors", *arguments])
    assert doors.main() == 0
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    whens = {row["when"] for row in document["rows"]}
    assert whens == {"one client", "3 clients", "3, a job runs"}
    for when in whens:
        counts = {row["what"]: row["count"] for row in document["rows"] if row["when"] == when}
        assert counts["GET /history/{id}"] == 5 * counts["POST /prompt"] == 5 * counts["GET /queue"] > 0
    assert all(0 < row["p50_ms"] <= row["p99_ms"] <= row["most_ms"] for row in document["rows"])
    assert list(tmp_path.iterdir()) == []
